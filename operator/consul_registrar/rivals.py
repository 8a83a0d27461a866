"""Several registrations that would publish the same Pod, at the same address and port, under one name in one Consul.

Decides whose it is: that of the oldest registration that can publish it. What each wants by itself is decided in
`desired.py`; which registrations come into question, in `cache.py`. No caller of the service sees a gap:

    wants by itself    another one                      then
    ---------------    ------------------------------   -----------------------------------------------
    present            older, all of it stands there    ceded: what stands of it goes, and it says Conflict
    present            older, a part of it stands there kept and Conflict: an edit takes nothing away
    present            older, doesn't stand yet         what it wants where it stands, else kept and Conflict
    present            older, which Consul refuses      what it wants, until that one stands
    absent, not gone   will publish it, doesn't stand   kept until that one stands
    anything           else                             what it wants
"""

from collections.abc import Iterable

from consul_registrar.changes import Cause
from consul_registrar.desired import Absent, Ceded, Kept, Present, Want, desired
from consul_registrar.facts import Facts, Rival
from consul_registrar.model import Instance, Reason
from consul_registrar.names import folded
from consul_registrar.terms import refused_check

#: Under which name as Consul compares it, at which address and port.
Published = tuple[str, str, int]

_HANDED_OVER = {Cause.REGISTRATION_DELETED, Cause.UNSELECTED}


def wanted(facts: Facts) -> Want:
    """What should stand in Consul for these facts, rivals and the connection's terms considered."""
    want = _permitted(facts, desired(facts))
    older = [rival for rival in facts.rivals if rival.older and rival.publishes]
    if isinstance(want, Present) and older:
        reason = _conflict(want.instance, min(older, key=lambda rival: rival.since))
        if any(rival.covers for rival in older):
            return Ceded(reason)
        return Kept(reason, problem=True) if not facts.standing or any(rival.stands for rival in older) else want
    if isinstance(want, Absent) and want.cause in _HANDED_OVER and facts.standing and _is_awaited(facts.rivals):
        return Kept(Reason("HandingOver", "another registration is about to publish it in its place"), problem=False)
    return want


def _permitted(facts: Facts, want: Want) -> Want:
    """Kept as it stands where one of its checks goes further than the connection lets it."""
    if not isinstance(want, Present) or facts.check_terms is None:
        return want
    refused = refused_check(want.instance.checks, facts.check_terms)
    return Kept(refused, problem=True) if refused else want


def rivals(facts: Facts, others: Iterable[Facts]) -> tuple[Rival, ...]:
    """What these facts of the same subject, of other registrations, mean to this one: to what it is to publish.

    Where it is to publish nothing, to what it does: an heir may want that. What an edit leaves is nobody's matter.
    """
    has = _of(facts.standing)
    mine = _to_be(facts) or has
    return tuple(_rival(facts, has, mine, other) for other in others)


def _rival(facts: Facts, has: frozenset[Published], mine: frozenset[Published], other: Facts) -> Rival:
    standing = _of(other.standing)
    return Rival(
        other.owner.key,
        since=_age(other),
        older=_age(other) < _age(facts),
        publishes=bool(_claimed(other, standing) & mine),
        stands=bool(standing & mine),
        covers=bool(has) and has <= standing,
    )


def _claimed(facts: Facts, standing: frozenset[Published]) -> frozenset[Published]:
    """What a registration publishes, or is going to: one that may not write, or can't, has only what stands."""
    if facts.unwritable:
        return standing
    match _permitted(facts, desired(facts)):
        case Present(instance) if not (facts.registration and facts.registration.suspended):
            return _of((instance,))
        case Present() | Kept():
            return standing
        case _:
            return frozenset()


def _to_be(facts: Facts) -> frozenset[Published]:
    want = _permitted(facts, desired(facts))
    return _of((want.instance,)) if isinstance(want, Present) else frozenset()


def _of(instances: Iterable[Instance]) -> frozenset[Published]:
    ports = ((i, {i.port, *(named.port for named in i.ports)}) for i in instances)
    return frozenset((folded(i.service), i.address, port) for i, each in ports for port in each)


def _age(facts: Facts) -> tuple[str, str]:
    """By creation, then by name: the API server counts seconds."""
    created = facts.registration.meta.created if facts.registration else ""
    return created, str(facts.owner.key)


def _is_awaited(others: Iterable[Rival]) -> bool:
    heirs = [rival for rival in others if rival.publishes]
    return bool(heirs) and not any(rival.stands for rival in heirs)


def _conflict(instance: Instance, rival: Rival) -> Reason:
    what = f"{instance.address}:{instance.port} as service {instance.service!r}"
    return Reason("Conflict", f"the older registration {rival.key} publishes this Pod at {what} already")
