"""What an instance looks like in Consul: its identity and every field, by the kind of its source.

Whether it should stand at all is decided in `desired.py`; its checks and ports in `checks.py`.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import field

from consul_registrar import fieldpath, model
from consul_registrar.api.registration import (
    Endpoint,
    KubernetesServiceSource,
    LiteralWeights,
    Pods,
    Service,
    ServiceRegistrationSpec,
)
from consul_registrar.checks import Target, Unpublishable, checks_of, named_ports, published_port, service_port
from consul_registrar.dead_man import hung_on
from consul_registrar.exposure import address_of, values_of
from consul_registrar.facts import Facts
from consul_registrar.filling import meta_of, name_of, tagged_of, tags_hash, tags_of, weights_of
from consul_registrar.model import Check, Instance, NamedPort, Node, Owner, Pod
from consul_registrar.objects import Registration
from consul_registrar.services import parts_of
from consul_registrar.values import record

_READABLE = 120


def instance_of(facts: Facts, place: str, registration: Registration, spec: ServiceRegistrationSpec) -> Instance:
    """The instance that stands for the subject on the Consul node `place`. Raises Unpublishable."""
    service = _published_name(facts, registration, spec)
    return _instance(facts, place, service, spec.service, _made(facts, place, service, spec))


def _published_name(facts: Facts, registration: Registration, spec: ServiceRegistrationSpec) -> str:
    """The service's name in Consul for this subject. Raises Unpublishable."""
    if not registration.names_each:
        return registration.service
    name = name_of(registration.service, _subject_values(facts, spec))
    if facts.name_taken is not None:
        raise Unpublishable(facts.name_taken.code, facts.name_taken.message)
    return name


def _subject_values(facts: Facts, spec: ServiceRegistrationSpec) -> fieldpath.Values:
    if facts.pod is not None:
        return _values(facts.pod, facts.node)
    source = spec.kubernetes_service
    return _service_values(facts, source) if source else _endpoint_values(facts)


def _service_values(facts: Facts, source: KubernetesServiceSource) -> fieldpath.Values:
    assert facts.exposed is not None, "what has no Service is absent"
    node = facts.node if source.publish == "NodePort" else None
    address = address_of(source, facts.exposed, parts_of(facts.subject)[1], facts.node)
    return values_of(facts.exposed.service, node, address)


def _endpoint_values(facts: Facts) -> fieldpath.Values:
    return fieldpath.Values({"metadata.name": facts.subject, "metadata.namespace": facts.owner.namespace}, {})


@record(frozen=True, slots=True)
class _Made:
    """What of an instance depends on the kind of its source. `own`: the meta by which its subject is found again."""

    id: str
    address: str
    port: int
    values: fieldpath.Values
    checks: tuple[Check, ...]
    own: Mapping[str, str]
    ports: tuple[NamedPort, ...] = ()
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    weights: LiteralWeights | None = None


def _made(facts: Facts, place: str, service: str, spec: ServiceRegistrationSpec) -> _Made:
    if spec.endpoints is not None:
        endpoint = next(e for e in spec.endpoints if e.name == facts.subject)
        return _of_endpoint(facts, place, service, spec, endpoint)
    if spec.kubernetes_service is not None:
        return _of_service(facts, place, service, spec, spec.kubernetes_service)
    assert facts.pod is not None
    return _of_pod(facts, place, service, spec, facts.pod)


def _instance(facts: Facts, place: str, service: str, spec: Service, made: _Made) -> Instance:
    tags = tuple(sorted({*tags_of(spec.tags, made.values), *made.tags}))
    asked = {model.META_TAGS: tags_hash(tags)} if spec.enable_tag_override else {}
    own = {**made.meta, **_owner_meta(facts.owner), **made.own, **asked}
    checks = hung_on(facts.heartbeat, made.id, made.checks)
    return Instance(
        node=place,
        id=made.id,
        service=service,
        address=made.address,
        port=made.port,
        tags=tags,
        meta=meta_of(spec.meta, made.values, own, checks),
        checks=checks,
        tag_override=spec.enable_tag_override,
        weights=weights_of(made.weights or spec.weights, made.values),
        tagged=tagged_of(spec),
        ports=made.ports,
    )


def _of_pod(facts: Facts, place: str, service: str, spec: ServiceRegistrationSpec, pod: Pod) -> _Made:
    assert spec.pods is not None
    values, on_node = _values(pod, facts.node), spec.pods.address == "HostIP"
    address = _address(pod, spec.pods)

    def find(wanted: int | str | None) -> int:
        return published_port(wanted, pod.ports, on_node=on_node)

    port, ports = _ports(spec.service, find)
    name = _instance_id(facts, place, service, pod.name)
    checks = checks_of(spec, Target(name, address, port, pod, values, on_node, facts.secrets, ports=ports))
    own = {model.META_POD: pod.name, model.META_POD_UID: pod.uid, model.META_NODE: pod.node}
    return _Made(name, address, port, values, checks, own, ports)


def _ports(wanted: Service | Endpoint, find: Callable[[int | str | None], int]) -> tuple[int, tuple[NamedPort, ...]]:
    """The port of an instance and, where it has several, all of them by name."""
    ports = named_ports(wanted.ports, wanted.default_port, find)
    return (next(port.port for port in ports if port.default) if ports else find(wanted.port)), ports


def _of_endpoint(facts: Facts, place: str, service: str, spec: ServiceRegistrationSpec, endpoint: Endpoint) -> _Made:
    values = _endpoint_values(facts)
    name = _instance_id(facts, place, service, endpoint.name)
    port, ports = _ports(endpoint, _number)
    target = Target(name, endpoint.address, port, values=values, secrets=facts.secrets, ports=ports)
    checks = checks_of(spec, target, endpoint.checks)
    own, tags = {model.META_ENDPOINT: endpoint.name}, tuple(endpoint.tags)
    return _Made(name, endpoint.address, port, values, checks, own, ports, tags, endpoint.meta, endpoint.weights)


def _number(wanted: int | str | None) -> int:
    assert isinstance(wanted, int), "the API wants numbers of endpoints"
    return wanted


def _of_service(
    facts: Facts, place: str, service: str, spec: ServiceRegistrationSpec, source: KubernetesServiceSource
) -> _Made:
    assert facts.exposed is not None, "what has no Service is absent"
    found, (_, which) = facts.exposed.service, parts_of(facts.subject)
    node = which if source.publish == "NodePort" else ""
    address = address_of(source, facts.exposed, which, facts.node)

    def find(wanted: int | str | None) -> int:
        return service_port(wanted, found, on_node=bool(node))

    port, ports = _ports(spec.service, find)
    name = _instance_id(facts, place, service, f"{found.name}-{which}".replace(":", "-"))
    values = _service_values(facts, source)
    ready = facts.exposed.ready(node)
    target = Target(name, address, port, None, values, bool(node), facts.secrets, found, ready, ports)
    own = {model.META_SERVICE: found.name, model.META_SERVICE_UID: found.uid, model.META_ENDPOINT: which}
    own |= {model.META_NODE: node} if node else {}
    return _Made(name, address, port, values, checks_of(spec, target), own, ports)


def _address(pod: Pod, pods: Pods) -> str:
    """The Pod's address or its node's, of the wanted family."""
    first, others = (pod.ip, pod.ips) if pods.address == "PodIP" else (pod.host_ip, pod.host_ips)
    if pods.ip_family is None:
        return first
    colon = pods.ip_family == "IPv6"
    found = next((address for address in (first, *others) if address and (":" in address) is colon), None)
    if found is None:
        whose = "the Pod" if pods.address == "PodIP" else "the Pod's node"
        has = ", ".join(others or (first,))
        raise Unpublishable("AddressNotFound", f"spec.pods.ipFamily: {whose} has no {pods.ip_family} address ({has})")
    return found


def _instance_id(facts: Facts, place: str, service: str, name: str) -> str:
    """A readable prefix and a hash of the identity; what stands keeps the ID that it has.

    The service's name is part of the identity, so that a new name is another instance, there before the old one goes;
    and the registration's UID, so that another of the same name never writes over what the former left to nobody.
    """
    for instance in facts.standing:
        if instance.node == place and instance.service == service:
            return instance.id
    owner = facts.owner
    uid = facts.registration.meta.uid if facts.registration else ""
    parts = (owner.cluster, owner.connection, owner.namespace, owner.registration, uid, facts.subject, service)
    identity = "".join(f"{len(part)}:{part}" for part in parts)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return f"{owner.namespace}-{owner.registration}-{name}"[:_READABLE] + f"-{digest}"


def _owner_meta(owner: Owner) -> dict[str, str]:
    return {
        model.META_SOURCE: "kubernetes",
        model.META_MANAGED_BY: model.MANAGED_BY,
        model.META_CLUSTER: owner.cluster,
        model.META_CONNECTION: owner.connection,
        model.META_NAMESPACE: owner.namespace,
        model.META_REGISTRATION: owner.registration,
    }


def _values(pod: Pod, node: Node | None) -> fieldpath.Values:
    fields = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "spec.nodeName": pod.node,
        "status.podIP": pod.ip,
        "status.hostIP": pod.host_ip,
    }
    maps = {
        "metadata.labels": pod.labels,
        "metadata.annotations": pod.annotations,
        "node.metadata.labels": node.labels if node else {},
    }
    return fieldpath.Values(fields, maps)
