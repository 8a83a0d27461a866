"""Health checks of a registration: their kinds and fields."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from consul_registrar.api.base import (
    DNS_LABEL,
    OBJECT_NAME,
    TEMPLATE,
    UNIQUE_NAMES,
    Duration,
    Model,
    PortRef,
    Rule,
    TlsName,
    list_map,
)


class Empty(Model):
    """An object without fields: its presence says everything."""


class LocalSecretKey(Model):
    """One key of a Secret of the registration's namespace."""

    name: str = Field(min_length=1, max_length=253, pattern=OBJECT_NAME, description="Name of the Secret.")
    key: str = Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="Key in the Secret.")


class ValueFrom(Model):
    """Where a value comes from."""

    secret_key_ref: LocalSecretKey = Field(
        description="A key of a Secret of the registration's namespace, which the operator must be allowed to get. It "
        "is read again every 30 s."
    )


class Header(Model):
    """One header of an HTTP check: exactly one of value and valueFrom."""

    name: str = Field(
        min_length=1, max_length=128, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", description="Name of the header."
    )
    value: Annotated[str, StringConstraints(max_length=512, pattern=r"^[ -~]*$"), *TEMPLATE] | None = Field(
        default=None, description="Value of the header. May hold field paths."
    )
    value_from: ValueFrom | None = Field(
        default=None,
        description="Where the value comes from, for what is secret. Only agents are given such headers (mode Agent): "
        "the catalog would show them to its readers.",
    )
    rules = (
        Rule(
            "has(self.value) != has(self.valueFrom)",
            "must have exactly one of value and valueFrom",
            lambda self: (self.value is None) != (self.value_from is None),
        ),
    )


class Tcp(Model):
    """Passing while a TCP connection can be opened."""

    port: PortRef | None = Field(default=None, description="Port to connect to; default: the instance's port.")


class Http(Model):
    """Passing on a 2xx answer, warning on 429, else critical."""

    path: Annotated[str, *TEMPLATE] = Field(
        default="/",
        max_length=1024,
        pattern=r'^/[!-"$-~]*$',
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
    tls_server_name: TlsName = Field(
        default="", description="Name to verify in the certificate, with https; default: the address."
    )
    tls_skip_verify: bool = Field(default=False, description="Accept any certificate, with https.")
    follow_redirects: bool = Field(
        default=False,
        description="Go where a redirect leads, to other addresses too; only where the connection allows endpoints. "
        "Otherwise a redirect is critical. consul-esm follows them, whatever is said here.",
    )


class Grpc(Model):
    """Passing while the target's gRPC health service says SERVING."""

    port: PortRef | None = Field(default=None, description="Port to call; default: the instance's port.")
    service: str = Field(
        default="", max_length=253, pattern=r"^[A-Za-z0-9._-]*$", description="Service to ask for; default: the whole."
    )
    tls: bool = Field(default=False, description="Call over TLS.")
    tls_server_name: TlsName = Field(default="", description="Name to verify in the certificate, with tls.")
    tls_skip_verify: bool = Field(default=False, description="Accept any certificate, with tls.")


class Udp(Model):
    """Passing once an empty datagram is answered, critical when it is refused; silence leaves it as it was."""

    port: PortRef | None = Field(default=None, description="Port to send to; default: the instance's port.")


class H2Ping(Model):
    """Passing while an HTTP/2 ping is answered."""

    port: PortRef | None = Field(default=None, description="Port to call; default: the instance's port.")
    tls: bool = Field(default=True, description="Call over TLS; without it: HTTP/2 with prior knowledge.")
    tls_server_name: TlsName = Field(default="", description="Name to verify in the certificate, with tls.")
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
#: Kinds that are about a port.
WITH_PORT = ("tcp", "http", "grpc", "udp", "h2ping")


class Check(Model):
    """One health check: exactly one of readiness, tcp, http, grpc, udp, h2ping, ttl and alias."""

    name: str = Field(
        min_length=1,
        max_length=63,
        pattern=DNS_LABEL,
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
        default=None,
        description="Consecutive successes after which the check turns passing; default 0: at once. The first result "
        "of a new probe decides at once, whatever is said here.",
    )
    failures_before_warning: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None,
        description="Consecutive failures after which the check turns warning, at most "
        "failuresBeforeCritical; default: that. A new probe that fails at first turns critical at once.",
    )
    failures_before_critical: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None,
        description="Consecutive failures after which the check turns critical; default 0: at once. The first result "
        "of a new probe decides at once, whatever is said here.",
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
            "!has(self.failuresBeforeWarning) || self.failuresBeforeWarning <= "
            "(has(self.failuresBeforeCritical) ? self.failuresBeforeCritical : 0)",
            "must have failuresBeforeWarning at most failuresBeforeCritical",
            lambda self: (self.failures_before_warning or 0) <= (self.failures_before_critical or 0),
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


def names_a_port(check: Check) -> bool:
    """Whether the check names a container port, which only Pods have."""
    probes = (check.tcp, check.http, check.grpc, check.udp, check.h2ping)
    return any(isinstance(probe.port, str) for probe in probes if probe is not None)
