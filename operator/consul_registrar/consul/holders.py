"""Which Consul nodes hold something of ours, by the catalog: also those whose agents can't be asked.

Decides nothing; `agent.py` compares the answer with the agents that it can write to, `leftovers.py` with those that
there are.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TypeVar
from urllib.parse import quote

import msgspec

from consul_registrar import model
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.claim import Asks
from consul_registrar.consul.errors import Misdirected
from consul_registrar.model import Reason, RegistrationKey

T = TypeVar("T")


class Row(msgspec.Struct, frozen=True):
    """An instance in the catalog, as far as it tells where it stands. `Address` is the node's."""

    Node: str
    Address: str = ""
    ServiceMeta: dict[str, str] | None = None


async def holders(consul: Asks, cluster: str, connection: str, registration: RegistrationKey) -> set[str]:
    """The nodes in the catalog with an instance of the registration. Raises the tree of `errors.py`."""
    own = {model.META_NAMESPACE: registration.namespace, model.META_REGISTRATION: registration.name}
    return {row.Node for row in await rows(consul, cluster, connection, own)}


async def rows(
    consul: Asks, cluster: str, connection: str, more: Mapping[str, str], beyond: AbstractSet[str] = frozenset()
) -> list[Row]:
    """What the catalog has of this connection with `more` of meta, on other nodes than those `beyond` which is looked.

    Where nothing is there that takes one request. Raises the tree of `errors.py`.
    """
    own = {model.META_MANAGED_BY: model.MANAGED_BY, model.META_CLUSTER: cluster, model.META_CONNECTION: connection}
    wanted = [f'ServiceMeta["{key}"] == "{value}"' for key, value in (own | dict(more)).items()]
    wanted += [f'Node != "{node}"' for node in sorted(beyond) if '"' not in node]
    only = [("filter", " and ".join(wanted))]
    names = _decoded(await consul.get("/v1/catalog/services", only), dict[str, list[str]])
    found: list[Row] = []
    for name in names:
        found += _decoded(await consul.get(f"/v1/catalog/service/{quote(name, safe='')}", only), list[Row])
    return [row for row in found if row.Node not in beyond]


def _decoded(answer: Answer, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except msgspec.DecodeError as error:
        message = f"the catalog was answered with something else than Consul's JSON: {error}"
        raise Misdirected(Reason("NotConsul", message)) from error
