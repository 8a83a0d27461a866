"""What the status page says, as plain values: all registrations and Consuls in brief, and one registration in detail.

Decides what is shown, in which order (what needs attention first) and how much of it. What a registration is said to be
is what its status says, so the page, `kubectl` and every replica agree; which instances there are is what Consul holds.
Nothing of a spec is shown but names: headers and metadata may hold secrets. How it looks is `status_page/`'s matter.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from heapq import nsmallest

from consul_registrar import model
from consul_registrar.model import CONNECTING, Health, Instance, Reason
from consul_registrar.objects import Connection, Json, Registration

#: Rows of one answer at most; how many there are is said beside them.
ROWS = 200
INSTANCES = 200
CONNECTIONS = 50
CHANGES = 25
#: Characters of one message; the rest is in the object's status.
MESSAGE = 400

_IDLE = {"NoPodsMatched", "WaitingForPods", "Suspended"}
_PASSING_BY = {"Registering", "Deleting", "Reconciling"}
_TAKEN = {"ClusterNameTaken", "ClaimDenied"}


class State(StrEnum):
    """How something stands, in the order in which it needs attention."""

    BAD = "bad"
    UNHEALTHY = "unhealthy"
    PENDING = "pending"
    IDLE = "idle"
    GOOD = "good"


_ORDER = {state: number for number, state in enumerate(State)}


@dataclass(frozen=True, slots=True)
class Counts:
    """Instances over all Consuls, as status counts them."""

    desired: int = 0
    registered: int = 0
    passing: int = 0
    warning: int = 0
    critical: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class RegistrationRow:
    """One registration. `since`: when Ready last changed, RFC 3339, "" where that isn't known."""

    namespace: str
    name: str
    service: str
    state: State
    reason: str
    message: str
    since: str
    counts: Counts
    connections: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """Removals that are held in one Consul: how many subjects, the hash that approves them, and some of them."""

    subjects: int
    digest: str
    shown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Looks:
    """How a Consul looks from this replica: what of a registry's status is shown."""

    ready: bool
    reason: Reason
    version: str = ""
    datacenter: str = ""
    leader: str = ""
    agents: int = 0
    agents_ready: int = 0
    instances: int = 0


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """One Consul. `claim`: whether the cluster's name is ours there: "held", "refused", or "" where it isn't known."""

    name: str
    mode: str
    policy: str
    state: State
    looks: Looks
    claim: str
    held: Held | None


@dataclass(frozen=True, slots=True)
class Change:
    """One write to Consul, as its audit line says. `subject`: the Pod, endpoint or node that it is about."""

    time: str
    operation: str
    cause: str
    outcome: str
    connection: str
    service: str
    registration: str
    subject: str


@dataclass(frozen=True, slots=True)
class Replica:
    """Who tells this. `unready`: why it can't be trusted to know the cluster, "" where it can."""

    cluster: str
    name: str
    version: str
    leads: bool
    unready: str


@dataclass(frozen=True, slots=True)
class Overview:
    """All in brief. `matching` registrations fit what was asked for; `registrations` are those of them that are shown.

    `states` and `counts` are of all registrations, whatever was asked for.
    """

    replica: Replica
    states: dict[str, int]
    counts: Counts
    total: int
    matching: int
    registrations: tuple[RegistrationRow, ...]
    connections: tuple[ConnectionRow, ...]
    connections_total: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a status."""

    type: str
    status: str
    reason: str
    message: str
    since: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one subject is not as it should be."""

    subject: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """One instance as Consul holds it."""

    name: str
    connection: str
    node: str
    address: str
    port: int
    health: Health


@dataclass(frozen=True, slots=True)
class Detail:
    """One registration. `standing`: how many instances Consul holds; `instances` are those of them that are shown."""

    replica: Replica
    row: RegistrationRow
    conditions: tuple[Condition, ...]
    reasons: dict[str, int]
    problems: tuple[Problem, ...]
    standing: int
    instances: tuple[InstanceRow, ...]
    changes: tuple[Change, ...]


#: What reading a status raises that isn't as the operator writes it.
MISSHAPEN = (AttributeError, KeyError, TypeError, ValueError)
_UNREADABLE, _WHY = "Unreadable", "its status isn't as the operator writes it, and can't be read"


def row(registration: Registration) -> RegistrationRow:
    """One registration as its status tells of it; what can't be read is said of it alone."""
    try:
        return _row(registration)
    except MISSHAPEN:
        return _row(replace(registration, status=_unreadable(registration)))


def _unreadable(registration: Registration) -> Json:
    """A status in place of one that can't be read."""
    ready = {"type": "Ready", "status": "False", "reason": _UNREADABLE, "message": _WHY, "lastTransitionTime": ""}
    return {"observedGeneration": registration.meta.generation, "conditions": [ready]}


def _row(registration: Registration) -> RegistrationRow:
    ready = _condition(registration.status)
    counts = _counts(registration.status.get("instances") or {})
    return RegistrationRow(
        namespace=registration.key.namespace,
        name=registration.key.name,
        service=registration.service,
        state=_state(registration, ready, counts),
        reason=ready.reason,
        message=ready.message,
        since=ready.since,
        counts=counts,
        connections=registration.connections,
    )


def connection_row(connection: Connection, looks: Looks, held: Held | None) -> ConnectionRow:
    """One Consul. Nothing is written to it before the cluster's name is ours there."""
    spec = None if isinstance(connection.spec, Reason) else connection.spec
    refused = looks.reason.code in _TAKEN
    return ConnectionRow(
        name=connection.name,
        mode=spec.mode if spec else "",
        policy=spec.policy if spec else "",
        state=_connected(looks, held),
        looks=replace(looks, reason=Reason(looks.reason.code, _cut(looks.reason.message))),
        claim="refused" if refused else "held" if looks.ready and spec and spec.policy != "Observe" else "",
        held=held,
    )


def told_held(connection: Connection) -> Held | None:
    """What is held there as the leader has written it. Raises what is in `MISSHAPEN`."""
    told = connection.status.get("removals")
    if not told:
        return None
    return Held(int(told["held"]), _text(told["hash"]), tuple(_text(one) for one in told.get("shown") or ()))


def unreadable(one: ConnectionRow) -> ConnectionRow:
    """One Consul where it isn't known what is held."""
    if one.state is State.BAD:
        return one
    return replace(one, state=State.UNHEALTHY, looks=replace(one.looks, reason=Reason(_UNREADABLE, _WHY)))


def ordered(rows: Iterable[RegistrationRow]) -> list[RegistrationRow]:
    """What needs attention first, by name among equals."""
    return sorted(rows, key=lambda one: (_ORDER[one.state], one.namespace, one.name))


def overview(
    replica: Replica,
    rows: Sequence[RegistrationRow],
    connections: Sequence[ConnectionRow],
    changes: Sequence[Change],
    asked: str = "",
) -> Overview:
    """All in brief. `rows` are in order; `asked`: a part of a namespace, name, service or reason."""
    matching = [one for one in rows if _matches(one, asked)] if asked else rows
    states = Counter(one.state.value for one in rows)
    return Overview(
        replica=replica,
        states={state.value: states[state.value] for state in State},
        counts=_sum(rows),
        total=len(rows),
        matching=len(matching),
        registrations=tuple(matching[:ROWS]),
        connections=tuple(nsmallest(CONNECTIONS, connections, key=lambda one: (_ORDER[one.state], one.name))),
        connections_total=len(connections),
        changes=tuple(changes[:CHANGES]),
    )


def detail(
    replica: Replica, registration: Registration, standing: Sequence[tuple[str, Instance]], changes: Iterable[Change]
) -> Detail:
    """One registration. `standing`: its instances, each with its connection."""
    try:
        return _detail(replica, registration, standing, changes)
    except MISSHAPEN:
        return _detail(replica, replace(registration, status=_unreadable(registration)), standing, changes)


def _detail(
    replica: Replica, registration: Registration, standing: Sequence[tuple[str, Instance]], changes: Iterable[Change]
) -> Detail:
    status, key = registration.status, str(registration.key)
    problems = status.get("problems") or {}
    shown = nsmallest(INSTANCES, standing, key=lambda one: (_SEVERITY[one[1].health], _name(one[1]), one[0]))
    return Detail(
        replica=replica,
        row=row(registration),
        conditions=tuple(_of(one) for one in status.get("conditions") or ()),
        reasons={reason: int(count) for reason, count in (problems.get("counts") or {}).items()},
        problems=tuple(
            Problem(_text(one["subject"]), _text(one["reason"]), _cut(one["message"]))
            for one in problems.get("worst") or ()
        ),
        standing=len(standing),
        instances=tuple(_instance(name, one) for name, one in shown),
        changes=tuple(one for one in changes if one.registration == key)[:CHANGES],
    )


_SEVERITY = {Health.CRITICAL: 0, Health.WARNING: 1, Health.PASSING: 2}


def _condition(status: Json) -> Condition:
    found = next((one for one in status.get("conditions") or () if one["type"] == "Ready"), None)
    return _of(found) if found else Condition("Ready", "Unknown", "Reconciling", "it was not looked at yet", "")


def _of(one: Json) -> Condition:
    kind, status, reason, since = (_text(one[name]) for name in ("type", "status", "reason", "lastTransitionTime"))
    return Condition(kind, status, reason, _cut(one["message"]), since)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _state(registration: Registration, ready: Condition, counts: Counts) -> State:
    """A status that speaks of an older spec is about to change."""
    edited = registration.status.get("observedGeneration", 0) < registration.meta.generation
    if registration.deleting or edited or ready.status == "Unknown" or ready.reason in _PASSING_BY:
        return State.BAD if ready.reason == "DeregistrationBlocked" else State.PENDING
    if ready.status != "True":
        return State.BAD
    if counts.warning or counts.critical:
        return State.UNHEALTHY
    return State.IDLE if ready.reason in _IDLE else State.GOOD


def _connected(looks: Looks, held: Held | None) -> State:
    if not looks.ready:
        return State.PENDING if looks.reason.code == CONNECTING else State.BAD
    return State.UNHEALTHY if held or looks.agents_ready < looks.agents else State.GOOD


def _counts(found: Json) -> Counts:
    return Counts(*(int(found.get(name, 0)) for name in Counts.__slots__))


def _sum(rows: Sequence[RegistrationRow]) -> Counts:
    return Counts(*(sum(getattr(one.counts, name) for one in rows) for name in Counts.__slots__))


def _matches(one: RegistrationRow, asked: str) -> bool:
    return asked.lower() in f"{one.namespace}/{one.name} {one.service} {one.reason}".lower()


def _cut(message: object) -> str:
    text = _text(message)
    return text if len(text) <= MESSAGE else f"{text[: MESSAGE - 1]}…"


def _instance(connection: str, one: Instance) -> InstanceRow:
    return InstanceRow(_name(one), connection, one.node, one.address, one.port, one.health)


def _name(one: Instance) -> str:
    """What people know it by: its Pod, its endpoint, or the Service's address that it stands for."""
    return one.meta_value(model.META_POD) or one.meta_value(model.META_ENDPOINT) or one.id
