"""How a registration stands: the outcome of each of its subjects, and counts that are kept as outcomes change.

Decides what is counted; what is said of the counts is decided in `conditions.py`. Setting one outcome costs the same
however many there are.
"""

from collections import Counter
from dataclasses import dataclass, field
from heapq import nsmallest

from consul_registrar.model import Health, Reason

_WORST = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one subject in one Consul.

    `reason`: why it is not (yet) as it should be; `problem`: somebody must do something about it. `withheld`: a change
    is known but not written, since the registration is suspended or the connection's policy says so.
    """

    name: str
    desired: bool
    registered: bool
    health: Health | None = None
    reason: Reason | None = None
    problem: bool = False
    withheld: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of instances in one Consul."""

    desired: int = 0
    registered: int = 0
    passing: int = 0
    warning: int = 0
    critical: int = 0
    withheld: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One subject that is not as it should be."""

    name: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Summary:
    """All that status says of a registration's subjects. `problems` and `reasons` count by reason code."""

    consuls: dict[str, Counts]
    subjects: int
    reasons: dict[str, int]
    problems: dict[str, int]
    worst: tuple[Finding, ...]

    @property
    def total(self) -> Counts:
        """The counts over all Consuls."""
        every = list(self.consuls.values())
        return Counts(*(sum(getattr(c, name) for c in every) for name in Counts.__slots__))


@dataclass(slots=True)
class Tally:
    """The outcomes of one registration. `unknown`: subjects whose outcome is still awaited."""

    unknown: set[tuple[str, str]] = field(default_factory=set)
    _outcomes: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    _counts: dict[str, Counter[str]] = field(default_factory=dict)
    _reasons: Counter[str] = field(default_factory=Counter)
    _problems: Counter[str] = field(default_factory=Counter)
    _findings: dict[tuple[str, str], Outcome] = field(default_factory=dict)

    def expect(self, connection: str, subject: str) -> None:
        """An outcome will come: until then the counts are not the whole truth."""
        if (connection, subject) not in self._outcomes:
            self.unknown.add((connection, subject))

    def renew(self) -> None:
        """All outcomes are of the past: await each anew."""
        self.unknown |= self._outcomes.keys()

    def stands(self, connection: str, subject: str) -> bool:
        """The last outcome still holds, as far as anybody knows. Whether it was awaited."""
        key = (connection, subject)
        awaited = key in self.unknown and key in self._outcomes
        if awaited:
            self.unknown.discard(key)
        return awaited

    def outcome(self, connection: str, subject: str) -> Outcome | None:
        """The last outcome of a subject."""
        return self._outcomes.get((connection, subject))

    def put(self, connection: str, subject: str, outcome: Outcome | None) -> bool:
        """Set an outcome, None: there is nothing (any more). Whether that changes anything."""
        key = (connection, subject)
        awaited = key in self.unknown
        self.unknown.discard(key)
        before = self._outcomes.pop(key, None)
        if before is not None:
            self._add(key, before, -1)
        if outcome is not None:
            self._outcomes[key] = outcome
            self._add(key, outcome, +1)
        return awaited or before != outcome

    def subjects(self) -> set[str]:
        """The subjects for which there is an outcome, or will be."""
        return {subject for _, subject in self._outcomes.keys() | self.unknown}

    def connections(self) -> set[str]:
        """The Consuls for which there are outcomes, or will be."""
        return {*self._counts, *(connection for connection, _ in self.unknown)}

    def summary(self) -> Summary:
        """The counts as they are now."""
        worst = nsmallest(_WORST, self._findings.items(), key=lambda f: (not f[1].problem, f[1].name, f[0]))
        return Summary(
            consuls={name: _frozen(counts) for name, counts in sorted(self._counts.items())},
            subjects=len({subject for _, subject in self._outcomes}),
            reasons=dict(sorted((+self._reasons).items())),
            problems=dict(sorted((+self._problems).items())),
            worst=tuple(Finding(o.name, o.reason) for _, o in worst if o.reason is not None),
        )

    def _add(self, key: tuple[str, str], outcome: Outcome, by: int) -> None:
        counts = self._counts.setdefault(key[0], Counter())
        counts["subjects"] += by
        counts["desired"] += by * outcome.desired
        counts["registered"] += by * outcome.registered
        counts["withheld"] += by * outcome.withheld
        if outcome.registered and outcome.health is not None:
            counts[outcome.health.value] += by
        if outcome.reason is not None:
            self._reasons[outcome.reason.code] += by
            self._problems[outcome.reason.code] += by * outcome.problem
        if by > 0 and outcome.reason is not None:
            self._findings[key] = outcome
        else:
            self._findings.pop(key, None)
        if not counts["subjects"]:
            del self._counts[key[0]]


def _frozen(counts: Counter[str]) -> Counts:
    return Counts(*(counts[name] for name in Counts.__slots__))
