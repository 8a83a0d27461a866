"""How many changes may be written in a second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consul_registrar.pace import LONGEST, Pace


def admitted(pace: Pace, rate: float, count: int, now: float, *, urgent: bool = False) -> int:
    """How many of so many at once may go."""
    return sum(pace.admit(rate, now, urgent=urgent) == 0.0 for _ in range(count))


def test_a_seconds_worth_goes_at_once_and_the_rest_at_the_rate() -> None:
    pace = Pace()
    assert admitted(pace, 10, 100, now=50.0) == 10
    assert admitted(pace, 10, 100, now=50.05) == 0
    assert admitted(pace, 10, 100, now=50.5) == 5
    assert admitted(pace, 10, 100, now=1000.0) == 10


def test_turns_are_promised_one_after_the_other() -> None:
    pace = Pace()
    admitted(pace, 10, 10, now=0.0)
    assert [pace.admit(10, 0.0) for _ in range(3)] == pytest.approx([0.1, 0.2, 0.3])
    assert pace.admit(10, 0.1) == 0.0


def test_nobody_is_told_to_wait_for_long() -> None:
    pace = Pace()
    admitted(pace, 1, 1, now=0.0)
    assert max(pace.admit(1, 0.0) for _ in range(1000)) == LONGEST


def test_what_is_gone_goes_while_others_wait_but_not_without_end() -> None:
    pace = Pace()
    assert admitted(pace, 10, 1000, now=0.0) == 10
    assert [pace.admit(10, 0.0, urgent=True) for _ in range(12)] == pytest.approx([0.0] * 10 + [0.1, 0.2])
    assert admitted(pace, 10, 100, now=1.0) == 0
    assert admitted(pace, 10, 100, now=1.0, urgent=True) == 10


def test_another_rate_holds_from_the_next_change_on() -> None:
    pace = Pace()
    admitted(pace, 1, 1, now=0.0)
    assert admitted(pace, 100, 1000, now=1.0) == 100
    assert admitted(pace, 2, 1000, now=2.0) == 2


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 40), st.booleans()), max_size=60),
)
def test_never_more_than_two_seconds_worth_and_the_rate(rate: int, arrivals: list[tuple[float, int, bool]]) -> None:
    pace, now, gone = Pace(), 0.0, 0
    for pause, count, urgent in arrivals:
        now += pause
        gone += admitted(pace, rate, count, now, urgent=urgent)
        assert gone <= 2 * rate + rate * now + 1e-6


@given(st.integers(1, 100), st.integers(1, 400), st.integers(0, 50))
def test_everybody_who_comes_back_gets_a_turn_and_what_is_gone_before_most(rate: int, many: int, urgents: int) -> None:
    """All come at once, and each comes back when it was told to."""
    pace = Pace()
    waiting = [(0.0, index, index >= many) for index in range(many + urgents)]
    done: dict[bool, float] = {False: 0.0, True: 0.0}
    for _ in range(100 * len(waiting)):
        if not waiting:
            break
        waiting.sort()
        now, index, urgent = waiting.pop(0)
        after = pace.admit(rate, now, urgent=urgent)
        if after:
            waiting.append((now + after, index, urgent))
        else:
            done[urgent] = max(done[urgent], now)
    assert not waiting
    assert done[True] <= urgents / rate + 1.0
    assert done[False] <= (many + urgents) / rate + LONGEST
