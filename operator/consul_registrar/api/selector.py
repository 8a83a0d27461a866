"""Label selectors, as everywhere in Kubernetes."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from consul_registrar.api.base import ATOMIC, Model, Rule, cel, cel_text

_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = rf"^([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_NAME}$"
_KEYS_MESSAGE = "must have labels' keys: at most 63 characters out of A-Z a-z 0-9 - _ ., after a prefix with / if any"


def _are_keys(value: Mapping[str, str]) -> Mapping[str, str]:
    if not all(re.fullmatch(_KEY, key) for key in value):
        raise ValueError(_KEYS_MESSAGE)
    return value


_LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=rf"^({_NAME})?$")]


class SelectorRequirement(Model):
    """One requirement on a label."""

    key: str = Field(min_length=1, max_length=317, pattern=_KEY, description="Key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="How the label's value relates to values."
    )
    values: list[_LabelValue] = Field(
        default_factory=list,
        max_length=64,
        description="Values for In and NotIn (at least one); none for Exists and DoesNotExist.",
        json_schema_extra=ATOMIC,
    )
    rules = (
        Rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            "must have values with In and NotIn, and none with Exists and DoesNotExist",
            lambda self: (self.operator in {"In", "NotIn"}) == bool(self.values),
        ),
    )


class Selector(Model):
    """A label selector, as everywhere in Kubernetes. Must not be empty."""

    match_labels: Annotated[dict[str, _LabelValue], AfterValidator(_are_keys)] = Field(
        default_factory=dict,
        max_length=64,
        description="Labels that there must be, with these values.",
        json_schema_extra=cel((f"self.all(k, k.matches({cel_text(_KEY)}))", _KEYS_MESSAGE)),
    )
    match_expressions: list[SelectorRequirement] = Field(
        default_factory=list,
        max_length=32,
        description="Further requirements; all must hold.",
        json_schema_extra=ATOMIC,
    )
    rules = (
        Rule(
            "(has(self.matchLabels) && size(self.matchLabels) > 0) || "
            "(has(self.matchExpressions) && size(self.matchExpressions) > 0)",
            "must have at least one of matchLabels and matchExpressions: an empty selector would take everything",
            lambda self: bool(self.match_labels or self.match_expressions),
        ),
    )
