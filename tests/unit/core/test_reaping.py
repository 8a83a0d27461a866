"""What an agent removed as the user asked is left alone for a while, and known again after a restart."""

from typing import Any

import pytest

from consul_registrar import times
from consul_registrar.reaping import Reaped, Where, looks
from unit.core.build import KEY, pod, registration

WHERE: Where = (KEY, "uid-1", "default")
SEEN = "3/True/0"


def reaped(times: int, at: float = 0.0) -> Reaped:
    """So many times in a row, the last time at `at`."""
    made = Reaped()
    for _ in range(times):
        made.tried(WHERE)
        made.notice(WHERE, "web-1", SEEN, at)
    return made


def test_what_was_not_reaped_does_not_wait() -> None:
    assert Reaped().waits(WHERE, SEEN, 0.0) is None


@pytest.mark.parametrize(
    ("times", "wait"),
    [(1, 60), (2, 120), (3, 240), (4, 480), (5, 600), (6, 600), (1100, 600)],
)
def test_each_time_in_a_row_it_waits_longer_from_one_minute_to_ten(times: int, wait: float) -> None:
    made = reaped(times, at=1000.0)
    assert made.waits(WHERE, SEEN, 1000.0) == wait
    assert made.waits(WHERE, SEEN, 1000.0 + wait - 1) == 1
    assert made.waits(WHERE, SEEN, 1000.0 + wait) is None


def test_the_same_reaping_seen_again_does_not_wait_longer() -> None:
    made = reaped(1, at=0.0)
    made.notice(WHERE, "web-1", SEEN, 30.0)
    assert made.waits(WHERE, SEEN, 30.0) == 30


@pytest.mark.parametrize("seen", ["4/True/0", "3/False/0", "3/True/1"])
def test_a_change_registers_it_at_once(seen: str) -> None:
    assert reaped(3).waits(WHERE, seen, 0.0) is None


def test_other_subjects_and_consuls_do_not_wait() -> None:
    made = reaped(1)
    assert made.waits((KEY, "uid-2", "default"), SEEN, 0.0) is None
    assert made.waits((KEY, "uid-1", "other"), SEEN, 0.0) is None


def test_what_is_tried_does_not_wait_and_is_not_recorded() -> None:
    made = reaped(1)
    made.tried(WHERE)
    assert made.waits(WHERE, SEEN, 0.0) is None
    assert made.recorded(KEY, str) == []


def test_what_is_well_again_begins_anew() -> None:
    made = reaped(3)
    made.forget(WHERE)
    made.notice(WHERE, "web-1", SEEN, 0.0)
    assert made.waits(WHERE, SEEN, 0.0) == 60


def test_what_never_was_is_forgotten_quietly() -> None:
    made = Reaped()
    made.forget(WHERE)
    made.forget_all(KEY)
    made.tried(WHERE)
    assert made.recorded(KEY, str) == []


def test_a_registration_that_goes_takes_all_of_it_along() -> None:
    made = reaped(1)
    made.forget_all(KEY)
    assert made.waits(WHERE, SEEN, 0.0) is None


def test_what_is_recorded_is_known_after_a_restart() -> None:
    before = reaped(2, at=1000.0)
    recorded = before.recorded(KEY, str)
    assert recorded == [
        {"subject": "uid-1", "connection": "default", "name": "web-1", "at": "1000.0", "attempts": 2, "seen": SEEN}
    ]
    after = Reaped()
    after.load(KEY, recorded, float)
    assert after.waits(WHERE, SEEN, 1010.0) == before.waits(WHERE, SEEN, 1010.0) == 110
    assert after.recorded(KEY, str) == recorded


def test_a_clock_that_was_set_back_makes_nobody_wait_for_longer() -> None:
    assert reaped(1, at=90_000.0).waits(WHERE, SEEN, 3_600.0) is None


def test_a_time_that_is_none_was_written_by_somebody_else_and_is_passed_over() -> None:
    """The API server takes it."""
    after = Reaped()
    good = reaped(1).recorded(KEY, times.text)[0]
    after.load(KEY, [good | {"at": "0000-01-01T00:00:00Z", "subject": "uid-0"}, good], times.epoch)
    assert after.waits((KEY, "uid-0", "default"), SEEN, 0.0) is None
    assert after.waits(WHERE, SEEN, 0.0) == 60


def test_what_is_known_is_not_overwritten_by_what_was_recorded() -> None:
    made = reaped(3, at=1000.0)
    made.load(KEY, reaped(1, at=0.0).recorded(KEY, str), float)
    assert made.waits(WHERE, SEEN, 1000.0) == 240


@pytest.mark.parametrize(
    ("one", "other", "differs"),
    [
        ((registration(), pod()), (registration(), pod(ip="10.9.9.9", labels={})), False),
        ((registration(), pod()), (registration(), pod(ready=False)), True),
        ((registration(), pod()), (registration(), pod(restarts=1)), True),
        ((registration(), pod()), (registration(generation=4), pod()), True),
        ((registration(), None), (registration(generation=4), None), True),
        ((registration(), None), (registration(), None), False),
        ((None, None), (None, None), False),
    ],
)
def test_only_what_gives_hope_counts_as_a_change(one: Any, other: Any, differs: bool) -> None:
    assert (looks(*one) != looks(*other)) is differs
