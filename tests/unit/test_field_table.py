"""Every field of the custom resources is shown by a test against the real Consul, or known not to be yet."""

import re

import pytest

import fieldtable
from fieldtable import MODES, SAME, by_place, fields, marks, names
from unit.test_reference import _in_code

#: What no test shows yet, and in which mode. It only ever gets shorter.
GAPS: dict[str, tuple[str, ...]] = {}


def test_every_field_is_shown_in_each_mode_or_known_not_to_be() -> None:
    """A new field needs a test with the mark `shows`; one that is shown now is to be taken out of `GAPS`."""
    shown = by_place()
    missing = {
        (field, mode) for field in fields() for mode in MODES if field not in SAME and (field, mode) not in shown
    }
    assert missing == {(field, mode) for field, modes in GAPS.items() for mode in modes}


def test_no_mark_names_what_is_no_field() -> None:
    known = fields()
    assert [shown for shown in marks() if not any(names(shown.field, field) for field in known)] == []


def test_every_mark_names_a_mode_and_a_reason_that_there_are() -> None:
    assert {mode for shown in marks() for mode in shown.modes} <= set(MODES)
    assert {shown.condition for shown in marks()} - {"", "refused"} <= _in_code()


def test_every_mark_that_stands_in_a_file_is_read() -> None:
    """Also those that somebody puts where nothing is read, such as at a class."""
    found = sum(len(re.findall(r"pytest\.mark\.shows\(", path.read_text())) for path in fieldtable.TESTS.rglob("*.py"))
    assert found == len({(shown.test, shown.line) for shown in marks()})


@pytest.mark.parametrize(
    ("said", "field", "meant"),
    [
        ("sreg.spec.checks[].tcp", "sreg.spec.checks[].tcp.port", True),
        ("sreg.spec.checks", "sreg.spec.checks[].name", True),
        ("sreg.spec.service.port", "sreg.spec.service.ports", False),
    ],
)
def test_a_mark_above_a_field_is_about_all_below_it(said: str, field: str, meant: bool) -> None:
    assert names(said, field) is meant


def test_the_page_is_up_to_date() -> None:
    assert fieldtable.PAGE.read_text() == fieldtable.page(), "run `make generate`"
