"""Generates specs, Pods, nodes and what stands, as values of the core; and a Consul that takes changes as one does."""

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from consul_registrar import objects
from consul_registrar.changes import Change, Deregister, DropCheck, Feed, Register
from consul_registrar.desired import Present, desired
from consul_registrar.facts import Facts
from consul_registrar.model import META_HASH, META_NONCE, Check, ContainerPort, Health, Instance, Node, Pod, Reason
from consul_registrar.objects import Registration
from consul_registrar.services import Backends, Exposed, ServicePort, subject_of
from unit.core.build import KEY, OLD, OWNER, SELECTOR, body, service

SUBJECT = "uid-1"
ENDPOINT = "primary"
HEALTHS = st.sampled_from(Health)
_TEXTS = st.sampled_from(
    [
        *("v1", "v2", "$(metadata.name)", "$(metadata.labels['v']:-none)", "$$(x)", "é", "$(status.podIP)"),
        *("$(node.metadata.labels['zone']:-nowhere)", "$(metadata.annotations['a']:-)", "$(metadata.labels['v'])"),
    ]
)
_PORTS = st.sampled_from([None, 80, "http", "http", "admin"])
_DURATIONS = st.sampled_from([None, "1s", "59s", "1m"])


def _short(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The same strategy, which is shown by a short name."""

    @st.composite
    def drawn(draw: st.DrawFn) -> Any:
        return draw(strategy)

    return drawn()


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _record(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(fields).map(_without_none)


def _checks(ports: Any, *, of_pods: bool) -> st.SearchStrategy[Any]:
    probing = {
        "interval": _DURATIONS,
        "deregisterCriticalServiceAfter": _DURATIONS,
        "initialStatus": st.none() | HEALTHS.map(str),
        "notes": st.sampled_from([None, "note"]),
    }
    kinds = [
        _record(tcp=_record(port=ports), **probing),
        _record(http=_record(port=ports, path=st.sampled_from([None, "/h", "/$(metadata.name)"])), **probing),
        _record(grpc=_record(port=ports, service=st.sampled_from([None, "s"])), **probing),
        _record(udp=_record(port=ports), **probing),
        _record(h2ping=_record(port=ports), **probing),
        st.just({"ttl": {"ttl": "30s"}}),
        st.just({"alias": {"serviceId": "db-1"}}),
    ]
    if of_pods:
        kinds.append(st.just({"readiness": {}}))
    named = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.one_of(kinds), max_size=3)
    return st.none() | named.map(lambda checks: [{"name": name} | check for name, check in checks.items()])


_META = st.dictionaries(st.sampled_from(["a", "b"]), _TEXTS)
_NAMES = st.sampled_from([None, "web", "shop-web"])
_WEIGHTS = st.sampled_from([None, {"passing": 10}, {"passing": "$(metadata.labels['v']:-7)", "warning": 0}])
_TAGGED = st.sampled_from([None, None, {"wan": {"address": "203.0.113.7", "port": 443}}])
_SERVICE: dict[str, Any] = {
    "name": _NAMES,
    "meta": _META,
    "weights": _WEIGHTS,
    "taggedAddresses": _TAGGED,
    "enableTagOverride": st.sampled_from([None, None, True]),
}
_COMMON: dict[str, Any] = {
    "suspend": st.none() | st.booleans(),
    "deletionPolicy": st.sampled_from([None, "Deregister", "Orphan"]),
    "consulRefs": st.sampled_from([None, [{"name": "default"}], [{"name": "other"}]]),
}
OF_PODS = _short(
    _record(
        pods=_record(
            selector=st.sampled_from(
                [
                    {"matchLabels": {"app": "web"}},
                    {"matchLabels": {"app": "db"}},
                    {"matchExpressions": [{"key": "v", "operator": "NotIn", "values": ["1"]}]},
                ]
            ),
            register=st.sampled_from([None, "Running", "Ready", "Scheduled"]),
            address=st.sampled_from([None, None, "PodIP", "HostIP"]),
            ipFamily=st.sampled_from([None, None, "IPv4", "IPv6"]),
            onTermination=st.sampled_from([None, "Deregister", "Critical"]),
        ),
        service=_record(port=_PORTS, tags=st.lists(_TEXTS, max_size=3), **_SERVICE),
        checks=_checks(_PORTS, of_pods=True),
        **_COMMON,
    )
)
_ENDPOINT = _record(
    address=st.sampled_from(["10.0.0.1", "db.example.com", "2001:db8::1"]),
    port=st.just(5432),
    tags=st.sampled_from([None, ["own"]]),
    weights=st.sampled_from([None, {"passing": 3}]),
)
OF_ENDPOINTS = _short(
    _record(
        endpoints=st.dictionaries(st.sampled_from([ENDPOINT, "second"]), _ENDPOINT, min_size=1).map(
            lambda found: [{"name": name} | each for name, each in found.items()]
        ),
        service=_record(tags=st.lists(_TEXTS, max_size=2), **_SERVICE),
        checks=_checks(st.sampled_from([None, 80]), of_pods=False),
        **_COMMON,
    )
)
ADDRESS = "203.0.113.7"
ADDRESS_SUBJECT = subject_of("uid-web-lb", ADDRESS)
_SERVICE_PORTS = st.sampled_from([None, None, 80, "http", "admin"])
OF_SERVICES = _short(
    _record(
        kubernetesService=_record(
            name=st.sampled_from(["web-lb", "web-lb", "web-lb", "other"]),
            publish=st.sampled_from(["LoadBalancer", "LoadBalancer", "NodePort", "ClusterIP", "ExternalIP"]),
            ipFamily=st.sampled_from([None, None, None, "IPv4", "IPv6"]),
        ),
        service=_record(port=_SERVICE_PORTS, tags=st.lists(_TEXTS, max_size=2), **_SERVICE),
        checks=_checks(_SERVICE_PORTS, of_pods=True),
        **_COMMON,
    )
)
SERVICES = st.builds(
    service,
    type=st.sampled_from(["LoadBalancer", "LoadBalancer", "LoadBalancer", "ClusterIP"]),
    ingress=st.sampled_from([(ADDRESS,), (ADDRESS,), (ADDRESS, "lb.example.com"), ("2001:db8::7",), ()]),
    external_ips=st.sampled_from([(), (ADDRESS,)]),
    labels=st.fixed_dictionaries({}, optional={"v": st.sampled_from("12")}),
    ports=st.sampled_from([(ServicePort("http", 80),), (ServicePort("http", 80), ServicePort("admin", 81))]),
    local=st.booleans(),
    deleting=st.sampled_from([False, False, False, True]),
)
BACKENDS = st.builds(Backends, st.dictionaries(st.sampled_from(["node-1", "node-2", ""]), st.booleans()))
MALFORMED = st.sampled_from([{}, {"pods": {}}, {"pods": {"selector": {"matchLabels": {"a": "b"}}}, "checks": [{}]}])
SPECS = OF_PODS | OF_PODS | OF_PODS | OF_ENDPOINTS | OF_SERVICES | MALFORMED


def _registration(spec: Any, generation: int = 1, deleted: str = "") -> Registration:
    metadata = {"generation": generation, "deletionTimestamp": deleted}
    return objects.registration(body(name=KEY.name, **metadata) | {"spec": spec})


def _selecting(spec: Any) -> Any:
    return spec | {"pods": {"selector": SELECTOR}, "consulRefs": [{"name": "default"}]}


REGISTRATIONS = st.builds(_registration, SPECS, st.integers(1, 3), st.sampled_from(["", "", "", OLD]))
LASTING = st.builds(_registration, SPECS, st.integers(1, 3))
ANY_ENDPOINTS = st.builds(_registration, OF_ENDPOINTS, st.integers(1, 3), st.sampled_from(["", "", OLD]))
LASTING_ENDPOINTS = st.builds(_registration, OF_ENDPOINTS)
SELECTING = st.builds(_registration, OF_PODS.map(_selecting))
PODS = st.builds(
    Pod,
    uid=st.just(SUBJECT),
    namespace=st.sampled_from(["shop", "shop", "shop", "other"]),
    name=st.just("web-1"),
    version=st.just(1),
    labels=st.fixed_dictionaries({"app": st.sampled_from(["web", "web", "db"])}, optional={"v": st.sampled_from("12")}),
    annotations=st.fixed_dictionaries({}, optional={"a": st.sampled_from(["", "x", "y", "é" * 300])}),
    node=st.sampled_from(["node-1", "node-1", ""]),
    phase=st.sampled_from(["Running", "Running", "Running", "Pending", "Unknown", "", "Succeeded", "Failed"]),
    ip=st.sampled_from(["10.0.0.7", "10.0.0.7", "2001:db8::7", ""]),
    host_ip=st.just("192.168.0.1"),
    deleting=st.sampled_from([False, False, False, True]),
    ready=st.booleans(),
    restarts=st.integers(0, 2),
    ports=st.sampled_from(
        [
            *((), (ContainerPort("http", 80),), (ContainerPort("http", 80, host_port=30080),)),
            (ContainerPort("http", 80), ContainerPort("admin", 81, host_port=81)),
        ]
    ),
    ips=st.sampled_from([(), ("10.0.0.7", "2001:db8::7")]),
    deleted=st.just(False),
)
LIVING = PODS.map(
    lambda pod: replace(
        pod,
        namespace="shop",
        labels={"v": "1", **pod.labels, "app": "web"},
        deleting=False,
        phase="Running",
        node="node-1",
        ip=pod.ip or "10.0.0.8",
    )
)
GONE = PODS.map(lambda pod: replace(pod, deleting=True, deleted=True) if not pod.finished else pod)
NODES = st.none() | st.just(Node("uid", "node-1", 1, {"zone": "z1"}, {}))
NOBODY = st.none()
PLACES = st.sampled_from(["agent-1", "agent-1", "agent-2", Reason("AgentDown", "it is down")])
REFUSALS = st.none() | st.just(Reason("ServiceNameTaken", "taken"))


MAYBE_REGISTRATIONS = st.none() | REGISTRATIONS | REGISTRATIONS | REGISTRATIONS
MAYBE_PODS = st.none() | PODS | PODS | PODS


def facts(
    registrations: Any = MAYBE_REGISTRATIONS, pods: Any = MAYBE_PODS, refusals: Any = REFUSALS
) -> st.SearchStrategy[Facts]:
    """Facts of one subject, with nothing standing."""
    return st.builds(
        Facts,
        owner=st.just(OWNER),
        subject=st.just(SUBJECT),
        registration=registrations,
        refused=refusals,
        pod=pods,
        node=NODES,
        place=PLACES,
        standing=st.just(()),
    )


@st.composite
def standing(draw: st.DrawFn) -> tuple[Instance, ...]:
    """What earlier states of this subject left, spoiled in ways that happen; at most one for a node and ID."""
    found: dict[tuple[str, str], Instance] = {}
    for _ in range(draw(st.integers(0, 3))):
        instance = draw(spoiled(draw(published()).instance))
        found[instance.node, instance.id] = instance
    return tuple(found.values())


@dataclass(frozen=True)
class Published:
    """Facts of which something is to stand, and what."""

    facts: Facts
    instance: Instance


@st.composite
def published(draw: st.DrawFn) -> Published:
    """A living Pod that a registration selects; what can't be published of its spec is left out."""
    known = draw(facts(SELECTING, LIVING, NOBODY))
    known = replace(known, place=draw(st.sampled_from(["agent-1", "agent-2"])), pod=replace(known.pod, ready=True))
    want = desired(known)
    if not isinstance(want, Present):
        known = replace(known, registration=_registration(_selecting({"service": {"port": draw(st.integers(80, 81))}})))
        want = desired(known)
    assert isinstance(want, Present), want
    return Published(known, want.instance)


@st.composite
def spoiled(draw: st.DrawFn, wanted: Instance) -> Instance:
    """As Consul gives an instance back, maybe written by an older version or edited behind our back."""
    checks = [replace(c, probe=None, status=draw(HEALTHS)) for c in wanted.checks if draw(st.integers(0, 4))]
    if not draw(st.integers(0, 3)):
        checks.append(Check(f"{wanted.id}:stray:tcp", "stray", None, Health.PASSING))
    meta = dict(wanted.meta)
    edit = draw(st.sampled_from(["none", "none", "older hash", "no hash", "nonce", "extra"]))
    match edit:
        case "older hash":
            meta[META_HASH] = "0-older"
        case "no hash":
            del meta[META_HASH]
        case "nonce":
            meta[META_NONCE] = "17"
        case "extra":
            meta["extra"] = "x"
    name = draw(st.sampled_from([wanted.id, wanted.id, "an-older-id"]))
    port = draw(st.sampled_from([wanted.port, wanted.port, 1]))
    return replace(wanted, id=name, port=port, meta=tuple(sorted(meta.items())), checks=tuple(checks))


@st.composite
def endpoints(draw: st.DrawFn) -> Facts:
    """Facts of an endpoint, and what earlier specs left of it."""
    found: dict[tuple[str, str], Instance] = {}
    for _ in range(draw(st.integers(0, 2))):
        past = _of_endpoint(draw(LASTING_ENDPOINTS), draw(st.sampled_from(["agent-1", "agent-2"])))
        want = desired(past)
        if isinstance(want, Present):
            instance = draw(spoiled(want.instance))
            found[instance.node, instance.id] = instance
    known = _of_endpoint(draw(st.none() | ANY_ENDPOINTS | ANY_ENDPOINTS), draw(PLACES))
    return replace(known, refused=draw(REFUSALS), standing=tuple(found.values()))


def _of_endpoint(registration: Registration | None, place: str | Reason) -> Facts:
    return Facts(OWNER, ENDPOINT, registration, None, None, None, place, ())


@st.composite
def addresses(draw: st.DrawFn) -> Facts:
    """Facts of one address of a Service, and what earlier specs and states of it left."""
    found: dict[tuple[str, str], Instance] = {}
    for _ in range(draw(st.integers(0, 2))):
        past = _of_address(draw(LASTING_SERVICES), draw(EXPOSED), draw(st.sampled_from(["agent-1", "agent-2"])))
        want = desired(past)
        if isinstance(want, Present):
            instance = draw(spoiled(want.instance))
            found[instance.node, instance.id] = instance
    known = _of_address(
        draw(st.none() | ANY_SERVICES | ANY_SERVICES), draw(st.none() | EXPOSED | EXPOSED), draw(PLACES)
    )
    return replace(known, refused=draw(REFUSALS), standing=tuple(found.values()))


EXPOSED = st.builds(Exposed, SERVICES, BACKENDS)
ANY_SERVICES = st.builds(_registration, OF_SERVICES, st.integers(1, 3), st.sampled_from(["", "", OLD]))
LASTING_SERVICES = st.builds(_registration, OF_SERVICES)


def _of_address(registration: Registration | None, exposed: Exposed | None, place: str | Reason) -> Facts:
    return Facts(OWNER, ADDRESS_SUBJECT, registration, None, None, None, place, (), exposed=exposed)


@st.composite
def states(draw: st.DrawFn, known: st.SearchStrategy[Facts] | None = None) -> Facts:
    """Facts with something standing, or not; many of them are of what is to be published."""
    if known is not None:
        return replace(draw(known), standing=draw(standing()))
    match draw(st.integers(0, 4)):
        case 0:
            return draw(endpoints())
        case 4:
            return draw(addresses())
        case 1 | 2:
            return replace(draw(published()).facts, standing=draw(standing()))
        case _:
            return replace(draw(facts()), standing=draw(standing()))


class Consul:
    """What a Consul holds; takes changes as one does. A definition that was never written shows as `probe` None."""

    def __init__(self, held: tuple[Instance, ...]) -> None:
        self.held = {(i.node, i.id): i for i in held}

    def take(self, change: Change) -> None:
        where = (change.node, change.id)
        match change:
            case Register(instance, define):
                before = self.held.get(where)
                checks = {c.id: c for c in (before.checks if before else ())}
                checks |= {c.id: replace(c, status=c.status or Health.CRITICAL) for c in define}
                self.held[where] = replace(instance, checks=tuple(checks.values()))
            case Feed(_, check):
                self._edit(where, lambda c: replace(c, status=check.status) if c.id == check.id else c)
            case DropCheck(_, check_id):
                self._edit(where, lambda c: None if c.id == check_id else c)
            case Deregister():
                del self.held[where]

    def _edit(self, where: tuple[str, str], edit: Any) -> None:
        edited = (edit(check) for check in self.held[where].checks)
        self.held[where] = replace(self.held[where], checks=tuple(c for c in edited if c is not None))

    @property
    def standing(self) -> tuple[Instance, ...]:
        """What has an owner; the rest is foreign and no input of a plan."""
        return tuple(i for i in self.held.values() if i.owner is not None)


def after(facts: Facts, changes: tuple[Change, ...]) -> Facts:
    """The same facts once Consul has taken the changes."""
    consul = Consul(facts.standing)
    for change in changes:
        consul.take(change)
    return replace(facts, standing=consul.standing)
