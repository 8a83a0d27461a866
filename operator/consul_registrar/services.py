"""A Kubernetes Service and what stands behind it, cut down to what a registration can use.

Decides how a subject names one address of a Service: its UID, which never comes back, and which of its addresses. Which
addresses there are is decided in `exposure.py`. Knows nothing of the wire format: `kube/` translates.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

#: Stands for the address in the subject of what is published under the cluster IP: that is one instance.
CLUSTER_IP = "cluster-ip"


class ServicePort(NamedTuple):
    """A port of a Service; `node_port`: that of every node which leads there, 0 for none."""

    name: str
    port: int
    protocol: str = "TCP"
    node_port: int = 0


@dataclass(frozen=True, slots=True)
class KubernetesService:
    """A Service. `ingress`: IPs and host names of its load balancer. `local`: a node leads to its own Pods only."""

    uid: str
    namespace: str
    name: str
    version: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    type: str
    cluster_ips: tuple[str, ...]
    external_ips: tuple[str, ...]
    ingress: tuple[str, ...]
    ports: tuple[ServicePort, ...]
    local: bool = False
    deleting: bool = False

    @property
    def headless(self) -> bool:
        return "None" in self.cluster_ips


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """Some endpoints of a Service: on which nodes ("": it isn't said) there are any, and whether one there is ready."""

    uid: str
    namespace: str
    service: str
    version: int
    nodes: tuple[tuple[str, bool], ...]


@dataclass(frozen=True, slots=True)
class Backends:
    """All endpoints of a Service: the nodes that hold any, and whether one there is ready."""

    nodes: Mapping[str, bool]

    @property
    def ready(self) -> bool:
        return any(self.nodes.values())


NO_BACKENDS = Backends({})


@dataclass(frozen=True, slots=True)
class Exposed:
    """A Service with what stands behind it."""

    service: KubernetesService
    backends: Backends

    def ready(self, node: str) -> bool:
        """Whether who calls an address of the Service reaches something ready; `node`: that of a node port, or ""."""
        if node and self.service.local:
            return self.backends.nodes.get(node, False)
        return self.backends.ready


def together(slices: Iterable[EndpointSlice]) -> Backends:
    """What all slices of one Service say; one of IPv4 and one of IPv6 may speak of the same Pods."""
    nodes: dict[str, bool] = {}
    for each in slices:
        for node, ready in each.nodes:
            nodes[node] = ready or nodes.get(node, False)
    return Backends(nodes)


def subject_of(uid: str, address: str) -> str:
    """The subject that stands for one address of a Service. UIDs of Pods and names of endpoints have no slash."""
    return f"{uid}/{address}"


def parts_of(subject: str) -> tuple[str, str]:
    """The Service's UID and which of its addresses; two empty texts for the subject of a Pod or an endpoint."""
    uid, slash, address = subject.partition("/")
    return (uid, address) if slash else ("", "")


def name_of_address(service: str, address: str) -> str:
    """What people call one address of a Service."""
    return service if address == CLUSTER_IP else f"{service} at {address}"
