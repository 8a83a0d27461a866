"""The custom resources as the core knows them: parsed once, at the door.

Decides what an object's spec means where it is malformed (an error that says what must be, never an exception later).
The fields themselves are the API's (`api/`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from consul_registrar.api.base import Model
from consul_registrar.api.connection import ConsulConnectionSpec
from consul_registrar.api.registration import ServiceRegistrationSpec
from consul_registrar.api.status import NOBODY_LOOKED
from consul_registrar.model import Reason, RegistrationKey
from consul_registrar.names import RESERVED, folded

M = TypeVar("M", bound=Model)
Json = Mapping[str, Any]
"""A part of an object as the API server gives it. Any: its shape is that of the definition's schema, to which the API
server holds everybody, and which no type here could repeat. A spec is parsed at the door; a status is ours.
"""

#: Finalizer of both custom resources: what they left in Consul is cleaned before they go.
FINALIZER = "consul-registrar.dev/deregister"
#: Annotation by which a person lets a registration go although its Consul can't be cleaned.
SKIP_DEREGISTRATION = "consul-registrar.dev/skip-deregistration"
#: Annotation of a registration: with each new value all of it is read anew and compared.
RESYNC = "consul-registrar.dev/resync"
#: Annotation of a registration that takes the place of what stands in Consul already and is nobody's, with "true".
ADOPT = "consul-registrar.dev/adopt"
#: Annotation of a connection that releases the held removals which its value, their hash, names; used once.
APPROVE_REMOVALS = "consul-registrar.dev/approve-removals"

ENTERPRISE_ONLY = (
    "namespaces and partitions are of Consul Enterprise, and this operator writes to Consul without them alone"
)
_MAX_SERVICE = 128
_MAX_RESYNC = 253
_MAX_MESSAGE = 4096  # a condition takes more, but nobody reads it


@dataclass(frozen=True, slots=True)
class Meta:
    """What both kinds have in common. `created` and `deleted` are RFC 3339 texts; "" is not set."""

    uid: str
    version: int
    generation: int
    created: str
    deleted: str
    finalizers: tuple[str, ...]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Registration:
    """A ServiceRegistration. `spec` is a Reason where it is malformed."""

    key: RegistrationKey
    meta: Meta
    spec: ServiceRegistrationSpec | Reason
    status: Json
    connections: tuple[str, ...] = field(init=False, compare=False)
    """The connections that it wants to be registered in; worked out once, since each event asks for them."""
    secrets: tuple[tuple[str, str], ...] = field(init=False, compare=False)
    """The Secrets of its namespace, with their keys, that its checks name."""
    service: str = field(init=False, compare=False)
    """The name in Consul."""
    names_each: bool = field(init=False, compare=False)
    """Whether field paths make the name in Consul, for each Pod its own."""

    def __post_init__(self) -> None:
        spec = None if isinstance(self.spec, Reason) else self.spec
        names = tuple(ref.name for ref in spec.consul_refs) if spec else ()
        service = (spec.service.name or self.key.name) if spec else ""
        object.__setattr__(self, "connections", names)
        object.__setattr__(self, "secrets", _secrets(spec) if spec else ())
        object.__setattr__(self, "service", service)
        object.__setattr__(self, "names_each", "$(" in service)

    @property
    def deleting(self) -> bool:
        return bool(self.meta.deleted)

    @property
    def held(self) -> bool:
        """Whether it can't go without our noticing: it has our finalizer."""
        return FINALIZER in self.meta.finalizers

    @property
    def suspended(self) -> bool:
        return not isinstance(self.spec, Reason) and self.spec.suspend

    @property
    def resync(self) -> str:
        """The value of the annotation, as far as status holds it; "": none."""
        return self.meta.annotations.get(RESYNC, "")[:_MAX_RESYNC]

    @property
    def adopts(self) -> bool:
        """Whether it takes the place of what is nobody's."""
        return self.meta.annotations.get(ADOPT) == "true"

    @property
    def orphans(self) -> bool:
        """Whether its deletion leaves the instances in Consul: by policy, or since a suspended one removes nothing."""
        return self.suspended or (not isinstance(self.spec, Reason) and self.spec.deletion_policy == "Orphan")


@dataclass(frozen=True, slots=True)
class Connection:
    """A ConsulConnection. `spec` is a Reason where it is malformed."""

    name: str
    meta: Meta
    spec: ConsulConnectionSpec | Reason
    status: Json


def registration(body: Json) -> Registration:
    """A registration from an object's body."""
    metadata = body["metadata"]
    key = RegistrationKey(metadata["namespace"], metadata["name"])
    spec = _spec(ServiceRegistrationSpec, body)
    if isinstance(spec, ServiceRegistrationSpec):
        spec = _named_well(spec, key.name)
    return Registration(key, _meta(metadata), spec, _status(body))


def _secrets(spec: ServiceRegistrationSpec) -> tuple[tuple[str, str], ...]:
    headers = (header for check in spec.checks or () if check.http for header in check.http.headers)
    refs = {header.value_from.secret_key_ref for header in headers if header.value_from}
    return tuple(sorted((ref.name, ref.key) for ref in refs))


def _named_well(spec: ServiceRegistrationSpec, name: str) -> ServiceRegistrationSpec | Reason:
    """The rules that span metadata.name and the spec (`api.registration.OBJECT_RULES`)."""
    if folded(spec.service.name or name) == RESERVED:
        return Reason("InvalidSpec", "spec.service.name must not be 'consul': that service is Consul's own")
    if spec.service.name is None and len(name) > _MAX_SERVICE:
        message = f"spec: must have spec.service.name where metadata.name is over {_MAX_SERVICE} characters"
        return Reason("InvalidSpec", message)
    return spec


def connection(body: Json) -> Connection:
    """A connection from an object's body."""
    metadata = body["metadata"]
    return Connection(metadata["name"], _meta(metadata), _spec(ConsulConnectionSpec, body), _status(body))


def beyond(spec: ConsulConnectionSpec) -> Reason | None:
    """What a connection asks for that this operator can't do, None where there is nothing. Then nothing is written.

    Consul Enterprise alone has these, and there is none here to prove that what is written there goes where it should.
    """
    named = [name for name, value in (("namespace", spec.namespace), ("partition", spec.partition)) if value]
    if not named:
        return None
    fields = " and ".join(f"spec.{name}" for name in named)
    return Reason("EnterpriseOnly", f"{fields} must not be set: {ENTERPRISE_ONLY}; nothing is written there")


def _status(body: Json) -> Json:
    """What was said of it; nothing where nobody has looked yet."""
    status = body.get("status") or {}
    return {} if status == NOBODY_LOOKED else status


def _meta(metadata: Json) -> Meta:
    return Meta(
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        generation=metadata.get("generation", 0),
        created=metadata.get("creationTimestamp") or "",
        deleted=metadata.get("deletionTimestamp") or "",
        finalizers=tuple(metadata.get("finalizers") or ()),
        annotations=metadata.get("annotations") or {},
    )


def _spec(model: type[M], body: Json) -> M | Reason:
    try:
        return model.model_validate(body.get("spec") or {})
    except ValidationError as error:
        return Reason("InvalidSpec", "; ".join(_finding(e) for e in error.errors()[:5])[:_MAX_MESSAGE])


def _finding(error: ErrorDetails) -> str:
    """One finding as `spec.checks[0].http.path: must …`."""
    path = "spec"
    for part in error["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    message = str(error["msg"]).removeprefix("Value error, ")
    value = error["input"]
    shown = f", not {value!r}" if isinstance(value, (str, int, float)) else ""
    return f"{path}: {message}{shown}"
