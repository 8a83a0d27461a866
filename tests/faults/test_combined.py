"""Faults that meet: two at once, or one in the midst of something else. Nothing living leaves, and all comes right."""

import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from fault_world import CONSUL_WRITES, LEASE, MODES, Arena, Mode, Shop, shop, some, to_consul
from operator_world import MERGE, define, eventually, pod

from devcluster.kube import ApiError
from killpoints import Claim, faults, kind_is
from killpoints.network import Call

CRD = "serviceregistrations.consul-registrar.dev"
HOUR = [("Retry-After", "3600")]
LATE = 2.0
"""Seconds after which a request is sent once more."""


def daily(*modes: Mode) -> pytest.MarkDecorator:
    """In these modes every day, in the others with all faults."""
    return pytest.mark.parametrize("web", some(MODES, *modes), indirect=True)


@pytest.fixture(params=MODES)
def web(arena: Arena, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """A service of three Pods that stand, in either mode."""
    mode: Mode = request.param
    with shop(arena, mode) as made:
        made.open("web", 3)
        made.settled()
        yield made


# --- on the way to Consul ---


@daily("agent")
@pytest.mark.goal("G4")
def test_writes_that_are_applied_once_more_later_do_no_lasting_harm(arena: Arena, web: Shop) -> None:
    """Meanwhile the Pod is gone, or the spec another one: what was right then is wrong now."""
    rules = [arena.network.inject(kind_is(k), faults.repeated(LATE), times=None) for k in CONSUL_WRITES[web.mode]]
    for turn in range(3):
        web.tag("web", f"v{turn}")
        web.churn("web", 6, seed=30 + turn)
    assert any(rule.hits for rule in rules)
    arena.network.heal()
    time.sleep(LATE)
    web.settled()


@daily("catalog")
@pytest.mark.goal("G4")
@pytest.mark.parametrize("what", some(("writes", "reads"), "writes"))
def test_connections_that_end_after_each_number_of_bytes_are_no_answers(arena: Arena, web: Shop, what: str) -> None:
    cut = faults.Cut(step=7)
    writes = kind_is(*CONSUL_WRITES[web.mode])
    reads = lambda request: to_consul(request) and not request.is_write  # noqa: E731
    arena.network.inject(writes if what == "writes" else reads, cut, times=None)
    arena.network.cut(lambda request: "blocking" in request.kind)
    web.tag("web", "cut")
    web.churn("web", 10, seed=40)
    eventually(lambda: cut.cuts >= 10)
    arena.network.heal()
    web.settled()


@pytest.mark.exhaustive
@pytest.mark.goal("G4")
def test_who_is_asked_to_wait_for_an_hour_asks_again_sooner(arena: Arena, web: Shop) -> None:
    everything = lambda request: to_consul(request) or "watch" in request.kind or "list" in request.kind  # noqa: E731
    rule = arena.network.inject(everything, faults.answered(429, "wait", HOUR), times=None)
    arena.network.cut()
    web.churn("web", 10, seed=50)
    eventually(lambda: rule.hits > 5)
    arena.network.heal()
    web.settled(within=180)
    arena.restart()  # kopf waits for the hour: until then only lists tell of registrations


# --- in the midst of something ---


def killing(arena: Arena) -> faults.Fault:
    """Applied; the operator is killed before it knows."""

    async def fault(call: Call) -> None:
        await call.forward()
        arena.operator.kill()
        raise call.reset()

    return fault


def select(web: Shop, app: str, selected: str) -> None:
    web.world.patch(app, {"pods": {"selector": {"matchLabels": {"app": selected}}}})


@pytest.mark.exhaustive
@pytest.mark.goal("G1")
@pytest.mark.parametrize("mended", [False, True], ids=["stays", "mended"])
def test_killed_while_held_removals_are_drained_the_rest_is_judged_anew(arena: Arena, web: Shop, mended: bool) -> None:
    """A selector with a typo, that is mended while the operator is dead, or not."""

    def stand() -> frozenset[int]:
        return frozenset(row["Service"]["CreateIndex"] for row in arena.oracle.instances(web.name("web")))

    web.scale("web", 6)
    web.settled()
    arena.oracle.excuse(web.name("web"))
    select(web, "web", "wbe")
    web.world.says("web", "RemovalHeld")
    arena.network.inject(kind_is(*CONSUL_WRITES[web.mode]), killing(arena), skip=1)
    eventually(lambda: not arena.operator.process.is_alive())
    left = stand()
    assert 0 < len(left) < 6
    if mended:
        select(web, "web", "web")
    arena.restart()
    if mended:
        web.settled()
        assert left <= stand(), "what stood when it was mended has left"
    else:
        eventually(lambda: not stand())
        select(web, "web", "web")


@pytest.mark.goal("G11")
@pytest.mark.parametrize("mode", some(MODES, "catalog"))
def test_a_lease_that_is_stolen_in_the_midst_of_changes_ends_all_writes_until_it_is_won_again(
    arena: Arena, mode: Mode
) -> None:
    with shop(arena, mode) as web:
        web.open("web", 3)
        web.settled()
        web.churn("web", 10, seed=60, pause=0)
        stolen = {"holderIdentity": "thief", "leaseDurationSeconds": 7}
        arena.cluster.api.request("PATCH", LEASE, {"spec": stolen}, MERGE)
        eventually(lambda: not arena.leads())
        arena.network.journal.clear()
        web.churn("web", 10, seed=61)
        written = arena.network.journal.of(kind_is(*CONSUL_WRITES[mode]))
        assert not written or arena.leads(), "written by who doesn't lead"
        eventually(arena.leads)
        web.settled()


@pytest.mark.exhaustive
@pytest.mark.goal("G2")
@pytest.mark.parametrize("dead", [False, True], ids=["alive", "killed"])
def test_a_definition_that_goes_and_comes_back_while_an_edit_is_on_its_way_takes_nothing(
    arena: Arena, web: Shop, dead: bool
) -> None:
    api = arena.cluster.api
    arena.cluster.kubectl("delete", "crd", CRD, "--wait=false")
    with suppress(ApiError):  # it went already
        web.tag("web", "unseen")
    if dead:
        arena.operator.kill()
        arena.vacate()
        arena.operator.start()

    def is_gone() -> bool:
        found = api.request("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")["items"]
        return CRD not in {one["metadata"]["name"] for one in found}

    eventually(is_gone)
    define(arena.cluster)
    again = web.registration("web", service={"name": web.name("web"), "tags": ["again"]})
    eventually(lambda: web.create(web.world.registrations, again))
    web.claim("web", ("again",))
    web.settled()


# --- what Kubernetes does in a moment ---


@daily("agent")
@pytest.mark.goal("G2")
def test_a_pod_that_is_replaced_under_its_name_again_and_again_within_milliseconds_stands_once(
    arena: Arena, web: Shop
) -> None:
    web.create(web.world.registrations, web.registration("db"))
    web.create(web.pods, pod("db-0", "db"))
    web.claim("db")
    web.settled()
    for turn in range(20):
        web.kill_pod("db-0", at_once=True)
        web.create(web.pods, pod("db-0", "db", **({"ready": "false"} if turn % 3 else {})))
        time.sleep(0.01 * (turn % 5))
    web.settled()


@pytest.mark.exhaustive
@pytest.mark.goal("G2")
def test_addresses_that_go_to_other_pods_at_once_are_told_apart(arena: Arena, web: Shop) -> None:
    """All Pods end unseen, and their successors have the same addresses on the same nodes."""
    web.scale("web", 5)
    web.settled()
    for _ in range(4):
        for name in web.world.pods("web"):
            web.kill_pod(name, at_once=True)
        time.sleep(0.3)
    web.settled()


# --- two edits at once ---


@daily("catalog")
@pytest.mark.goal("G2")
def test_two_registrations_that_exchange_their_names_leave_no_gap(arena: Arena, web: Shop) -> None:
    """Over the same Pods: each is to publish what the other one did."""
    web.unregister("web")
    web.settled()
    names = [web.name("one"), web.name("two")]

    def name_it(app: str, name: str) -> None:
        service = {"name": name, "tags": [app]}
        web.world.apply(web.registration(app, service=service, pods={"selector": {"matchLabels": {"app": "web"}}}))
        web.claims[app] = Claim(name, web.world.namespace, {"app": "web"}, (app,))

    name_it("one", names[0])  # the older, also if both are made in the same second
    name_it("two", names[1])
    web.settled()
    for one, two in (names[::-1], names):
        name_it("two", two)  # waits for the older
        name_it("one", one)
        web.settled()


@pytest.mark.exhaustive
@pytest.mark.goal("G2")
def test_two_registrations_that_exchange_their_pods_have_each_others(arena: Arena, web: Shop) -> None:
    web.open("other", 3)
    web.settled()
    arena.oracle.excuse(web.name("web"), web.name("other"))
    for one, selected in (("web", "other"), ("other", "web")):
        select(web, one, selected)
        web.claims[one] = Claim(web.name(one), web.world.namespace, {"app": selected})
    web.settled(within=90)
