"""Label selectors, as everywhere in Kubernetes."""

from typing import Annotated, Literal

from pydantic import Field

from consul_registrar.api.base import ATOMIC, Model, Rule


class SelectorRequirement(Model):
    """One requirement on a label."""

    key: str = Field(min_length=1, max_length=317, description="Key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="How the label's value relates to values."
    )
    values: list[Annotated[str, Field(max_length=63)]] = Field(
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

    match_labels: dict[str, Annotated[str, Field(max_length=63)]] = Field(
        default_factory=dict, max_length=64, description="Labels that there must be, with these values."
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
