"""Decides how long to wait before something is tried again, and where a blocking query goes on. Pure but for chance.

The rules for indexes are Consul's own (documentation of blocking queries): at least 1, and from the start again when
an index goes backwards, since then the servers' log is another one.
"""

import random

_random = random.SystemRandom()


class Backoff:
    """Seconds that double from `low` to `high`, each drawn from its upper half so that many don't come at once."""

    def __init__(self, low: float = 0.5, high: float = 5.0) -> None:
        self._low, self._high = low, high
        self._next = low

    def __call__(self) -> float:
        delay = self._next
        self._next = min(delay * 2, self._high)
        return _random.uniform(delay / 2, delay)

    def reset(self) -> None:
        self._next = self._low


def next_index(before: int, told: int) -> int:
    """The index for the next blocking query after an answer that told one; 0 asks without blocking."""
    return 0 if told < before else max(told, 1)
