"""What should stand in Consul for one subject of a registration, or why nothing should.

Decides presence, identity, and every field of an instance, from facts that were gathered. Reads nothing, writes
nothing, knows no clock. What to do about a difference is decided in `plan.py`; whether a registration is accepted at
all in `acceptance.py`.

    a Pod that is gone                                   absent, always (monotone)
    a registration that is deleted                       absent, or orphaned by its policy
    a Pod or registration that nobody knows              absent, as far as the quarantine lets it (`guard.py`)
    … not accepted                                       kept: nothing added or changed
    a Pod or endpoint that is not the registration's     absent, as far as the quarantine lets it
    … not there yet (no node, no address, not running)   waits
    … that can't be published as asked                   a problem, kept as it stands
    else                                                 present
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from consul_registrar import fieldpath, model
from consul_registrar.api.base import SERVICE_NAME
from consul_registrar.api.registration import (
    Endpoint,
    LiteralWeights,
    Pods,
    Service,
    ServiceRegistrationSpec,
    ServiceWeights,
)
from consul_registrar.changes import Cause
from consul_registrar.checks import Secrets, Target, Unpublishable, checks_hash, checks_of, filled, published_port
from consul_registrar.model import Check, Instance, Node, Owner, Pod, Reason, RegistrationKey, TaggedAddress, Weights
from consul_registrar.objects import Registration
from consul_registrar.selectors import selects
from consul_registrar.terms import CheckTerms

_MAX_SERVICE = 128
_MAX_TAG = 255
_MAX_META = 512
_MAX_META_PAIRS = 63  # Consul takes 64; one is kept for the nonce that makes an agent push
_READABLE = 120
_MAX_WEIGHT = 65535
_DIGITS = 5


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
    `name_taken`: why the name that field paths have made is not its own.
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


@dataclass(frozen=True, slots=True)
class Present:
    """It should stand in Consul, like this."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class Absent:
    """It should not stand in Consul."""

    cause: Cause
    reason: Reason

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
    if registration is not None and registration.deleting and not registration.orphans:
        return Absent(Cause.REGISTRATION_DELETED, Reason("RegistrationDeleted", "the registration is deleted"))
    if facts.pod is None and any(i.meta_value(model.META_POD_UID) for i in facts.standing):
        return Absent(Cause.VANISHED, Reason("PodGone", "the Pod does not exist"))
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
    if facts.pod is None:
        return Absent(Cause.UNSELECTED, Reason("NotSelected", "there is no such Pod"))
    assert spec.pods is not None, "the API wants exactly one source"
    if facts.pod.namespace != facts.owner.namespace or not selects(spec.pods.selector, facts.pod.labels):
        return Absent(Cause.UNSELECTED, Reason("NotSelected", "the Pod's labels don't match the selector"))
    return None


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
        if spec.endpoints is not None:
            endpoint = next(e for e in spec.endpoints if e.name == facts.subject)
            service = published_name(facts, registration)
            return Present(_of_endpoint(facts, facts.place, service, spec, endpoint))
        assert facts.pod is not None
        return Present(_of_pod(facts, facts.place, published_name(facts, registration), spec, facts.pod))
    except Unpublishable as finding:
        return Kept(finding.reason, problem=True)


def published_name(facts: Facts, registration: Registration) -> str:
    """The service's name in Consul for this subject. Raises Unpublishable."""
    if not registration.names_each:
        return registration.service
    values = _values(facts.pod, facts.node) if facts.pod else _endpoint_values(facts)
    name = filled(registration.service, values, "spec.service.name")
    if len(name) > _MAX_SERVICE or not re.fullmatch(SERVICE_NAME, name) or name == "consul":
        message = (
            f"spec.service.name: {name!r} must be 1 to {_MAX_SERVICE} letters, digits, dots, dashes and underscores, "
            "beginning and ending with a letter or digit, and not 'consul'"
        )
        raise Unpublishable("ValueInvalid", message)
    if facts.name_taken is not None:
        raise Unpublishable(facts.name_taken.code, facts.name_taken.message)
    return name


def _endpoint_values(facts: Facts) -> fieldpath.Values:
    return fieldpath.Values({"metadata.name": facts.subject, "metadata.namespace": facts.owner.namespace}, {})


# --- the instance ---------------------------------------------------------------------------------------------------


def _of_pod(facts: Facts, place: str, service: str, spec: ServiceRegistrationSpec, pod: Pod) -> Instance:
    assert spec.pods is not None
    values, on_node = _values(pod, facts.node), spec.pods.address == "HostIP"
    address = _address(pod, spec.pods)
    port = published_port(spec.service.port, pod.ports, on_node=on_node)
    name = _instance_id(facts, place, service, pod.name)
    checks = checks_of(spec, Target(name, address, port, pod, values, on_node, facts.secrets))
    identity = {model.META_POD: pod.name, model.META_POD_UID: pod.uid, model.META_NODE: pod.node}
    return Instance(
        node=place,
        id=name,
        service=service,
        address=address,
        port=port,
        tags=_tags(spec.service.tags, values),
        meta=_meta(spec.service.meta, values, _owner_meta(facts.owner) | identity, checks),
        checks=checks,
        tag_override=spec.service.enable_tag_override,
        weights=_weights(spec.service.weights, values),
        tagged=_tagged(spec.service),
    )


def _of_endpoint(facts: Facts, place: str, service: str, spec: ServiceRegistrationSpec, endpoint: Endpoint) -> Instance:
    values = _endpoint_values(facts)
    name = _instance_id(facts, place, service, endpoint.name)
    checks = checks_of(
        spec, Target(name, endpoint.address, endpoint.port, values=values, secrets=facts.secrets), endpoint.checks
    )
    own, tags = _owner_meta(facts.owner) | {model.META_ENDPOINT: endpoint.name}, _tags(spec.service.tags, values)
    weights = endpoint.weights or spec.service.weights
    return Instance(
        node=place,
        id=name,
        service=service,
        address=endpoint.address,
        port=endpoint.port,
        tags=tuple(sorted({*tags, *endpoint.tags})),
        meta=_meta(spec.service.meta, values, endpoint.meta | own, checks),
        checks=checks,
        tag_override=spec.service.enable_tag_override,
        weights=_weights(weights, values),
        tagged=_tagged(spec.service),
    )


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


def _weights(given: ServiceWeights | LiteralWeights, values: fieldpath.Values) -> Weights:
    passing, warning = _weight(given.passing, "passing", values, 1), _weight(given.warning, "warning", values, 0)
    return Weights(passing, warning)


def _weight(given: int | str, name: str, values: fieldpath.Values, least: int) -> int:
    text = str(given) if isinstance(given, int) else filled(given, values, f"spec.service.weights.{name}")
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS and least <= int(text) <= _MAX_WEIGHT):
        message = f"spec.service.weights.{name}: {text!r} must be a number from {least} to {_MAX_WEIGHT}"
        raise Unpublishable("ValueInvalid", message)
    return int(text)


def _tagged(service: Service) -> tuple[TaggedAddress, ...]:
    return tuple(sorted(TaggedAddress(name, at.address, at.port) for name, at in service.tagged_addresses.items()))


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


def _tags(texts: list[str], values: fieldpath.Values) -> tuple[str, ...]:
    tags = {filled(text, values, f"spec.service.tags {text!r}") for text in texts}
    for tag in tags:
        if not 0 < len(tag) <= _MAX_TAG or not tag.isprintable():
            message = f"spec.service.tags: {tag!r} must be 1 to {_MAX_TAG} printable characters"
            raise Unpublishable("ValueInvalid", message)
    return tuple(sorted(tags))


def _meta(
    texts: Mapping[str, str], values: fieldpath.Values, own: dict[str, str], checks: tuple[Check, ...]
) -> tuple[tuple[str, str], ...]:
    given = {key: filled(text, values, f"spec.service.meta[{key}]") for key, text in texts.items()}
    for key, value in (given | own).items():
        if not value.isprintable() or len(value.encode()) > _MAX_META:  # Consul counts bytes
            where = "spec.service" if key in given else "spec.endpoints"
            message = f"{where}.meta[{key}] must be at most {_MAX_META} bytes of printable characters"
            raise Unpublishable("ValueInvalid", message)
    meta = given | own | {model.META_HASH: checks_hash(checks)}
    if len(meta) > _MAX_META_PAIRS:
        message = (
            f"spec.service.meta must leave room: at most {_MAX_META_PAIRS} pairs in all, these would be {len(meta)}"
        )
        raise Unpublishable("ValueInvalid", message)
    return tuple(sorted(meta.items()))
