"""`ServiceRegistration`: what to register in Consul, and where. The one source of its CRD."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from consul_registrar.api.base import (
    OBJECT_NAME,
    SERVICE_NAME,
    SET,
    UNIQUE_NAMES,
    Duration,
    LiteralMeta,
    Meta,
    Model,
    PortNumber,
    PortRef,
    Rule,
    Tag,
    cel,
    list_map,
)
from consul_registrar.api.selector import Selector


class Empty(Model):
    """An object without fields: its presence says everything."""


class ConsulRef(Model):
    """Names a ConsulConnection."""

    name: str = Field(
        min_length=1,
        max_length=253,
        pattern=OBJECT_NAME,
        description="Name of the ConsulConnection.",
    )


class Service(Model):
    """What is published in Consul."""

    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=SERVICE_NAME,
        description="Name of the service in Consul; default: the registration's own name. Names with other characters "
        "than letters, digits and dashes, or over 63 of them, can't be resolved through Consul's DNS.",
        json_schema_extra=cel(("self != 'consul'", "must not be 'consul': that service is Consul's own")),
    )
    port: PortRef | None = Field(
        default=None,
        description="Port that is published: a number, or the name of a container port, looked up in each Pod. "
        "Default: the Pod's only declared TCP port. Only with spec.pods: endpoints bring their own.",
    )
    tags: list[Tag] = Field(
        default_factory=list,
        max_length=64,
        description="Tags of each instance. May hold field paths, such as $(metadata.labels['version']).",
        json_schema_extra=SET,
    )
    meta: Meta = Field(
        default_factory=dict,
        description="Metadata of each instance, beside what the operator writes about owner and Pod. Values may hold "
        "field paths. Keys: at most 128 characters out of A-Z a-z 0-9 _ -; values: at most 512.",
    )


class Pods(Model):
    """Registers each selected Pod of the registration's namespace as an instance."""

    selector: Selector = Field(description="Which Pods. Never leaves the registration's namespace.")
    register_when: Literal["Running", "Ready", "Scheduled"] = Field(
        default="Running",
        alias="register",
        description="When a Pod enters Consul. Running: as soon as it runs, its readiness decides its health. Ready: "
        "once it was ready for the first time. Scheduled: as soon as it has an address. It leaves in every case when "
        "it starts to terminate.",
    )


_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - refused
_ANY_ADDRESS_MESSAGE = "must be an address that callers can reach, not 0.0.0.0 or ::"


def _is_reachable(address: str) -> str:
    if address in _ANY_ADDRESS:
        raise ValueError(_ANY_ADDRESS_MESSAGE)
    return address


class Endpoint(Model):
    """One address outside the cluster."""

    name: str = Field(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="Tells the endpoints of a registration apart.",
    )
    address: Annotated[str, AfterValidator(_is_reachable)] = Field(
        min_length=1,
        max_length=253,
        pattern=r"^[A-Za-z0-9:]([A-Za-z0-9._:-]*[A-Za-z0-9:])?$",
        description="IP address or DNS name.",
        json_schema_extra=cel(("!(self in ['0.0.0.0', '::'])", _ANY_ADDRESS_MESSAGE)),
    )
    port: PortNumber = Field(description="Port.")
    meta: LiteralMeta = Field(
        default_factory=dict, description="Metadata of this endpoint, over that of the service; literal values."
    )


class Header(Model):
    """One header of an HTTP check."""

    name: str = Field(
        min_length=1, max_length=128, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", description="Name of the header."
    )
    value: str = Field(max_length=1024, pattern=r"^[^\r\n]*$", description="Value of the header.")


class Tcp(Model):
    """Passing while a TCP connection can be opened."""

    port: PortRef | None = Field(default=None, description="Port to connect to; default: the instance's port.")


class Http(Model):
    """Passing on a 2xx answer, warning on 429, else critical. Redirects are not followed."""

    path: str = Field(
        default="/",
        max_length=1024,
        pattern=r"^/[^\s#]*$",
        description="Path and query, beginning with a slash.",
    )
    port: PortRef | None = Field(default=None, description="Port to call; default: the instance's port.")
    scheme: Literal["http", "https"] = Field(default="http", description="http or https.")
    method: Literal["GET", "HEAD", "POST", "PUT", "OPTIONS"] = Field(
        default="GET", description="Method of the request."
    )
    headers: Annotated[list[Header], UNIQUE_NAMES] = Field(
        default_factory=list,
        max_length=32,
        description="Headers of the request.",
        json_schema_extra=list_map("name"),
    )
    body: str = Field(default="", max_length=4096, description="Body of the request.")
    tls_server_name: str = Field(
        default="", max_length=253, description="Name to verify in the certificate, with https; default: the address."
    )
    tls_skip_verify: bool = Field(default=False, description="Accept any certificate, with https.")


class Check(Model):
    """One health check: exactly one of readiness, tcp and http."""

    name: str = Field(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="Tells the checks of a registration apart; shown in Consul.",
    )
    readiness: Empty | None = Field(
        default=None,
        description="The Pod's readiness in Kubernetes, mirrored at each change. Costs no probe.",
    )
    tcp: Tcp | None = Field(default=None, description="A TCP connection, opened by the Consul agent.")
    http: Http | None = Field(default=None, description="An HTTP request, made by the Consul agent.")
    interval: Annotated[str, Duration("1s", "1h")] | None = Field(
        default=None, description="Time between two probes; default 10s."
    )
    timeout: Annotated[str, Duration("100ms", "1m")] | None = Field(
        default=None, description="Time that a probe may take; default 2s."
    )
    deregister_critical_service_after: Annotated[str, Duration("1s", "720h")] | None = Field(
        default=None,
        description="Consul's agent removes the instance once this check was critical for so long. Consul's minimum "
        "is 1m: less is taken as 1m; its reaper looks every 30s. You rarely need this: Pods are removed when they go.",
    )
    success_before_passing: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="Consecutive successes after which the check turns passing; default 0: at once."
    )
    failures_before_warning: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None,
        description="Consecutive failures after which the check turns warning; default: failuresBeforeCritical.",
    )
    failures_before_critical: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="Consecutive failures after which the check turns critical; default 0: at once."
    )
    initial_status: Literal["passing", "warning", "critical"] | None = Field(
        default=None, description="Status until the first probe has answered; default critical."
    )
    notes: str = Field(default="", max_length=512, description="A note for people, shown in Consul.")

    rules = (
        Rule(
            "[has(self.readiness), has(self.tcp), has(self.http)].filter(x, x).size() == 1",
            "must have exactly one of readiness, tcp, http",
            lambda self: [self.readiness, self.tcp, self.http].count(None) == 2,
        ),
        Rule(
            "!has(self.readiness) || !(has(self.interval) || has(self.timeout) || "
            "has(self.deregisterCriticalServiceAfter) || has(self.successBeforePassing) || "
            "has(self.failuresBeforeWarning) || has(self.failuresBeforeCritical) || has(self.initialStatus))",
            "must not have interval, timeout, deregisterCriticalServiceAfter, initialStatus or thresholds with "
            "readiness: nothing is probed, Kubernetes says",
            lambda self: self.readiness is None or not self.probes,
        ),
        Rule(
            "!has(self.failuresBeforeWarning) || !has(self.failuresBeforeCritical) || "
            "self.failuresBeforeWarning <= self.failuresBeforeCritical",
            "must have failuresBeforeWarning at most failuresBeforeCritical",
            lambda self: (self.failures_before_warning or 0) <= (self.failures_before_critical or 100),
        ),
    )

    @property
    def probes(self) -> bool:
        """Whether a field is set that only a probe can have."""
        fields = (
            self.interval,
            self.timeout,
            self.deregister_critical_service_after,
            self.success_before_passing,
            self.failures_before_warning,
            self.failures_before_critical,
            self.initial_status,
        )
        return any(value is not None for value in fields)


Endpoints = Annotated[
    list[Endpoint], UNIQUE_NAMES, Field(min_length=1, max_length=128, json_schema_extra=list_map("name"))
]
Checks = Annotated[list[Check], UNIQUE_NAMES, Field(max_length=16, json_schema_extra=list_map("name"))]


class ServiceRegistrationSpec(Model):
    """What to register: exactly one of pods and endpoints."""

    consul_refs: Annotated[list[ConsulRef], UNIQUE_NAMES] = Field(
        default=[ConsulRef(name="default")],
        min_length=1,
        max_length=8,
        description="ConsulConnections to register in; the same instances in each.",
        json_schema_extra=list_map("name"),
    )
    suspend: bool = Field(
        default=False,
        description="Write nothing to Consul at all; status counts what waits. What stands in Consul stays, also when "
        "the registration is deleted meanwhile.",
    )
    service: Service = Field(default=Service(), description="What is published.")
    pods: Pods | None = Field(default=None, description="Registers Pods of this namespace.")
    endpoints: (
        Annotated[list[Endpoint], UNIQUE_NAMES, Field(min_length=1, max_length=128, json_schema_extra=list_map("name"))]
        | None
    ) = Field(default=None, description="Registers addresses outside the cluster: databases, SaaS endpoints.")
    checks: Annotated[list[Check], UNIQUE_NAMES, Field(max_length=16, json_schema_extra=list_map("name"))] | None = (
        Field(
            default=None,
            description="Health checks of each instance. Unset: the readiness of Pods, none for endpoints. []: none.",
        )
    )
    deletion_policy: Literal["Deregister", "Orphan"] = Field(
        default="Deregister",
        description="What becomes of the instances when the registration is deleted. Orphan: they stay in Consul, "
        "owned by nobody.",
    )

    rules = (
        Rule(
            "has(self.pods) != has(self.endpoints)",
            "must have exactly one of pods and endpoints",
            lambda self: (self.pods is None) != (self.endpoints is None),
        ),
        Rule(
            "!has(self.endpoints) || !has(self.service) || !has(self.service.port)",
            "must not have service.port with endpoints: each endpoint brings its own",
            lambda self: self.endpoints is None or self.service.port is None,
        ),
        Rule(
            "!has(self.endpoints) || !has(self.checks) || self.checks.all(c, !has(c.readiness))",
            "must not have a readiness check with endpoints: only Pods have a readiness",
            lambda self: self.endpoints is None or all(c.readiness is None for c in self.checks or ()),
        ),
        Rule(
            "!has(self.endpoints) || !has(self.checks) || self.checks.all(c, "
            "(!has(c.tcp) || !has(c.tcp.port) || type(c.tcp.port) == int) && "
            "(!has(c.http) || !has(c.http.port) || type(c.http.port) == int))",
            "must have numbers for the ports of checks with endpoints: there are no container ports to name",
            lambda self: self.endpoints is None or not any(map(_names_a_port, self.checks or ())),
        ),
    )


def _names_a_port(check: Check) -> bool:
    return any(isinstance(probe.port, str) for probe in (check.tcp, check.http) if probe is not None)


#: Rules of the whole object, which see metadata.name.
OBJECT_RULES = cel(
    (
        "self.metadata.name != 'consul' || (has(self.spec.service) && has(self.spec.service.name))",
        "must not publish the service 'consul': that is Consul's own; set spec.service.name",
    ),
    (
        "size(self.metadata.name) <= 128 || (has(self.spec.service) && has(self.spec.service.name))",
        "must have spec.service.name where metadata.name is over 128 characters",
    ),
)
