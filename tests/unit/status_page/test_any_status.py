"""Whatever stands in an object's status, the status page shows it or says that it can't, and tells of all others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from consul_registrar.overview import State
from consul_registrar.status_page.overview_page import overview
from consul_registrar.status_page.registration_page import detail
from screens import samples
from screens.samples import Sample

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ANY = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def some(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """An object with some of these fields, or anything."""
    return st.fixed_dictionaries({}, optional=fields) | ANY


CONDITION = some(
    {"type": st.just("Ready") | ANY, "status": ANY, "reason": ANY, "message": ANY, "lastTransitionTime": ANY}
)
PROBLEM = some({"subject": ANY, "reason": ANY, "message": ANY})
STATUS = st.fixed_dictionaries(
    {},
    optional={
        "observedGeneration": ANY,
        "conditions": st.lists(CONDITION, max_size=2) | ANY,
        "instances": some({"desired": ANY, "registered": ANY, "critical": ANY}),
        "problems": some({"counts": some({"PortNotFound": ANY}), "worst": st.lists(PROBLEM, max_size=2) | ANY}),
    },
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(STATUS)
@example({"conditions": [{"type": "Ready", "status": "True", "reason": "Registered", "message": "all"}]})
@example({"conditions": [{}]})
def test_any_status_is_shown_or_said_to_be_unreadable_and_no_other_is_lost(status: dict[str, Any]) -> None:
    odd = replace(samples.registration("shop", "odd", 1), status=status)
    sample = Sample([odd, samples.registration("shop", "web", 3)])
    seen = sample.overview("")
    assert {one.name: one.state for one in seen.registrations}["web"] is State.GOOD
    assert "shop/</span>odd" in overview(seen)
    whole = sample.detail(odd.key)
    assert whole is not None
    assert "shop/</span>odd" in detail(whole)


def test_a_status_without_its_condition_s_time_is_said_to_be_unreadable() -> None:
    status = {"conditions": [{"type": "Ready", "status": "True", "reason": "Registered", "message": "all"}]}
    odd = replace(samples.registration("shop", "odd", 1), status=status)
    (row,) = Sample([odd]).overview("").registrations
    assert (row.state, row.reason) == (State.BAD, "Unreadable")
