"""Which addresses of a Kubernetes Service a registration publishes, and what is said where there is none.

    publish        one instance for each
    ------------   -----------------------------------------------------------------------
    ClusterIP      Service (one in all)
    LoadBalancer   IP or host name in status.loadBalancer.ingress
    NodePort       node that holds an endpoint of the Service, ready or not
    ExternalIP     of spec.externalIPs

How healthy it is, is decided in `checks.py`; all else about the instance in `desired.py`.
"""

from dataclasses import dataclass
from ipaddress import ip_address

from consul_registrar.api.registration import KubernetesServiceSource
from consul_registrar.checks import Unpublishable
from consul_registrar.fieldpath import Values
from consul_registrar.model import Node, Reason
from consul_registrar.objects import Registration
from consul_registrar.service_cache import ServiceCache, source_of
from consul_registrar.services import CLUSTER_IP, Exposed, KubernetesService, subject_of


@dataclass(frozen=True, slots=True)
class Lack:
    """Why nothing of a Service is published. `problem`: somebody must do something; else it only waits."""

    reason: Reason
    problem: bool


def subjects_of(registration: Registration | None, services: ServiceCache) -> frozenset[str]:
    """The subjects that a registration has of a Service now; none, where it publishes none."""
    source = source_of(registration)
    exposed = services.published_by(registration) if registration else None
    return subjects(source, exposed) if source and exposed else frozenset()


def subjects(source: KubernetesServiceSource, exposed: Exposed) -> frozenset[str]:
    """The subjects that a registration makes of a Service, none of one that is being deleted."""
    if exposed.service.deleting:
        return frozenset()
    return frozenset(subject_of(exposed.service.uid, address) for address in _addresses(source, exposed))


def _addresses(source: KubernetesServiceSource, exposed: Exposed) -> tuple[str, ...]:
    service = exposed.service
    match source.publish:
        case "ClusterIP":
            return (CLUSTER_IP,) if service.cluster_ips and not service.headless else ()
        case "LoadBalancer":
            return of_family(source, service.ingress) if service.type == "LoadBalancer" else ()
        case "ExternalIP":
            return of_family(source, service.external_ips)
        case "NodePort":
            on_nodes = any(port.node_port for port in service.ports)
            return tuple(node for node in exposed.backends.nodes if node) if on_nodes else ()


def of_family(source: KubernetesServiceSource, addresses: tuple[str, ...]) -> tuple[str, ...]:
    """The addresses of the wanted family, in their order. A host name is of both."""
    if source.ip_family is None:
        return addresses
    version = 6 if source.ip_family == "IPv6" else 4
    return tuple(address for address in addresses if _version(address) in {None, version})


def _version(address: str) -> int | None:
    try:
        return ip_address(address).version
    except ValueError:
        return None


def address_of(source: KubernetesServiceSource, exposed: Exposed, which: str, node: Node | None) -> str:
    """The address of one instance; `which` is that of its subject. Raises Unpublishable where there is none."""
    match source.publish:
        case "ClusterIP":
            whose, known = "the Service", exposed.service.cluster_ips
        case "NodePort":
            whose, known = f"the node {which}", _internal_ips(node)
        case _:
            return which
    found = of_family(source, known)
    if not found:
        family = f"{source.ip_family} address" if source.ip_family else "InternalIP"
        message = f"spec.kubernetesService: {whose} has no {family} ({', '.join(known) or 'none is known'})"
        raise Unpublishable("AddressNotFound", message)
    return found[0]


def _internal_ips(node: Node | None) -> tuple[str, ...]:
    if node is None:
        return ()
    return node.ips or tuple(filter(None, [node.addresses.get("InternalIP")]))


def values_of(service: KubernetesService, node: Node | None, address: str) -> Values:
    """What field paths give: of the Service, and of the node where the instance is one of its ports."""
    fields = {"metadata.name": service.name, "metadata.namespace": service.namespace}
    if node is not None:
        fields |= {"spec.nodeName": node.name, "status.hostIP": address}
    maps = {
        "metadata.labels": service.labels,
        "metadata.annotations": service.annotations,
        "node.metadata.labels": node.labels if node else {},
    }
    return Values(fields, maps)


def lack(source: KubernetesServiceSource, exposed: Exposed | None) -> Lack | None:
    """Why nothing is published at all, None where something is."""
    if exposed is None or exposed.service.deleting:
        state = "is being deleted" if exposed else "doesn't exist in this namespace"
        message = f"spec.kubernetesService.name: the Service {source.name!r} {state}"
        return Lack(Reason("KubernetesServiceNotFound", message), problem=True)
    if subjects(source, exposed):
        return None
    match source.publish:
        case "ClusterIP":
            return _no_cluster_ip(exposed.service)
        case "LoadBalancer":
            return _no_ingress(source, exposed.service)
        case "ExternalIP":
            return _no_external_ip(source, exposed.service)
        case "NodePort":
            return _no_node(exposed.service)


def _no_cluster_ip(service: KubernetesService) -> Lack:
    if not service.headless:
        return _mismatch(f"ClusterIP, but the Service {service.name!r} is of type {service.type}")
    message = f"spec.kubernetesService: the Service {service.name!r} is headless, so it has no address of its own"
    return Lack(Reason("HeadlessService", f"{message}; register its Pods instead (spec.pods)"), problem=True)


def _no_ingress(source: KubernetesServiceSource, service: KubernetesService) -> Lack:
    if service.type != "LoadBalancer":
        return _mismatch(f"LoadBalancer, but the Service {service.name!r} is of type {service.type}")
    if service.ingress:
        return _no_family(source, service.ingress)
    message = f"the Service {service.name!r} has no address yet: its status.loadBalancer.ingress is empty"
    return Lack(Reason("LoadBalancerPending", message), problem=False)


def _no_external_ip(source: KubernetesServiceSource, service: KubernetesService) -> Lack:
    if service.external_ips:
        return _no_family(source, service.external_ips)
    return _mismatch(f"ExternalIP, but the Service {service.name!r} has no spec.externalIPs")


def _no_node(service: KubernetesService) -> Lack:
    if not any(port.node_port for port in service.ports):
        return _mismatch(f"NodePort, but the Service {service.name!r} of type {service.type} has no node ports")
    message = f"no EndpointSlice of the Service {service.name!r} names a node that holds an endpoint"
    return Lack(Reason("NoEndpoints", message), problem=False)


def _mismatch(what: str) -> Lack:
    return Lack(Reason("ServiceTypeMismatch", f"spec.kubernetesService.publish is {what}"), problem=True)


def _no_family(source: KubernetesServiceSource, has: tuple[str, ...]) -> Lack:
    message = f"spec.kubernetesService.ipFamily: the Service has no {source.ip_family} address ({', '.join(has)})"
    return Lack(Reason("AddressNotFound", message), problem=True)
