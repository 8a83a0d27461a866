"""When a removal by absence passes, waits or is held. Time is a number here."""

import pytest

from consul_registrar.changes import Cause
from consul_registrar.guard import NOTHING, SETTLE, WINDOW, Absence, Guard, Held, Judgement, Passes, Terms, Waits
from consul_registrar.model import Key, RegistrationKey

WEB, API = RegistrationKey("shop", "web"), RegistrationKey("shop", "api")


def absence(
    number: int,
    registration: RegistrationKey = WEB,
    *,
    cause: Cause = Cause.VANISHED,
    instances: int = 1,
    subjects: int = 1000,
    standing: int = 100,
) -> Absence:
    key = Key(registration, f"uid-{number:03}")
    return Absence(key, cause, f"pod-{number}", instances, subjects, standing)


def judged(guard: Guard, absences: list[Absence], now: float = 0.0) -> list[Judgement]:
    """All of them are noticed at `now`, and asked about again once that has settled."""
    for each in absences:
        assert isinstance(guard.judge(each, now), Waits)
    return [guard.judge(each, now + SETTLE) for each in absences]


def are_held(judgements: list[Judgement]) -> bool:
    kinds = {type(judgement) for judgement in judgements}
    assert len(kinds) == 1
    return kinds == {Held}


def test_an_absence_waits_until_what_belongs_to_it_has_arrived() -> None:
    guard = Guard()
    assert guard.judge(absence(1), 10.0) == Waits(SETTLE)
    assert guard.judge(absence(1), 11.0) == Waits(pytest.approx(SETTLE - 1.0))
    assert guard.judge(absence(1), 10.0 + SETTLE) == Passes()


@pytest.mark.parametrize(
    ("count", "standing", "held"),
    [
        (1, 1, False),
        (2, 2, False),  # never fewer than three
        (3, 3, True),
        (3, 14, True),
        (3, 15, False),  # 20% exactly is not more than 20%
        (20, 100, False),
        (21, 100, True),
        (10_000, 10_000, True),
    ],
)
def test_more_than_a_share_of_all_instances_and_at_least_so_many_are_held(
    count: int, standing: int, held: bool
) -> None:
    assert are_held(judged(Guard(), [absence(n, standing=standing) for n in range(count)])) is held


@pytest.mark.parametrize(
    ("terms", "held"),
    [
        (Terms(share=0.05, at_least=1), True),
        (Terms(share=0.05, at_least=7), False),
        (Terms(share=0.06, at_least=1), False),
        (Terms(share=0.0, at_least=6), True),
        (Terms(share=1.0, at_least=1), False),
    ],
)
def test_share_and_number_are_the_connections(terms: Terms, held: bool) -> None:
    assert are_held(judged(Guard(terms), [absence(n) for n in range(6)])) is held


@pytest.mark.parametrize(
    ("count", "subjects", "cause", "held"),
    [
        (3, 3, Cause.UNSELECTED, True),
        (2, 2, Cause.UNSELECTED, False),
        (3, 4, Cause.UNSELECTED, False),
        (3, 3, Cause.VANISHED, False),  # its Pods don't live
    ],
)
def test_an_edit_that_would_take_all_instances_of_a_registration_is_held_whatever_their_share(
    count: int, subjects: int, cause: Cause, held: bool
) -> None:
    absences = [absence(n, cause=cause, subjects=subjects, standing=10_000) for n in range(count)]
    assert are_held(judged(Guard(), absences)) is held


def test_each_registration_is_counted_for_itself_when_an_edit_takes_all() -> None:
    of_two = [
        absence(n, each, cause=Cause.UNSELECTED, subjects=2, standing=10_000) for each in (WEB, API) for n in (1, 2)
    ]
    assert not are_held(judged(Guard(), of_two))


def test_a_pod_with_several_instances_weighs_as_many() -> None:
    assert are_held(judged(Guard(), [absence(n, instances=3, standing=10) for n in range(1)]))


def test_many_small_steps_are_seen_as_one_large_one() -> None:
    guard, standing, moment, removed = Guard(), 100, 0.0, 0
    while not are_held(judged(guard, [absence(removed, standing=standing)], moment)):
        guard.removed(absence(removed).key, moment + SETTLE)
        standing, removed, moment = standing - 1, removed + 1, moment + 2.0
    assert removed == 20


def test_what_was_removed_long_ago_does_not_count() -> None:
    guard = Guard()
    for number in range(100):
        moment = number * (WINDOW / 10)
        assert not are_held(judged(guard, [absence(number, standing=100 - number)], moment)), number
        guard.removed(absence(number).key, moment + SETTLE)
        if number == 40:
            break


def test_what_is_withdrawn_does_not_count() -> None:
    guard = Guard()
    back = [absence(n) for n in range(20)]
    judged(guard, back)
    for each in back:
        guard.withdraw(each.key)
    assert not are_held(judged(guard, [absence(n) for n in range(20, 40)], 3.0))


def test_what_is_held_stays_held_although_others_come_back() -> None:
    guard = Guard()
    absences = [absence(n) for n in range(30)]
    judged(guard, absences)
    for each in absences[1:]:
        guard.withdraw(each.key)
    assert isinstance(guard.judge(absences[0], 10.0), Held)


def test_what_comes_later_joins_what_is_held() -> None:
    guard = Guard()
    judged(guard, [absence(n) for n in range(30)])
    assert are_held(judged(guard, [absence(31)], 20.0))
    assert guard.held().subjects == 31


# --- release --------------------------------------------------------------------------------------------------------


def test_what_is_held_says_when_that_ends() -> None:
    guard = Guard(Terms(after=300.0))
    absences = [absence(n) for n in range(30)]
    judged(guard, absences)
    assert guard.judge(absences[0], SETTLE + 100.0) == Held(200.0)


def test_after_its_time_it_is_drained_at_the_set_rate() -> None:
    guard = Guard(Terms(after=300.0, rate=2.0))
    absences = [absence(n) for n in range(30)]
    judged(guard, absences)
    due = SETTLE + 300.0
    answers = [guard.judge(each, due) for each in absences]
    assert answers[0] == Passes()
    assert [a.again for a in answers if isinstance(a, Waits)] == [pytest.approx(0.5 * n) for n in range(1, 30)]
    assert guard.held() == NOTHING
    assert guard.judge(absences[3], due + 1.5) == Passes()
    assert isinstance(guard.judge(absences[4], due + 1.5), Waits)


def test_what_is_drained_does_not_hold_others() -> None:
    guard = Guard(Terms(after=10.0))
    absences = [absence(n) for n in range(30)]
    judged(guard, absences)
    for each in absences:
        guard.judge(each, 20.0)
        guard.removed(each.key, 20.0)
    assert not are_held(judged(guard, [absence(31, standing=70)], 30.0))


def test_released_manually_it_waits_for_ever_for_an_approval() -> None:
    guard = Guard(Terms(after=None))
    absences = [absence(n) for n in range(30)]
    judged(guard, absences)
    assert guard.judge(absences[0], 1e9) == Held(None)
    released = guard.approve(guard.held().digest, 1e9)
    assert set(released) == {each.key for each in absences}
    assert sum(isinstance(guard.judge(each, 1e9), Passes) for each in absences) == 1
    assert all(isinstance(guard.judge(each, 1e9 + 60), Passes) for each in absences)


def test_an_approval_names_exactly_what_is_held() -> None:
    guard = Guard(Terms(after=None))
    judged(guard, [absence(n) for n in range(30)])
    digest = guard.held().digest
    judged(guard, [absence(31)], 10.0)
    assert guard.held().digest != digest
    assert guard.approve(digest, 20.0) == ()
    assert guard.approve("", 20.0) == ()
    assert guard.held().subjects == 31


def test_an_approval_of_nothing_approves_nothing() -> None:
    assert Guard().approve("", 0.0) == ()
    assert Guard().held() == NOTHING


def test_the_hash_depends_on_the_subjects_alone() -> None:
    one, other = Guard(), Guard()
    judged(one, [absence(n) for n in range(30)])
    judged(other, [absence(n) for n in reversed(range(30))], 7.0)
    assert one.held().digest == other.held().digest


def test_terms_that_change_hold_at_once() -> None:
    guard = Guard(Terms(after=None))
    absences = [absence(n) for n in range(30)]
    judged(guard, absences)
    guard.terms = Terms(after=60.0)
    assert guard.judge(absences[0], 100.0) == Passes()


def test_who_changes_to_manual_stops_what_time_has_released() -> None:
    guard = Guard(Terms(after=60.0, rate=1.0))
    absences = [absence(n) for n in range(30)]
    judged(guard, absences)
    assert [type(guard.judge(each, 100.0)) for each in absences[:2]] == [Passes, Waits]
    guard.terms = Terms(after=None)
    assert guard.judge(absences[1], 200.0) == Held(None)
    assert guard.held().subjects == 29  # one is on its way
    released = guard.approve(guard.held().digest, 200.0)
    guard.terms = Terms(after=1e9)
    assert len(released) == 29
    assert guard.judge(absences[1], 200.0) == Passes()


def test_only_the_first_to_be_held_are_worth_a_fresh_read() -> None:
    guard = Guard()
    absences = [absence(n) for n in range(30)]
    probes = [j for j in judged(guard, absences) if isinstance(j, Held) and j.probe]
    assert len(probes) == 3
    again = guard.judge(absences[0], 5.0)
    assert isinstance(again, Held)
    assert not again.probe


def test_a_few_of_what_is_held_are_shown_by_name() -> None:
    guard = Guard()
    judged(guard, [absence(n) for n in range(30)])
    assert guard.held().shown[0] == "shop/web: pod-0"
    assert len(guard.held().shown) == 10
