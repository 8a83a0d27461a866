"""What arrives from the cluster and from Consul becomes cache entries and keys on the queue; nothing more happens here.

Decides which keys a change concerns. What to do about them is decided in `reconcile.py` and `lifecycle.py`.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet

from consul_registrar import metrics, objects
from consul_registrar.acceptance import Acceptance
from consul_registrar.cache import Cache
from consul_registrar.consuls import Consuls
from consul_registrar.kube import CustomObject
from consul_registrar.model import Key, Namespace, Node, Pod, Reason, RegistrationKey
from consul_registrar.objects import FINALIZER, Connection, Registration
from consul_registrar.queue import Queue
from consul_registrar.reports import Reports
from consul_registrar.service_arrivals import services_on


class Pods:
    """Takes Pods from their reflector. `look` is told of those that declare our readiness gate."""

    def __init__(self, cache: Cache, queue: Queue[Key], look: Callable[[str], None] = lambda _: None) -> None:
        self._cache = cache
        self._queue = queue
        self._look = look

    def put(self, obj: Pod) -> None:
        """A Pod is new, or has changed."""
        concerned = self._cache.put_pod(obj)
        if concerned:
            metrics.pod_arrived(obj.version)
        self._add(concerned, obj.uid)
        if obj.gate is not None:
            self._look(obj.uid)

    def remove(self, uid: str) -> None:
        """A Pod was seen deleted."""
        self._add(self._cache.delete_pod(uid), uid)

    def vanished(self, uid: str) -> None:
        """A Pod is not in a complete list any more."""
        self._add(self._cache.forget_pod(uid), uid)

    def _add(self, registrations: set[RegistrationKey], uid: str) -> None:
        for registration in registrations:
            self._queue.add(Key(registration, uid))


class Nodes:
    """Takes nodes from their reflector."""

    def __init__(self, cache: Cache, queue: Queue[Key], consuls: Consuls) -> None:
        self._cache = cache
        self._queue = queue
        self._consuls = consuls
        self._names: dict[str, str] = {}

    def put(self, obj: Node) -> None:
        """A node is new, or has changed; heartbeats change nothing that concerns us."""
        before = self._cache.nodes.get(obj.name)
        self._cache.nodes[obj.name] = obj
        self._names[obj.uid] = obj.name
        if before is None or (before.addresses, before.ips) != (obj.addresses, obj.ips):
            self._cache.addresses_changed()
            self._consuls.set_nodes()
        if before is None or before.labels != obj.labels:
            pods_on(self._cache, self._queue, obj.name)
        if before is None or _differs(before, obj):
            services_on(self._cache, self._queue, obj.name)

    def remove(self, uid: str) -> None:
        """A node is gone."""
        name = self._names.pop(uid, "")
        known = self._cache.nodes.get(name)
        if known is not None and known.uid == uid:
            del self._cache.nodes[name]
            self._cache.addresses_changed()
            self._consuls.set_nodes()

    vanished = remove


class Namespaces:
    """Takes namespaces from their reflector: their labels and names say which connections take which registrations."""

    def __init__(self, cache: Cache, queue: Queue[Key], acceptance: Acceptance) -> None:
        self._cache = cache
        self._queue = queue
        self._acceptance = acceptance
        self._names: dict[str, str] = {}

    def put(self, obj: Namespace) -> None:
        """A namespace is new, or has changed."""
        before = self._cache.namespaces.get(obj.name)
        self._cache.namespaces[obj.name] = obj
        self._names[obj.uid] = obj.name
        if before is None or before.labels != obj.labels:
            self._judge_anew(obj.name)

    def remove(self, uid: str) -> None:
        """A namespace is gone; what was in it goes by events of its own."""
        name = self._names.pop(uid, "")
        known = self._cache.namespaces.get(name)
        if known is not None and known.uid == uid:
            del self._cache.namespaces[name]
            self._judge_anew(name)

    vanished = remove

    def _judge_anew(self, namespace: str) -> None:
        for key in self._acceptance.concerned_by(namespace):
            self._queue.add(Key(key))


def _differs(before: Node, now: Node) -> bool:
    return (before.labels, before.addresses, before.ips) != (now.labels, now.addresses, now.ips)


def pods_on(cache: Cache, queue: Queue[Key], node: str) -> None:
    """Put every subject on a node on the queue: its labels have changed."""
    for pod in cache.pods_on(node):
        for registration in cache.selecting(pod):
            queue.add(Key(registration, pod.uid))


def pods_beside(cache: Cache, queue: Queue[Key], consuls: Consuls, node: str) -> None:
    """Put every subject on a node on the queue: its agent's state has changed. What stands nowhere yet goes first."""
    for pod in cache.pods_on(node):
        for registration in cache.selecting(pod):
            add = queue.add_routine if consuls.stands(registration, pod.uid) else queue.add
            add(Key(registration, pod.uid))


def endpoints_in(cache: Cache, queue: Queue[Key], connection: str) -> None:
    """Put the registrations of what is on no node on the queue: which agents there are decides where that stands."""
    for registration in cache.registrations.values():
        spec = registration.spec
        if connection in registration.connections and not isinstance(spec, Reason) and spec.pods is None:
            queue.add(Key(registration.key))


class Registrations:
    """Takes registrations from kopf."""

    def __init__(
        self,
        cache: Cache,
        queue: Queue[Key],
        acceptance: Acceptance,
        reports: Reports,
        load_reaped: Callable[[Registration], None],
    ) -> None:
        self._cache = cache
        self._queue = queue
        self._acceptance = acceptance
        self._reports = reports
        self._load_reaped = load_reaped
        self._keys: dict[str, RegistrationKey] = {}

    def put(self, obj: CustomObject) -> None:
        """A registration is new, or has changed; where only its status has, what it says is looked at again."""
        new = objects.registration(obj.body)
        before = self._cache.registrations.get(new.key)
        self._keys[new.meta.uid] = new.key
        beside = self._cache.beside(new.key)
        self._cache.put_registration(new)
        if before is None:
            self._load_reaped(new)
        if before is not None and _asks_the_same(before, new):
            self._reports.touch(new.key)
            return
        known = before.meta if before is not None else None
        if known is None or (known.uid, known.generation) != (new.meta.uid, new.meta.generation):
            self._reports.renew(new.key)  # also what was said of another one that had the name before
        self._others_changed(self._acceptance.names.put(new) | beside | self._cache.beside(new.key))
        self._queue.add(Key(new.key))

    def remove(self, uid: str) -> None:
        """A registration is gone; another one may have its name by now."""
        key = self._keys.pop(uid, None)
        known = self._cache.registrations.get(key) if key else None
        if key is None or known is None or known.meta.uid != uid:
            return
        beside = self._cache.beside(key)
        self._cache.remove_registration(key)
        self._others_changed(self._acceptance.names.remove(key) | beside)
        self._queue.add(Key(key))

    vanished = remove  # what it left is removed only after a fresh read, either way

    def _others_changed(self, others: AbstractSet[RegistrationKey]) -> None:
        for key in others:
            self._queue.add(Key(key))


def _asks_the_same(before: Registration, new: Registration) -> bool:
    one, other = before.meta, new.meta
    return (one.uid, one.generation, one.deleted, one.finalizers, one.annotations) == (
        other.uid,
        other.generation,
        other.deleted,
        other.finalizers,
        other.annotations,
    )


class Connections:
    """Takes connections from kopf. `fallback`: what stands in for an object of that name while there is none."""

    def __init__(
        self,
        cache: Cache,
        consuls: Consuls,
        users: Callable[[str], None],
        look: Callable[[], None],
        fallback: dict[str, Connection],
    ) -> None:
        self._cache = cache
        self._consuls = consuls
        self._users = users
        self._look = look
        self._fallback = fallback
        self._names: dict[str, str] = {}
        for name in fallback:
            self._stand_in(name)

    def put(self, obj: CustomObject) -> None:
        """A connection is new, or has changed. It is put to work once our finalizer holds it.

        Without it, it could be deleted while instances stand there that only it can remove.
        """
        new = objects.connection(obj.body)
        before = self._cache.connections.get(new.name)
        self._names[new.meta.uid] = new.name
        self._cache.connections[new.name] = new
        self._look()
        if FINALIZER in new.meta.finalizers and (before is None or _at_work(before) != _at_work(new)):
            self._consuls.put(new.name, new.spec)
            self._users(new.name)

    def remove(self, uid: str) -> None:
        """A connection is gone."""
        name = self._names.pop(uid, "")
        known = self._cache.connections.get(name)
        if known is None or known.meta.uid != uid:
            return
        del self._cache.connections[name]
        self._consuls.remove(name)
        self._stand_in(name)
        self._users(name)

    def _stand_in(self, name: str) -> None:
        if name in self._fallback:
            self._cache.connections[name] = self._fallback[name]
            self._consuls.put(name, self._fallback[name].spec)

    vanished = remove


def _at_work(connection: Connection) -> object:
    return FINALIZER in connection.meta.finalizers, connection.spec
