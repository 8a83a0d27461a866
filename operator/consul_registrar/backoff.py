"""How long to wait before something is tried again: exponential, with jitter, so that many don't come back as one.

Pure: chance is an argument, a function that returns out of [0, 1).
"""

from collections.abc import Callable


def delay(failures: int, first: float, most: float, chance: float) -> float:
    """Seconds to wait after so many failures in a row: doubling from `first` to `most`, at least half of that."""
    whole = min(most, first * 2.0 ** min(failures, 32))
    return whole * (0.5 + 0.5 * chance)


class Backoff:
    """The delays of one thing that is tried again and again."""

    def __init__(self, first: float, most: float, chance: Callable[[], float]) -> None:
        self._first = first
        self._most = most
        self._chance = chance
        self._failures = 0

    def __call__(self) -> float:
        """The seconds to wait now; the next call answers longer."""
        failures, self._failures = self._failures, self._failures + 1
        return delay(failures, self._first, self._most, self._chance())

    def reset(self) -> None:
        """Things went well: begin with the first delay again."""
        self._failures = 0
