"""Pods and Nodes from the API server's JSON, cut down while decoding to what a registration can use.

Everything is optional and nullable on the wire: young Pods carry null where lists are expected. What repeats from Pod
to Pod (namespaces, nodes, labels, ports) is kept once. What the values mean is decided elsewhere.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import msgspec

from consul_registrar.kube.codec import Codec, Page, version_of
from consul_registrar.kube.probes import ProbeWire, readiness_probe
from consul_registrar.model import GATE, ContainerPort, Gate, Namespace, Node, Pod, ReadinessProbe

#: kubectl's copy of the whole manifest: large, of no use to a field path, and it would be kept for every Pod.
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_intern = sys.intern


class Wire(msgspec.Struct, gc=False, rename="camel"):
    """Base of what is read from the wire: camelCase, unknown fields skipped without decoding."""


class Meta(Wire):
    """An object's metadata."""

    uid: str | None = None
    name: str | None = None
    namespace: str | None = None
    resource_version: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Port(Wire):
    container_port: int | None = None
    host_port: int | None = None
    name: str | None = None
    protocol: str | None = None


class _Container(Wire):
    name: str | None = None
    readiness_probe: ProbeWire | None = None
    ports: list[_Port] | None = None
    restart_policy: str | None = None


class _ReadinessGate(Wire):
    condition_type: str | None = None


class _PodSpec(Wire):
    node_name: str | None = None
    readiness_gates: list[_ReadinessGate] | None = None
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None


class _Condition(Wire):
    type: str | None = None
    status: str | None = None
    reason: str | None = None
    message: str | None = None
    last_transition_time: str | None = None


class _ContainerStatus(Wire):
    restart_count: int | None = None


class _PodAddress(Wire):
    ip: str | None = None


class _PodStatus(Wire):
    phase: str | None = None
    pod_i_p: str | None = msgspec.field(default=None, name="podIP")
    host_i_p: str | None = msgspec.field(default=None, name="hostIP")
    pod_i_ps: list[_PodAddress] | None = msgspec.field(default=None, name="podIPs")
    host_i_ps: list[_PodAddress] | None = msgspec.field(default=None, name="hostIPs")
    conditions: list[_Condition] | None = None
    container_statuses: list[_ContainerStatus] | None = None


class _PodWire(Wire):
    metadata: Meta | None = None
    spec: _PodSpec | None = None
    status: _PodStatus | None = None


class _Address(Wire):
    type: str | None = None
    address: str | None = None


class _NodeStatus(Wire):
    addresses: list[_Address] | None = None


class _NodeWire(Wire):
    metadata: Meta | None = None
    status: _NodeStatus | None = None


class _NamespaceWire(Wire):
    metadata: Meta | None = None


class ListMeta(msgspec.Struct, gc=False):
    """A list's own metadata."""

    resourceVersion: str | None = None  # noqa: N815 - the wire's name


class _PodList(Wire):
    metadata: ListMeta | None = None
    items: list[_PodWire] | None = None


class _NodeList(Wire):
    metadata: ListMeta | None = None
    items: list[_NodeWire] | None = None


class _NamespaceList(Wire):
    metadata: ListMeta | None = None
    items: list[_NamespaceWire] | None = None


_POD = msgspec.json.Decoder(_PodWire)
_PODS = msgspec.json.Decoder(_PodList)
_NODE = msgspec.json.Decoder(_NodeWire)
_NODES = msgspec.json.Decoder(_NodeList)
_NAMESPACE = msgspec.json.Decoder(_NamespaceWire)
_NAMESPACES = msgspec.json.Decoder(_NamespaceList)


def _pod(wire: _PodWire) -> Pod:
    meta, spec, status = wire.metadata or Meta(), wire.spec or _PodSpec(), wire.status or _PodStatus()
    conditions = status.conditions or ()
    gated = spec.readiness_gates is not None and _gated(spec.readiness_gates)
    return Pod(
        uid=meta.uid or "",
        namespace=_intern(meta.namespace or ""),
        name=meta.name or "",
        version=version_of(meta.resource_version),
        labels=interned(meta.labels),
        annotations=annotations_of(meta.annotations),
        node=_intern(spec.node_name or ""),
        phase=_intern(status.phase or ""),
        ip=status.pod_i_p or "",
        host_ip=_intern(status.host_i_p or ""),
        deleting=meta.deletion_timestamp is not None,
        ready=_ready_but_for_us(conditions, spec) if gated else _holds(conditions, "Ready"),
        restarts=sum(c.restart_count or 0 for c in status.container_statuses or ()),
        ports=_ports(spec),
        ips=_several(status.pod_i_ps),
        host_ips=_several(status.host_i_ps),
        gate=_gate(conditions) if gated else None,
        probes=tuple(_probe(c, c.readiness_probe) for c in _running(spec) if c.readiness_probe),
    )


_Conditions = Sequence[_Condition]


def _gated(gates: Iterable[_ReadinessGate]) -> bool:
    return any(gate.condition_type == GATE for gate in gates)


def _holds(conditions: _Conditions, kind: str | None) -> bool:
    return any(c.type == kind and c.status == "True" for c in conditions)


def _ready_but_for_us(conditions: _Conditions, spec: _PodSpec) -> bool:
    """Whether the Pod is ready save for our gate, which would wait for itself otherwise (design chapter 4)."""
    needed = {"ContainersReady", *(gate.condition_type for gate in spec.readiness_gates or ())} - {GATE}
    return all(_holds(conditions, kind) for kind in needed) and not _taken_down(conditions)


def _taken_down(conditions: _Conditions) -> bool:
    """Whether Ready was set False although nothing that it is made of is: its node is not heard of any more.

    The node controller changes that status and its time alone (kubernetes pkg/controller/util/node); a kubelet would
    name a reason.
    """
    if not _holds(conditions, GATE):
        return False
    at = {c.type: (c.last_transition_time or "", c.status, c.reason) for c in conditions}
    since, status, reason = at.get("Ready", ("", "", ""))
    return status == "False" and not reason and since > (at[GATE][0] or "~")


def _gate(conditions: _Conditions) -> Gate:
    found = next((c for c in conditions if c.type == GATE), _Condition())
    return Gate(found.status or "", found.reason or "", found.message or "")


def _several(addresses: list[_PodAddress] | None) -> tuple[str, ...]:
    """All addresses where there is more than the one that stands apart anyway."""
    found = [address.ip for address in addresses or () if address.ip]
    return tuple(map(_intern, found)) if len(found) > 1 else ()


def _ports(spec: _PodSpec) -> tuple[ContainerPort, ...]:
    ports = [port for container in _running(spec) for port in container.ports or ()]
    return _kept_once(
        tuple(
            (port.name or "", port.container_port or 0, port.protocol or "TCP", port.host_port or 0) for port in ports
        )
    )


def _probe(container: _Container, wire: ProbeWire) -> ReadinessProbe:
    ports = {port.name: port.container_port or 0 for port in container.ports or () if port.name}
    return readiness_probe(container.name or "", wire, ports)


def _running(spec: _PodSpec) -> Iterator[_Container]:
    """The containers that run as long as the Pod does: sidecars are init containers that are always restarted."""
    yield from spec.containers or ()
    yield from (c for c in spec.init_containers or () if c.restart_policy == "Always")


@lru_cache(maxsize=4096)
def _kept_once(declared: tuple[tuple[str, int, str, int], ...]) -> tuple[ContainerPort, ...]:
    return tuple(ContainerPort(*port) for port in declared)


def interned(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Labels, each text kept once."""
    return {_intern(key): _intern(value) for key, value in (labels or {}).items()}


def annotations_of(annotations: Mapping[str, str] | None) -> dict[str, str]:
    """Annotations, without what is of no use here."""
    return {_intern(key): value for key, value in (annotations or {}).items() if key != _LAST_APPLIED}


def _node(wire: _NodeWire) -> Node:
    meta, status = wire.metadata or Meta(), wire.status or _NodeStatus()
    return Node(
        uid=meta.uid or "",
        name=_intern(meta.name or ""),
        version=version_of(meta.resource_version),
        labels=interned(meta.labels),
        addresses=_first_of_each(status.addresses or ()),
        ips=_internal(status.addresses or ()),
    )


def _namespace(wire: _NamespaceWire) -> Namespace:
    meta = wire.metadata or Meta()
    return Namespace(meta.uid or "", _intern(meta.name or ""), version_of(meta.resource_version), interned(meta.labels))


def _first_of_each(addresses: Iterable[_Address]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in addresses:
        if entry.type and entry.address:
            found.setdefault(_intern(entry.type), entry.address)
    return found


def _internal(addresses: Iterable[_Address]) -> tuple[str, ...]:
    """All InternalIPs where there is more than the one that stands among the addresses anyway."""
    found = tuple(entry.address for entry in addresses if entry.type == "InternalIP" and entry.address)
    return found if len(found) > 1 else ()


def _pods(raw: bytes) -> Page[Pod]:
    wire = _PODS.decode(raw)
    meta = wire.metadata or ListMeta()
    return Page(tuple(map(_pod, wire.items or ())), version_of(meta.resourceVersion))


def _nodes(raw: bytes) -> Page[Node]:
    wire = _NODES.decode(raw)
    meta = wire.metadata or ListMeta()
    return Page(tuple(map(_node, wire.items or ())), version_of(meta.resourceVersion))


def _namespaces(raw: bytes) -> Page[Namespace]:
    wire = _NAMESPACES.decode(raw)
    meta = wire.metadata or ListMeta()
    return Page(tuple(map(_namespace, wire.items or ())), version_of(meta.resourceVersion))


PODS: Codec[Pod] = Codec("Pod", page=_pods, obj=lambda raw: _pod(_POD.decode(raw)))
NODES: Codec[Node] = Codec("Node", page=_nodes, obj=lambda raw: _node(_NODE.decode(raw)))
NAMESPACES: Codec[Namespace] = Codec("Namespace", page=_namespaces, obj=lambda raw: _namespace(_NAMESPACE.decode(raw)))
