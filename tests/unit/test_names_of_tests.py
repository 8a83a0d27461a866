"""No two files of tests share a name: pytest takes files of one name, in folders that are no packages, for one."""

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def test_the_name_of_a_file_of_tests_is_its_own() -> None:
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert names
    assert [name for name, count in names.items() if count > 1] == []
