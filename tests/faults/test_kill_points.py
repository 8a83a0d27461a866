"""G1: killed before and after each external write of a registration's life, everything comes right, and nothing living
ever leaves.
"""

import pytest
from fault_world import CONSUL_WRITES, MODES, Arena, Count, Mode, Walk

from killpoints import Point, explain, play, rehearse

pytestmark = [pytest.mark.goal("G1")]


def essential(mode: Mode) -> tuple[str, ...]:
    """The classes of which every run has some: the writes to Consul, and the finalizer's."""
    return (*CONSUL_WRITES[mode], "patch serviceregistrations")


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
    points = rehearse(arena.stage(), Walk(arena, mode))
    reached = [point for point in points if killed(arena, mode, point)]
    count(len(reached))
    missed = {(kind, when) for kind in essential(mode) for when in ("before", "after")}
    missed -= {(point.kind, point.when) for point in reached}
    assert not missed, f"never reached: {missed}"


@pytest.mark.parametrize("mode", MODES)
def test_killed_at_the_first_write_of_each_class_all_comes_right(arena: Arena, mode: Mode, count: Count) -> None:
    """Some, for every day: before the first write of all, and after the first of each class."""
    kinds = essential(mode)
    points = [Point(kinds[0], 0, "before"), *(Point(kind, 0, "after") for kind in kinds)]
    reached = [point for point in points if killed(arena, mode, point)]
    count(len(reached))
    assert reached == points
