"""G1: killed before and after each external write of a registration's life, everything comes right, and nothing living
ever leaves.
"""

from collections.abc import Sequence

import pytest
from fault_world import CONSUL_WRITES, MODES, Arena, Count, Mode, Walk

from killpoints import Point, explain, play, rehearse

pytestmark = [pytest.mark.goal("G1")]


def killed_at(arena: Arena, mode: Mode, points: Sequence[Point], count: Count) -> None:
    """Play each; every class of write to Consul, and the finalizer's, must have been reached before and after."""
    reached = [point for point in points if killed(arena, mode, point)]
    count(len(reached))
    kinds = (*CONSUL_WRITES[mode], "patch serviceregistrations")
    missed = {(kind, when) for kind in kinds for when in ("before", "after")} - {(p.kind, p.when) for p in reached}
    assert not missed, f"never reached: {missed}"


def killed(arena: Arena, mode: Mode, point: Point) -> bool:
    """One play; whether the point was reached. What the oracle has to say of it is said at once."""
    walk = Walk(arena, mode)
    reached = play(arena.stage(), walk, point)
    assert not arena.oracle.wrong, f"killed {point}: {explain(arena.oracle.wrong)}"
    walk.close()
    return reached


@pytest.mark.exhaustive
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("mode", MODES)
def test_killed_before_and_after_each_write_all_comes_right(arena: Arena, mode: Mode, count: Count) -> None:
    killed_at(arena, mode, rehearse(arena.stage(), Walk(arena, mode)), count)


@pytest.mark.parametrize("mode", MODES)
def test_killed_at_the_first_write_of_each_class_all_comes_right(arena: Arena, mode: Mode, count: Count) -> None:
    """One of each, for every day."""
    kinds = (*CONSUL_WRITES[mode], "patch serviceregistrations")
    points = [Point(kind, 0, when) for kind in kinds for when in ("before", "after")]
    killed_at(arena, mode, points, count)
