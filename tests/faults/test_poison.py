"""G7: one operation is refused for good. It costs its own registration alone, wherever it stands in a batch."""

import json
from collections.abc import Iterator

import pytest
from fault_world import CONSUL_WRITES, Arena, Mode, Shop, shop
from operator_world import eventually

from killpoints import kind_is
from killpoints.faults import JSON, Fault
from killpoints.network import Call, pass_on

APPS = ("a", "b", "c", "d", "e")
REFUSALS = (
    "Permission denied: token with AccessorID 'x' lacks permission 'service:write' on \"bad\"",
    "Must provide service name (Service.Service) when service ID is provided",
    "Failed: index is stale",
)
PASSING = ("Missing node registration", "Missing service registration", "index is stale")
TRIES = 100

pytestmark = [pytest.mark.goal("G7")]


def refuses(name: str, why: str) -> Fault:
    """A Consul that refuses every operation on one service: as a transaction (all or nothing), or by itself."""

    async def fault(call: Call) -> None:
        body = json.loads(call.request.body)
        if isinstance(body, list):
            errors = [{"OpIndex": i, "What": why} for i, op in enumerate(body) if name in json.dumps(op)]
            if errors:
                return await call.reply(409, json.dumps({"Results": None, "Errors": errors}).encode(), JSON)
        elif name in json.dumps(body):
            return await call.reply(400, why.encode())
        return await pass_on(call)

    return fault


@pytest.fixture(scope="module", params=["agent", "catalog"])
def opened(all_of_it: Arena, request: pytest.FixtureRequest) -> Iterator[Shop]:
    with shop(all_of_it, request.param) as made:
        for app in APPS:
            made.open(app, 2)
        made.settled()
        yield made


@pytest.mark.parametrize("why", REFUSALS)
@pytest.mark.parametrize("bad", [APPS[0], *(pytest.param(app, marks=pytest.mark.exhaustive) for app in APPS[1:])])
def test_a_refused_operation_stops_its_own_registration_only(arena: Arena, opened: Shop, bad: str, why: str) -> None:
    mode: Mode = opened.mode
    writes = kind_is(*CONSUL_WRITES[mode])
    arena.network.inject(writes, refuses(opened.name(bad), why), times=None)
    arena.network.journal.clear()
    for app in APPS:
        opened.tag(app, f"{bad}-{REFUSALS.index(why)}")
    others = [opened.name(app) for app in APPS if app != bad]

    def good_ones_are_right() -> None:
        wrong = [text for text in opened.wrong() if any(name in text for name in others)]
        standing = {n: {tuple(r["ServiceTags"]) for r in opened.world.catalog(n).values()} for n in others}
        assert not wrong
        assert set().union(*standing.values()) == {(f"{bad}-{REFUSALS.index(why)}",)}, standing

    eventually(good_ones_are_right)
    eventually(lambda: opened.world.condition(bad)["status"] == "False")
    assert arena.network.journal.count(writes) <= TRIES, "a hot loop"
    arena.network.heal()
    opened.tag(bad, f"{bad}-mended")
    opened.settled()


@pytest.mark.parametrize("why", PASSING)
def test_an_operation_that_is_refused_once_is_made_good(arena: Arena, opened: Shop, why: str) -> None:
    rule = arena.network.inject(kind_is("PUT txn"), refuses(opened.name("a"), why), times=2)
    for app in APPS:
        opened.tag(app, f"once-{PASSING.index(why)}")
    opened.settled()
    assert rule.hits or opened.mode == "agent"


def test_a_virtual_node_that_somebody_removes_with_all_that_stands_on_it_is_made_again(
    arena: Arena, opened: Shop
) -> None:
    """Then Consul itself says that the node is missing, to some operations of a transaction."""
    if opened.mode == "agent":
        pytest.skip("there are no virtual nodes in this mode")
    for app in APPS:
        arena.oracle.excuse(opened.name(app))
    node = next(iter(opened.world.catalog(opened.name("a")).values()))["Node"]
    arena.cluster.consul.server.request("PUT", "/v1/catalog/deregister", {"Node": node})
    for app in APPS:
        opened.tag(app, "again")
    opened.settled()
