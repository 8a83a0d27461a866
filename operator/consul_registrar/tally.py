"""How a registration stands: the outcome of each of its subjects, and counts that are kept as outcomes change.

Decides what is counted; what is said of the counts is decided in `conditions.py`. Setting one outcome costs the same
however many there are.
"""

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from heapq import nsmallest

from consul_registrar.model import Health, Reason
from consul_registrar.values import record

_WORST = 10


@record(frozen=True, slots=True)
class Outcome:
    """What became of one subject in one Consul.

    `reason`: why it is not (yet) as it should be; `problem`: somebody must do something about it. `withheld`: a change
    is known but not written, since the registration is suspended or the connection's policy says so. `asked`: tells
    what was asked for from anything else (`causes.asked`); it is no news of its own.
    """

    name: str
    desired: bool
    registered: bool
    health: Health | None = None
    reason: Reason | None = None
    problem: bool = False
    withheld: bool = False
    asked: int = field(default=0, compare=False)


@record(frozen=True, slots=True)
class Counts:
    """Counts of instances in one Consul."""

    desired: int = 0
    registered: int = 0
    passing: int = 0
    warning: int = 0
    critical: int = 0
    withheld: int = 0


@record(frozen=True, slots=True)
class Finding:
    """One subject that is not as it should be."""

    name: str
    reason: Reason


@record(frozen=True, slots=True)
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
class _InConsul:
    """The outcomes in one Consul by subject, the subjects whose outcome is still awaited, and counts of them."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    awaited: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)

    def __bool__(self) -> bool:
        return bool(self.outcomes or self.awaited)

    def count(self, outcome: Outcome, by: int) -> None:
        self.counts["desired"] += by * outcome.desired
        self.counts["registered"] += by * outcome.registered
        self.counts["withheld"] += by * outcome.withheld
        if outcome.registered and outcome.health is not None:
            self.counts[outcome.health.value] += by


@dataclass(slots=True)
class Tally:
    """The outcomes of one registration."""

    _consuls: dict[str, _InConsul] = field(default_factory=dict)
    _reasons: Counter[str] = field(default_factory=Counter)
    _problems: Counter[str] = field(default_factory=Counter)
    _findings: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    edition: int = 0
    """How often all outcomes were awaited anew: one that was decided on before that is not what is awaited."""

    @property
    def awaited(self) -> int:
        """How many outcomes are still awaited."""
        return sum(len(each.awaited) for each in self._consuls.values())

    def expect(self, connection: str, subject: str) -> None:
        """An outcome will come: until then the counts are not the whole truth."""
        there = self._in(connection)
        if subject not in there.outcomes:
            there.awaited.add(subject)

    def _in(self, connection: str) -> _InConsul:
        there = self._consuls.get(connection)
        if there is None:
            there = self._consuls[connection] = _InConsul()
        return there

    def renew(self) -> None:
        """All outcomes are of the past: await each anew."""
        self.edition += 1
        for there in self._consuls.values():
            there.awaited |= there.outcomes.keys()

    def stands(self, connection: str, subject: str, edition: int) -> bool:
        """The last outcome still holds, as was found in this edition. Whether it was awaited."""
        there = self._consuls.get(connection)
        known = there is not None and subject in there.awaited and subject in there.outcomes
        awaited = known and edition == self.edition
        if there is not None and awaited:
            there.awaited.discard(subject)
        return awaited

    def outcome(self, connection: str, subject: str) -> Outcome | None:
        """The last outcome of a subject."""
        there = self._consuls.get(connection)
        return there.outcomes.get(subject) if there else None

    def put(self, connection: str, subject: str, outcome: Outcome | None, edition: int) -> bool:
        """Set an outcome, None: there is nothing (any more). Whether that changes anything.

        `edition`: that in which it was decided upon; it is counted anyhow, and still awaited if there is a newer one.
        """
        there = self._in(connection)
        awaited = subject in there.awaited and edition == self.edition
        if awaited:
            there.awaited.discard(subject)
        before = there.outcomes.get(subject)
        if before != outcome:
            self._exchange(there, (connection, subject), before, outcome)
        elif outcome is not None:
            there.outcomes[subject] = outcome  # the same, but for what was asked
        if not there:
            del self._consuls[connection]
        return awaited or before != outcome

    def subjects(self) -> set[str]:
        """The subjects for which there is an outcome, or will be."""
        return {subject for there in self._consuls.values() for subject in there.outcomes.keys() | there.awaited}

    def connections(self) -> AbstractSet[str]:
        """The Consuls for which there are outcomes, or will be."""
        return self._consuls.keys()

    def summary(self) -> Summary:
        """The counts as they are now."""
        worst = nsmallest(_WORST, self._findings.items(), key=lambda f: (not f[1].problem, f[1].name, f[0]))
        known = {name: there for name, there in sorted(self._consuls.items()) if there.outcomes}
        return Summary(
            consuls={name: _frozen(there.counts) for name, there in known.items()},
            subjects=_distinct([there.outcomes.keys() for there in known.values()]),
            reasons=dict(sorted((+self._reasons).items())),
            problems=dict(sorted((+self._problems).items())),
            worst=tuple(Finding(o.name, o.reason) for _, o in worst if o.reason is not None),
        )

    def _exchange(
        self, there: _InConsul, key: tuple[str, str], before: Outcome | None, outcome: Outcome | None
    ) -> None:
        there.outcomes.pop(key[1], None)
        self._findings.pop(key, None)
        if before is not None:
            there.count(before, -1)
            self._explain(before, -1)
        if outcome is not None:
            there.outcomes[key[1]] = outcome
            there.count(outcome, +1)
            self._explain(outcome, +1)
        if outcome is not None and outcome.reason is not None:
            self._findings[key] = outcome

    def _explain(self, outcome: Outcome, by: int) -> None:
        if outcome.reason is not None:
            self._reasons[outcome.reason.code] += by
            self._problems[outcome.reason.code] += by * outcome.problem


def _distinct(subjects: Sequence[AbstractSet[str]]) -> int:
    return len(subjects[0]) if len(subjects) == 1 else len(frozenset().union(*subjects))


def _frozen(counts: Counter[str]) -> Counts:
    return Counts(*(counts[name] for name in Counts.__slots__))
