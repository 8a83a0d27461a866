"""What the cluster holds, as last seen: Pods, nodes, registrations, connections, indexed for cheap answers.

Decides which registrations a Pod concerns. Who fills it, never with older versions than it has (`kube/`), and what
follows from a change (`arrivals.py`) is decided elsewhere. One changed object costs the same whatever else is there.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from consul_registrar.addresses import canonical
from consul_registrar.api.connection import ConsulConnectionSpec
from consul_registrar.api.selector import Selector
from consul_registrar.model import Namespace, Node, Pod, Reason, RegistrationKey
from consul_registrar.names import folded
from consul_registrar.objects import Connection, Json, Registration
from consul_registrar.selectors import selects
from consul_registrar.service_cache import ServiceCache

#: How many Pods that were seen deleted are remembered, so that removing what they left needs no question asked: more
#: than are likely to go while a Consul can't be reached. Else they would be absences, and held.
_REMEMBERED = 32_768
_NOTHING: Mapping[str, str] = {}


#: Namespace, connection and folded service name: what several registrations of one namespace may publish together.
_Publication = tuple[str, str, str]
#: Stands for every name, and for those that field paths make.
_ANY, _EACH = "", "$("


@dataclass(slots=True)
class _Selectors:
    """The selectors of one namespace. Those with labels are found by the rarest; the others are few, and all looked at.

    `found_by`: the label by which each is found. `selected`: the UIDs of the Pods that each of them takes.
    """

    by_label: dict[tuple[str, str], dict[RegistrationKey, Selector]] = field(default_factory=dict)
    others: dict[RegistrationKey, Selector] = field(default_factory=dict)
    known: dict[RegistrationKey, Selector] = field(default_factory=dict)
    found_by: dict[RegistrationKey, tuple[str, str] | None] = field(default_factory=dict)
    selected: dict[RegistrationKey, set[str]] = field(default_factory=dict)

    def put(self, key: RegistrationKey, selector: Selector, pods: Iterable[Pod]) -> None:
        self.remove(key)
        self.known[key] = selector
        self.selected[key] = {pod.uid for pod in pods if selects(selector, pod.labels)}
        pair = self.found_by[key] = self._rarest(selector)
        (self.others if pair is None else self.by_label.setdefault(pair, {}))[key] = selector

    def remove(self, key: RegistrationKey) -> None:
        if self.known.pop(key, None) is None:
            return
        pair = self.found_by.pop(key)
        bucket = self.others if pair is None else self.by_label[pair]
        del bucket[key], self.selected[key]
        if pair is not None and not bucket:
            del self.by_label[pair]

    def matching(self, labels: Mapping[str, str]) -> set[RegistrationKey]:
        found = {key for key, selector in self.others.items() if selects(selector, labels)}
        for pair in labels.items():
            found |= {key for key, selector in self.by_label.get(pair, {}).items() if selects(selector, labels)}
        return found

    def _rarest(self, selector: Selector) -> tuple[str, str] | None:
        """The label by which the fewest are found: many may have one in common, as charts' labels are."""
        pairs = selector.match_labels.items()
        return min(pairs, key=lambda pair: (len(self.by_label.get(pair, ())), pair), default=None)


class Cache:
    """The cluster as last seen."""

    def __init__(self) -> None:
        self.registrations: dict[RegistrationKey, Registration] = {}
        self.connections: dict[str, Connection] = {}
        self.nodes: dict[str, Node] = {}
        self._addresses: frozenset[str] | None = None
        self.namespaces: dict[str, Namespace] = {}
        self.services = ServiceCache()
        self._pods: dict[str, Pod] = {}
        self._deleted: dict[str, Pod] = {}
        self._pods_in: dict[str, dict[str, Pod]] = {}
        self._pods_on: dict[str, set[str]] = {}
        self._registrations_in: dict[str, set[RegistrationKey]] = {}
        self._selectors: dict[str, _Selectors] = {}
        self._publishing: dict[_Publication, set[RegistrationKey]] = {}
        self._publications: dict[RegistrationKey, set[_Publication]] = {}

    def terms(self, connection: str) -> ConsulConnectionSpec | None:
        """The spec of a connection; None where there is none, or it is malformed."""
        known = self.connections.get(connection)
        return None if known is None or isinstance(known.spec, Reason) else known.spec

    # Nodes

    def addresses_changed(self) -> None:
        """A node came, went, or has other addresses."""
        self._addresses = None

    @property
    def node_addresses(self) -> AbstractSet[str]:
        """The addresses of all nodes, canonical."""
        if self._addresses is None:
            each = ((*node.addresses.values(), *node.ips) for node in self.nodes.values())
            self._addresses = frozenset(canonical(at) for addresses in each for at in addresses)
        return self._addresses

    # Pods

    def pod(self, uid: str) -> Pod | None:
        """A Pod as last seen; one that was seen deleted lately is there too, marked as deleting."""
        return self._pods.get(uid) or self._deleted.get(uid)

    def pods(self) -> Mapping[str, Pod]:
        """All Pods that exist, by UID."""
        return self._pods

    def put_pod(self, pod: Pod) -> set[RegistrationKey]:
        """Take a Pod; the registrations that select it, as it was or as it is."""
        before = self._pods.get(pod.uid)
        self._pods[pod.uid] = pod
        self._deleted.pop(pod.uid, None)
        self._pods_in.setdefault(pod.namespace, {})[pod.uid] = pod
        self._pods_on.setdefault(pod.node, set()).add(pod.uid)
        if before is not None and before.node != pod.node:
            self._leave_node(before)
        concerned = self.selecting(pod)
        left = set() if before is None or before.labels == pod.labels else self.selecting(before) - concerned
        self._note_selected(pod, concerned, left)
        return concerned | left

    def delete_pod(self, uid: str) -> set[RegistrationKey]:
        """A Pod was seen to be deleted: it is gone. The registrations that selected it."""
        pod = self._pods.get(uid)
        if pod is None:
            return set()
        self._deleted[uid] = _remains_of(pod)
        if len(self._deleted) > _REMEMBERED:
            del self._deleted[next(iter(self._deleted))]
        return self.forget_pod(uid)

    def forget_pod(self, uid: str) -> set[RegistrationKey]:
        """A Pod is not seen any more, which proves nothing. The registrations that selected it."""
        pod = self._pods.pop(uid, None)
        if pod is None:
            return set()
        self._leave_node(pod)
        namespace = self._pods_in[pod.namespace]
        del namespace[uid]
        if not namespace:
            del self._pods_in[pod.namespace]
        concerned = self.selecting(pod)
        self._note_selected(pod, set(), concerned)
        return concerned

    def _note_selected(self, pod: Pod, by: set[RegistrationKey], left: set[RegistrationKey]) -> None:
        for key in by:
            self._selectors[key.namespace].selected[key].add(pod.uid)
        for key in left:
            self._selectors[key.namespace].selected[key].discard(pod.uid)

    def pods_on(self, node: str) -> list[Pod]:
        """The Pods on a node."""
        return [self._pods[uid] for uid in self._pods_on.get(node, ())]

    def _leave_node(self, pod: Pod) -> None:
        uids = self._pods_on[pod.node]
        uids.discard(pod.uid)
        if not uids:
            del self._pods_on[pod.node]

    def selecting(self, pod: Pod) -> set[RegistrationKey]:
        """The registrations whose selector takes this Pod."""
        selectors = self._selectors.get(pod.namespace)
        return selectors.matching(pod.labels) if selectors else set()

    def selected(self, key: RegistrationKey) -> AbstractSet[str]:
        """UIDs of the Pods that a registration selects."""
        selectors = self._selectors.get(key.namespace)
        return selectors.selected.get(key, frozenset()) if selectors else frozenset()

    # Registrations

    def put_registration(self, registration: Registration) -> None:
        """Take a registration. A malformed one keeps the selector that it had: what goes must still leave Consul."""
        self.registrations[registration.key] = registration
        self._registrations_in.setdefault(registration.key.namespace, set()).add(registration.key)
        spec = registration.spec
        if isinstance(spec, Reason):
            return
        self._publish(registration.key, _publications(registration))
        self.services.put_registration(registration)
        if spec.pods is None:
            self._forget_selector(registration.key)
            return
        selectors = self._selectors.setdefault(registration.key.namespace, _Selectors())
        if selectors.known.get(registration.key) != spec.pods.selector:
            pods = self._pods_in.get(registration.key.namespace, {})
            selectors.put(registration.key, spec.pods.selector, pods.values())

    def note_status(self, key: RegistrationKey, uid: str, status: Json) -> None:
        """We have written a status; the API server will tell of it too, a little later."""
        known = self.registrations.get(key)
        if known is not None and known.meta.uid == uid:
            self.registrations[key] = replace(known, status=status)

    def note_finalizers(self, key: RegistrationKey, uid: str, finalizers: tuple[str, ...]) -> None:
        """As `note_status`, for its finalizers."""
        known = self.registrations.get(key)
        if known is not None and known.meta.uid == uid:
            self.registrations[key] = replace(known, meta=replace(known.meta, finalizers=finalizers))

    def note_connection_status(self, name: str, uid: str, status: Json) -> None:
        """As `note_status`, for a connection."""
        known = self.connections.get(name)
        if known is not None and known.meta.uid == uid:
            self.connections[name] = replace(known, status=status)

    def note_connection_released(self, name: str, uid: str, finalizer: str) -> None:
        """As `note_finalizers`, for a connection that one was taken from."""
        known = self.connections.get(name)
        if known is not None and known.meta.uid == uid:
            left = tuple(each for each in known.meta.finalizers if each != finalizer)
            self.connections[name] = replace(known, meta=replace(known.meta, finalizers=left))

    def remove_registration(self, key: RegistrationKey) -> None:
        """Forget a registration."""
        if self.registrations.pop(key, None) is not None:
            self._registrations_in[key.namespace].discard(key)
            if not self._registrations_in[key.namespace]:
                del self._registrations_in[key.namespace]
        self._publish(key, set())
        self.services.remove_registration(key)
        self._forget_selector(key)

    def registrations_in(self, namespace: str) -> AbstractSet[RegistrationKey]:
        """The registrations of one namespace."""
        return self._registrations_in.get(namespace, set())

    def _publish(self, key: RegistrationKey, publications: set[_Publication]) -> None:
        for left in self._publications.pop(key, set()) - publications:
            self._publishing[left].discard(key)
            if not self._publishing[left]:
                del self._publishing[left]
        for publication in publications:
            self._publishing.setdefault(publication, set()).add(key)
        if publications:
            self._publications[key] = publications

    def beside(self, key: RegistrationKey, connection: str | None = None) -> set[RegistrationKey]:
        """The other registrations of its namespace that may publish the same service name there; None: anywhere."""
        found: set[RegistrationKey] = set()
        mine = self._publications.get(key, ())
        each = any(name == _EACH for _, _, name in mine)
        for namespace, at, name in mine:
            if connection is None or connection == at:
                looked = name if each or name != _ANY else _EACH
                found |= self._publishing.get((namespace, at, looked), frozenset())
        found.discard(key)
        return found

    def _forget_selector(self, key: RegistrationKey) -> None:
        selectors = self._selectors.get(key.namespace)
        if selectors is None:
            return
        selectors.remove(key)
        if not selectors.known:
            del self._selectors[key.namespace]


def _remains_of(pod: Pod) -> Pod:
    """What a Pod that is gone is remembered by."""
    bare = replace(pod, labels=_NOTHING, annotations=_NOTHING, ports=(), ips=(), host_ips=(), probes=())
    return replace(bare, deleting=True, deleted=True)


def _publications(registration: Registration) -> set[_Publication]:
    """Each is found by its name, by any, and as one whose names are made by field paths."""
    name = _EACH if registration.names_each else folded(registration.service)
    return {(registration.key.namespace, at, each) for at in registration.connections for each in (name, _ANY)}
