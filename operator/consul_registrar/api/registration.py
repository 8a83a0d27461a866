"""`ServiceRegistration`: what to register in Consul, and where. The one source of its CRD."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from consul_registrar.api.base import (
    OBJECT_NAME,
    SERVICE_NAME,
    SET,
    TEMPLATE,
    UNIQUE_NAMES,
    Duration,
    LiteralMeta,
    Meta,
    Model,
    PortNumber,
    PortRef,
    Rule,
    Tag,
    WeightRef,
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


_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - refused
_ANY_ADDRESS_MESSAGE = "must be an address that callers can reach, not 0.0.0.0 or ::"


def _is_reachable(address: str) -> str:
    if address in _ANY_ADDRESS:
        raise ValueError(_ANY_ADDRESS_MESSAGE)
    return address


_ADDRESS = r"^[A-Za-z0-9:]([A-Za-z0-9._:-]*[A-Za-z0-9:])?$"
_ADDRESS_NAME = r"^[a-z][a-z0-9_-]{0,31}$"
#: Consul adds these by itself, to every instance that has an IP address.
_CONSULS_OWN = ("lan_ipv4", "wan_ipv4", "lan_ipv6", "wan_ipv6")
_ADDRESS_NAMES = (
    "must have names of at most 32 characters out of a-z 0-9 _ -, beginning with a letter, and none of "
    f"{', '.join(_CONSULS_OWN)}, which Consul adds itself"
)
_ADDRESS_NAMES_CEL = (f"self.all(k, k.matches('{_ADDRESS_NAME}') && !(k in {list(_CONSULS_OWN)}))", _ADDRESS_NAMES)


class ServiceWeights(Model):
    """How much of the traffic each instance gets, by its health, where callers ask Consul's DNS for SRV records."""

    passing: WeightRef = Field(default=1, description="While it is passing; from 1 on. May be a field path.")
    warning: WeightRef = Field(default=1, description="While it has a warning. May be a field path.")


class OtherAddress(Model):
    """Another address of each instance."""

    address: Annotated[str, AfterValidator(_is_reachable)] = Field(
        min_length=1,
        max_length=253,
        pattern=_ADDRESS,
        description="IP address or DNS name.",
        json_schema_extra=cel(("!(self in ['0.0.0.0', '::'])", _ANY_ADDRESS_MESSAGE)),
    )
    port: PortNumber = Field(description="Port.")


def _are_names_of_addresses(value: dict[str, OtherAddress]) -> dict[str, OtherAddress]:
    if not all(re.fullmatch(_ADDRESS_NAME, name) and name not in _CONSULS_OWN for name in value):
        raise ValueError(_ADDRESS_NAMES)
    return value


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
    weights: ServiceWeights = Field(default=ServiceWeights(), description="Weights of each instance.")
    tagged_addresses: Annotated[dict[str, OtherAddress], AfterValidator(_are_names_of_addresses)] = Field(
        default_factory=dict,
        max_length=8,
        description="Further addresses of each instance, by name, such as wan. Only where the connection allows "
        "endpoints.",
        json_schema_extra=cel(_ADDRESS_NAMES_CEL),
    )
    enable_tag_override: bool = Field(
        default=False, description="Let others edit the tags in Consul's catalog; they are not set right any more."
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
    address: Literal["PodIP", "HostIP"] = Field(
        default="PodIP",
        description="PodIP: the Pod's own address. HostIP: its node's, with the hostPort of the container port.",
    )
    ip_family: Literal["IPv4", "IPv6"] | None = Field(
        default=None, description="Which address of a dual-stack Pod or node; default: its first."
    )
    on_termination: Literal["Deregister", "Critical"] = Field(
        default="Deregister",
        description="What becomes of an instance when its Pod starts to terminate. Deregister: it goes at once. "
        "Critical: it stays, critical, until the Pod is gone, so that callers see it drain.",
    )


class LiteralWeights(Model):
    """Weights of one endpoint."""

    passing: int = Field(default=1, ge=1, le=65535, description="While it is passing.")
    warning: int = Field(default=1, ge=0, le=65535, description="While it has a warning.")


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
        pattern=_ADDRESS,
        description="IP address or DNS name.",
        json_schema_extra=cel(("!(self in ['0.0.0.0', '::'])", _ANY_ADDRESS_MESSAGE)),
    )
    port: PortNumber = Field(description="Port.")
    meta: LiteralMeta = Field(
        default_factory=dict, description="Metadata of this endpoint, over that of the service; literal values."
    )
    tags: list[Annotated[str, Field(min_length=1, max_length=255)]] = Field(
        default_factory=list,
        max_length=16,
        description="Tags of this endpoint, beside those of the service; literal values.",
        json_schema_extra=SET,
    )
    weights: LiteralWeights | None = Field(
        default=None, description="Weights of this endpoint; default: those of the service."
    )
    checks: list[Annotated[str, Field(max_length=63)]] | None = Field(
        default=None,
        max_length=16,
        description="Names of the checks of spec.checks that this endpoint has; default: all. []: none.",
        json_schema_extra=SET,
    )


class Header(Model):
    """One header of an HTTP check."""

    name: str = Field(
        min_length=1, max_length=128, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", description="Name of the header."
    )
    value: Annotated[str, *TEMPLATE] = Field(
        max_length=512, pattern=r"^[^\r\n]*$", description="Value of the header. May hold field paths."
    )


class Tcp(Model):
    """Passing while a TCP connection can be opened."""

    port: PortRef | None = Field(default=None, description="Port to connect to; default: the instance's port.")


class Http(Model):
    """Passing on a 2xx answer, warning on 429, else critical. Redirects are not followed."""

    path: Annotated[str, *TEMPLATE] = Field(
        default="/",
        max_length=1024,
        pattern=r"^/[^\s#]*$",
        description="Path and query, beginning with a slash. May hold field paths.",
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


class Grpc(Model):
    """Passing while the target's gRPC health service says SERVING."""

    port: PortRef | None = Field(default=None, description="Port to call; default: the instance's port.")
    service: str = Field(
        default="", max_length=253, pattern=r"^[A-Za-z0-9._-]*$", description="Service to ask for; default: the whole."
    )
    tls: bool = Field(default=False, description="Call over TLS.")
    tls_server_name: str = Field(default="", max_length=253, description="Name to verify in the certificate, with tls.")
    tls_skip_verify: bool = Field(default=False, description="Accept any certificate, with tls.")


class Udp(Model):
    """Passing once an empty datagram is answered, critical when it is refused; silence leaves it as it was."""

    port: PortRef | None = Field(default=None, description="Port to send to; default: the instance's port.")


class H2Ping(Model):
    """Passing while an HTTP/2 ping is answered."""

    port: PortRef | None = Field(default=None, description="Port to call; default: the instance's port.")
    tls: bool = Field(default=True, description="Call over TLS; without it: HTTP/2 with prior knowledge.")
    tls_server_name: str = Field(default="", max_length=253, description="Name to verify in the certificate, with tls.")
    tls_skip_verify: bool = Field(default=False, description="Accept any certificate, with tls.")


class Ttl(Model):
    """Passing while the application itself tells its Consul agent so in time."""

    ttl: Annotated[str, Duration("1s", "24h")] = Field(description="How long a word of the application is good for.")


class Alias(Model):
    """As healthy as another service instance, or as a whole Consul node."""

    service_id: str = Field(
        default="",
        max_length=253,
        pattern=r"^[!-~]*$",
        description="ID of the instance in Consul; default: the whole node.",
    )
    node: str = Field(
        default="",
        max_length=253,
        pattern=r"^[A-Za-z0-9._-]*$",
        description="Consul node that the instance is on; default: the agent's own.",
    )
    rules = (
        Rule(
            "(has(self.serviceId) && self.serviceId != '') || (has(self.node) && self.node != '')",
            "must have at least one of serviceId and node",
            lambda self: bool(self.service_id or self.node),
        ),
    )


_KINDS = ("readiness", "tcp", "http", "grpc", "udp", "h2ping", "ttl", "alias")
_WITH_PORT = ("tcp", "http", "grpc", "udp", "h2ping")


class Check(Model):
    """One health check: exactly one of readiness, tcp, http, grpc, udp, h2ping, ttl and alias."""

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
    grpc: Grpc | None = Field(default=None, description="A question to the gRPC health service, by the agent.")
    udp: Udp | None = Field(default=None, description="A datagram, sent by the Consul agent.")
    h2ping: H2Ping | None = Field(default=None, alias="h2ping", description="An HTTP/2 ping, by the Consul agent.")
    ttl: Ttl | None = Field(
        default=None,
        description="Nothing is probed: the application tells its agent (PUT /v1/agent/check/update/<check ID>).",
    )
    alias: Alias | None = Field(default=None, description="The health of another instance or node.")
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
            f"[{', '.join(f'has(self.{kind})' for kind in _KINDS)}].filter(x, x).size() == 1",
            f"must have exactly one of {', '.join(_KINDS)}",
            lambda self: [getattr(self, kind) for kind in _KINDS].count(None) == len(_KINDS) - 1,
        ),
        Rule(
            "!(has(self.readiness) || has(self.alias)) || !(has(self.interval) || has(self.timeout) || "
            "has(self.deregisterCriticalServiceAfter) || has(self.successBeforePassing) || "
            "has(self.failuresBeforeWarning) || has(self.failuresBeforeCritical) || has(self.initialStatus))",
            "must not have interval, timeout, deregisterCriticalServiceAfter, initialStatus or thresholds with "
            "readiness or alias: nothing is probed",
            lambda self: (self.readiness is None and self.alias is None) or not self.probes,
        ),
        Rule(
            "!has(self.ttl) || !(has(self.interval) || has(self.timeout) || has(self.successBeforePassing) || "
            "has(self.failuresBeforeWarning) || has(self.failuresBeforeCritical))",
            "must not have interval, timeout or thresholds with ttl: the application says, nothing is probed",
            lambda self: self.ttl is None or not (self.interval or self.timeout or self.counts),
        ),
        Rule(
            "!has(self.failuresBeforeWarning) || !has(self.failuresBeforeCritical) || "
            "self.failuresBeforeWarning <= self.failuresBeforeCritical",
            "must have failuresBeforeWarning at most failuresBeforeCritical",
            lambda self: (self.failures_before_warning or 0) <= (self.failures_before_critical or 100),
        ),
    )

    @property
    def counts(self) -> bool:
        """Whether a threshold is set."""
        fields = (self.success_before_passing, self.failures_before_warning, self.failures_before_critical)
        return any(value is not None for value in fields)

    @property
    def probes(self) -> bool:
        """Whether a field is set that only a probe can have."""
        fields = (self.interval, self.timeout, self.deregister_critical_service_after, self.initial_status)
        return self.counts or any(value is not None for value in fields)


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
            + " && ".join(f"(!has(c.{k}) || !has(c.{k}.port) || type(c.{k}.port) == int)" for k in _WITH_PORT)
            + ")",
            "must have numbers for the ports of checks with endpoints: there are no container ports to name",
            lambda self: self.endpoints is None or not any(map(_names_a_port, self.checks or ())),
        ),
        Rule(
            "!has(self.endpoints) || self.endpoints.all(e, !has(e.checks) || "
            "e.checks.all(n, has(self.checks) && self.checks.exists(c, c.name == n)))",
            "must have endpoints whose checks are names out of spec.checks",
            lambda self: all({c.name for c in self.checks or ()} >= set(e.checks or ()) for e in self.endpoints or ()),
        ),
    )


def _names_a_port(check: Check) -> bool:
    probes = (check.tcp, check.http, check.grpc, check.udp, check.h2ping)
    return any(isinstance(probe.port, str) for probe in probes if probe is not None)


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
