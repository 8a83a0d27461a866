"""COVERAGE.md says what there is: every test with a goal, and no other; and every goal has one."""

from coverage_table import GOALS, goals_by_test, merged, rows


def test_the_table_names_exactly_the_tests_that_there_are() -> None:
    assert {(goal, test) for goal, test, _ in rows()} == {
        (goal, test) for test, goals in goals_by_test().items() for goal in goals
    }


def test_every_goal_has_a_test() -> None:
    assert set(GOALS) == set().union(*goals_by_test().values())


def test_a_part_that_was_played_whole_counts_anew_and_a_selection_only_where_it_had_more() -> None:
    before = {"views": 8, "answers": 50}
    assert merged(before, {"views": 6}, whole=True) == {"views": 6, "answers": 50}
    assert merged(before, {"views": 6, "answers": 52}, whole=False) == {"views": 8, "answers": 52}
    assert merged(before, {"new": 1}, whole=False) == before | {"new": 1}
