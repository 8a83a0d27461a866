"""G11: two replicas that both believe that they lead. They may do the same thing twice; nothing living ever leaves."""

import time
from collections.abc import Iterator

import pytest
from fault_world import MODES, Arena, Mode, leads, shop, some
from hanging import Hang, daily, single
from operator_world import Operator, eventually, pod

from killpoints import faults

pytestmark = [pytest.mark.goal("G11")]


@pytest.fixture
def second(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Another replica, which asks Kubernetes straight, and stands by."""
    one = Operator(arena.cluster, tmp_path_factory.mktemp("second"))
    one.start()
    yield one
    one.kill()


@pytest.fixture
def rival(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Another replica of the same name that is elected by a Lease of its own: nothing keeps it from leading."""
    one = Operator(arena.cluster, tmp_path_factory.mktemp("rival"), arguments=("--lease=default/rival",))
    one.start()
    eventually(lambda: leads(one))
    yield one
    one.kill()


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("changes", [40, pytest.param(3000, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("mode", some(MODES, "agent"))
def test_two_that_lead_at_once_remove_nothing_that_lives(
    arena: Arena, rival: Operator, mode: Mode, changes: int
) -> None:
    """3,000 changes take some ten minutes."""
    with shop(arena, mode) as web:
        web.open("web", 3)
        web.settled()
        web.churn("web", changes, seed=11)
        web.settled()


@pytest.mark.parametrize("mode", some(MODES, "agent"))
def test_a_leader_that_sleeps_past_its_term_and_wakes_does_no_harm(arena: Arena, second: Operator, mode: Mode) -> None:
    with shop(arena, mode) as web:
        web.open("web", 3)
        web.settled()
        web.churn("web", 5, seed=12, pause=0)
        arena.operator.process.pause()
        web.churn("web", 10, seed=13)
        eventually(lambda: leads(second))
        web.settled()
        web.churn("web", 10, seed=14, pause=0)
        arena.operator.process.resume()
        web.churn("web", 10, seed=15)
        web.settled()
        time.sleep(2)
        web.settled()
        second.stop()
        eventually(arena.leads)


@daily("agent-late", "catalog-late")
def test_what_a_leader_had_on_its_way_when_it_lost_its_lease_does_no_lasting_harm(
    arena: Arena, second: Operator, hang: Hang
) -> None:
    """The next one has edited and removed by then what the old one had just registered."""
    web = hang.web
    single(web, "db-0")
    with hang.on(lambda: (web.tag("web", "v1"), web.create(web.pods, pod("db-1", "db")))) as old:
        arena.network.inject(lambda request: request.kind.endswith(" leases"), faults.refused, times=None)
        eventually(lambda: leads(second))
        arena.network.remove(old)
        web.tag("web", "v2")
        web.kill_pod("db-1", at_once=True)
        web.settled()
    web.settled()
    second.stop()
    arena.network.heal()
    eventually(arena.leads)
    web.settled()
