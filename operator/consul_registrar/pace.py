"""How many changes may be written in a second: a bucket of tokens that fills steadily; pure, the clock is an argument.

Decides whether a change may go now, and when it is to come back if it may not: turns are promised one after the other,
so that those who wait don't all come at once. What is gone goes first: it may borrow a second's worth, and its turns
are its own. That starves nobody for long, since what goes was once let in by the same limit.
"""

LONGEST = 60.0
"""Seconds; the longest that somebody is told to wait. Where more wait than that takes, several share a turn."""

_NEARLY = 1.0 - 1e-6
"""A whole token, but for rounding."""


class Pace:
    """The pace of one connection. Whoever waits holds no place: what it comes back with is decided anew."""

    def __init__(self) -> None:
        self._tokens = float("inf")
        self._at = 0.0
        self._promised = {False: 0.0, True: 0.0}

    def admit(self, rate: float, now: float, *, urgent: bool = False) -> float:
        """0.0: one change may go. Else the seconds until its turn. `rate` is in changes a second, `now` in seconds."""
        burst = max(1.0, rate)
        self._tokens = min(burst, self._tokens + (now - self._at) * rate)
        self._at = now
        if self._tokens >= (_NEARLY - burst if urgent else _NEARLY):
            self._tokens -= 1.0
            return 0.0
        turn = max(self._promised[urgent], now) + 1.0 / rate
        self._promised[urgent] = turn if turn <= now + LONGEST else now + 1.0 / rate
        return self._promised[urgent] - now
