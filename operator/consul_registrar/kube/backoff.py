"""How long to wait before trying again: exponential, with jitter, so that many clients don't come back as one."""

import random


class Backoff:
    """Delays from `first` to `most` seconds, doubling; each is drawn between half of its value and all of it."""

    def __init__(self, first: float, most: float) -> None:
        self._first = first
        self._most = most
        self._next = first

    def delay(self) -> float:
        """The seconds to wait now; the next call answers longer."""
        now, self._next = self._next, min(self._most, self._next * 2)
        return now * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing

    def reset(self) -> None:
        """Things went well: begin with `first` again."""
        self._next = self._first
