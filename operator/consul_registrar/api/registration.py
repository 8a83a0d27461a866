"""`ServiceRegistration`: what to register in Consul, and where. The one source of its CRD."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from consul_registrar.addresses import parsed
from consul_registrar.api.base import (
    DNS_LABEL,
    OBJECT_NAME,
    SERVICE_NAME_CEL,
    SERVICE_NAME_OR_TEMPLATE,
    SET,
    UNIQUE_NAMES,
    DefaultPort,
    LiteralMeta,
    LiteralTag,
    Meta,
    Model,
    NamedNumbers,
    NamedPorts,
    PortNumber,
    PortRef,
    Rule,
    Tag,
    WeightRef,
    cel,
    default_port_rule,
    list_map,
)
from consul_registrar.api.check import WITH_PORT, Check, names_a_port
from consul_registrar.api.selector import Selector


class ConsulRef(Model):
    """Names a ConsulConnection."""

    name: str = Field(
        min_length=1,
        max_length=253,
        pattern=OBJECT_NAME,
        description="Name of the ConsulConnection.",
    )


_ANY_ADDRESS_MESSAGE = "must be an address that callers can reach, not 0.0.0.0 or ::"


def _is_reachable(address: str) -> str:
    known = parsed(address)
    if known is not None and known.is_unspecified:
        raise ValueError(_ANY_ADDRESS_MESSAGE)
    if known is None and ":" in address:
        raise ValueError("must be an IP address, or a host name, which has no colons")
    return address


_ADDRESS = r"^[A-Za-z0-9:]([A-Za-z0-9._:-]*[A-Za-z0-9:])?$"
Address = Annotated[
    str,
    StringConstraints(min_length=1, max_length=253, pattern=_ADDRESS),
    AfterValidator(_is_reachable),
    Field(json_schema_extra=cel(("!(self in ['0.0.0.0', '::'])", _ANY_ADDRESS_MESSAGE))),
]
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
    rules = (
        Rule(
            "!has(self.passing) || type(self.passing) != int || self.passing >= 1",
            "must have passing from 1 on: nobody would be sent to an instance that is passing",
            lambda self: self.passing != 0,
        ),
    )


class OtherAddress(Model):
    """Another address of each instance."""

    address: Address = Field(description="IP address or DNS name.")
    port: PortNumber = Field(description="Port.")


def _are_names_of_addresses(value: dict[str, OtherAddress]) -> dict[str, OtherAddress]:
    if not all(re.fullmatch(_ADDRESS_NAME, name) and name not in _CONSULS_OWN for name in value):
        raise ValueError(_ADDRESS_NAMES)
    return value


class Service(Model):
    """What is published in Consul."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128), SERVICE_NAME_OR_TEMPLATE] | None = Field(
        default=None,
        description="Name of the service in Consul; default: the registration's own name. May hold field paths: then "
        "each Pod is published under a name of its own. Names with other characters than letters, digits and dashes, "
        "or over 63 of them, can't be resolved through Consul's DNS.",
        json_schema_extra=cel(
            ("self.lowerAscii() != 'consul'", "must not be 'consul': that service is Consul's own"), SERVICE_NAME_CEL
        ),
    )
    port: PortRef | None = Field(
        default=None,
        description="Port that is published: a number, without quotes, or the name of a container port, looked up in "
        "each Pod. "
        "Default: the Pod's only declared TCP port. With spec.kubernetesService a number or the name of a port of "
        "the Service; default: its only one. Not with spec.endpoints: they bring their own.",
    )
    ports: NamedPorts | None = Field(
        default=None,
        description="Instead of port: several ports of each instance, by name (Consul's named ports, known to Consul "
        "1.22 and later). Values are as those of port. Checks may name them.",
    )
    default_port: DefaultPort | None = Field(
        default=None,
        description="Which of ports callers get that ask for none by name. Needed where there are several.",
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
        "field paths. Keys: at most 128 characters out of A-Z a-z 0-9 _ -; values: at most 512 bytes.",
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
        default=False,
        description="Let others edit the tags in Consul's catalog: they are not set right any more, but written anew "
        "when they are edited here.",
    )

    rules = (
        Rule(
            "!has(self.port) || !has(self.ports)",
            "must have at most one of port and ports",
            lambda self: self.port is None or self.ports is None,
        ),
        default_port_rule(),
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
        pattern=DNS_LABEL,
        description="Tells the endpoints of a registration apart.",
    )
    address: Address = Field(description="IP address or DNS name.")
    port: PortNumber | None = Field(default=None, description="Port; this or ports.")
    ports: NamedNumbers | None = Field(
        default=None,
        description="Instead of port: several ports, by name, as in spec.service.ports.",
    )
    default_port: DefaultPort | None = Field(
        default=None, description="Which of ports is the default. Needed where there are several."
    )
    meta: LiteralMeta = Field(
        default_factory=dict, description="Metadata of this endpoint, over that of the service; literal values."
    )
    tags: list[LiteralTag] = Field(
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

    rules = (
        Rule(
            "has(self.port) != has(self.ports)",
            "must have exactly one of port and ports",
            lambda self: (self.port is None) != (self.ports is None),
        ),
        default_port_rule(),
    )


class KubernetesServiceSource(Model):
    """Registers the addresses of a Kubernetes Service of the registration's namespace."""

    name: str = Field(
        min_length=1,
        max_length=63,
        pattern=DNS_LABEL,
        description="Name of the Service.",
    )
    publish: Literal["LoadBalancer", "NodePort", "ClusterIP", "ExternalIP"] = Field(
        description="Which addresses. LoadBalancer: one instance for each IP or host name of its load balancer. "
        "NodePort: one for each node that holds an endpoint of the Service, with the node's InternalIP and the node "
        "port. ClusterIP: one, with the cluster IP. ExternalIP: one for each of spec.externalIPs, where the connection "
        "allows endpoints.",
    )
    ip_family: Literal["IPv4", "IPv6"] | None = Field(
        default=None,
        description="Which addresses of a dual-stack Service; default: its first cluster IP, the node's first "
        "InternalIP, all load balancer and external IPs. A host name is of both families.",
    )


Endpoints = Annotated[
    list[Endpoint], UNIQUE_NAMES, Field(min_length=1, max_length=128, json_schema_extra=list_map("name"))
]
Checks = Annotated[list[Check], UNIQUE_NAMES, Field(max_length=16, json_schema_extra=list_map("name"))]


class ServiceRegistrationSpec(Model):
    """What to register: exactly one of pods, endpoints and kubernetesService."""

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
    kubernetes_service: KubernetesServiceSource | None = Field(
        default=None, description="Registers the addresses of a Kubernetes Service of this namespace."
    )
    checks: Annotated[list[Check], UNIQUE_NAMES, Field(max_length=16, json_schema_extra=list_map("name"))] | None = (
        Field(
            default=None,
            description="Health checks of each instance. Unset: the readiness of Pods, or of the endpoints of a "
            "Service; none for endpoints. []: none.",
        )
    )
    checks_from_probes: bool = Field(
        default=False,
        description="Derive checks from the readiness probes of the Pod's containers (httpGet, tcpSocket, grpc), "
        "beside spec.checks: then Consul's agents probe as the kubelet does.",
    )
    deletion_policy: Literal["Deregister", "Orphan"] = Field(
        default="Deregister",
        description="What becomes of the instances when the registration is deleted. Orphan: they stay in Consul, "
        "owned by nobody.",
    )

    rules = (
        Rule(
            "[has(self.pods), has(self.endpoints), has(self.kubernetesService)].filter(one, one).size() == 1",
            "must have exactly one of pods, endpoints and kubernetesService",
            lambda self: [self.pods, self.endpoints, self.kubernetes_service].count(None) == 2,
        ),
        Rule(
            "!has(self.endpoints) || !has(self.service) || (!has(self.service.port) && !has(self.service.ports))",
            "must not have service.port or service.ports with endpoints: each endpoint brings its own",
            lambda self: self.endpoints is None or (self.service.port is None and self.service.ports is None),
        ),
        Rule(
            "!has(self.endpoints) || !has(self.checks) || self.checks.all(c, !has(c.readiness))",
            "must not have a readiness check with endpoints: only Pods and Services have a readiness",
            lambda self: self.endpoints is None or all(c.readiness is None for c in self.checks or ()),
        ),
        Rule(
            "!has(self.endpoints) || !has(self.checks) || self.endpoints.all(e, has(e.ports)) || self.checks.all(c, "
            + " && ".join(f"(!has(c.{k}) || !has(c.{k}.port) || type(c.{k}.port) == int)" for k in WITH_PORT)
            + ")",
            "must have numbers for the ports of checks with endpoints that have no named ports",
            lambda self: all(e.ports for e in self.endpoints or ()) or not any(map(names_a_port, self.checks or ())),
        ),
        Rule(
            "!has(self.endpoints) || self.endpoints.all(e, !has(e.checks) || "
            "e.checks.all(n, has(self.checks) && self.checks.exists(c, c.name == n)))",
            "must have endpoints whose checks are names out of spec.checks",
            lambda self: all({c.name for c in self.checks or ()} >= set(e.checks or ()) for e in self.endpoints or ()),
        ),
        Rule(
            "!has(self.checksFromProbes) || !self.checksFromProbes || has(self.pods)",
            "must not have checksFromProbes without pods: only Pods have probes",
            lambda self: not self.checks_from_probes or self.pods is not None,
        ),
    )


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
