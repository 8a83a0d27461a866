"""COVERAGE.md says what there is: every test with a goal, and no other; and every goal has one."""

from coverage_table import GOALS, goals_by_test, rows


def test_the_table_names_exactly_the_tests_that_there_are() -> None:
    assert set(rows()) == {(goal, test) for test, goals in goals_by_test().items() for goal in goals}


def test_every_goal_has_a_test() -> None:
    assert set(GOALS) == set().union(*goals_by_test().values())
