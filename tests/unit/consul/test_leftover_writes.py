"""What is written through the catalog about a node whose agent is gone: each write has its line, none is unasked."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from consul_registrar.actual import Actual
from consul_registrar.changes import Cause, Deregister
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.errors import ConsulError, NotSent
from consul_registrar.consul.leftovers import Leftovers, Whose
from consul_registrar.consul.wire import decode_node_services, held
from consul_registrar.dead_man import heartbeat_id

META = {
    "managed-by": "consul-registrar",
    "k8s-cluster": "c",
    "k8s-connection": "n",
    "k8s-namespace": "ns",
    "k8s-registration": "r",
    "k8s-pod-uid": "u",
}
ROW = {"ID": "web-1", "Service": "web", "Meta": META}
HEARTBEAT = {"ID": heartbeat_id("c", "n"), "Service": "consul-registrar-heartbeat", "Meta": {}}


class Catalog:
    """What the servers hold of one node, whose agent is no member any more."""

    def __init__(self, *rows: Any) -> None:
        self.rows = {row["ID"]: row for row in rows}
        self.removed: list[str] = []

    def agents(self) -> Collection[Any]:
        return ()

    def unaddressed(self) -> Collection[str]:
        return ()

    def meet(self, nodes: Mapping[str, str]) -> None:
        """Nobody lives."""

    async def get(self, path: str, _: object = ()) -> Answer:
        services = {"Services": list(self.rows.values())}
        return Answer(200, {}, json.dumps(services if "node-services" in path else []).encode())

    async def put(self, _: str, __: object, body: bytes) -> Answer:
        self.removed.append(json.loads(body)["ServiceID"])
        return Answer(200, {}, b"true")


async def remove(catalog: Catalog, *, leads: bool) -> tuple[list[Any], ConsulError | None]:
    lines: list[Any] = []
    asks: Any = catalog
    actual = Actual("c", "n")
    leftovers = Leftovers(
        Whose("c", "n"),
        asks,
        actual,
        lambda _: None,
        lambda: leads,
        lambda operation, cause, node, error: lines.append((operation, cause, node, error)),
    )
    row = decode_node_services(Answer(200, {}, json.dumps({"Services": [ROW]}).encode()))["web-1"]
    (outcome,) = await leftovers.apply("node-1", [Deregister(held("node-1", row, ()).instance, Cause.GONE)])
    return lines, outcome


async def test_the_heartbeat_goes_with_the_last_instance_and_that_is_told() -> None:
    catalog = Catalog(ROW, HEARTBEAT)
    lines, outcome = await remove(catalog, leads=True)
    assert (catalog.removed, outcome) == (["web-1", HEARTBEAT["ID"]], None)
    assert lines == [("remove-heartbeat", "needless", "node-1", None)]


@pytest.mark.parametrize("rows", [(ROW, HEARTBEAT), (HEARTBEAT,)], ids=["all stands", "only the heartbeat"])
async def test_who_does_not_lead_removes_neither(rows: Any) -> None:
    catalog = Catalog(*rows)
    lines, outcome = await remove(catalog, leads=False)
    assert (catalog.removed, lines) == ([], [])
    assert isinstance(outcome, NotSent)
