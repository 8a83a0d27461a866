"""G3: Consul itself is old, or empty: its data come from a snapshot, or are lost, while the operator runs.

Its indexes go backwards then, what is gone stands again, and what stood is missing. That is no fault of the operator's;
it puts right what Consul holds, and removes nothing that lives.
"""

import urllib.request
from collections.abc import Iterator

import pytest
from fault_world import MODES, Arena, Mode, Shop, shop
from operator_world import eventually

WITHIN = 200.0
"""Seconds; agents take out of the catalog what they don't know at their next full sync, 60 to 120 s later."""

pytestmark = [pytest.mark.goal("G3")]


@pytest.fixture(params=MODES)
def web(arena: Arena, request: pytest.FixtureRequest) -> Iterator[Shop]:
    mode: Mode = request.param
    with shop(arena, mode) as made:
        made.open("web", 3)
        made.settled()
        yield made


def snapshot(arena: Arena, restored: bytes | None = None) -> bytes:
    """All that Consul's servers hold; `restored`: let them hold this again."""
    url = f"{arena.cluster.consul.http_addr}/v1/snapshot"
    request = urllib.request.Request(url, restored, method="GET" if restored is None else "PUT")
    with urllib.request.urlopen(request, timeout=30) as answer:
        held = bytes(answer.read())
    if restored is not None:
        arena.oracle.begin_anew()
    return held


def gone(web: Shop, count: int) -> None:
    """Wait until so many Pods are left."""
    eventually(lambda: len(web.world.pods("web")) == count)


def test_ghosts_and_old_values_out_of_a_snapshot_go(arena: Arena, web: Shop) -> None:
    """Who lives is in it too, so nobody may leave."""
    before = snapshot(arena)
    web.tag("web", "new")
    web.scale("web", 2)
    gone(web, 2)
    web.settled()
    snapshot(arena, restored=before)
    web.settled(within=WITHIN)


@pytest.mark.exhaustive
def test_who_is_not_in_a_snapshot_stands_again(arena: Arena, web: Shop) -> None:
    before = snapshot(arena)
    web.scale("web", 5)
    gone(web, 5)
    web.settled()
    arena.oracle.excuse(web.name("web"))
    snapshot(arena, restored=before)
    web.settled(within=WITHIN)


@pytest.mark.exhaustive
def test_a_snapshot_that_is_restored_in_the_midst_of_changes_does_no_lasting_harm(arena: Arena, web: Shop) -> None:
    before = snapshot(arena)
    arena.oracle.excuse(web.name("web"))
    web.churn("web", 10, seed=21)
    snapshot(arena, restored=before)
    web.churn("web", 10, seed=22)
    web.settled(within=WITHIN)


def test_a_consul_that_lost_all_is_told_everything_anew(arena: Arena, web: Shop) -> None:
    arena.oracle.excuse(web.name("web"))
    arena.cluster.consul.server.restart(keep_data=False)
    arena.oracle.begin_anew()
    web.churn("web", 5, seed=23)
    web.settled(within=WITHIN)
