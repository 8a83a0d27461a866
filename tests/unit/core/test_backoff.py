"""How long to wait before something is tried again."""

import pytest

from consul_registrar.backoff import Backoff, delay


@pytest.mark.parametrize("failures", [0, 1, 5, 10, 11, 1000, 10**6])
def test_a_delay_doubles_up_to_its_limit_and_is_spread_over_half_of_itself(failures: int) -> None:
    low, high = delay(failures, 0.05, 60.0, 0.0), delay(failures, 0.05, 60.0, 1.0)
    assert low == high / 2
    assert high == min(60.0, 0.05 * 2.0 ** min(failures, 20))
    assert low < delay(failures, 0.05, 60.0, 0.5) < high


def test_waiting_grows_to_its_limit_and_starts_over() -> None:
    backoff = Backoff(0.5, 5.0, lambda: 1.0)
    assert [backoff() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    backoff.reset()
    assert backoff() == 0.5


def test_each_wait_is_drawn_anew() -> None:
    chances = iter([0.0, 1.0, 0.5])
    backoff = Backoff(1.0, 1.0, lambda: next(chances))
    assert [backoff() for _ in range(3)] == [0.5, 1.0, 0.75]
