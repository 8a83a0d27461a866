"""Label selectors select as Kubernetes' own do (k8s.io/apimachinery/pkg/labels)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consul_registrar.api.selector import Selector
from consul_registrar.selectors import selects


def expression(operator: str, *values: str, key: str = "env") -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("selector", "labels", "taken"),
    [
        ({"matchLabels": {"app": "web"}}, {"app": "web", "x": "y"}, True),
        ({"matchLabels": {"app": "web"}}, {"app": "db"}, False),
        ({"matchLabels": {"app": "web"}}, {}, False),
        ({"matchLabels": {"app": ""}}, {}, False),
        ({"matchLabels": {"app": ""}}, {"app": ""}, True),
        ({"matchLabels": {"app": "web", "env": "prod"}}, {"app": "web"}, False),
        ({"matchLabels": {"app": "web", "env": "prod"}}, {"app": "web", "env": "prod"}, True),
        (expression("In", "prod", "test"), {"env": "test"}, True),
        (expression("In", "prod", "test"), {"env": "dev"}, False),
        (expression("In", "prod"), {}, False),
        (expression("In", ""), {}, False),
        (expression("In", ""), {"env": ""}, True),
        (expression("NotIn", "prod"), {"env": "dev"}, True),
        (expression("NotIn", "prod"), {"env": "prod"}, False),
        (expression("NotIn", "prod"), {}, True),
        (expression("NotIn", ""), {}, True),
        (expression("Exists"), {"env": ""}, True),
        (expression("Exists"), {"other": "x"}, False),
        (expression("DoesNotExist"), {}, True),
        (expression("DoesNotExist"), {"env": ""}, False),
        ({"matchLabels": {"app": "web"}, **expression("NotIn", "prod")}, {"app": "web"}, True),
        ({"matchLabels": {"app": "web"}, **expression("NotIn", "prod")}, {"app": "web", "env": "prod"}, False),
        ({"matchLabels": {"app": "Web"}}, {"app": "web"}, False),
    ],
)
def test_a_selector_takes_what_kubernetes_takes(selector: Any, labels: dict[str, str], taken: bool) -> None:
    assert selects(Selector.model_validate(selector), labels) is taken


_KEYS, _VALUES = st.sampled_from("ab"), st.sampled_from(["", "x", "y"])
_LABELS = st.dictionaries(_KEYS, _VALUES)


@given(_KEYS, st.lists(_VALUES, min_size=1), _LABELS)
def test_in_and_not_in_exclude_each_other_and_leave_nothing_out(
    key: str, values: list[str], labels: dict[str, str]
) -> None:
    taken = selects(Selector.model_validate(expression("In", *values, key=key)), labels)
    assert selects(Selector.model_validate(expression("NotIn", *values, key=key)), labels) is not taken


@given(st.dictionaries(_KEYS, _VALUES, min_size=1), _LABELS)
def test_match_labels_are_in_with_one_value(wanted: dict[str, str], labels: dict[str, str]) -> None:
    parts = [expression("In", value, key=key)["matchExpressions"][0] for key, value in wanted.items()]
    one = Selector.model_validate({"matchLabels": wanted})
    other = Selector.model_validate({"matchExpressions": parts})
    assert selects(one, labels) == selects(other, labels)
