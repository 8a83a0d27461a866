"""Why a change is made where the difference alone doesn't tell, and what its audit line names as evidence."""

from dataclasses import replace
from typing import Any

import pytest

from consul_registrar.causes import asked, caused, evidence, read
from consul_registrar.changes import Cause, Deregister, Evidence
from consul_registrar.desired import Absent, Present
from consul_registrar.model import Health, Instance
from consul_registrar.plan import plan
from consul_registrar.tally import Outcome
from unit.core.build import facts, instance, of_endpoint, of_pods, pod, reason

WANTED = instance()
EDITED = replace(WANTED, port=9)
BEFORE = Outcome("web-1", desired=True, registered=True, asked=asked(WANTED))
GONE_SINCE = replace(BEFORE, registered=False)


def standing(found: Instance = WANTED) -> Instance:
    return replace(found, checks=tuple(replace(check, probe=None) for check in found.checks))


def cause(found: tuple[Instance, ...], said: Outcome | None, *, reaped: bool = False) -> Cause:
    known = facts(standing=found)
    [change] = caused(plan(Present(WANTED), found), Present(WANTED), known, said, reaped=reaped)
    return change.cause


@pytest.mark.parametrize(
    ("said", "reaped", "expected"),
    [
        (None, False, Cause.DESIRED),
        (GONE_SINCE, False, Cause.DESIRED),
        (BEFORE, False, Cause.DRIFT),
        (BEFORE, True, Cause.REAPED),
        (GONE_SINCE, True, Cause.REAPED),
    ],
)
def test_what_does_not_stand_is_new_or_was_taken_away(said: Outcome | None, reaped: bool, expected: Cause) -> None:
    assert cause((), said, reaped=reaped) is expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, Cause.EDITED),
        (BEFORE, Cause.DRIFT),
        (replace(BEFORE, asked=asked(EDITED)), Cause.EDITED),
        (replace(GONE_SINCE), Cause.EDITED),
    ],
    ids=["after a restart", "the same was asked for", "something else was asked for", "it did not stand"],
)
def test_what_stands_otherwise_was_edited_here_or_there(said: Outcome | None, expected: Cause) -> None:
    assert cause((standing(EDITED),), said) is expected


def test_a_removal_keeps_its_cause() -> None:
    want = Absent(Cause.GONE, reason())
    known = facts(standing=(standing(),))
    assert caused(plan(want, known.standing), want, known, BEFORE, reaped=True) == (Deregister(standing(), Cause.GONE),)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (instance(), True),
        (instance(pod=pod(ready=False)), True),
        (instance(of_pods(service={"tags": ["x"]})), False),
        (instance(of_pods(checks=[{"name": "port", "tcp": {}}])), False),
    ],
    ids=["equal", "another readiness", "other tags", "other checks"],
)
def test_what_is_asked_for_is_told_apart(other: Instance, same: bool) -> None:
    assert (asked(other) == asked(WANTED)) is same
    assert {c.status for c in instance(pod=pod(ready=False)).checks} == {Health.CRITICAL}


def test_the_evidence_is_the_versions_that_were_looked_at() -> None:
    assert evidence(facts(pod=pod(version=42))) == Evidence(pod=42, registration=7)
    assert evidence(of_endpoint()) == Evidence(pod=None, registration=7)


@pytest.mark.parametrize(
    ("fresh", "found"),
    [
        ({"pod": pod(version=42)}, "Pod at 42, registration at 7"),
        ({"pod": None, "standing": (standing(),)}, "Pod absent, registration at 7"),
        ({"pod": None, "standing": (standing(),), "registration": None}, "Pod absent, registration absent"),
        ({"pod": None}, "registration at 7"),
    ],
)
def test_what_a_fresh_read_found_is_told(fresh: dict[str, Any], found: str) -> None:
    assert read(facts(**fresh)) == found
