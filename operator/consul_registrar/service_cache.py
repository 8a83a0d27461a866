"""Kubernetes Services and their endpoints, as last seen, and which registrations publish them.

Decides nothing but what is found fast: one changed slice costs what its Service has, whatever else is there. What
follows from a change is decided in `service_arrivals.py`.
"""

from collections.abc import Set as AbstractSet
from dataclasses import replace

from consul_registrar.api.registration import KubernetesServiceSource
from consul_registrar.model import Reason, RegistrationKey
from consul_registrar.objects import Registration
from consul_registrar.services import NO_BACKENDS, Backends, EndpointSlice, Exposed, KubernetesService, together

#: How many Services that were seen deleted are remembered, so that removing what they left needs no question asked.
_REMEMBERED = 1024

Name = tuple[str, str]
"""Namespace and name."""


def source_of(registration: Registration | None) -> KubernetesServiceSource | None:
    """What a registration publishes of a Service, None where it doesn't, or isn't well-formed."""
    if registration is None or isinstance(registration.spec, Reason):
        return None
    return registration.spec.kubernetes_service


class ServiceCache:
    """Services, their slices, and who publishes them."""

    def __init__(self) -> None:
        self._services: dict[str, KubernetesService] = {}
        self._uids: dict[Name, str] = {}
        self._deleted: dict[str, KubernetesService] = {}
        self._slices: dict[Name, dict[str, EndpointSlice]] = {}
        self._of: dict[str, Name] = {}
        self._backends: dict[Name, Backends] = {}
        self._published: dict[RegistrationKey, Name] = {}
        self._publishing: dict[Name, set[RegistrationKey]] = {}

    # what is known

    def __len__(self) -> int:
        return len(self._services)

    def exposed(self, uid: str) -> Exposed | None:
        """A Service as last seen; one that was seen deleted lately is there too, marked as deleting."""
        service = self._services.get(uid) or self._deleted.get(uid)
        return Exposed(service, self.backends(service.namespace, service.name)) if service else None

    def named(self, namespace: str, name: str) -> Exposed | None:
        """The Service of that name that exists now."""
        uid = self._uids.get((namespace, name))
        return self.exposed(uid) if uid else None

    def published_by(self, registration: Registration) -> Exposed | None:
        """The Service that a registration names, None where it names none, or none exists."""
        source = source_of(registration)
        return self.named(registration.key.namespace, source.name) if source else None

    def backends(self, namespace: str, name: str) -> Backends:
        """What stands behind a Service, existing or not."""
        where = (namespace, name)
        if where not in self._slices:
            return NO_BACKENDS
        known = self._backends.get(where)
        if known is None:
            known = self._backends[where] = together(self._slices[where].values())
        return known

    def publishing(self, namespace: str, name: str) -> AbstractSet[RegistrationKey]:
        """The registrations that name this Service."""
        return self._publishing.get((namespace, name), frozenset())

    def published(self) -> list[Name]:
        """The Services, existing or not, that registrations name."""
        return list(self._publishing)

    # Services

    def put(self, service: KubernetesService) -> None:
        """Take a Service."""
        self._services[service.uid] = service
        self._deleted.pop(service.uid, None)
        self._uids[service.namespace, service.name] = service.uid

    def delete(self, uid: str) -> KubernetesService | None:
        """A Service was seen to be deleted: it is gone. As it was, None where it wasn't known."""
        service = self.forget(uid)
        if service is not None:
            self._deleted[uid] = replace(service, deleting=True)
            if len(self._deleted) > _REMEMBERED:
                del self._deleted[next(iter(self._deleted))]
        return service

    def forget(self, uid: str) -> KubernetesService | None:
        """A Service is not seen any more, which proves nothing. As it was, None where it wasn't known."""
        service = self._services.pop(uid, None)
        if service is not None and self._uids.get((service.namespace, service.name)) == uid:
            del self._uids[service.namespace, service.name]
        return service

    # EndpointSlices

    def put_slice(self, each: EndpointSlice) -> Name:
        """Take a slice; the Service that it is of."""
        where = (each.namespace, each.service)
        if self._of.get(each.uid, where) != where:  # its label was edited
            self.remove_slice(each.uid)
        self._of[each.uid] = where
        self._slices.setdefault(where, {})[each.uid] = each
        self._backends.pop(where, None)
        return where

    def remove_slice(self, uid: str) -> Name | None:
        """A slice is gone, or not seen any more; the Service that it was of, None where it wasn't known."""
        where = self._of.pop(uid, None)
        if where is None:
            return None
        del self._slices[where][uid]
        if not self._slices[where]:
            del self._slices[where]
        self._backends.pop(where, None)
        return where

    def service_of_slice(self, uid: str) -> Name | None:
        """The Service that a known slice is of."""
        return self._of.get(uid)

    # registrations

    def put_registration(self, registration: Registration) -> None:
        """Note what a registration publishes."""
        source = source_of(registration)
        self.remove_registration(registration.key)
        if source is not None:
            where = (registration.key.namespace, source.name)
            self._published[registration.key] = where
            self._publishing.setdefault(where, set()).add(registration.key)

    def remove_registration(self, key: RegistrationKey) -> None:
        """Forget a registration."""
        where = self._published.pop(key, None)
        if where is not None:
            self._publishing[where].discard(key)
            if not self._publishing[where]:
                del self._publishing[where]
