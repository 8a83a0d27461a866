"""Kubernetes Services and EndpointSlices, as they arrive, become cache entries and keys on the queue.

Decides which keys a change concerns: of a Service all that publish it; of its endpoints only the nodes that differ,
unless that makes the Service as a whole ready, unready, or empty. As `arrivals.py` does for everything else.
"""

from collections.abc import Iterable, Mapping

from consul_registrar.cache import Cache
from consul_registrar.exposure import subjects
from consul_registrar.model import Key
from consul_registrar.queue import Queue
from consul_registrar.service_cache import Name, source_of
from consul_registrar.services import Backends, EndpointSlice, Exposed, KubernetesService, subject_of


class Services:
    """Takes Services from their reflector."""

    def __init__(self, cache: Cache, queue: Queue[Key]) -> None:
        self._cache = cache
        self._queue = queue

    def put(self, obj: KubernetesService) -> None:
        """A Service is new, or has changed."""
        self._cache.services.put(obj)
        self._touch(obj)

    def remove(self, uid: str) -> None:
        """A Service was seen deleted."""
        self._touch(self._cache.services.delete(uid))

    def vanished(self, uid: str) -> None:
        """A Service is not in a complete list any more."""
        self._touch(self._cache.services.forget(uid))

    def _touch(self, service: KubernetesService | None) -> None:
        if service is not None:
            _expand(self._cache, self._queue, (service.namespace, service.name))


class EndpointSlices:
    """Takes EndpointSlices from their reflector."""

    def __init__(self, cache: Cache, queue: Queue[Key]) -> None:
        self._cache = cache
        self._queue = queue

    def put(self, obj: EndpointSlice) -> None:
        """A slice is new, or has changed; most changes (addresses, ports) are of no concern."""
        services, where = self._cache.services, (obj.namespace, obj.service)
        before = self._known(where)
        moved = services.service_of_slice(obj.uid)
        if moved is not None and moved != where:
            self.remove(obj.uid)
        services.put_slice(obj)
        self._changed(where, before)

    def remove(self, uid: str) -> None:
        """A slice is gone. What that means for the Service depends on its others."""
        services = self._cache.services
        where = services.service_of_slice(uid)
        if where is None:
            return
        before = self._known(where)
        services.remove_slice(uid)
        self._changed(where, before)

    vanished = remove

    def _known(self, where: Name) -> Backends | None:
        """What stands behind a Service; of one that nobody publishes that isn't put together."""
        services = self._cache.services
        return services.backends(*where) if services.publishing(*where) else None

    def _changed(self, where: Name, before: Backends | None) -> None:
        exposed = self._cache.services.named(*where) if before is not None else None
        if before is None or exposed is None:
            return
        now = exposed.backends
        if before.ready != now.ready or bool(before.nodes) != bool(now.nodes):
            _expand(self._cache, self._queue, where)
            return
        for node in differing(before.nodes, now.nodes):
            _on_node(self._cache, self._queue, exposed, node)


def differing(before: Mapping[str, bool], now: Mapping[str, bool]) -> Iterable[str]:
    """The nodes that hold endpoints only before or only now, or of another readiness."""
    return [node for node in before.keys() | now.keys() if before.get(node) != now.get(node)]


def services_on(cache: Cache, queue: Queue[Key], node: str) -> None:
    """Put what Services publish on a node on the queue: its labels or addresses have changed."""
    for where in cache.services.published():
        exposed = cache.services.named(*where)
        if exposed is not None and node in exposed.backends.nodes:
            _on_node(cache, queue, exposed, node)


def _on_node(cache: Cache, queue: Queue[Key], exposed: Exposed, node: str) -> None:
    service = exposed.service
    for key in cache.services.publishing(service.namespace, service.name):
        source = source_of(cache.registrations.get(key))
        if source is not None and source.publish == "NodePort":
            queue.add(Key(key, subject_of(service.uid, node)))


def _expand(cache: Cache, queue: Queue[Key], where: Name) -> None:
    """All that the Service has now; what it had before is found by those that publish it."""
    exposed = cache.services.named(*where)
    for key in cache.services.publishing(*where):
        queue.add(Key(key))
        source = source_of(cache.registrations.get(key))
        if exposed is not None and source is not None:
            for subject in subjects(source, exposed):
                queue.add(Key(key, subject))
