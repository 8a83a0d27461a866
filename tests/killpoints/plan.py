"""Kills a program right before and right after each of its external writes, one run for each.

    points = rehearse(stage, scenario())                 # plays it once, and finds the writes
    for point in points:                                 # two for each write
        play(stage, scenario(), point)                   # kills at the point, starts again, waits until all is well

"Before": the request is held and never forwarded. "After": it is forwarded and applied, and the answer is withheld.
A point is named by the write's class and its number in that class, counted from the beginning of the run, since the
order among classes is not the same in every run. A run may have fewer writes of a class than the rehearsal: such a
point is not reached, and `play` says so.

What is started and killed is a `Subject`; what it is meant to bring about is the scenario's to say.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from killpoints.calls import Match
from killpoints.network import Call, Network


class Subject(Protocol):
    """The program under test."""

    def start(self) -> None:
        """Start it; returns when it works."""

    def kill(self) -> None:
        """End it by SIGKILL; returns when it has ended. Called from the network's thread."""


class Scenario(Protocol):
    """A story in steps. After each of them the world becomes `wrong` in nothing, or the subject has failed."""

    @property
    def steps(self) -> Sequence[Callable[[], object]]: ...

    def wrong(self) -> Sequence[str]:
        """What is not as it should be after the steps so far."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where to kill: before or after the so-manieth write of a class."""

    kind: str
    number: int
    when: Literal["before", "after"]

    def __str__(self) -> str:
        return f"{self.when} {self.kind} {self.number}"


@dataclass(frozen=True, slots=True)
class Stage:
    """What a play needs. `counts`: which requests are the external writes; `quiet`: for how many seconds there must be
    none before a step is over; `revive`: what is done between death and restart; `within`: seconds for each step.
    """

    network: Network
    subject: Subject
    counts: Match
    quiet: float = 1.3
    revive: Callable[[], None] = lambda: None
    within: float = 60.0


def rehearse(stage: Stage, scenario: Scenario) -> list[Point]:
    """Play the scenario without any fault; returns the points, two for each write that was seen."""
    _play(stage, scenario, None)
    writes = [(entry.request.kind, entry.number) for entry in stage.network.journal.of(stage.counts)]
    return [Point(kind, number, when) for kind, number in writes for when in ("before", "after")]


def play(stage: Stage, scenario: Scenario, point: Point) -> bool:
    """Play it and kill the subject at the point; says whether the point was reached. Raises AssertionError."""
    trap = _Trap(stage.subject, point)
    matches: Match = lambda request: stage.counts(request) and request.kind == point.kind  # noqa: E731
    rule = stage.network.inject(matches, trap.spring, skip=point.number)
    try:
        _play(stage, scenario, trap)
    finally:
        stage.network.remove(rule)
    return trap.sprung > 0


def _play(stage: Stage, scenario: Scenario, trap: "_Trap | None") -> None:
    stage.network.journal.clear()
    for step in scenario.steps:
        step()
        _settle(stage, scenario, trap)


def _settle(stage: Stage, scenario: Scenario, trap: "_Trap | None") -> None:
    """Until all is right and nothing more is written; the subject is started again when it was killed."""
    deadline, began = time.monotonic() + stage.within, 0.0
    while True:
        if trap is not None and trap.take():
            stage.revive()
            stage.subject.start()
            began = time.monotonic()
        wrong = scenario.wrong()
        if not wrong and time.monotonic() - max(began, _last_write(stage)) >= stage.quiet:
            return
        assert time.monotonic() < deadline, f"killed {trap.point if trap else 'never'}: {wrong or 'never quiet'}"
        time.sleep(0.05)


def _last_write(stage: Stage) -> float:
    writes = stage.network.journal.of(stage.counts)
    return writes[-1].at if writes else 0.0


@dataclass
class _Trap:
    """Kills in the network's own thread, so that nothing comes between the write and the death."""

    subject: Subject
    point: Point
    sprung: int = 0
    _taken: int = 0

    async def spring(self, call: Call) -> None:
        if self.point.when == "after":
            await call.forward()
        self.subject.kill()
        self.sprung += 1
        raise call.reset()

    def take(self) -> bool:
        """Whether it has sprung since the last time it was asked."""
        taken, self._taken = self._taken, self.sprung
        return self.sprung > taken
