"""G9: everything is slow. What was asked for arrives, memory stays flat, and nobody is asked without measure."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_world import CONSUL_WRITES, MODES, Arena, Mode, Shop, shop, some, to_consul
from operator_world import deployment, eventually

from killpoints import faults, kind_is

pytestmark = [pytest.mark.goal("G9")]

FLAT = 60.0
"""MiB by which an operator that waits may grow; a queue that grows with the waiting takes more."""


@pytest.fixture(params=some(MODES, "agent"))
def web(arena: Arena, request: pytest.FixtureRequest) -> Iterator[Shop]:
    mode: Mode = request.param
    with shop(arena, mode) as made:
        made.open("web", 3)
        made.settled()
        yield made


def memory(arena: Arena) -> float:
    """Resident, in MiB."""
    status = Path(f"/proc/{arena.operator.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("seconds", some((2, 5, 30), 2))
def test_answers_that_take_long_delay_changes_and_lose_none(arena: Arena, web: Shop, seconds: int) -> None:
    """30 s is beyond every time-out: nothing is known to have worked, until it is fast again."""
    before = memory(arena)
    arena.network.inject(lambda r: to_consul(r) and "blocking" not in r.kind, faults.slow(seconds), times=None)
    web.churn("web", 30, seed=9)
    if seconds < 10:
        web.settled(within=240)
    else:
        eventually(lambda: arena.network.journal.count(kind_is(*CONSUL_WRITES[web.mode])) > 2)
        web.churn("web", 300, seed=90)
    arena.network.heal()
    web.settled()
    assert memory(arena) < before + FLAT
    assert arena.network.journal.count(kind_is(*CONSUL_WRITES[web.mode])) < 2000


@pytest.mark.exhaustive
def test_a_slow_kubernetes_delays_changes_and_loses_none(arena: Arena, web: Shop) -> None:
    slow = lambda r: not to_consul(r) and not r.kind.startswith("watch") and not r.kind.endswith(" leases")  # noqa: E731
    arena.network.inject(slow, faults.slow(5.0), times=None)
    web.churn("web", 30, seed=19)
    web.settled(within=240)


def test_pods_that_swallow_their_checks_hold_nothing_up_for_good(arena: Arena) -> None:
    """An agent waits for a probe in flight while it holds its lock: here they all hang."""
    with shop(arena, "agent") as web:
        check = {"name": "health", "http": {"path": "/health"}, "interval": "1s", "timeout": "2s"}
        web.create(web.world.registrations, web.registration("web", checks=[check]))
        web.open_pods("web", 4)
        eventually(lambda: len(web.world.catalog(web.name("web"))) == 4)
        arena.cluster.pods.pause()
        try:
            eventually(lambda: not web.world.health(web.name("web"), passing=True))
            web.scale("web", 1)
            eventually(lambda: len(web.world.catalog(web.name("web"))) == 1)
            web.scale("web", 3)
            eventually(lambda: len(web.world.catalog(web.name("web"))) == 3)
        finally:
            arena.cluster.pods.resume()
        web.claim("web")
        web.settled()


@pytest.mark.exhaustive
def test_five_hundred_pods_that_go_at_once_leave_no_ghosts(arena: Arena, web: Shop) -> None:
    before = memory(arena)
    web.create(web.deployments, deployment("crowd", 500))
    web.create(web.world.registrations, web.registration("crowd"))
    web.claim("crowd")
    web.settled(within=300)
    arena.network.inject(lambda r: r.kind in CONSUL_WRITES[web.mode], faults.slow(0.3), times=None)
    web.scale("crowd", 0)
    eventually(lambda: not web.world.catalog(web.name("crowd")), within=400)
    arena.network.heal()
    assert memory(arena) < before + 2 * FLAT
