"""What is counted of one subject: from what was wanted and what stands."""

from dataclasses import replace
from typing import Any

import pytest

from consul_registrar.changes import Cause
from consul_registrar.desired import Absent, Ceded, Kept, Orphaned, Present
from consul_registrar.model import Check, Health
from consul_registrar.outcomes import failure, health_of, name_of, outcome, unreachable
from consul_registrar.tally import Outcome
from unit.core.build import facts, instance, node, of_endpoint, pod, reason

HERE = (instance(),)
WHY = reason("AgentDown")
GONE = Absent(Cause.GONE, WHY)
PASSING = Health.PASSING


@pytest.mark.parametrize(
    ("want", "standing", "withheld", "expected"),
    [
        (Present(HERE[0]), HERE, False, Outcome("web-1", True, True, PASSING)),
        (Present(HERE[0]), (), False, Outcome("web-1", True, False)),
        (Present(HERE[0]), (), True, Outcome("web-1", True, False, withheld=True)),
        (Kept(WHY, problem=True), HERE, False, Outcome("web-1", True, True, PASSING, WHY, problem=True)),
        (Kept(WHY, problem=True), (), False, Outcome("web-1", True, False, None, WHY, problem=True)),
        (Kept(WHY, problem=False), HERE, False, Outcome("web-1", True, True, PASSING, WHY)),
        (Kept(WHY, problem=False), (), False, Outcome("web-1", False, False, None, WHY)),
        (GONE, HERE, True, Outcome("web-1", False, True, PASSING, withheld=True)),
        (GONE, (), False, None),
        (Ceded(WHY), (), False, Outcome("web-1", True, False, None, WHY, problem=True)),
        (Orphaned(), HERE, False, Outcome("web-1", False, True, PASSING)),
        (Orphaned(), (), False, None),
    ],
)
def test_an_outcome_counts_what_is_wanted_and_what_stands(
    want: Any, standing: Any, withheld: bool, expected: Outcome | None
) -> None:
    assert outcome(facts(), want, standing, withheld=withheld) == expected


@pytest.mark.parametrize(("standing", "desired"), [((), False), (HERE, True)])
def test_what_is_refused_as_a_whole_adds_nothing_desired(standing: Any, desired: bool) -> None:
    counted = outcome(facts(refused=WHY), Kept(WHY, problem=True), standing, withheld=False)
    assert counted is not None
    assert (counted.desired, counted.registered, counted.problem) == (desired, desired, True)


@pytest.mark.parametrize(("want", "desired"), [(Present(HERE[0]), True), (Kept(WHY, True), True), (GONE, False)])
@pytest.mark.parametrize("standing", [(), HERE])
def test_a_failure_is_a_problem_whatever_was_wanted(want: Any, desired: bool, standing: Any) -> None:
    counted = failure(facts(), want, standing, WHY)
    assert counted == Outcome("web-1", desired, bool(standing), PASSING if standing else None, WHY, problem=True)


def test_where_no_consul_is_nothing_is_registered() -> None:
    assert unreachable("web-1", WHY) == Outcome("web-1", True, False, None, WHY, problem=True)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], PASSING),
        ([PASSING, PASSING], PASSING),
        ([PASSING, Health.WARNING], Health.WARNING),
        ([Health.CRITICAL, Health.WARNING], Health.CRITICAL),
        ([None], PASSING),
    ],
)
def test_the_worst_check_is_the_instances_health(statuses: list[Health | None], expected: Health) -> None:
    checks = tuple(Check(str(i), "c", None, status) for i, status in enumerate(statuses))
    assert health_of((replace(HERE[0], checks=checks),)) == expected


def test_without_an_instance_there_is_no_health() -> None:
    assert health_of(()) is None


def test_a_subject_is_called_as_people_call_it() -> None:
    assert name_of(facts(pod=pod("web-9"), node=node())) == "web-9"
    assert name_of(facts(pod=None, standing=HERE)) == "web-1"
    assert name_of(facts(pod=None)) == "uid-web-1"
    assert name_of(of_endpoint("primary")) == "primary"
