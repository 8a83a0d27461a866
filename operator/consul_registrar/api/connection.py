"""`ConsulConnection`: one Consul to write to. The one source of its CRD."""

from typing import Annotated, Literal

from pydantic import Field

from consul_registrar.api.access import Auth, Tls
from consul_registrar.api.base import ATOMIC, DNS_LABEL, SET, Duration, Meta, Model, PortNumber, Rule, Tag, cel
from consul_registrar.api.registration import Checks, ServiceWeights
from consul_registrar.api.selector import Selector

_URL = r"^https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(:[0-9]{1,5})?$"

EnterpriseName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$")]


class NodeAgents(Model):
    """One Consul client agent on each Kubernetes node; found at the address that the Node object has."""

    port: PortNumber = Field(default=8500, description="Port of the agents' HTTP API.")
    scheme: Literal["http", "https"] = Field(default="http", description="http or https.")
    address_type: Literal["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"] = Field(
        default="InternalIP", description="Which of the Node's addresses."
    )


class AllowedNamespaces(Model):
    """Whose registrations may be in a Consul: those of the namespaces that are named, or whose labels match."""

    names: list[Annotated[str, Field(max_length=63, pattern=DNS_LABEL)]] = Field(
        default_factory=list, max_length=256, description="Names of namespaces.", json_schema_extra=SET
    )
    selector: Selector | None = Field(default=None, description="Labels of namespaces.")
    rules = (
        Rule(
            "(has(self.names) && size(self.names) > 0) || has(self.selector)",
            "must have at least one of names and selector",
            lambda self: bool(self.names) or self.selector is not None,
        ),
    )


class RemovalGuard(Model):
    """When removals of what is merely absent are held. What is gone (a Pod that was deleted, or ended) never is."""

    share: int = Field(
        default=20,
        ge=0,
        le=100,
        description="Hold when more than this percentage of all instances here is absent at once (within a minute).",
    )
    at_least: int = Field(
        default=3,
        ge=1,
        le=1_000_000,
        description="Never hold fewer than this many; an edit that would take all instances of a registration is held "
        "from this many on, whatever their share.",
    )
    release: Literal["After", "Manual"] = Field(
        default="After",
        description="After: what is still absent after a while is removed. Manual: only what the annotation "
        "consul-registrar.dev/approve-removals names.",
    )
    after: Annotated[str, Duration("10s", "168h")] = Field(
        default="5m", description="How long removals are held with release After."
    )
    rate: int = Field(default=10, ge=1, le=10_000, description="How many released removals are made in a second.")


class DeadMan(Model):
    """When the operator counts as gone."""

    after: Annotated[str, Duration("20s", "24h")] = Field(
        default="1m",
        description="How long nothing was heard of the operator before what it vouches for turns critical.",
    )


class Limits(Model):
    """How much the operator may ask of this Consul."""

    writes_per_second: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="How many changes of instances are written in a second, on average; up to a second's worth at "
        "once. What is gone is removed first. Default: no limit.",
    )


class PortRange(Model):
    """Ports from first to last."""

    first: PortNumber = Field(description="First port.")
    last: PortNumber | None = Field(default=None, description="Last port; default: the first.")
    rules = (
        Rule(
            "!has(self.last) || self.first <= self.last",
            "must have first at most last",
            lambda self: self.last is None or self.first <= self.last,
        ),
    )


class CheckPolicy(Model):
    """Which checks registrations may have here."""

    types: list[Literal["readiness", "tcp", "http", "grpc", "udp", "h2ping", "ttl", "alias"]] = Field(
        default=["readiness", "tcp", "http", "grpc", "udp", "h2ping", "ttl", "alias"],
        max_length=8,
        description="Types of checks.",
        json_schema_extra=SET,
    )
    methods: list[Literal["GET", "HEAD", "POST", "PUT", "OPTIONS"]] = Field(
        default=["GET", "HEAD"], max_length=5, description="Methods of HTTP checks.", json_schema_extra=SET
    )
    ports: list[PortRange] = Field(
        default_factory=list,
        max_length=32,
        description="Ports that may be probed; default: all.",
        json_schema_extra=ATOMIC,
    )
    redirects: Literal["Refuse", "Allow"] = Field(
        default="Refuse",
        description="Whether HTTP checks may have followRedirects: nothing here bounds where a redirect leads.",
    )
    refused_addresses: list[Literal["Loopback", "LinkLocal", "Node", "Consul"]] = Field(
        default=["Loopback", "LinkLocal", "Node", "Consul"],
        max_length=4,
        description="Addresses that must not be probed: the agent's own machine, link-local ones such as a cloud's "
        "metadata service, the cluster's nodes, those of this connection (with nodeAgents: the agents' port on the "
        "nodes). DNS names are compared as they are written.",
        json_schema_extra=SET,
    )


#: Asked by the API server alone: a connection that has one already goes on, and the Pods that it concerns say so.
_NO_SECRETS = cel(
    (
        "self.all(c, !has(c.http) || !has(c.http.headers) || c.http.headers.all(h, !has(h.valueFrom)))",
        "must have no headers with valueFrom: Secrets are read for a registration's own checks only",
    )
)


class Defaults(Model):
    """What all registrations here have, under what they say themselves."""

    tags: list[Tag] = Field(
        default_factory=list,
        max_length=16,
        description="Tags, beside those of the registration. May hold field paths.",
        json_schema_extra=SET,
    )
    meta: Meta = Field(
        default_factory=dict,
        description="Metadata; the registration's value goes before. Values may hold field paths.",
    )
    weights: ServiceWeights | None = Field(
        default=None, description="Weights of registrations that say nothing of weights."
    )
    checks: Checks | None = Field(
        default=None,
        description="Checks of registrations of Pods that say nothing of checks. Headers can't come from Secrets: "
        "there is no namespace that they could be in.",
        json_schema_extra=_NO_SECRETS,
    )


class ConsulConnectionSpec(Model):
    """Which Consul, how to reach it and what may be done there."""

    mode: Literal["Agent", "Catalog"] = Field(
        description="Agent: instances are registered with Consul client agents, which run their checks. Catalog: they "
        "are written to the servers' catalog, on virtual nodes; tcp and http checks are run by consul-esm. Can't be "
        "changed."
    )
    addresses: (
        Annotated[
            list[
                Annotated[
                    str,
                    Field(
                        max_length=300,
                        pattern=_URL,
                    ),
                ]
            ],
            Field(min_length=1, max_length=8, json_schema_extra=SET),
        ]
        | None
    ) = Field(
        default=None,
        description="Agent: URL of the one agent to register with, such as http://10.0.0.1:8500; it must lead to one "
        "agent, never to a load balancer. Catalog: URLs of servers, or of agents that ask them; the next is used when "
        "one doesn't answer.",
    )
    node_agents: NodeAgents | None = Field(
        default=None, description="Register each Pod with the agent on its own node. {} takes the defaults."
    )
    virtual_nodes: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Catalog: over how many virtual Consul nodes the instances are spread; default: 32. Each costs two "
        "waiting connections; Consul allows a client 200. When it is changed, only those move whose node goes.",
    )
    datacenter: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        pattern=r"^[a-z0-9_-]+$",
        description="Name of the datacenter that the agents must be in; default: any. Can't be changed.",
    )
    namespace: EnterpriseName | None = Field(
        default=None,
        description="Namespace of Consul Enterprise. Not supported: a connection that names one writes nothing, and "
        "says EnterpriseOnly.",
    )
    partition: EnterpriseName | None = Field(
        default=None, description="Admin partition of Consul Enterprise. Not supported, as namespace."
    )
    tls: Tls | None = Field(default=None, description="Trust both ways, for https addresses.")
    auth: Auth | None = Field(default=None, description="The token, where Consul has ACLs.")
    policy: Literal["Sync", "UpsertOnly", "Observe"] = Field(
        default="Sync",
        description="Sync: register, update and deregister. UpsertOnly: never deregister. Observe: write nothing, "
        "show in status what would be written.",
    )
    shared_names: Literal["Refuse", "Allow"] = Field(
        default="Refuse",
        description="Whether registrations of several namespaces may publish one service name. Refuse: it belongs to "
        "the namespace of the oldest registration.",
    )

    service_name_pattern: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9._-]*([$][(]metadata[.]namespace[)])?[A-Za-z0-9._*-]*$",
        description="What service names must look like, such as $(metadata.namespace)-*; * stands for any characters. "
        "A name that fits several namespaces belongs to that with the longest name. Default: any name.",
    )
    check_policy: CheckPolicy | None = Field(
        default=None, description="Which checks registrations may have; {} takes the defaults. Default: any."
    )
    defaults: Defaults | None = Field(
        default=None, description="What all registrations here have, under what they say themselves."
    )
    allow_endpoints: bool = Field(
        default=True,
        description="Whether registrations may name addresses of their own: spec.endpoints, "
        "spec.service.taggedAddresses, and where checks are redirected to. Agents, or consul-esm, probe them from "
        "where they run.",
    )
    allowed_namespaces: AllowedNamespaces | None = Field(
        default=None,
        description="Whose registrations may be here; default: those of all namespaces. In a namespace that isn't "
        "allowed (any more) nothing is added or changed; what stands stays, save what is gone.",
    )
    limits: Limits = Field(default_factory=Limits, description="How much the operator may ask of this Consul.")
    removal_guard: RemovalGuard = Field(
        default_factory=RemovalGuard,
        description="When removals of what is merely absent (not listed, not selected any more) are held.",
    )
    dead_man: DeadMan | None = Field(
        default=None,
        description="Agent: instances with a check that mirrors readiness turn critical when the operator was gone "
        "for too long, as nobody would tell of a Pod that isn't ready. Each agent gets a service "
        "consul-registrar-heartbeat, and each of these instances a check that follows it. {} takes the defaults. "
        "Default: they stay as they were told last.",
    )
    take_over_from: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        pattern=r"^[0-9A-Za-z-]+$",
        description="UID of the namespace kube-system of a cluster that is gone for good and held this cluster's name "
        "in this Consul: this cluster takes the name over, and what stands under it. May stay set.",
    )

    rules = (
        Rule(
            "self.mode == 'Catalog' || has(self.addresses) != has(self.nodeAgents)",
            "must have exactly one of addresses and nodeAgents",
            lambda self: self.mode == "Catalog" or (self.addresses is None) != (self.node_agents is None),
        ),
        Rule(
            "self.mode == 'Catalog' || !has(self.addresses) || size(self.addresses) == 1",
            "must have one address in mode Agent",
            lambda self: self.mode == "Catalog" or self.addresses is None or len(self.addresses) == 1,
        ),
        Rule(
            "self.mode == 'Catalog' || !has(self.virtualNodes)",
            "must not have virtualNodes in mode Agent",
            lambda self: self.mode == "Catalog" or self.virtual_nodes is None,
        ),
        Rule(
            "self.mode == 'Catalog' || !has(self.auth) || !has(self.auth.kubernetes)",
            "must not have auth.kubernetes in mode Agent: agents go on with the token of a registration, and such a "
            "token ends",
            lambda self: self.mode == "Catalog" or self.auth is None or self.auth.kubernetes is None,
        ),
        Rule(
            "self.mode == 'Agent' || !has(self.deadMan)",
            "must not have deadMan in mode Catalog: nobody runs the check that would follow the operator",
            lambda self: self.mode == "Agent" or self.dead_man is None,
        ),
        Rule(
            "!has(self.policy) || self.policy != 'Observe' || !has(self.deadMan)",
            "must not have deadMan with policy Observe: the operator writes nothing, so all would turn critical",
            lambda self: self.policy != "Observe" or self.dead_man is None,
        ),
        Rule(
            "self.mode != 'Catalog' || (has(self.addresses) && !has(self.nodeAgents))",
            "must have addresses and no nodeAgents in mode Catalog",
            lambda self: self.mode != "Catalog" or (self.addresses is not None and self.node_agents is None),
        ),
    )


def _immutable(field: str) -> tuple[str, str]:
    return (
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        f"must not change {field}: another Consul is another ConsulConnection",
    )


#: Rules of the spec that see its old value.
TRANSITIONS = cel(_immutable("mode"), _immutable("datacenter"))
