"""The values that pass between the layers: who owns an instance, what stands in Consul, what a Pod is to us.

Everything here is frozen and knows nothing of Kubernetes' or Consul's wire formats: `kube/` and `consul/` translate.
What should stand in Consul is decided in `desired.py`, what to do about the difference in `plan.py`.
"""

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import NamedTuple, Self

from consul_registrar.probes import Probe
from consul_registrar.values import record


class RegistrationKey(NamedTuple):
    """Names a `ServiceRegistration` object."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Key(NamedTuple):
    """What the work queue holds: one subject of a registration, or (`subject is None`) the registration itself.

    A subject is what becomes an instance: a Pod's UID, an endpoint's name, or one address of a Service (`services.py`).
    """

    registration: RegistrationKey
    subject: str | None = None


class Health(StrEnum):
    """A check's status, in Consul's words."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"


_SEVERITY = {Health.PASSING: 0, Health.WARNING: 1, Health.CRITICAL: 2}


def worst(statuses: list[Health]) -> Health:
    """The health of an instance: that of its worst check; without checks it is passing, as in Consul."""
    return max(statuses, key=_SEVERITY.__getitem__, default=Health.PASSING)


@record(frozen=True, slots=True)
class Owner:
    """Whose an instance is. Read from its meta, never from its ID or address (design 3.7)."""

    cluster: str
    connection: str
    namespace: str
    registration: str
    key: RegistrationKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", RegistrationKey(self.namespace, self.registration))


@record(frozen=True, slots=True)
class Reason:
    """Why something is as it is: made once, then used for the condition, the Event and the log line alike.

    `code` is CamelCase and of low cardinality; `message` is a sentence for a person.
    """

    code: str
    message: str


class Hidden(str):
    """A value out of a Secret: never shown. `version` stands for it where it is compared by others."""

    __slots__ = ("version",)
    version: str

    def __new__(cls, value: str, version: str) -> Self:
        made = super().__new__(cls, value)
        made.version = version
        return made

    def __repr__(self) -> str:
        return "'***'"


# --- checks -------------------------------------------------------------------------------------------------------


@record(frozen=True, slots=True)
class Check:
    """One check of an instance. `probe` is None when read back: Consul doesn't return definitions.

    `status`: desired: what the operator vouches for (readiness), or the status to begin with; None: Consul's to find.
    Read back: what Consul holds.
    """

    id: str
    name: str
    probe: Probe | None
    status: Health | None = None
    notes: str = ""


# --- instances ----------------------------------------------------------------------------------------------------

META_MANAGED_BY = "managed-by"
MANAGED_BY = "consul-registrar"
META_SOURCE = "external-source"
META_CLUSTER = "k8s-cluster"
META_CONNECTION = "k8s-connection"
META_NAMESPACE = "k8s-namespace"
META_REGISTRATION = "k8s-registration"
META_POD = "k8s-pod"
META_POD_UID = "k8s-pod-uid"
META_NODE = "k8s-node"
META_ENDPOINT = "k8s-endpoint"
META_SERVICE = "k8s-service"
META_SERVICE_UID = "k8s-service-uid"
META_HASH = "k8s-checks-hash"
META_TAGS = "k8s-tags-hash"
META_NONCE = "k8s-nonce"
META_ORPHANED = "orphaned-from"


class Weights(NamedTuple):
    """How much of the traffic an instance is to get, by its health; Consul's defaults."""

    passing: int = 1
    warning: int = 1


EVEN = Weights()


class NamedPort(NamedTuple):
    """One of several ports of an instance. `default`: what callers get that ask for none by name."""

    name: str
    port: int
    default: bool = False


class TaggedAddress(NamedTuple):
    """Another address under which an instance is reached, such as from another network (`wan`)."""

    name: str
    address: str
    port: int


@record(frozen=True, slots=True)
class Instance:
    """One service instance, desired or actual. The one value that passes between layers.

    `node` is the name of the Consul node it stands on. `tags`, `meta`, `tagged`, `ports` are sorted: equal means equal.
    `ports` is empty where it has but one, without a name; else `port` is that of the default.
    `outdated`, read back: its agent holds it under a token that was replaced, and its turn to be given anew has come.
    """

    node: str
    id: str
    service: str
    address: str
    port: int
    tags: tuple[str, ...] = ()
    meta: tuple[tuple[str, str], ...] = ()
    checks: tuple[Check, ...] = ()
    tag_override: bool = False
    weights: Weights = EVEN
    tagged: tuple[TaggedAddress, ...] = ()
    ports: tuple[NamedPort, ...] = ()
    outdated: bool = False

    def meta_value(self, key: str) -> str:
        """The value of one meta key, "" where it is missing."""
        for name, value in self.meta:
            if name == key:
                return value
        return ""

    @property
    def owner(self) -> Owner | None:
        """Who owns it by its meta; None: it is foreign, and never touched."""
        meta = dict(self.meta)
        if meta.get(META_MANAGED_BY) != MANAGED_BY:
            return None
        parts = [meta.get(k, "") for k in (META_CLUSTER, META_CONNECTION, META_NAMESPACE, META_REGISTRATION)]
        return Owner(*parts) if all(parts) else None

    @property
    def subject(self) -> str:
        """The Pod's UID, endpoint's name or Service's address that it stands for, "" where its meta says none."""
        if pod := self.meta_value(META_POD_UID):
            return pod
        service, endpoint = self.meta_value(META_SERVICE_UID), self.meta_value(META_ENDPOINT)
        return f"{service}/{endpoint}" if service else endpoint

    @property
    def health(self) -> Health:
        return worst([c.status for c in self.checks if c.status is not None])


# --- what the cluster holds -----------------------------------------------------------------------------------------


@record(frozen=True, slots=True)
class ContainerPort:
    """A declared port of a container; `host_port`: that of its node which leads there, 0 for none."""

    name: str
    port: int
    protocol: str = "TCP"
    host_port: int = 0


GATE = "consul-registrar.dev/registered"
"""The readiness gate that a Pod may declare, and the type of the condition by which we answer it."""


@record(frozen=True, slots=True)
class Gate:
    """The condition of our readiness gate: `status` is "True" or "False", "" where nobody has answered yet."""

    status: str = ""
    reason: str = ""
    message: str = ""


@record(frozen=True, slots=True)
class ReadinessProbe:
    """How the kubelet finds out whether a container is ready. `kind`: http, tcp, grpc or exec; `text`: path or service.

    `port` is a name where its container declares none of that name. Seconds; thresholds count consecutive results.
    """

    container: str
    kind: str
    host: str
    port: int | str
    text: str
    https: bool
    headers: tuple[tuple[str, str], ...]
    period: int
    timeout: int
    successes: int
    failures: int


@record(frozen=True, slots=True)
class Pod:
    """A Pod, cut down to what a registration can use.

    `ready`: as Kubernetes has it; of a Pod with our gate, its containers and every other gate are (design chapter 4).
    `ips` and `host_ips` hold all addresses where there are several. `deleted`: it was seen to be deleted, not only to
    terminate. `gate` is None where it doesn't declare ours.
    """

    uid: str
    namespace: str
    name: str
    version: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    node: str
    phase: str
    ip: str
    host_ip: str
    deleting: bool
    ready: bool
    restarts: int
    ports: tuple[ContainerPort, ...]
    ips: tuple[str, ...] = ()
    host_ips: tuple[str, ...] = ()
    deleted: bool = False
    gate: Gate | None = None
    probes: tuple[ReadinessProbe, ...] = ()

    @property
    def finished(self) -> bool:
        return self.phase in {"Succeeded", "Failed"}

    @property
    def gone(self) -> bool:
        """Gone Pods never come back: removing what they left is right, whoever does it, however late (design 1)."""
        return self.deleting or self.finished


@record(frozen=True, slots=True)
class Namespace:
    """A Kubernetes namespace: its labels say which connections take its registrations."""

    uid: str
    name: str
    version: int
    labels: Mapping[str, str]


@record(frozen=True, slots=True)
class Node:
    """A Kubernetes node: its labels for field paths, its addresses for the Consul agent on it.

    `addresses` maps a type (InternalIP, ExternalIP, Hostname…) to the first address of that type; `ips` are all
    InternalIPs where there are several.
    """

    uid: str
    name: str
    version: int
    labels: Mapping[str, str]
    addresses: Mapping[str, str]
    ips: tuple[str, ...] = ()


#: The code of a reason for "not known yet", shortly after the start: nothing is said or done on its account.
CONNECTING = "AgentConnecting"
