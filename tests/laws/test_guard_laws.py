"""Law 6: whatever is absent, and however it comes and goes, the quarantine lets no more pass than it may."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from consul_registrar.changes import Cause
from consul_registrar.guard import SETTLE, WINDOW, Absence, Guard, Held, Passes, Terms, Waits
from consul_registrar.model import Key, RegistrationKey

REGISTRATIONS = [RegistrationKey("shop", name) for name in ("web", "api")]
TERMS = st.builds(
    Terms,
    share=st.sampled_from([0.0, 0.1, 0.2, 0.5]),
    at_least=st.integers(1, 5),
    after=st.sampled_from([None, 10.0, 300.0]),
    rate=st.sampled_from([1.0, 10.0]),
)


class Quarantine(RuleBasedStateMachine):
    """A Consul of forty instances of two registrations. Its Pods go missing, come back, and are asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.standing = {Key(REGISTRATIONS[n % 2], f"uid-{n:02}") for n in range(40)}
        self.absent: dict[Key, float] = {}
        self.held: set[Key] = set()
        self.approved: set[Key] = set()
        self.passed: list[float] = []
        self.guard = Guard()

    @rule(terms=TERMS)
    def are_set(self, terms: Terms) -> None:
        self.guard.terms = terms

    @rule(seconds=st.sampled_from([0.1, 1.0, SETTLE, 7.0, WINDOW, 300.0]))
    def time_goes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.standing - self.absent.keys())
    @rule(data=st.data())
    def some_go_missing(self, data: st.DataObject) -> None:
        there = sorted(self.standing - self.absent.keys())
        for key in data.draw(st.lists(st.sampled_from(there), min_size=1, max_size=15, unique=True)):
            self.absent[key] = self.now
            assert self._ask(key) is None

    @precondition(lambda self: self.absent)
    @rule(data=st.data())
    def some_come_back(self, data: st.DataObject) -> None:
        for key in data.draw(st.lists(st.sampled_from(sorted(self.absent)), min_size=1, unique=True)):
            del self.absent[key]
            self.held.discard(key)
            self.approved.discard(key)
            self.guard.withdraw(key)

    @precondition(lambda self: self.absent)
    @rule()
    def all_are_asked_about(self) -> None:
        for key in sorted(self.absent):
            self._ask(key)

    @rule(digest=st.sampled_from(["", "0123456789ab"]))
    def something_else_is_approved(self, digest: str) -> None:
        assert self.guard.approve(digest, self.now) == ()

    @rule()
    def what_is_held_is_approved(self) -> None:
        released = self.guard.approve(self.guard.held().digest, self.now)
        assert set(released) <= self.held
        self.approved |= set(released)

    def _ask(self, key: Key) -> None:
        terms = self.guard.terms
        of_it = sum(k.registration == key.registration for k in self.standing)
        match self.guard.judge(Absence(key, Cause.VANISHED, "pod", 1, of_it, len(self.standing)), self.now):
            case Passes():
                self._passes(key, terms)
            case Held():
                self.held.add(key)
            case Waits(again):
                assert again > 0

    def _passes(self, key: Key, terms: Terms) -> None:
        if key in self.held:
            assert key in self.approved or terms.after is not None
        else:
            assert self.now >= self.absent[key] + SETTLE
            self._may_pass(terms)
            self.passed.append(self.now)
        self.guard.removed(key, self.now)
        self.standing.discard(key)
        del self.absent[key]
        self.held.discard(key)
        self.approved.discard(key)

    def _may_pass(self, terms: Terms) -> None:
        """Together with what passed lately it is few, or a small share."""
        lately = 1 + sum(at >= self.now - WINDOW for at in self.passed)
        assert lately < terms.at_least or lately <= terms.share * (len(self.standing) + lately - 1)

    @invariant()
    def what_is_held_is_absent(self) -> None:
        assert self.guard.holding <= len(self.absent)


def test_no_more_pass_than_may_however_absences_come_and_go() -> None:
    run_state_machine_as_test(Quarantine, settings=settings(max_examples=50, stateful_step_count=30))


@given(st.integers(1, 60), st.integers(0, 60), TERMS)
def test_what_is_absent_at_once_passes_or_is_held_as_a_whole(count: int, others: int, terms: Terms) -> None:
    guard = Guard(terms)
    absences = [
        Absence(Key(REGISTRATIONS[0], str(n)), Cause.UNSELECTED, "pod", 1, count + others, count + others)
        for n in range(count)
    ]
    for each in absences:
        guard.judge(each, 0.0)
    kinds = {type(guard.judge(each, SETTLE)) for each in absences}
    many = count >= terms.at_least and count > terms.share * (count + others)
    all_of_it = count >= terms.at_least and not others
    assert kinds == ({Held} if many or all_of_it else {Passes})
