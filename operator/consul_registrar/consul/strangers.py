"""What stands in Consul under a service name and is nobody's: orphaned, or registered by hand.

Decides what counts as nobody's (what an operator of any cluster has registered doesn't), and how a thing of that kind
is removed from a node that no agent answers for. Whether it is adopted is decided in `plan.py`. What an agent holds can
only be removed at that agent (`sender.py`).
"""

from collections.abc import Callable
from urllib.parse import quote

import msgspec

from consul_registrar.consul import wire
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.catalog_wire import decode_verdict, service_delete
from consul_registrar.consul.claim import Asks
from consul_registrar.consul.errors import Misdirected, Stale
from consul_registrar.model import MANAGED_BY, META_MANAGED_BY, Instance, Reason
from consul_registrar.names import folded

SERF = "serfHealth"
"""The check of a node that has an agent."""

TRANSACTION = "/v1/txn"


class _Node(msgspec.Struct, frozen=True):
    Node: str


class _Service(wire.ServiceRow, frozen=True):
    Kind: str = ""
    ModifyIndex: int = 0


class _Row(msgspec.Struct, frozen=True):
    Node: _Node
    Service: _Service
    Checks: list[wire.CheckRow] | None = None


_service = msgspec.json.Decoder(_Service)
_rows = msgspec.json.Decoder(list[_Row])


async def strangers(consul: Asks, service: str, reachable: Callable[[str, bool], bool]) -> list[Instance]:
    """What is nobody's under a service name, on the nodes that are `reachable` (name, whether an agent is there).

    Raises the tree of `errors.py`.
    """
    rows = await _read(consul, service)
    return [
        wire.held(row.Node.Node, row.Service, row.Checks or ()).instance
        for row in rows
        if _is_nobodys(row.Service) and reachable(row.Node.Node, any(c.CheckID == SERF for c in row.Checks or ()))
    ]


async def foreign(consul: Asks, service: str) -> list[tuple[str, str]]:
    """Where what is nobody's stands under a service name, on whatever node: names of nodes, with IDs.

    Raises the tree of `errors.py`.
    """
    rows = await _read(consul, service)
    return sorted((row.Node.Node, row.Service.ID) for row in rows if _is_nobodys(row.Service))


async def remove(consul: Asks, stranger: Instance) -> None:
    """Remove it through the catalog, if it stands as it was read. Raises the tree of `errors.py`."""
    rows = [row for row in await _read(consul, stranger.service) if (row.Node.Node, row.Service.ID) == _place(stranger)]
    for row in rows:
        stands = wire.held(row.Node.Node, row.Service, ()).instance
        _judge(stranger, row.Service)
        body = b"[" + service_delete(stands, row.Service.ModifyIndex).body + b"]"
        verdict = decode_verdict(await consul.put(TRANSACTION, (), body))
        if verdict.Errors:
            message = f"{stranger.id} on {stranger.node} could not be removed: {verdict.Errors[0].What}"
            raise Stale(Reason("Stale", message))


def refuse_another(stranger: Instance, answer: Answer) -> None:
    """Raises Stale where an agent, by its answer, holds something else under a stranger's ID by now."""
    try:
        _judge(stranger, _service.decode(answer.body))
    except msgspec.DecodeError as error:
        raise _not_consul("/v1/agent/service", error) from error


def _judge(stranger: Instance, row: _Service) -> None:
    """Raises Stale where what stands under its ID is somebody's by now, or leads to somewhere else."""
    if not _is_nobodys(row) or _leads_to(wire.held(stranger.node, row, ()).instance) != _leads_to(stranger):
        raise Stale(Reason("Stale", f"{stranger.id} on {stranger.node} is another by now: it is read again"))


def _leads_to(i: Instance) -> tuple[str, str, int]:
    return folded(i.service), i.address, i.port


def _place(instance: Instance) -> tuple[str, str]:
    return instance.node, instance.id


def _is_nobodys(row: _Service) -> bool:
    """Proxies and gateways belong to the service mesh."""
    return not row.Kind and (row.Meta or {}).get(META_MANAGED_BY) != MANAGED_BY


async def _read(consul: Asks, service: str) -> list[_Row]:
    only = [
        ("filter", f'"{META_MANAGED_BY}" not in Service.Meta or Service.Meta["{META_MANAGED_BY}"] != "{MANAGED_BY}"')
    ]
    return _decoded(await consul.get(f"/v1/health/service/{quote(service, safe='')}", only))


def _decoded(answer: Answer) -> list[_Row]:
    try:
        return _rows.decode(answer.body)
    except msgspec.DecodeError as error:
        raise _not_consul("/v1/health/service", error) from error


def _not_consul(path: str, error: msgspec.DecodeError) -> Misdirected:
    return Misdirected(Reason("NotConsul", f"{path} was answered with something else than Consul's JSON: {error}"))
