"""What a Pod with our readiness gate is told: the table and its laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consul_registrar.model import CONNECTING, Gate, Reason
from consul_registrar.readiness_gate import Stand, Vote, answer, patience
from unit.core.build import reason

OPEN, THROUGH = Gate(), Gate("True", "Registered", "as it was")
WAITS = Gate("False", "Waits", "so it is")
PASSING, FAILING = Vote(Stand.PASSING, reason("Registered")), Vote(Stand.FAILING, reason("NotPassing"))
COMING, UNSEEN = Vote(Stand.COMING, reason("Registering")), Vote(Stand.UNSEEN, reason("AgentDown"))
MISSING, UNKNOWN = Vote(Stand.MISSING, reason("Suspended")), Vote(Stand.UNSEEN, Reason(CONNECTING, ""))

GATES = st.sampled_from([OPEN, THROUGH, WAITS, Gate("Unknown", "Odd")])
VOTES = st.lists(st.sampled_from([PASSING, FAILING, COMING, UNSEEN, MISSING, UNKNOWN]), max_size=3)

# --- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("votes", "fresh", "through"),
    [
        ([], "NotSelected", "NotSelected"),
        ([PASSING], "Registered", None),
        ([PASSING, PASSING], "Registered", None),
        ([FAILING], "NotPassing", None),
        ([COMING], "Registering", None),
        ([UNSEEN], "AgentDown", None),
        ([MISSING], "Suspended", "Suspended"),
        ([MISSING, MISSING], "Suspended", "Suspended"),
        ([PASSING, MISSING], "Suspended", None),
        ([PASSING, COMING], "Registering", None),
        ([MISSING, UNSEEN], "Suspended", None),
        ([PASSING, UNKNOWN], None, None),
        ([UNKNOWN], None, None),
    ],
)
def test_the_table(votes: list[Vote], fresh: str | None, through: str | None) -> None:
    for gate, expected in ((OPEN, fresh), (WAITS, fresh), (THROUGH, through)):
        said = answer(gate, votes, remains=False)
        assert (said.reason if said else None) == expected
        assert said is None or said.status == ("True" if expected == "Registered" else "False")


def test_a_pod_is_not_taken_back_while_something_of_it_stands() -> None:
    assert answer(THROUGH, [], remains=True) is None
    assert answer(THROUGH, [MISSING], remains=True) is None
    said = answer(OPEN, [], remains=True)
    assert said is not None
    assert said.reason == "NotSelected"


# --- laws -----------------------------------------------------------------------------------------------------------


@given(gate=GATES, votes=VOTES, remains=st.booleans())
def test_what_was_answered_is_not_answered_again(gate: Gate, votes: list[Vote], *, remains: bool) -> None:
    said = answer(gate, votes, remains=remains)
    if said is not None:
        assert answer(said, votes, remains=remains) is None


@given(gate=GATES, votes=VOTES, remains=st.booleans())
def test_nobody_is_let_through_unless_all_is_registered_and_passing(
    gate: Gate, votes: list[Vote], *, remains: bool
) -> None:
    said = answer(gate, votes, remains=remains)
    if said is not None and said.status == "True":
        assert votes
        assert {vote.stand for vote in votes} == {Stand.PASSING}


@given(votes=VOTES, remains=st.booleans())
def test_who_is_through_is_taken_back_only_where_nothing_stands_or_may_come(
    votes: list[Vote], *, remains: bool
) -> None:
    said = answer(THROUGH, votes, remains=remains)
    if said is not None:
        assert not remains
        assert {vote.stand for vote in votes} <= {Stand.MISSING}


@given(gate=GATES, votes=VOTES, remains=st.booleans())
def test_letting_through_is_never_delayed_and_taking_back_always_is(
    gate: Gate, votes: list[Vote], *, remains: bool
) -> None:
    said = answer(gate, votes, remains=remains)
    if said is not None:
        assert (patience(gate, said) == 0.0) is (said.status == "True")
        assert gate.status != "True" or patience(gate, said) >= 10.0
