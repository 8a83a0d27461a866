"""Which Consul nodes hold something of a registration, by the catalog: also those whose agents can't be asked.

Decides nothing; `agent.py` compares the answer with the agents that it can write to.
"""

from typing import TypeVar
from urllib.parse import quote

import msgspec

from consul_registrar import model
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.transport import Transport
from consul_registrar.model import RegistrationKey

T = TypeVar("T")


class _Row(msgspec.Struct):
    Node: str


async def holders(transport: Transport, cluster: str, connection: str, registration: RegistrationKey) -> set[str]:
    """The nodes in the catalog with an instance of the registration. Raises the tree of `errors.py`."""
    own = {
        model.META_MANAGED_BY: model.MANAGED_BY,
        model.META_CLUSTER: cluster,
        model.META_CONNECTION: connection,
        model.META_NAMESPACE: registration.namespace,
        model.META_REGISTRATION: registration.name,
    }
    wanted = [("filter", " and ".join(f'ServiceMeta["{key}"] == "{value}"' for key, value in own.items()))]
    names = _decoded(await transport.get(_as_is, "/v1/catalog/services", wanted), dict[str, list[str]])
    found: set[str] = set()
    for name in names:
        rows = await transport.get(_as_is, f"/v1/catalog/service/{quote(name, safe='')}", wanted)
        found |= {row.Node for row in _decoded(rows, list[_Row])}
    return found


def _decoded(answer: Answer, kind: type[T]) -> T:
    return msgspec.json.decode(answer.body, type=kind)


def _as_is(answer: Answer) -> Answer:
    return answer
