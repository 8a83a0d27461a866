"""Counts that are kept as outcomes change are those that a fresh count gives."""

import json
from dataclasses import asdict, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from consul_registrar.model import Health
from consul_registrar.tally import Counts, Finding, Outcome, Tally
from unit.core.build import reason

CONSULS, SUBJECTS = st.sampled_from(["a", "b"]), st.sampled_from([f"u{i}" for i in range(4)])
OUTCOMES = st.builds(
    Outcome,
    name=st.sampled_from(["web-1", "web-2"]),
    desired=st.booleans(),
    registered=st.booleans(),
    health=st.none() | st.sampled_from(Health),
    reason=st.none() | st.sampled_from([reason("A", "a"), reason("B", "b")]),
    problem=st.booleans(),
    withheld=st.booleans(),
)


class Tallies(RuleBasedStateMachine):
    """A tally beside a plain dictionary of the same outcomes."""

    def __init__(self) -> None:
        super().__init__()
        self.tally = Tally()
        self.known: dict[tuple[str, str], Outcome] = {}
        self.awaited: set[tuple[str, str]] = set()

    @rule(consul=CONSULS, subject=SUBJECTS, outcome=st.none() | OUTCOMES, late=st.booleans())
    def put(self, consul: str, subject: str, outcome: Outcome | None, *, late: bool) -> None:
        """`late`: it was decided upon before all were awaited anew, so it isn't the one that is awaited."""
        where = (consul, subject)
        news = (where in self.awaited and not late) or self.known.get(where) != outcome
        if not late:
            self.awaited.discard(where)
        self.known.pop(where, None)
        if outcome is not None:
            self.known[where] = outcome
        assert self.tally.put(consul, subject, outcome, self.tally.edition - late) is news
        assert self.tally.outcome(consul, subject) == outcome

    @rule(consul=CONSULS, subject=SUBJECTS)
    def expect(self, consul: str, subject: str) -> None:
        self.tally.expect(consul, subject)
        if (consul, subject) not in self.known:
            self.awaited.add((consul, subject))

    @rule()
    def renew(self) -> None:
        self.tally.renew()
        self.awaited |= self.known.keys()

    @rule(consul=CONSULS, subject=SUBJECTS, late=st.booleans())
    def stands(self, consul: str, subject: str, *, late: bool) -> None:
        where = (consul, subject)
        known = where in self.awaited and where in self.known and not late
        assert self.tally.stands(consul, subject, self.tally.edition - late) is known
        if known:
            self.awaited.discard(where)

    @invariant()
    def counts_like_a_fresh_count(self) -> None:
        fresh = Tally()
        for (consul, subject), outcome in sorted(self.known.items(), key=lambda item: item[0]):
            fresh.put(consul, subject, outcome, 0)
        assert json.dumps(asdict(self.tally.summary())) == json.dumps(asdict(fresh.summary()))
        assert self.tally.awaited == len(self.awaited)
        assert self.tally.subjects() == {subject for _, subject in self.known.keys() | self.awaited}
        assert self.tally.connections() == {consul for consul, _ in self.known.keys() | self.awaited}

    @invariant()
    def counts_what_a_person_would(self) -> None:
        total, outcomes = self.tally.summary().total, list(self.known.values())
        assert total.desired == sum(o.desired for o in outcomes)
        assert total.registered == sum(o.registered for o in outcomes)
        assert total.critical == sum(o.registered and o.health is Health.CRITICAL for o in outcomes)
        assert total.withheld == sum(o.withheld for o in outcomes)
        assert sum(self.tally.summary().problems.values()) == sum(o.problem and o.reason is not None for o in outcomes)


TestTallies = Tallies.TestCase
TestTallies.settings = settings(max_examples=60, stateful_step_count=20)


def test_nothing_is_counted_of_nothing() -> None:
    summary = Tally().summary()
    assert (summary.consuls, summary.total, summary.subjects, summary.worst) == ({}, Counts(), 0, ())


def test_the_worst_ten_are_problems_first_then_by_name() -> None:
    tally = Tally()
    for i in range(12):
        tally.put("a", f"u{i}", Outcome(f"web-{i:02}", True, False, None, reason("P"), problem=i % 2 == 1), 0)
    odd = [f"web-{i:02}" for i in range(1, 12, 2)]
    even = [f"web-{i:02}" for i in range(0, 12, 2)]
    assert [finding.name for finding in tally.summary().worst] == (odd + even)[:10]


def test_findings_of_one_name_keep_their_order_whichever_came_last() -> None:
    tally = Tally()
    outcomes = {consul: Outcome("web-1", True, False, None, reason(consul), problem=True) for consul in "ab"}
    for consul in "abab"[::-1]:
        tally.put(consul, "u", outcomes[consul], 0)
        tally.put("b", "u", outcomes["b"], 0)
    assert tally.summary().worst == (Finding("web-1", reason("a")), Finding("web-1", reason("b")))
    tally.put("a", "u", outcomes["a"], 0)
    assert tally.summary().worst == (Finding("web-1", reason("a")), Finding("web-1", reason("b")))


@given(st.lists(st.tuples(CONSULS, SUBJECTS, OUTCOMES)))
def test_what_is_taken_back_leaves_nothing(puts: list[tuple[str, str, Outcome]]) -> None:
    tally = Tally()
    for consul, subject, outcome in puts:
        tally.put(consul, subject, outcome, 0)
    for consul, subject, _ in puts:
        tally.put(consul, subject, None, 0)
    assert tally.summary() == Tally().summary()


def test_an_outcome_that_is_no_news_still_tells_what_was_asked_for_last() -> None:
    tally, said = Tally(), Outcome("web-1", desired=True, registered=True, asked=1)
    tally.put("a", "u", said, 0)
    assert not tally.put("a", "u", replace(said, asked=2), 0)
    found = tally.outcome("a", "u")
    assert found is not None
    assert found.asked == 2
