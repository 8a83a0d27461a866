"""What all models of the custom resources share: strictness, and rules that span fields.

A rule is written once and enforced twice: as CEL by the API server, and here in Python, for an API server whose CRDs
are older than this operator and for checks without a cluster. Field types carry their bounds and patterns with them.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

from consul_registrar import fieldpath

GROUP = "consul-registrar.dev"
VERSION = "v1alpha1"


@dataclass(frozen=True, slots=True)
class Rule:
    """One validation rule: `cel` for the API server, `holds` for us, one `message` that says what must be."""

    cel: str
    message: str
    holds: Callable[[Any], bool]


M = TypeVar("M")


class Model(BaseModel):
    """A strict, frozen, camelCased part of a custom resource."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, strict=True)
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _obeys_its_rules(self) -> Self:
        for rule in self.rules:
            if not rule.holds(self):
                raise ValueError(rule.message)
        return self


def cel(*rules: tuple[str, str]) -> dict[str, Any]:
    """Schema extras for CEL rules: pairs of expression and message."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}


def list_map(*keys: str) -> dict[str, Any]:
    """Schema extras for a list whose items are told apart by these keys: two appliers can own different items."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def _told_apart(items: list[M]) -> list[M]:
    names = [getattr(item, "name", "") for item in items]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"must not have two items of one name: {', '.join(twice)}")
    return items


#: Refuses two items of one name in a list that is told apart by it, as the API server does by `list_map`.
UNIQUE_NAMES = AfterValidator(_told_apart)
ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}

# --- durations ----------------------------------------------------------------------------------------------------

_DURATION = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def milliseconds(duration: str) -> int:
    """A duration such as "1m30s" in milliseconds."""
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", duration)
    return round(sum(float(number) * _UNITS[unit] for number, unit in parts))


@dataclass(frozen=True, slots=True)
class Duration:
    """Marks a text field as a duration in Go's notation within bounds."""

    low: str
    high: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(pattern=_DURATION, max_length=16)
        return core_schema.no_info_after_validator_function(self._check, text)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        rule = f"duration(self) >= duration('{self.low}') && duration(self) <= duration('{self.high}')"
        return handler(schema) | cel((rule, self._message))

    @property
    def _message(self) -> str:
        return f"must be a duration from {self.low} to {self.high}"

    def _check(self, value: str) -> str:
        if not milliseconds(self.low) <= milliseconds(value) <= milliseconds(self.high):
            raise ValueError(self._message)
        return value


# --- ports --------------------------------------------------------------------------------------------------------

#: Of ports of Services and of named ports; those of containers are shorter.
_PORT_NAME = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
#: Without one it would be a number in quotes, which is no container port's name (RFC 6335).
_LETTER = "[a-z]"
_PORT_MESSAGE = (
    "must be a number from 1 to 65535, without quotes, or the name of a port (lower case, at most 63 characters, with "
    "a letter)"
)

_PORT_CEL = (
    "type(self) == int ? self >= 1 && self <= 65535 : "
    f"string(self).matches('{_PORT_NAME}') && string(self).matches('{_LETTER}')"
)


def _is_port_name(value: str) -> bool:
    return bool(re.fullmatch(_PORT_NAME, value) and re.search(_LETTER, value))


def _is_port(value: int | str) -> int | str:
    good = 1 <= value <= 65535 if isinstance(value, int) else _is_port_name(value)
    if not good:
        raise ValueError(_PORT_MESSAGE)
    return value


PortRef = Annotated[
    int | str,
    AfterValidator(_is_port),
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "maxLength": 63,
            **cel(
                (_PORT_CEL, _PORT_MESSAGE),
            ),
        }
    ),
]
PortNumber = Annotated[int, Field(ge=1, le=65535)]

_PORTS_MESSAGE = (
    "must have names of at most 63 characters out of a-z 0-9 -, with a letter, neither beginning nor ending with a dash"
)


def _are_port_names(value: Mapping[str, int | str]) -> Mapping[str, int | str]:
    if not all(map(_is_port_name, value)):
        raise ValueError(_PORTS_MESSAGE)
    return value


_PORTS_FIELD = Field(
    min_length=1,
    max_length=8,
    json_schema_extra=cel((f"self.all(k, k.matches('{_PORT_NAME}') && k.matches('{_LETTER}'))", _PORTS_MESSAGE)),
)
#: Consul's named ports: what each name stands for in each Pod or Service.
NamedPorts = Annotated[dict[str, PortRef], _PORTS_FIELD, AfterValidator(_are_port_names)]
#: The same where there is nothing to look a name up in.
NamedNumbers = Annotated[dict[str, PortNumber], _PORTS_FIELD, AfterValidator(_are_port_names)]
DefaultPort = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=_PORT_NAME)]


def default_port_rule() -> Rule:
    """Consul wants exactly one port marked as the default; of a single one that says itself."""
    return Rule(
        "has(self.defaultPort) ? has(self.ports) && self.defaultPort in self.ports "
        ": !has(self.ports) || size(self.ports) == 1",
        "must have a defaultPort out of ports where there are several, and none without ports",
        lambda self: (
            self.default_port in (self.ports or ()) if self.default_port else self.ports is None or len(self.ports) == 1
        ),
    )


# --- texts --------------------------------------------------------------------------------------------------------

SERVICE_NAME = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
#: Names of namespaces, Services and, of our own, endpoints and checks.
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
OBJECT_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
TlsName = Annotated[str, StringConstraints(max_length=253, pattern=r"^[A-Za-z0-9._:-]*$")]
_PATHS = (
    "must be text with field paths such as $(metadata.labels['app']), $(metadata.annotations['x']:-default), "
    "$(metadata.name), $(metadata.namespace), $(spec.nodeName), $(status.podIP), $(status.hostIP) or "
    "$(node.metadata.labels['x']); a literal $( is written $$("
)


def cel_text(pattern: str) -> str:
    """A pattern as a CEL string literal."""
    return '"' + pattern.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _is_template(value: str) -> str:
    if not fieldpath.is_template(value):
        raise ValueError(_PATHS)
    return value


TEMPLATE_CEL = (f"self.matches({cel_text(fieldpath.PATTERN)})", _PATHS)


#: Schema extras and check of a text that may hold field paths.
TEMPLATE = (AfterValidator(_is_template), Field(json_schema_extra=cel(TEMPLATE_CEL)))

#: What the API server can see of it: it knows no table of what is printable.
NO_CONTROL = r"^[^\x00-\x1f\x7f-\x9f]*$"
_PRINTABLE_MESSAGE = "must be printable characters"


def _is_printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError(_PRINTABLE_MESSAGE)
    return value


#: Check of a text that is published as it is.
PRINTABLE = AfterValidator(_is_printable)
_NAME_MESSAGE = (
    "must be letters, digits, dots, dashes and underscores, beginning and ending with a letter or digit, or a text that"
    " field paths make so"
)
_NAME_CEL = (
    f"self.matches({cel_text(SERVICE_NAME)}) || (self.contains('$(') && self.matches({cel_text(fieldpath.PATTERN)}))"
)


def _is_service_name(value: str) -> str:
    if not re.fullmatch(SERVICE_NAME, value) and not ("$(" in value and fieldpath.is_template(value)):
        raise ValueError(_NAME_MESSAGE)
    return value


#: Schema extras and check of a service name that may hold field paths.
SERVICE_NAME_OR_TEMPLATE = AfterValidator(_is_service_name)
SERVICE_NAME_CEL = (_NAME_CEL, _NAME_MESSAGE)
#: Consul counts bytes; a schema can only count characters.
_MAX_META = 512
_BYTES_MESSAGE = f"must be at most {_MAX_META} bytes long in UTF-8"


_BYTES_CEL = f"size(bytes(self)) <= {_MAX_META}"


def _fits(value: str) -> str:
    if len(value.encode()) > _MAX_META:
        raise ValueError(_BYTES_MESSAGE)
    return value


def _may_fit(value: str) -> str:
    """What field paths make is counted for each Pod."""
    return value if "$(" in value else _fits(value)


MetaValue = Annotated[
    str,
    StringConstraints(min_length=1, max_length=_MAX_META, pattern=NO_CONTROL),
    PRINTABLE,
    AfterValidator(_is_template),
    AfterValidator(_may_fit),
    Field(json_schema_extra=cel(TEMPLATE_CEL, (f"self.contains('$(') || {_BYTES_CEL}", _BYTES_MESSAGE))),
]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=NO_CONTROL), PRINTABLE, *TEMPLATE]
#: The same without field paths: there is no Pod to look them up in.
LiteralTag = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=NO_CONTROL), PRINTABLE]

# Reserved for the operator: ownership is read from them. Prefixes, so that there is room to grow.
_RESERVED_PREFIXES = ("k8s-", "consul-")
_RESERVED_KEYS = ("external-source", "managed-by", "orphaned-from")
_META_KEY = r"^[A-Za-z0-9_-]{1,128}$"
_META_KEY_MESSAGE = "must have keys of at most 128 characters out of A-Z a-z 0-9 _ -"
_META_RESERVED_MESSAGE = (
    "must not have keys that are reserved: external-source, managed-by, orphaned-from, and all that begin with "
    "k8s- or consul-"
)


def _is_meta(value: Mapping[str, str]) -> Mapping[str, str]:
    if not all(re.fullmatch(_META_KEY, key) for key in value):
        raise ValueError(_META_KEY_MESSAGE)
    if any(key.startswith(_RESERVED_PREFIXES) or key in _RESERVED_KEYS for key in value):
        raise ValueError(_META_RESERVED_MESSAGE)
    return value


_KEY_RULES = cel(
    (f"self.all(k, k.matches({cel_text(_META_KEY)}))", _META_KEY_MESSAGE),
    (
        " && ".join(
            [f"!k.startsWith('{p}')" for p in _RESERVED_PREFIXES] + [f"k != '{k}'" for k in _RESERVED_KEYS]
        ).join(("self.all(k, ", ")")),
        _META_RESERVED_MESSAGE,
    ),
)
Meta = Annotated[dict[str, MetaValue], AfterValidator(_is_meta), Field(max_length=48, json_schema_extra=_KEY_RULES)]
LiteralMeta = Annotated[
    dict[
        str,
        Annotated[
            str,
            StringConstraints(max_length=_MAX_META, pattern=NO_CONTROL),
            PRINTABLE,
            AfterValidator(_fits),
            Field(json_schema_extra=cel((_BYTES_CEL, _BYTES_MESSAGE))),
        ],
    ],
    AfterValidator(_is_meta),
    Field(max_length=16, json_schema_extra=_KEY_RULES),
]

# --- weights ------------------------------------------------------------------------------------------------------

_WEIGHT_MESSAGE = "must be a number from 0 to 65535, or a text that field paths make one"
_WEIGHT_CEL = (
    "type(self) == int ? self >= 0 && self <= 65535 : "
    f"string(self).contains('$(') && string(self).matches({cel_text(fieldpath.PATTERN)})"
)


def _is_weight(value: int | str) -> int | str:
    good = 0 <= value <= 65535 if isinstance(value, int) else fieldpath.is_template(value) and "$(" in value
    if not good:
        raise ValueError(_WEIGHT_MESSAGE)
    return value


#: A weight, or the field path that it is found at.
WeightRef = Annotated[
    int | str,
    AfterValidator(_is_weight),
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "maxLength": 512,
            **cel((_WEIGHT_CEL, _WEIGHT_MESSAGE)),
        }
    ),
]
