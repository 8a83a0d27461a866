"""G2 and G3: what the operator sees is late, has gaps or is old. It never takes that for the truth about the living,
and comes right once it sees again.
"""

from collections.abc import Iterator

import pytest
from fault_world import CONSUL_WRITES, MODES, Arena, Mode, Shop, shop, some
from operator_world import always, eventually, pod

from devcluster.kwok import create_nodes
from killpoints import Request, Rule, faults, kind_is
from killpoints.faults import Event

EXPIRED = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}
BROKEN = {"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd event received with error"}}
KINDS = ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")
LISTS = 40
"""Of one kind, that a server may be asked for while none of its watches lasts; a hot loop makes hundreds."""
CONSUL_LISTS = {
    "agent": ("GET agent/services", "GET agent/checks"),
    "catalog": ("GET catalog/node-services", "GET health/node"),
}
unobserved = pytest.mark.goal("G2")
stale = pytest.mark.goal("G3")


def watches_pods(request: Request) -> bool:
    return request.kind == "watch pods"


def sees_pods(request: Request) -> bool:
    return request.kind in {"watch pods", "list pods"}


def sees_registrations(request: Request) -> bool:
    return request.kind in {"watch serviceregistrations", "list serviceregistrations"}


@pytest.fixture(params=MODES)
def web(arena: Arena, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """A service of two Pods that stand, in either mode."""
    mode: Mode = request.param
    with shop(arena, mode) as made:
        made.open("web", 2)
        made.settled()
        yield made


def befall_watch(arena: Arena, fault: faults.Fault, times: int | None = None) -> Rule:
    """The watch of the Pods is opened anew, and meets the fault."""
    rule = arena.network.inject(watches_pods, fault, times=times)
    arena.network.cut(watches_pods)
    eventually(lambda: rule.hits)
    return rule


def churn(web: Shop) -> None:
    """Pods come, change and go, some without a trace of their ending."""
    first, second = sorted(web.world.pods("web"))[:2]
    web.world.annotate(first, ready="false")
    web.kill_pod(second, at_once=True)
    web.scale("web", 3)


def calm(web: Shop) -> None:
    """Kubernetes has done all that was asked: three Pods run, one of them unready."""

    def look() -> None:
        conditions = [c for p in web.world.pods("web").values() for c in p["status"]["conditions"]]
        assert sorted(c["status"] for c in conditions if c["type"] == "Ready") == ["False", "True", "True"]

    eventually(look)


@unobserved
@pytest.mark.parametrize("kinds", some((*KINDS, "all"), "all"))
def test_events_that_are_swallowed_are_made_good_by_the_next_list(arena: Arena, web: Shop, kinds: str) -> None:
    befall_watch(arena, faults.swallowing(lambda event: kinds in {event["type"], "all"}))
    churn(web)
    calm(web)
    arena.network.heal()
    befall_watch(arena, faults.ended_by(EXPIRED), times=1)
    web.settled()


@pytest.mark.exhaustive
@unobserved
@pytest.mark.parametrize("what", ["pods", "serviceregistrations"])
def test_events_that_never_arrive_are_made_good_within_one_resync(arena: Arena, web: Shop, what: str) -> None:
    """The stream goes on as if nothing had been: nothing but the next complete list can tell."""
    web.open("other", 1)
    web.settled()
    watches = kind_is(f"watch {what}")
    rule = arena.network.inject(watches, faults.swallowing(lambda event: event["type"] != "BOOKMARK"), times=None)
    arena.network.cut(watches)
    eventually(lambda: rule.hits)
    web.open("new", 1)
    web.tag("web", "unseen")
    web.unregister("other")
    churn(web)
    calm(web)
    web.settled()


@pytest.mark.exhaustive
@unobserved
@pytest.mark.parametrize("kind", KINDS[:3])
def test_one_event_that_is_swallowed_with_its_stream_is_made_good_by_the_next_stream(
    arena: Arena, web: Shop, kind: str
) -> None:
    """The connection breaks with an event on its way, as connections do."""
    lost: list[Event] = []

    def once(event: Event) -> bool:
        if event["type"] == kind or lost:
            lost.append(event)
        return bool(lost)

    befall_watch(arena, faults.swallowing(once), times=1)
    churn(web)
    calm(web)
    eventually(lambda: lost)
    arena.network.cut(watches_pods)
    web.settled()


@pytest.mark.exhaustive
@unobserved
@pytest.mark.parametrize("event", [EXPIRED, BROKEN], ids=["410", "500"])
def test_a_watch_that_ends_with_an_error_is_opened_again(arena: Arena, web: Shop, event: Event) -> None:
    befall_watch(arena, faults.ended_by(event), times=3)
    churn(web)
    web.settled()


@unobserved
def test_watches_that_all_end_at_once_are_made_good_by_lists_and_not_in_a_hot_loop(arena: Arena, web: Shop) -> None:
    """An API server whose history is always too short: each watch ends with 410, and only lists tell."""
    befall_watch(arena, faults.ended_by(EXPIRED))
    arena.network.journal.clear()
    churn(web)
    calm(web)
    web.settled()
    assert arena.network.journal.count(kind_is("list pods")) <= LISTS


@unobserved
def test_what_happens_while_no_stream_can_be_opened_is_found_afterwards(arena: Arena, web: Shop) -> None:
    arena.network.inject(sees_pods, faults.refused, times=None)
    arena.network.cut(watches_pods)
    churn(web)
    calm(web)
    arena.network.heal()
    web.settled()


@unobserved
def test_what_happens_while_the_operator_is_down_is_found_afterwards(arena: Arena, web: Shop) -> None:
    arena.operator.kill()
    churn(web)
    calm(web)
    arena.vacate()
    arena.operator.start()
    web.settled()


@unobserved
@pytest.mark.exhaustive
def test_a_node_deleted_while_the_operator_is_down_leaves_no_ghosts(arena: Arena, web: Shop) -> None:
    """Its agent still lives, and holds what the node's Pods were."""
    node, cluster = "node-1", arena.cluster
    arena.operator.kill()
    cluster.api.request("DELETE", f"/api/v1/nodes/{node}")
    try:
        for name, found in web.world.pods("web").items():
            if found["spec"]["nodeName"] == node:
                web.kill_pod(name, at_once=True)
        arena.vacate()
        arena.operator.start()
        web.settled(within=240)
    finally:
        create_nodes(cluster.api, {node: cluster.nodes[node]})
    web.scale("web", 3)
    web.settled()


@unobserved
@pytest.mark.parametrize("blind", some(("the stream is down", "the operator is down"), "the operator is down"))
def test_a_successor_of_the_same_name_is_another_instance(arena: Arena, web: Shop, blind: str) -> None:
    """As a StatefulSet makes it: `db-0` ends unseen, and another `db-0` runs."""
    web.create(web.world.registrations, web.registration("db"))
    first = web.create(web.pods, pod("db-0", "db"))["metadata"]["uid"]
    web.claim("db")
    web.settled()
    if blind == "the stream is down":
        arena.network.inject(sees_pods, faults.refused, times=None)
        arena.network.cut(watches_pods)
    else:
        arena.operator.kill()
    web.kill_pod("db-0", at_once=True)
    second = eventually(lambda: web.create(web.pods, pod("db-0", "db")))["metadata"]["uid"]
    assert first != second
    eventually(lambda: web.world.pods("db"))
    if blind == "the stream is down":
        arena.network.heal()
    else:
        arena.vacate()
        arena.operator.start()
    web.settled()


@unobserved
def test_a_registration_deleted_by_force_while_the_operator_is_down_leaves_no_ghosts(arena: Arena, web: Shop) -> None:
    arena.operator.kill()
    web.world.kubectl("patch", "sreg", "web", "--type=merge", '-p={"metadata":{"finalizers":null}}')
    web.unregister("web")
    arena.vacate()
    arena.operator.start()
    web.settled()


@pytest.mark.exhaustive
@unobserved
def test_registrations_that_come_change_and_go_while_none_can_be_seen_are_found_afterwards(
    arena: Arena, web: Shop
) -> None:
    web.open("other", 1)
    web.settled()
    arena.network.inject(sees_registrations, faults.refused, times=None)
    arena.network.cut(sees_registrations)
    web.open("new", 1)
    web.tag("web", "seen-late")
    web.unregister("other")
    arena.network.heal()
    web.settled()


@stale
@pytest.mark.parametrize("mode", some(MODES, "agent"))
def test_a_list_from_before_the_pods_removes_none_of_them(arena: Arena, mode: Mode) -> None:
    """The operator starts on an API server that lags behind: an old list, and a watch that says nothing."""
    with shop(arena, mode) as web:
        old = record_lists(arena)
        web.open("web", 2)
        web.settled()
        arena.start_on(old)
        always(lambda: not arena.oracle.left, during=6)
        arena.network.heal()
        arena.network.cut(watches_pods)
        web.scale("web", 3)
        web.settled()


@pytest.mark.exhaustive
@stale
def test_a_list_of_which_the_rest_is_missing_is_none(arena: Arena, web: Shop) -> None:
    """As of a proxy that cuts the answer off and says 200."""
    rule = arena.network.inject(kind_is("list pods", "list serviceregistrations"), faults.cut_short, times=4)
    befall_watch(arena, faults.ended_by(EXPIRED), times=1)
    churn(web)
    eventually(lambda: rule.hits)
    calm(web)
    web.settled()


@pytest.mark.exhaustive
@stale
def test_a_list_that_lacks_everything_removes_nothing_that_lives(arena: Arena, web: Shop) -> None:
    arena.network.inject(lambda r: r.kind == "list pods", faults.edited(lambda page: {**page, "items": []}), times=2)
    befall_watch(arena, faults.ended_by(EXPIRED), times=1)
    always(lambda: not arena.oracle.left, during=4)
    arena.network.heal()
    befall_watch(arena, faults.ended_by(EXPIRED), times=1)
    churn(web)
    web.settled()


@pytest.mark.exhaustive
@stale
def test_a_list_of_registrations_that_lacks_everything_removes_nothing_that_lives(arena: Arena, web: Shop) -> None:
    nothing = faults.edited(lambda page: {**page, "items": []})
    rule = arena.network.inject(lambda r: r.kind == "list serviceregistrations", nothing, times=None)
    arena.operator.kill()
    arena.vacate()
    arena.operator.start()
    eventually(lambda: rule.hits)
    always(lambda: not arena.oracle.left, during=4)
    arena.network.heal()
    arena.restart()
    churn(web)
    web.settled()


@pytest.mark.exhaustive
@stale
def test_old_news_of_a_pod_are_not_believed(arena: Arena, web: Shop) -> None:
    """A watch that goes back in time: the Pod had other labels once, and was not ready."""
    old = next(iter(web.world.pods("web").values()))
    old["metadata"]["labels"] = {"app": "other"}
    old["metadata"]["resourceVersion"] = str(int(old["metadata"]["resourceVersion"]) - 1)
    rule = befall_watch(arena, faults.ended_by({"type": "MODIFIED", "object": old}), times=4)
    eventually(lambda: rule.hits >= 4)
    assert not arena.oracle.left
    churn(web)
    web.settled()


@pytest.mark.exhaustive
@stale
def test_two_api_servers_of_which_one_is_frozen(arena: Arena, web: Shop) -> None:
    """Streams come from the frozen one, then from the other, in turn; single objects from whoever is asked."""
    old = record_lists(arena)
    arena.network.cut(watches_pods)
    churn(web)
    calm(web)
    old.recording = False
    for _ in range(3):
        befall_watch(arena, faults.silent_watch, times=1)
        befall_watch(arena, faults.ended_by(EXPIRED), times=1)
    arena.network.heal()
    arena.network.cut(watches_pods)
    web.settled()


@stale
@pytest.mark.exhaustive
def test_old_answers_of_consul_remove_nothing(arena: Arena, web: Shop) -> None:
    """A Consul that lags behind for good: what was written never shows, what was removed still does."""
    old = faults.Replay()
    arena.network.inject(lambda r: r.kind in CONSUL_LISTS[web.mode], old, times=None)
    web.tag("web", "recorded")
    web.settled()
    old.recording = False
    web.scale("web", 4)
    web.settled()
    arena.network.journal.clear()
    always(lambda: not arena.oracle.left, during=4)
    assert arena.network.journal.count(kind_is(*CONSUL_WRITES[web.mode])) <= 60, "a hot loop"
    arena.network.heal()
    churn(web)
    web.settled()


def record_lists(arena: Arena) -> faults.Replay:
    """Keep how the lists of Pods look now; the operator lists them when it starts."""
    replay = faults.Replay()
    arena.network.inject(lambda r: r.kind == "list pods", replay, times=None)
    arena.restart()
    return replay
