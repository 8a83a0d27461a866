"""G4: what a request can meet on its way, by class of request and call index. All comes right, in a bounded number of
tries, and nothing that is refused for good is repeated in a hot loop.
"""

import itertools
import time
from collections.abc import Iterator

import pytest
from fault_world import CONSUL_WRITES, MODES, Arena, Mode, Shop, shop, some
from operator_world import eventually

from killpoints import faults, kind_is
from killpoints.calls import Match

PODS = 3
TRIES = 40
"""Requests of one class that one change may cost at most, however often it fails; a hot loop makes hundreds."""

PASSING: dict[str, faults.Fault] = {
    "reset before": faults.refused,
    "reset after": faults.lost_answer,
    "torn": faults.torn_answer,
    "cut short": faults.cut_short,
    "slow": faults.slow(1.0),
    "delayed": faults.delayed(1.0),
    "429": faults.answered(429, "rate limit exceeded, try again later or against a different server"),
    "429 with Retry-After": faults.answered(429, "RPC rate limit exceeded", [("Retry-After", "1")]),
    "500 no leader": faults.answered(500, "No cluster leader"),
    "500 leadership lost": faults.answered_after(500, "leadership lost while committing log"),
    "500 EOF": faults.answered(500, "rpc error making call: EOF"),
    "503": faults.answered(503, "this operation can only be performed by the leader, try again later"),
    "502 of a proxy": faults.answered(502, "Bad Gateway"),
    "409": faults.answered(409, '{"Results": null, "Errors": [{"OpIndex": 0, "What": "index is stale"}]}'),
}
"""What time mends."""

TIMEOUTS: dict[str, faults.Fault] = {"timeout before": faults.held, "timeout after": faults.withheld_answer}

FINAL: dict[str, faults.Fault] = {
    "400": faults.answered(400, "Request decode failed: json: unknown field"),
    "403 policy": faults.answered(403, "Permission denied: token lacks permission 'service:write'"),
    "403 token": faults.answered(403, "ACL not found"),
    "404": faults.answered(404, "Unknown path"),
    "413": faults.answered(413, "Request body(524289 bytes) too large, max size: 524288 bytes"),
}
"""What the same request would meet again."""

READS: dict[Mode, tuple[str, ...]] = {
    "agent": (
        "GET agent/services",
        "GET agent/checks",
        "GET catalog/node-services",
        "GET health/node",
        "GET catalog/node-services blocking",
        "GET health/node blocking",
    ),
    "catalog": (
        "GET catalog/node-services",
        "GET health/node",
        "GET catalog/node-services blocking",
        "GET health/node blocking",
    ),
}
PARTIAL = {
    "filtered by ACLs": faults.answered(200, "{}", [("X-Consul-Results-Filtered-By-ACLs", "true"), *faults.JSON]),
    "no JSON": faults.answered(200, "<html>It works!</html>"),
    "torn": faults.torn_answer,
    "cut short": faults.cut_short,
    "500": faults.answered(500, "rpc error: No known Consul servers"),
    "403": faults.answered(403, "Permission denied"),
}

pytestmark = [pytest.mark.goal("G4")]
_versions = itertools.count()


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> Mode:
    chosen: Mode = request.param
    return chosen


@pytest.fixture(scope="module")
def open_shop(all_of_it: Arena, mode: Mode) -> Iterator[Shop]:
    with shop(all_of_it, mode) as made:
        made.open("web", PODS)
        made.settled()
        yield made


@pytest.fixture
def web(arena: Arena, open_shop: Shop) -> Iterator[Shop]:
    open_shop.settled()
    arena.network.journal.clear()
    yield open_shop
    arena.network.heal()
    if not arena.operator.process.is_alive():
        arena.restart()


def stir(web: Shop) -> None:
    """A change of every kind: all are edited, one Pod goes and another comes, one changes its readiness."""
    web.tag("web", f"v{next(_versions)}")
    names = sorted(web.world.pods("web"))
    web.kill_pod(names[0])
    web.world.annotate(
        names[1], ready=None if "dev.consul-registrar.dev/ready" in _annotations(web, names[1]) else "false"
    )


def _annotations(web: Shop, pod: str) -> dict[str, str]:
    found: dict[str, str] = web.world.pods("web")[pod]["metadata"].get("annotations", {})
    return found


def writes(mode: Mode) -> Match:
    return kind_is(*CONSUL_WRITES[mode])


@pytest.mark.parametrize("index", some((0, 1), 0))
@pytest.mark.parametrize("name", some(PASSING, "reset after", "500 leadership lost", "429 with Retry-After"))
def test_a_write_that_fails_in_a_passing_way_is_made_good(
    arena: Arena, web: Shop, mode: Mode, name: str, index: int
) -> None:
    rules = [arena.network.inject(kind_is(kind), PASSING[name], skip=index) for kind in CONSUL_WRITES[mode]]
    stir(web)
    web.settled()
    assert any(rule.hits for rule in rules), "no request met the fault"
    assert arena.network.journal.count(writes(mode)) <= TRIES


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", TIMEOUTS)
def test_a_write_that_is_never_answered_is_made_good(arena: Arena, web: Shop, mode: Mode, name: str) -> None:
    for kind in CONSUL_WRITES[mode]:
        arena.network.inject(kind_is(kind), TIMEOUTS[name])
    stir(web)
    web.settled()
    assert arena.network.journal.count(writes(mode)) <= TRIES


@pytest.mark.parametrize("name", some(FINAL, "400"))
def test_what_is_refused_for_good_is_not_repeated_in_a_hot_loop(arena: Arena, web: Shop, mode: Mode, name: str) -> None:
    kinds = CONSUL_WRITES[mode]
    for kind in kinds:
        if (name, kind) != ("404", "PUT agent/service/deregister"):  # there it says that all is well
            arena.network.inject(kind_is(kind), FINAL[name], times=None)
    stir(web)
    eventually(lambda: arena.network.journal.count(writes(mode)))
    time.sleep(3)
    assert arena.network.journal.count(writes(mode)) <= TRIES
    arena.network.heal()
    web.tag("web", f"v{next(_versions)}")
    web.settled()


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FINAL)
def test_what_was_refused_for_good_is_tried_again_by_and_by(arena: Arena, web: Shop, mode: Mode, name: str) -> None:
    for kind in CONSUL_WRITES[mode]:
        if (name, kind) != ("404", "PUT agent/service/deregister"):
            arena.network.inject(kind_is(kind), FINAL[name])
    stir(web)
    web.settled()


@pytest.mark.parametrize("name", some(PARTIAL, "filtered by ACLs", "cut short"))
def test_a_read_that_is_not_whole_removes_nothing(arena: Arena, web: Shop, mode: Mode, name: str) -> None:
    rules = [arena.network.inject(kind_is(kind), PARTIAL[name], times=3) for kind in READS[mode]]
    web.tag("web", f"v{next(_versions)}")
    arena.network.cut(lambda request: "blocking" in request.kind)
    web.settled()
    assert any(rule.hits for rule in rules), "no request met the fault"


KUBERNETES = {
    "reset before": faults.refused,
    "reset after": faults.lost_answer,
    "torn": faults.torn_answer,
    "429": faults.answered(429, '{"kind": "Status", "code": 429}', [("Retry-After", "1"), *faults.JSON]),
    "500": faults.answered(
        500, '{"kind": "Status", "code": 500, "message": "etcdserver: request timed out"}', faults.JSON
    ),
    "500 after": faults.answered_after(500, '{"kind": "Status", "code": 500}', faults.JSON),
    "503": faults.answered(503, "apiserver is shutting down"),
    "401": faults.answered(401, '{"kind": "Status", "code": 401}', faults.JSON),
    "403": faults.answered(403, '{"kind": "Status", "code": 403}', faults.JSON),
    "409": faults.answered(409, '{"kind": "Status", "code": 409, "reason": "Conflict"}', faults.JSON),
    "slow": faults.slow(1.5),
}
ASKED = (
    "patch serviceregistrations/status",
    "patch serviceregistrations",
    "get serviceregistrations",
    "get pods",
    "create events",
)


@pytest.mark.parametrize("name", some(KUBERNETES, "reset after"))
def test_what_kubernetes_answers_to_a_request_does_no_lasting_harm(
    arena: Arena, web: Shop, mode: Mode, name: str
) -> None:
    rules = [arena.network.inject(kind_is(kind), KUBERNETES[name], times=2) for kind in ASKED]
    app = f"brief-{next(_versions)}"
    web.open(app, 2)
    web.settled()
    stir(web)
    web.unregister(app)
    web.settled()
    assert sum(rule.hits for rule in rules) > 3, "too few requests met the fault"
    assert arena.network.journal.count(kind_is(*ASKED)) <= 5 * TRIES


@pytest.mark.parametrize("name", some(KUBERNETES, "503"))
def test_what_kubernetes_answers_to_a_list_or_a_watch_does_no_lasting_harm(arena: Arena, web: Shop, name: str) -> None:
    for kind in ("watch pods", "watch nodes", "watch serviceregistrations", "list pods", "list serviceregistrations"):
        arena.network.inject(kind_is(kind), KUBERNETES[name], times=2)
    arena.network.cut(lambda request: request.kind.startswith("watch "))
    stir(web)
    web.settled()


def test_a_registration_that_cannot_have_its_finalizer_registers_nothing_and_leaves_nothing(
    arena: Arena, web: Shop, mode: Mode
) -> None:
    """Deleted, it is gone at once, so nobody would ever be asked to remove what it left."""
    arena.network.inject(kind_is("patch serviceregistrations"), KUBERNETES["403"], times=None)
    stays, goes = (f"{name}-{next(_versions)}" for name in ("stays", "goes"))
    for app in (stays, goes):
        web.open(app, 2)
    for app in (stays, goes):
        web.world.says(app, "FinalizerNotAdded")
        assert web.world.health(web.name(app)) == {}
    web.tag("web", f"v{next(_versions)}")
    web.unregister(goes)
    eventually(lambda: not web.world.exists(goes))
    arena.network.heal()
    web.settled()
    assert web.world.health(web.name(stays)).keys() == web.world.pods(stays).keys()
    assert web.world.health(web.name(goes)) == {}
    web.unregister(stays)
    web.settled()
