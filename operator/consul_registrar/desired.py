"""What should stand in Consul for one subject of a registration, or why nothing should.

Decides presence, identity, and every field of an instance, from facts that were gathered. Reads nothing, writes
nothing, knows no clock. What to do about a difference is decided in `plan.py`; whether a registration is accepted at
all in `acceptance.py`.

    a Pod or Service that is gone                        absent, always (monotone)
    a registration that is deleted                       absent, or orphaned by its policy
    a Pod, Service or registration that nobody knows     absent, as far as the quarantine lets it (`guard.py`)
    … not accepted                                       kept: nothing added or changed
    a Pod, endpoint or address not the registration's    absent, as far as the quarantine lets it
    … not there yet (no node, no address, not running)   waits
    … that can't be published as asked                   a problem, kept as it stands
    else                                                 present
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from consul_registrar import fieldpath, model
from consul_registrar.api.registration import (
    Endpoint,
    KubernetesServiceSource,
    LiteralWeights,
    Pods,
    Service,
    ServiceRegistrationSpec,
)
from consul_registrar.changes import Cause
from consul_registrar.checks import Secrets, Target, Unpublishable, checks_of, published_port, service_port
from consul_registrar.exposure import address_of, subjects, values_of
from consul_registrar.filling import meta_of, name_of, tagged_of, tags_of, weights_of
from consul_registrar.model import Check, Instance, Node, Owner, Pod, Reason, RegistrationKey
from consul_registrar.objects import Registration
from consul_registrar.selectors import selects
from consul_registrar.services import Exposed, parts_of
from consul_registrar.terms import CheckTerms

_READABLE = 120


@dataclass(frozen=True, slots=True)
class Rival:
    """Another registration that has to do with the same subject in the same Consul (`rivals.py`).

    `since`: what orders registrations by age. `publishes`: it publishes what this one would, or is going to;
    `stands`: it does.
    """

    key: RegistrationKey
    since: tuple[str, str]
    older: bool
    publishes: bool
    stands: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is known about one subject of a registration, for one Consul.

    `registration` is None where none exists (any more). `place` is the Consul node to stand on, or why there is none.
    `standing` is what this owner has in Consul for the subject now; `strangers`: what is nobody's and may be adopted.
    `name_taken`: why the name that field paths have made is not its own. `exposed`: the Service, for one address of it.
    """

    owner: Owner
    subject: str
    registration: Registration | None
    refused: Reason | None
    pod: Pod | None
    node: Node | None
    place: str | Reason
    standing: tuple[Instance, ...]
    rivals: tuple[Rival, ...] = ()
    strangers: tuple[Instance, ...] = ()
    name_taken: Reason | None = None
    secrets: Secrets = field(default_factory=dict)
    check_terms: CheckTerms | None = None
    exposed: Exposed | None = None


@dataclass(frozen=True, slots=True)
class Present:
    """It should stand in Consul, like this."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class Absent:
    """It should not stand in Consul. `unready`: nor should callers come, as long as it does."""

    cause: Cause
    reason: Reason
    unready: bool = False

    @property
    def monotone(self) -> bool:
        """Whether this stays true for ever, so that it needs no confirming read."""
        return self.cause is Cause.GONE

    @property
    def asked_for(self) -> bool:
        """Whether a person has asked for exactly this, so that it is never held."""
        return self.cause is Cause.REGISTRATION_DELETED


@dataclass(frozen=True, slots=True)
class Kept:
    """Leave it as it is. `problem`: somebody must do something; else it only waits."""

    reason: Reason
    problem: bool


@dataclass(frozen=True, slots=True)
class Orphaned:
    """What stands shall stay, owned by nobody."""


@dataclass(frozen=True, slots=True)
class Ceded:
    """Another registration has the same standing there, and goes before: what stands of this one goes."""

    reason: Reason


Want = Present | Absent | Kept | Orphaned | Ceded


def desired(facts: Facts) -> Want:
    """What should stand in Consul for these facts."""
    leaving = _leaving(facts)
    if leaving is not None:
        return leaving
    assert facts.registration is not None
    spec = facts.registration.spec
    if facts.refused is not None or isinstance(spec, Reason):
        return Kept(facts.refused or Reason("InvalidSpec", "the spec is malformed"), problem=True)
    absence = _not_ours(facts, spec)
    if absence is not None:
        return absence
    waits = _waits(facts, spec.pods)
    if waits is not None:
        return Kept(waits, problem=False)
    return _published(facts, facts.registration, spec)


def _leaving(facts: Facts) -> Want | None:
    """What is over whatever the spec says."""
    registration = facts.registration
    if facts.pod is not None and facts.pod.gone and not _drains(facts, facts.pod):
        what = "is terminating" if facts.pod.deleting else f"has ended ({facts.pod.phase})"
        return Absent(Cause.GONE, Reason("PodGone", f"the Pod {what}"))
    if facts.exposed is not None and facts.exposed.service.deleting:
        return Absent(Cause.GONE, Reason("KubernetesServiceGone", "the Service is deleted"))
    if registration is not None and registration.deleting and not registration.orphans:
        return Absent(Cause.REGISTRATION_DELETED, Reason("RegistrationDeleted", "the registration is deleted"))
    if facts.pod is None and any(i.meta_value(model.META_POD_UID) for i in facts.standing):
        return Absent(Cause.VANISHED, Reason("PodGone", "the Pod does not exist"))
    if facts.exposed is None and any(i.meta_value(model.META_SERVICE_UID) for i in facts.standing):
        return Absent(Cause.VANISHED, Reason("KubernetesServiceGone", "the Service does not exist"))
    if registration is None:
        return Absent(Cause.VANISHED, Reason("RegistrationGone", "the registration does not exist"))
    return Orphaned() if registration.deleting else None


def _drains(facts: Facts, pod: Pod) -> bool:
    """Whether an instance is to be shown critical while its Pod terminates (spec.pods.onTermination)."""
    registration = facts.registration
    if registration is None or registration.deleting or isinstance(registration.spec, Reason) or facts.refused:
        return False
    pods = registration.spec.pods
    wanted = pods is not None and pods.on_termination == "Critical"
    return wanted and bool(facts.standing) and not (pod.deleted or pod.finished)


def _not_ours(facts: Facts, spec: ServiceRegistrationSpec) -> Absent | None:
    if facts.registration is not None and facts.owner.connection not in facts.registration.connections:
        return Absent(Cause.UNSELECTED, Reason("NotReferenced", "the registration has left this Consul"))
    if spec.endpoints is not None:
        if any(e.name == facts.subject for e in spec.endpoints):
            return None
        return Absent(Cause.UNSELECTED, Reason("EndpointRemoved", "the endpoint is not in the spec"))
    if spec.kubernetes_service is not None:
        return _not_exposed(facts, spec.kubernetes_service)
    if facts.pod is None:
        return Absent(Cause.UNSELECTED, Reason("NotSelected", "there is no such Pod"))
    assert spec.pods is not None, "the API wants exactly one source"
    if facts.pod.namespace != facts.owner.namespace or not selects(spec.pods.selector, facts.pod.labels):
        return Absent(Cause.UNSELECTED, Reason("NotSelected", "the Pod's labels don't match the selector"))
    return None


def _not_exposed(facts: Facts, source: KubernetesServiceSource) -> Absent | None:
    exposed = facts.exposed
    if exposed is None or (exposed.service.namespace, exposed.service.name) != (facts.owner.namespace, source.name):
        return Absent(Cause.UNSELECTED, Reason("NotSelected", "the registration publishes another Service"))
    if facts.subject in subjects(source, exposed):
        return None
    reason = Reason("AddressRemoved", f"the Service has no such {source.publish} any more")
    return Absent(Cause.UNSELECTED, reason, unready=True)


def _waits(facts: Facts, pods: Pods | None) -> Reason | None:
    """Why a Pod is not to be registered yet."""
    pod = facts.pod
    if pods is None or pod is None:
        return None
    if not pod.node:
        return Reason("PodNotScheduled", "the Pod has no node yet")
    if not pod.ip:
        return Reason("PodHasNoAddress", "the Pod has no address yet")
    if facts.standing:  # once in, it leaves only when it goes: readiness decides its health, not its presence
        return None
    if pods.register_when != "Scheduled" and pod.phase != "Running":
        return Reason("PodNotRunning", f"the Pod is {pod.phase or 'not started'}")
    if pods.register_when == "Ready" and not pod.ready:
        return Reason("PodNotReady", "the Pod was not ready yet")
    return None


def _published(facts: Facts, registration: Registration, spec: ServiceRegistrationSpec) -> Want:
    if isinstance(facts.place, Reason):
        return Kept(facts.place, problem=True)
    try:
        service = _published_name(facts, registration, spec)
        made = _made(facts, facts.place, service, spec)
        return Present(_instance(facts, facts.place, service, spec.service, made))
    except Unpublishable as finding:
        return Kept(finding.reason, problem=True)


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


# --- the instance ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Made:
    """What of an instance depends on the kind of its source. `own`: the meta by which its subject is found again."""

    id: str
    address: str
    port: int
    values: fieldpath.Values
    checks: tuple[Check, ...]
    own: Mapping[str, str]
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
    own = {**made.meta, **_owner_meta(facts.owner), **made.own}
    return Instance(
        node=place,
        id=made.id,
        service=service,
        address=made.address,
        port=made.port,
        tags=tuple(sorted({*tags_of(spec.tags, made.values), *made.tags})),
        meta=meta_of(spec.meta, made.values, own, made.checks),
        checks=made.checks,
        tag_override=spec.enable_tag_override,
        weights=weights_of(made.weights or spec.weights, made.values),
        tagged=tagged_of(spec),
    )


def _of_pod(facts: Facts, place: str, service: str, spec: ServiceRegistrationSpec, pod: Pod) -> _Made:
    assert spec.pods is not None
    values, on_node = _values(pod, facts.node), spec.pods.address == "HostIP"
    address = _address(pod, spec.pods)
    port = published_port(spec.service.port, pod.ports, on_node=on_node)
    name = _instance_id(facts, place, service, pod.name)
    checks = checks_of(spec, Target(name, address, port, pod, values, on_node, facts.secrets))
    own = {model.META_POD: pod.name, model.META_POD_UID: pod.uid, model.META_NODE: pod.node}
    return _Made(name, address, port, values, checks, own)


def _of_endpoint(facts: Facts, place: str, service: str, spec: ServiceRegistrationSpec, endpoint: Endpoint) -> _Made:
    values = _endpoint_values(facts)
    name = _instance_id(facts, place, service, endpoint.name)
    target = Target(name, endpoint.address, endpoint.port, values=values, secrets=facts.secrets)
    checks = checks_of(spec, target, endpoint.checks)
    own, tags = {model.META_ENDPOINT: endpoint.name}, tuple(endpoint.tags)
    return _Made(name, endpoint.address, endpoint.port, values, checks, own, tags, endpoint.meta, endpoint.weights)


def _of_service(
    facts: Facts, place: str, service: str, spec: ServiceRegistrationSpec, source: KubernetesServiceSource
) -> _Made:
    assert facts.exposed is not None, "what has no Service is absent"
    found, (_, which) = facts.exposed.service, parts_of(facts.subject)
    node = which if source.publish == "NodePort" else ""
    address = address_of(source, facts.exposed, which, facts.node)
    port = service_port(spec.service.port, found, on_node=bool(node))
    name = _instance_id(facts, place, service, f"{found.name}-{which}".replace(":", "-"))
    values = _service_values(facts, source)
    target = Target(name, address, port, None, values, bool(node), facts.secrets, found, facts.exposed.ready(node))
    own = {model.META_SERVICE: found.name, model.META_SERVICE_UID: found.uid, model.META_ENDPOINT: which}
    return _Made(name, address, port, values, checks_of(spec, target), own | ({model.META_NODE: node} if node else {}))


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
