"""What should stand in Consul for one subject of a registration, or why nothing should.

Decides presence, from facts that were gathered. Reads nothing, writes nothing, knows no clock. What an instance looks
like is decided in `instances.py`; what to do about a difference in `plan.py`; whether a registration is accepted at
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

from consul_registrar import model
from consul_registrar.api.registration import KubernetesServiceSource, Pods, ServiceRegistrationSpec
from consul_registrar.changes import Cause
from consul_registrar.checks import Unpublishable
from consul_registrar.exposure import subjects
from consul_registrar.facts import Facts
from consul_registrar.instances import instance_of
from consul_registrar.model import Instance, Pod, Reason
from consul_registrar.objects import Registration
from consul_registrar.selectors import selects
from consul_registrar.values import record


@record(frozen=True, slots=True)
class Present:
    """It should stand in Consul, like this."""

    instance: Instance


@record(frozen=True, slots=True)
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


@record(frozen=True, slots=True)
class Kept:
    """Leave it as it is. `problem`: somebody must do something; else it only waits."""

    reason: Reason
    problem: bool


@record(frozen=True, slots=True)
class Orphaned:
    """What stands shall stay, owned by nobody."""


@record(frozen=True, slots=True)
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
        return Present(instance_of(facts, facts.place, registration, spec))
    except Unpublishable as finding:
        return Kept(finding.reason, problem=True)
