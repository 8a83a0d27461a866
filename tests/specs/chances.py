"""Specs of a `ServiceRegistration` by chance, all of them valid, made from the CRD's schema.

Decides what a value of the schema may be: types, bounds, enumerations, patterns, and CEL rules of two forms, exactly
one of some fields and durations within bounds. What other rules want is found by trying: the models of `api/`, which
have the same rules, say what is valid. A field that is new in the schema is drawn from then on, without a word here.

`Pool` has values that mean something in the world at hand: else hardly any spec would publish anything.
"""

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any, get_args

from pydantic import ValidationError

from bad_input import schema
from consul_registrar.api.base import Model
from consul_registrar.api.check import WITH_PORT
from consul_registrar.api.registration import ServiceRegistrationSpec

Spec = dict[str, Any]
Node = dict[str, Any]

_TRIES = 500
_LIKELY = 0.5
"""How often a field that may be left out is there."""
_FEWER = 25
"""How often in a row fewer fields are tried, before it is many again."""

_TEXTS = (
    *(
        "a",
        "v1",
        "web-1",
        "http",
        "x.y_z",
        "A9",
        "/",
        "/health?full=1",
        "0",
        "-",
        "é \U0001f4a5",
        'quote" and back\\slash',
    ),
    *("$(metadata.name)", "$(metadata.labels['track'])", "$(metadata.annotations['none']:-else)", "$$(literal)"),
    *("$(metadata.namespace)-$(spec.nodeName)", "$(status.podIP)", "$(node.metadata.labels['zone']:-nowhere)"),
    *("203.0.113.7", "2001:db8::7", "db.example.com", "one-line; no more", "$", "{{ .Values.x }}"),
)
_NUMBERS_OR_TEXTS = (0, 1, 80, 8080, 65535, "http", "admin", "$(metadata.labels['weight']:-5)")
_DURATIONS = ("1s", "1500ms", "1m30s", "2h")

_ONE_OF = re.compile(r"\[(.*)\]\.filter\((\w+), \2\)\.size\(\) == 1|(has\(self\.\w+\) != has\(self\.\w+\))")
_BOUND = re.compile(r"duration\('(\w+)'\)")


@dataclass(frozen=True)
class Pool:
    """`values`: what a field is, by its path (`spec.checks[].tcp.port`); an empty key of a map is `{}`.
    `without`: the paths of fields that are left out. `often`: how often a value is taken from here, else any goes.
    """

    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    often: float = 0.95


@cache
def spec_schema() -> Node:
    """The schema of a registration's spec, as the CRD has it."""
    return schema("ServiceRegistration")


class Chances:
    """Draws specs. The same seed draws the same ones."""

    def __init__(self, chance: Random, pool: Pool | None = None) -> None:
        self._chance = chance
        self._pool = pool or Pool()
        self._schema = spec_schema()

    def spec(self) -> Spec:
        """A valid spec."""
        return self._drawn_object("spec", self._schema, ServiceRegistrationSpec)

    def edited(self, spec: Spec) -> Spec:
        """Another valid spec, that differs from this one in one place."""
        edits = (_fitted(self._edited("spec", self._schema, copy.deepcopy(spec))) for _ in range(_TRIES))
        return next(each for each in edits if each != spec and _is_valid(each))

    # --- a value ---

    def _drawn(self, path: str, node: Node, model: type[Model] | None) -> Any:
        known = self._pool.values.get(path)
        if known and self._chance.random() < self._pool.often:
            return copy.deepcopy(self._chance.choice(known))
        if node.get("x-kubernetes-int-or-string"):
            return self._chance.choice(_NUMBERS_OR_TEXTS)
        match node["type"]:
            case "object" if "properties" in node:
                return self._drawn_object(path, node, model)
            case "object":
                return self._drawn_map(path, node, model)
            case "array":
                return self._drawn_list(path, node, model)
            case "string":
                return self._drawn_text(node)
            case "integer":
                low, high = node.get("minimum", 0), node.get("maximum", 2**31 - 1)
                return self._chance.choice((low, high, self._chance.randint(low, min(high, low + 9))))
            case _:
                return self._chance.random() < 0.5

    def _drawn_object(self, path: str, node: Node, model: type[Model] | None) -> Any:
        """The fields that must be there, one of each group of which one must be, and others by chance: fewer and fewer
        while nothing valid is found, so that what goes with little else is not drawn less often for that.
        """
        children = {name: node["properties"][name] for name in self._names(path, node)}
        groups = [[name for name in children if name in group] for group in _groups(node)]
        must = {*node.get("required", ()), *(self._chance.choice(group) for group in groups)}
        may = children.keys() - must.union(*groups)
        for attempt in range(_TRIES):
            likely = _LIKELY * 0.9 ** (attempt % _FEWER)
            names = [name for name in children if name in must or (name in may and self._chance.random() < likely)]
            made = {name: self._drawn(f"{path}.{name}", children[name], _model_of(model, name)) for name in names}
            made = _fitted(made) if model is ServiceRegistrationSpec else made
            if model is None or _is_valid(made, model):
                return made
        raise LookupError(f"nothing valid was found for {path}")

    def _names(self, path: str, node: Node) -> list[str]:
        return [name for name in node["properties"] if f"{path}.{name}" not in self._pool.without]

    def _drawn_map(self, path: str, node: Node, model: type[Model] | None) -> dict[str, Any]:
        keys = {self._drawn(f"{path}{{}}", {"type": "string"}, None) for _ in range(self._chance.randint(0, 2))}
        return {key: self._drawn(f"{path}.*", node["additionalProperties"], model) for key in sorted(keys)}

    def _drawn_list(self, path: str, node: Node, model: type[Model] | None) -> list[Any]:
        low = node.get("minItems", 0)
        count = self._chance.randint(low, max(low, 3))
        return _told_apart(node, [self._drawn(f"{path}[]", node["items"], model) for _ in range(count)])

    def _drawn_text(self, node: Node) -> str:
        if "enum" in node:
            return str(self._chance.choice(node["enum"]))
        bounds = [bound for rule in _rules(node) for bound in _BOUND.findall(rule)]
        if bounds:
            return self._chance.choice((*bounds, *_DURATIONS))
        longest = "a" * node.get("maxLength", 1)
        fitting = [text for text in (*_TEXTS, longest) if _fits(node, text)]
        return self._chance.choice(fitting)

    # --- an edit ---

    def _edited(self, path: str, node: Node, value: Any, model: type[Model] | None = ServiceRegistrationSpec) -> Any:
        if "properties" in node and self._chance.random() < 0.9:
            return self._edited_object(path, node, value, model)
        if "items" in node and value and self._chance.random() < 0.9:
            return self._edited_list(path, node, value, model)
        return self._drawn(path, node, model)

    def _edited_object(self, path: str, node: Node, value: dict[str, Any], model: type[Model] | None) -> Any:
        name = self._chance.choice(self._names(path, node))
        if name in value and self._chance.random() < 0.2:
            return {key: each for key, each in value.items() if key != name}
        child, below = node["properties"][name], _model_of(model, name)
        if name in value:
            return value | {name: self._edited(f"{path}.{name}", child, value[name], below)}
        return value | {name: self._drawn(f"{path}.{name}", child, below)}

    def _edited_list(self, path: str, node: Node, value: list[Any], model: type[Model] | None) -> list[Any]:
        at = self._chance.randrange(len(value))
        before, one, after = value[:at], value[at], value[at + 1 :]
        match self._chance.choice(("less", "more", "other", "order")):
            case "less":
                return [*before, *after]
            case "more":
                return _told_apart(node, [*value, self._drawn(f"{path}[]", node["items"], model)])
            case "order":
                return [*reversed(value)]
            case _:
                other = self._edited(f"{path}[]", node["items"], one, model)
                return _told_apart(node, [*before, other, *after])


def _rules(node: Node) -> Iterator[str]:
    yield from (rule["rule"] for rule in node.get("x-kubernetes-validations", ()))


def _groups(node: Node) -> Iterator[list[str]]:
    """The groups of fields of which exactly one must be there."""
    for rule in _rules(node):
        if _ONE_OF.fullmatch(rule):
            yield re.findall(r"has\(self\.(\w+)\)", rule)


def _fits(node: Node, text: str) -> bool:
    in_bounds = node.get("minLength", 0) <= len(text) <= node.get("maxLength", len(text))
    return in_bounds and re.search(node.get("pattern", ""), text) is not None


def _told_apart(node: Node, items: list[Any]) -> list[Any]:
    """Without those that the kind of list doesn't take beside others."""
    keys = node.get("x-kubernetes-list-map-keys")
    if keys is None and node.get("x-kubernetes-list-type") != "set":
        return items
    found = {json.dumps([item.get(key) for key in keys] if keys else item): item for item in items}
    return [*found.values()]


def _model_of(model: type[Model] | None, name: str) -> type[Model] | None:
    """The model of a field, of its items or values; None where it has none."""
    if model is None:
        return None
    found = next((each for each in model.model_fields.values() if each.alias == name), None)
    return next(_models_in(found.annotation), None) if found else None


def _models_in(annotation: Any) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _is_valid(value: Any, model: type[Model] = ServiceRegistrationSpec) -> bool:
    try:
        model.model_validate(value)
    except ValidationError:
        return False
    return True


def _fitted(spec: Spec) -> Spec:
    """Without what goes with other sources only: such rules span too many fields to be met by chance."""
    if "pods" not in spec:
        spec.pop("checksFromProbes", None)
    if "endpoints" not in spec:
        return spec
    for name in ("port", "ports", "defaultPort"):
        spec.get("service", {}).pop(name, None)
    checks = [check for check in spec.get("checks", ()) if "readiness" not in check]
    for probe in (check[kind] for check in checks for kind in WITH_PORT if kind in check):
        if isinstance(probe.get("port"), str):
            del probe["port"]
    names = [check["name"] for check in checks]
    for endpoint in spec["endpoints"]:
        if "checks" in endpoint:
            endpoint["checks"] = names[: len(endpoint["checks"])]
    return spec | ({"checks": checks} if "checks" in spec else {})
