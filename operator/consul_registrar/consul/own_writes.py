"""Decides whether a change of a node that Consul tells of can only be ours; pure, the clock is an argument.

Consul's log gives each write the next number, whoever makes it, and each answer names its own (but that of one that
only removes, which leaves alone). So where, counted on from an earlier transaction of ours, nothing but our own fits up
to the number that a query tells, the log holds nothing else in between, and no change of anybody else's can hide behind
ours. What has left and has no answer yet is missing in that count: then nothing is proven (`in_flight.py`).

How far back that count must reach: a waiting query is woken as soon as its node changes, so what was written `WOKEN`
seconds before would have rung by itself. Where the count has a gap the change is ours, and perhaps not alone. Nothing
rests on this alone: every node is read completely all the same, later (`catalog_watch.py`).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

WOKEN = 0.3
"""Seconds after which a change would have rung, also with a Consul that is short of CPU."""

ECHO = 0.3
"""Seconds after a write of ours in which what rings, and can't be told apart, is taken for ours."""

KEPT = 8192
"""How many writes are remembered, at least half of them."""


class Whose(Enum):
    OURS = "ours alone"
    MIXED = "ours, perhaps not alone"
    FOREIGN = "somebody else's"


@dataclass(frozen=True, slots=True)
class Ring:
    """What a query tells: the node's change, at `index`, at the time `at`; it had waited `since` then.

    `exact`: the index is that of the node's own last change (of its services); else of some last change (of checks).
    """

    node: str
    index: int
    since: float
    at: float
    exact: bool


class OwnWrites:
    """The acknowledged transactions of one connection, in the order of Consul's log."""

    def __init__(self) -> None:
        self._floor: list[int] = []  # the highest number told up to each of them: its own, where it told one
        self._times: list[float] = []
        self._nodes: list[frozenset[str]] = []
        self._last: dict[str, float] = {}
        self._last_unnamed: dict[str, float] = {}

    @property
    def highest(self) -> int:
        """The highest number that was told; 0: none was."""
        return self._floor[-1] if self._floor else 0

    def wrote(self, index: int, nodes: Iterable[str], now: float, after: int, *, alone: bool = True) -> None:
        """A transaction was acknowledged. `index`: the highest that it told of, 0: none. `after`: what was `highest`
        when it left; `alone`: no other was on its way meanwhile.

        What was written as it stood keeps its old number, which isn't the transaction's.
        """
        named, changed = index > after, frozenset(nodes)
        if not named and not alone:  # its place among the others isn't known, so nothing can be counted
            self._drop(len(self._floor))
        self._insert(index if named else self.highest, changed, now)
        last = self._last if named else self._last_unnamed
        last.update(dict.fromkeys(changed, now))
        if len(self._floor) > KEPT:
            self._drop(KEPT // 2)

    def _insert(self, index: int, nodes: frozenset[str], now: float) -> None:
        """At its place in the log; what stands before another was written no later than that."""
        at = bisect_right(self._floor, index)
        self._floor.insert(at, index)
        self._times.insert(at, min(now, self._times[at]) if at < len(self._times) else now)
        self._nodes.insert(at, nodes)

    def _drop(self, count: int) -> None:
        del self._floor[:count], self._times[:count], self._nodes[:count]

    def whose(self, ring: Ring) -> Whose:
        """Whose change a query tells of."""
        at = self._place(ring.index)
        if at is not None and ring.node in self._nodes[at] and self._is_whole(at, ring):
            return Whose.OURS
        recent = max(self._last_unnamed.get(ring.node, 0.0), 0.0 if ring.exact else self._last.get(ring.node, 0.0))
        named = at is not None and self._floor[at] == ring.index
        return Whose.MIXED if named or (recent and ring.at - recent < ECHO) else Whose.FOREIGN

    def _place(self, index: int) -> int | None:
        """Which of the writes has this number, or must have it where nothing of others' came between."""
        named = bisect_right(self._floor, index) - 1
        if named < 0 or not self._floor[named]:
            return None
        first = bisect_left(self._floor, self._floor[named])
        place = first + index - self._floor[named]
        return place if place <= named else None

    def _is_whole(self, at: int, ring: Ring) -> bool:
        """Whether the log is ours from a write long enough before up to this one. A late ring reaches back further."""
        rang = ring.at if ring.since <= ring.at - WOKEN else ring.since
        before = min(rang, self._times[at]) - max(WOKEN, ring.at - self._times[at])
        base = bisect_right(self._times, before) - 1
        if base < 0 or not self._floor[base]:
            return False
        first = bisect_left(self._floor, self._floor[base])
        return first < at and ring.index - self._floor[first] == at - first
