"""Whether a change that Consul tells of can only be ours: by counting in its log."""

import random

from hypothesis import given
from hypothesis import strategies as st

from consul_registrar.consul.own_writes import ECHO, KEPT, WOKEN, OwnWrites, Ring, Whose

LONG_AGO = -100.0


def written(*writes: tuple[int, str, float]) -> OwnWrites:
    """Transactions: the number that was told (0: none), the node, when."""
    own = OwnWrites()
    for index, node, at in writes:
        own.wrote(index, [node], at, own.highest)
    return own


def ring(node: str, index: int, at: float, since: float = LONG_AGO, *, exact: bool = True) -> Ring:
    return Ring(node, index, since, at, exact)


def test_what_follows_on_our_last_write_is_ours() -> None:
    own = written((100, "a", 0.5), (101, "b", 1.0))
    assert own.whose(ring("b", 101, 1.01)) is Whose.OURS


def test_a_removal_is_ours_where_nothing_else_fits_between() -> None:
    own = written((100, "a", 0.5), (0, "b", 1.0), (102, "a", 1.05))
    assert own.whose(ring("b", 101, 1.06)) is Whose.OURS


def test_so_is_one_that_nothing_followed_yet() -> None:
    own = written((100, "a", 0.5), (0, "b", 1.0))
    assert own.whose(ring("b", 101, 1.01)) is Whose.OURS
    assert own.whose(ring("b", 102, 1.01)) is Whose.MIXED


def test_a_number_that_we_were_not_told_is_not_that_of_another_nodes_removal() -> None:
    own = written((100, "", 0.5), (0, "b", 1.0))
    assert own.whose(ring("a", 101, 1.01)) is Whose.FOREIGN


def test_what_stands_between_may_hide_something() -> None:
    own = written((100, "a", 0.5), (102, "b", 1.0))
    assert own.whose(ring("b", 102, 1.01)) is Whose.MIXED


def test_what_was_long_before_would_have_rung() -> None:
    own = written((100, "a", 0.5), (105, "c", 1.0), (106, "b", 1.0 + 2 * WOKEN))
    assert own.whose(ring("b", 106, 1.01 + 2 * WOKEN)) is Whose.OURS


def test_while_nobody_waited_nothing_would_have_rung() -> None:
    own = written((100, "a", 0.5), (105, "c", 1.0), (106, "b", 1.0 + 1.2 * WOKEN))
    at = 1.0 + 1.3 * WOKEN
    assert own.whose(ring("b", 106, at)) is Whose.OURS
    assert own.whose(ring("b", 106, at, since=1.0 + 0.5 * WOKEN)) is Whose.MIXED


def test_the_later_a_ring_the_further_back_it_may_have_missed_something() -> None:
    own = written((100, "a", 0.5), (105, "c", 1.0), (106, "b", 1.0 + 2 * WOKEN))
    assert own.whose(ring("b", 106, 1.0 + 5 * WOKEN)) is Whose.MIXED


def test_an_index_that_we_never_wrote_is_somebody_elses() -> None:
    own = written((100, "a", 0.5), (101, "b", 1.0))
    assert own.whose(ring("b", 102, 1.01)) is Whose.FOREIGN


def test_an_index_that_is_not_the_nodes_own_says_less() -> None:
    own = written((100, "a", 0.5), (101, "b", 1.0))
    assert own.whose(ring("b", 102, 1.01, exact=False)) is Whose.MIXED
    assert own.whose(ring("b", 102, 1.01 + ECHO, exact=False)) is Whose.FOREIGN
    assert own.whose(ring("c", 102, 1.01, exact=False)) is Whose.FOREIGN


def test_our_first_write_may_not_be_alone() -> None:
    own = written((100, "a", 0.5))
    assert own.whose(ring("a", 100, 0.51)) is Whose.MIXED
    assert OwnWrites().whose(ring("a", 100, 0.51)) is Whose.FOREIGN


def test_what_is_written_as_it_stood_has_no_number_of_its_own() -> None:
    own = written((100, "a", 0.5), (90, "b", 1.0), (102, "a", 1.05))
    assert own.whose(ring("a", 102, 1.06)) is Whose.OURS


def test_of_two_that_left_together_the_later_may_be_answered_first() -> None:
    own = written((100, "a", 0.5))
    own.wrote(102, ["c"], 1.0, 100, alone=False)
    assert own.whose(ring("c", 102, 1.01)) is Whose.MIXED
    own.wrote(101, ["b"], 1.02, 100, alone=False)
    assert own.whose(ring("c", 102, 1.03)) is Whose.OURS
    assert own.whose(ring("b", 101, 1.03)) is Whose.OURS


def test_what_has_no_number_has_no_place_among_those_that_left_with_it() -> None:
    own = written((100, "a", 0.5))
    own.wrote(0, ["b"], 1.0, 100, alone=False)
    own.wrote(102, ["c"], 1.01, 100, alone=False)
    assert own.whose(ring("c", 102, 1.02)) is Whose.MIXED
    assert own.whose(ring("b", 101, 1.02)) is not Whose.OURS


def test_little_is_remembered() -> None:
    own = written(*((index, "a", float(index)) for index in range(1, 3 * KEPT)))
    assert len(own._floor) == len(own._times) <= KEPT
    last = 3 * KEPT - 1
    assert own.whose(ring("a", last, last + 0.01)) is Whose.OURS


ENTRIES = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["set", "remove", "foreign"])), max_size=40)


@given(ENTRIES, st.integers(0, 2**32), st.floats(0.0005, 0.2))
def test_nobody_elses_change_stays_hidden(entries: list[tuple[str, str]], seed: int, pause: float) -> None:
    """Everybody's writes, told at once or several together: what is foreign is never taken for ours.

    Nothing waits longer than `WOKEN` to be told: a query that waits is woken.
    """
    chance, own, now = random.Random(seed), written((100, "", 0.5)), 10.0
    untold: dict[str, list[tuple[int, float, bool]]] = {"a": [], "b": []}
    told = {"a": 0.0, "b": 0.0}
    for index, (node, kind) in enumerate(entries, 101):
        now += pause
        untold[node].append((index, now, kind == "foreign"))
        if kind != "foreign":
            own.wrote(index if kind == "set" else 0, [node], now, own.highest)
        for each, changes in untold.items():
            if changes and (chance.random() < 0.5 or now + pause > changes[0][1] + WOKEN):
                whose = own.whose(ring(each, changes[-1][0], now + 0.0001, since=told[each]))
                assert whose is not Whose.OURS or not any(foreign for _, _, foreign in changes)
                untold[each], told[each] = [], now


FLIGHTS = st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), min_size=1, max_size=4), max_size=12)


@given(FLIGHTS, st.integers(0, 2**32), st.floats(0.0005, 0.2))
def test_nor_where_several_are_on_their_way_at_a_time(
    flights: list[list[tuple[str, bool]]], seed: int, pause: float
) -> None:
    """Those of one flight leave together and are answered in any order; others' writes stand between them."""
    chance, own, now, index = random.Random(seed), written((100, "", 0.5)), 10.0, 100
    told = {"a": 0.0, "b": 0.0}
    for flight in flights:
        now += pause
        numbered = list(enumerate(flight, index + 1))
        index, after = index + len(flight), own.highest
        ours = [(number, node) for number, (node, foreign) in numbered if not foreign]
        chance.shuffle(ours)
        for number, node in ours:
            own.wrote(number, [node], now, after, alone=len(ours) == 1)
        for each in ("a", "b"):
            changes = [(number, foreign) for number, (node, foreign) in numbered if node == each]
            if changes:
                whose = own.whose(ring(each, changes[-1][0], now + 0.0001, since=told[each]))
                assert whose is not Whose.OURS or not any(foreign for _, foreign in changes)
                told[each] = now
