"""What reaches a store: the sweep, replays, stale lists, restored histories."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consul_registrar.kube.codec import Bookmark, Deleted, Put
from consul_registrar.kube.intake import CONFIRMATIONS, REMEMBERED, Intake, StaleList


@dataclass(frozen=True, slots=True)
class Thing:
    uid: str
    version: int


class Log:
    def __init__(self) -> None:
        self.said: list[str] = []

    def put(self, obj: Thing) -> None:
        self.said.append(f"put {obj.uid}@{obj.version}")

    def remove(self, uid: str) -> None:
        self.said.append(f"remove {uid}")

    def vanished(self, uid: str) -> None:
        self.said.append(f"vanished {uid}")

    def take(self) -> list[str]:
        said, self.said = self.said, []
        return said


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def intake(log: Log) -> Intake[Thing]:
    return Intake(log)


def listed(intake: Intake[Thing], version: int, *things: Thing) -> int:
    listing = intake.begin()
    intake.page(listing, things, version)
    return intake.complete(listing)


def test_a_complete_list_removes_what_it_does_not_show(intake: Intake[Thing], log: Log) -> None:
    listed(intake, 5, Thing("a", 1), Thing("b", 2))
    assert log.take() == ["put a@1", "put b@2"]
    assert listed(intake, 6, Thing("b", 2)) == 1
    assert log.take() == ["vanished a"]


def test_a_partial_list_removes_nothing(intake: Intake[Thing], log: Log) -> None:
    listed(intake, 5, Thing("a", 1), Thing("b", 2))
    log.take()
    broken = intake.begin()
    intake.page(broken, [Thing("b", 2)], 6)
    assert log.take() == []
    assert listed(intake, 7, Thing("a", 1), Thing("b", 2)) == 0


def test_what_came_while_a_list_was_under_way_is_not_swept(intake: Intake[Thing], log: Log) -> None:
    listing = intake.begin()
    intake.page(listing, [], 5)
    intake.take(Put(Thing("new", 6)))
    intake.complete(listing)
    assert log.take() == ["put new@6"]


def test_replays_and_late_events_are_kept_back(intake: Intake[Thing], log: Log) -> None:
    intake.take(Put(Thing("a", 5)))
    intake.take(Put(Thing("a", 5)))
    intake.take(Put(Thing("a", 4)))
    assert log.take() == ["put a@5"]


def test_the_deleted_do_not_come_back_by_a_list_that_began_before(intake: Intake[Thing], log: Log) -> None:
    intake.take(Put(Thing("a", 5)))
    listing = intake.begin()
    intake.take(Deleted("a", 9, deleting=False))
    intake.page(listing, [Thing("a", 5)], 8)
    intake.complete(listing)
    assert log.take() == ["put a@5", "remove a"]


def test_what_a_wrong_list_lacked_comes_back_with_the_next_list_although_unchanged(
    intake: Intake[Thing], log: Log
) -> None:
    listed(intake, 5, Thing("a", 1), Thing("b", 2))
    log.take()
    assert listed(intake, 9) == 2
    assert sorted(log.take()) == ["vanished a", "vanished b"]
    listed(intake, 9, Thing("a", 1), Thing("b", 2))
    assert log.take() == ["put a@1", "put b@2"]


def test_what_vanished_does_not_come_back_by_a_late_event(intake: Intake[Thing], log: Log) -> None:
    listed(intake, 5, Thing("a", 1))
    listed(intake, 9)
    log.take()
    intake.take(Put(Thing("a", 1)))
    assert log.take() == []


def test_leaving_a_selector_is_absence_unless_it_is_terminating(log: Log) -> None:
    intake = Intake(log, selective=True)
    for uid in "ab":
        intake.take(Put(Thing(uid, 1)))
    log.take()
    intake.take(Deleted("a", 2, deleting=False))
    intake.take(Deleted("b", 3, deleting=True))
    intake.take(Put(Thing("a", 4)))
    assert log.take() == ["vanished a", "remove b", "put a@4"]


def test_a_list_older_than_what_was_known_is_refused_whole(intake: Intake[Thing], log: Log) -> None:
    listed(intake, 5, Thing("a", 1))
    intake.take(Bookmark(100))
    log.take()
    with pytest.raises(StaleList):
        listed(intake, 50, Thing("b", 40))
    assert log.take() == []


def test_events_that_overtake_a_list_do_not_make_it_stale(intake: Intake[Thing]) -> None:
    listing = intake.begin()
    intake.take(Put(Thing("a", 100)))
    intake.page(listing, [Thing("b", 40)], 99)
    assert intake.complete(listing) == 0


def test_a_history_that_stays_lower_is_believed_at_last(intake: Intake[Thing], log: Log) -> None:
    listed(intake, 100, Thing("stays", 90), Thing("lost", 95))
    log.take()
    for _ in range(CONFIRMATIONS - 1):
        with pytest.raises(StaleList):
            listed(intake, 50, Thing("stays", 40))
    assert listed(intake, 50, Thing("stays", 40)) == 1
    assert log.take() == ["put stays@40", "vanished lost"]
    intake.take(Put(Thing("stays", 51)))
    assert log.take() == ["put stays@51"]


def test_one_good_list_between_stale_ones_ends_the_doubt(intake: Intake[Thing]) -> None:
    listed(intake, 100, Thing("a", 1))
    for _ in range(CONFIRMATIONS):
        with pytest.raises(StaleList):
            listed(intake, 50)
        listed(intake, 100, Thing("a", 1))
    assert len(intake) == 1


def test_what_left_is_not_remembered_for_ever(intake: Intake[Thing]) -> None:
    for number in range(REMEMBERED + 10):
        intake.take(Deleted(str(number), number + 1, deleting=False))
    assert len(intake._left) == REMEMBERED


_UIDS = st.sampled_from("abc")
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _UIDS),
        st.tuples(st.just("delete"), _UIDS),
        st.tuples(st.just("list"), st.just("")),
        st.tuples(st.just("late list"), st.just("")),
    ),
    max_size=40,
)


@given(_STEPS)
def test_after_any_history_a_complete_list_makes_the_store_true(steps: list[tuple[str, str]]) -> None:
    """The watch may lose any event; lists may begin before events that overtake them."""
    held: dict[str, int] = {}
    truth: dict[str, int] = {}
    generation = dict.fromkeys("abc", 0)

    class Holder:
        def put(self, obj: Thing) -> None:
            held[obj.uid] = obj.version

        def remove(self, uid: str) -> None:
            held.pop(uid, None)

        vanished = remove

    intake: Intake[Thing] = Intake(Holder())
    clock = 0
    for step, name in steps:
        clock += 1
        uid = f"{name}{generation[name]}" if name else ""
        match step:
            case "put":
                truth[uid] = clock
                intake.take(Put(Thing(uid, clock)))
            case "delete" if uid in truth:  # the watch loses it; a UID never comes back
                del truth[uid]
                generation[name] += 1
            case "late list":
                listing, snapshot, at = intake.begin(), dict(truth), clock
                for gone in list(truth)[:1]:
                    clock += 1
                    del truth[gone]
                    generation[gone[0]] += 1
                    intake.take(Deleted(gone, clock, deleting=False))
                intake.page(listing, [Thing(*item) for item in snapshot.items()], at)
                intake.complete(listing)
            case "list":
                listed(intake, clock, *(Thing(*item) for item in truth.items()))
    listed(intake, clock, *(Thing(*item) for item in truth.items()))
    assert held == truth
