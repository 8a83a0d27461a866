"""Whether a registration may be carried out at all: its spec, what it refers to, its namespace, its service's name.

A Consul service name belongs to the namespace of the oldest registration that publishes it there, unless the
connection shares names. Who is refused by a connection's terms holds no name; that depends on nobody else, so nobody's
turn comes and goes (docs/decisions/0040). What is not accepted adds and changes nothing; what stood before stays, save
what is gone.
"""

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from consul_registrar.api.base import milliseconds
from consul_registrar.api.connection import ConsulConnectionSpec
from consul_registrar.cache import Cache
from consul_registrar.model import Reason, RegistrationKey
from consul_registrar.names import folded
from consul_registrar.objects import Connection, Registration
from consul_registrar.selectors import selects
from consul_registrar.terms import owner_by_pattern, prefix_of


class _Claim(NamedTuple):
    """Orders the registrations that publish a name. `generation`: of its spec, by which it may be refused."""

    created: str
    generation: int


class NameBook:
    """Which registrations publish which service name in which Consul. One change costs the same however many."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], dict[RegistrationKey, _Claim]] = {}
        self._mine: dict[RegistrationKey, set[tuple[str, str]]] = {}
        self._sorted: list[tuple[str, str]] = []
        self._making: dict[str, set[RegistrationKey]] = {}

    def put(self, registration: Registration) -> set[RegistrationKey]:
        """Take a registration's claims; the other registrations whose acceptance may have changed by it.

        One that has become malformed keeps its claims: what it published still stands under them.
        """
        if isinstance(registration.spec, Reason):
            return set()
        names = () if registration.names_each else (folded(registration.service),)
        new = {(connection, name) for connection in registration.connections for name in names}
        touched = self._release(registration.key, keep=new)
        now = _Claim(registration.meta.created, registration.meta.generation)
        if registration.names_each:
            for connection in registration.connections:
                self._making.setdefault(connection, set()).add(registration.key)
        for claim in new:
            if claim not in self._claims:
                insort(self._sorted, claim)
            holders = self._claims.setdefault(claim, {})
            if holders.get(registration.key) != now:  # also a successor of the same name
                touched |= holders.keys()
            holders[registration.key] = now
        if new:
            self._mine[registration.key] = new
        return touched - {registration.key}

    def remove(self, key: RegistrationKey) -> set[RegistrationKey]:
        """Forget a registration; those whose acceptance may have changed by it."""
        return self._release(key, keep=set())

    def _release(self, key: RegistrationKey, keep: set[tuple[str, str]]) -> set[RegistrationKey]:
        touched: set[RegistrationKey] = set()
        for making in self._making.values():
            making.discard(key)
        for claim in self._mine.pop(key, set()) - keep:
            holders = self._claims[claim]
            del holders[key]
            touched |= holders.keys()
            if not holders:
                del self._claims[claim]
                del self._sorted[bisect_left(self._sorted, claim)]
        return touched

    def beside(self, keys: Iterable[RegistrationKey]) -> set[RegistrationKey]:
        """The registrations that publish a name which one of these publishes there too; they themselves among them."""
        claims = {claim for key in keys for claim in self._mine.get(key, ())}
        return {key for claim in claims for key in self._claims[claim]}

    def beginning(self, connection: str, prefix: str) -> set[RegistrationKey]:
        """The registrations whose names there may begin so: those that field paths make may be anything."""
        found = set(self._making.get(connection, ()))
        for at in range(bisect_left(self._sorted, (connection, prefix)), len(self._sorted)):
            claim = self._sorted[at]
            if claim[0] != connection or not claim[1].startswith(prefix):
                break
            found |= self._claims[claim].keys()
        return found

    def holders(self, connection: str, service: str) -> Sequence[RegistrationKey]:
        """The registrations that publish this name there, the oldest first."""
        claims = self._claims.get((connection, folded(service)), {})
        return sorted(claims, key=lambda key: (claims[key].created, key)) if len(claims) > 1 else [*claims]


class PodNames:
    """Which Pods are published under which name, where field paths make it. One Pod costs the same however many."""

    def __init__(self) -> None:
        self._subjects: dict[tuple[str, str], dict[RegistrationKey, set[str]]] = {}
        self._names: dict[tuple[str, RegistrationKey, str], str] = {}

    def put(self, connection: str, key: RegistrationKey, subject: str, name: str) -> None:
        """A subject is published under a name there; "": under none (any more)."""
        name = folded(name)
        before = self._names.pop((connection, key, subject), "")
        if before and before != name:
            self._leave((connection, before), key, subject)
        if name:
            self._names[connection, key, subject] = name
            self._subjects.setdefault((connection, name), {}).setdefault(key, set()).add(subject)

    def _leave(self, claim: tuple[str, str], key: RegistrationKey, subject: str) -> None:
        holders = self._subjects[claim]
        holders[key].discard(subject)
        if not holders[key]:
            del holders[key]
        if not holders:
            del self._subjects[claim]

    def holders(self, connection: str, name: str) -> AbstractSet[RegistrationKey]:
        """The registrations that publish some Pod under this name there."""
        return self._subjects.get((connection, folded(name)), {}).keys()


class Acceptance:
    """Judges registrations. `implicit`: connections that no object describes (that of the environment)."""

    def __init__(self, cache: Cache, implicit: Iterable[str] = ()) -> None:
        self.names = NameBook()
        self.pod_names = PodNames()
        self._cache = cache
        self._implicit = frozenset(implicit)

    def refusal(self, key: RegistrationKey) -> Reason | None:
        """Why a registration is not accepted, None where it is, or where there is none."""
        registration = self._cache.registrations.get(key)
        if registration is None:
            return None
        if isinstance(registration.spec, Reason):
            return registration.spec
        for name in registration.connections:
            reason = self._not_there(name) or self._against_terms(name, registration)
            if reason is not None:
                return reason
        return None if registration.names_each else self._any_name_taken(registration)

    def _any_name_taken(self, registration: Registration) -> Reason | None:
        taken = (self._name_taken(registration.key, name, registration.service) for name in registration.connections)
        return next((reason for reason in taken if reason is not None), None)

    def _not_there(self, name: str) -> Reason | None:
        if name in self._cache.connections or name in self._implicit:
            return None
        return Reason("ConnectionNotFound", f"spec.consulRefs: there is no ConsulConnection {name!r}")

    def _against_terms(self, name: str, registration: Registration) -> Reason | None:
        """Why a connection's terms refuse a registration, whoever else there is."""
        spec = _spec_of(self._cache.connections.get(name))
        if spec is not None and not self._allows(spec, registration.key.namespace):
            return Reason(
                "NamespaceNotAllowed",
                f"the connection {name!r} doesn't take registrations of namespace {registration.key.namespace!r}: its "
                "spec.allowedNamespaces must name it, or match its labels",
            )
        own = _addresses_of_its_own(registration)
        if own and spec is not None and not spec.allow_endpoints:
            message = f"{own}: the connection {name!r} doesn't allow addresses of its users' own (spec.allowEndpoints)"
            return Reason("EndpointsNotAllowed", message)
        return (
            None if registration.names_each else self._misnamed(registration.key.namespace, name, registration.service)
        )

    def _holds_names(self, key: RegistrationKey) -> bool:
        """Whether it keeps others from the names that it publishes: not where it is refused by any connection's terms.

        A malformed one does: what it published still stands under them.
        """
        known = self._cache.registrations.get(key)
        return known is not None and all(self._against_terms(name, known) is None for name in known.connections)

    def users(self, connection: str) -> set[RegistrationKey]:
        """The registrations whose acceptance may change with a connection: its own, and who shares a name with them."""
        using = {key for key, each in self._cache.registrations.items() if connection in each.connections}
        return using | self.names.beside(using)

    def concerned_by(self, namespace: str) -> set[RegistrationKey]:
        """The registrations whose acceptance may change as a namespace comes, goes, or has other labels.

        Its own, those whose name a pattern may give to it, and who shares a name with one of them.
        """
        concerned = set(self._cache.registrations_in(namespace))
        for name in self._cache.connections:
            spec = self._cache.terms(name)
            pattern = spec.service_name_pattern if spec else None
            prefix = prefix_of(pattern, namespace) if pattern else None
            if prefix is not None:
                concerned |= self.names.beginning(name, prefix)
        return concerned | self.names.beside(concerned)

    def name_of_pod(self, key: RegistrationKey, connection: str, subject: str, name: str) -> Reason | None:
        """Why a name that field paths have made for one Pod is not its own; "": it has none (any more).

        One that is written out in a spec goes before; among those that are made the oldest registration's does.
        """
        self.pod_names.put(connection, key, subject, name)
        if not name:
            return None
        taken = self._misnamed(key.namespace, connection, name) or self._name_taken(key, connection, name)
        if taken is not None or self._shares(connection):
            return taken
        known = self._cache.registrations
        others = [k for k in self.pod_names.holders(connection, name) if self._may_make(k, connection, name)]
        oldest = min(others, key=lambda k: (known[k].meta.created, k), default=key)
        return None if oldest.namespace == key.namespace else _taken(name, oldest, connection)

    def _may_make(self, key: RegistrationKey, connection: str, name: str) -> bool:
        return self._holds_names(key) and self._misnamed(key.namespace, connection, name) is None

    def _name_taken(self, key: RegistrationKey, connection: str, service: str) -> Reason | None:
        holders = self.names.holders(connection, service)
        if all(holder.namespace == key.namespace for holder in holders) or self._shares(connection):
            return None  # nearly always
        holder = next(filter(self._holds_names, holders), None)
        return None if holder is None or holder.namespace == key.namespace else _taken(service, holder, connection)

    def _misnamed(self, namespace: str, connection: str, service: str) -> Reason | None:
        spec = _spec_of(self._cache.connections.get(connection))
        pattern = spec.service_name_pattern if spec else None
        if pattern is None:
            return None
        owner = owner_by_pattern(pattern, service, namespace, self._cache.namespaces.keys())
        if owner == namespace:
            return None
        message = f"spec.service.name: {service!r} must match {pattern!r} (spec.serviceNamePattern of {connection!r})"
        longer = f"; it fits namespace {owner!r} too, whose name is longer" if owner else ""
        return Reason("ServiceNameNotAllowed", message + longer)

    def _shares(self, connection: str) -> bool:
        spec = _spec_of(self._cache.connections.get(connection))
        return spec is not None and spec.shared_names == "Allow"

    def _allows(self, spec: ConsulConnectionSpec, namespace: str) -> bool:
        if spec.allowed_namespaces is None:
            return True
        allowed, known = spec.allowed_namespaces, self._cache.namespaces.get(namespace)
        by_label = allowed.selector is not None and known is not None and selects(allowed.selector, known.labels)
        return by_label or namespace in allowed.names


def _taken(service: str, holder: RegistrationKey, connection: str) -> Reason:
    return Reason(
        "ServiceNameTaken",
        f"the service name {service!r} belongs to namespace {holder.namespace!r} in Consul {connection!r} "
        f"(registration {holder}); choose another spec.service.name, or let the connection share names",
    )


def _spec_of(connection: Connection | None) -> ConsulConnectionSpec | None:
    """The terms of a connection; None where none are known, and nothing is refused on their account."""
    return None if connection is None or isinstance(connection.spec, Reason) else connection.spec


def _addresses_of_its_own(registration: Registration) -> str:
    """The field that names addresses which nobody but a user has given, "" where there is none."""
    if isinstance(registration.spec, Reason):
        return ""
    if registration.spec.endpoints is not None:
        return "spec.endpoints"
    exposed = registration.spec.kubernetes_service
    if exposed is not None and exposed.publish == "ExternalIP":
        return "spec.kubernetesService.publish: ExternalIP"
    if registration.spec.service.tagged_addresses:
        return "spec.service.taggedAddresses"
    led = (check.name for check in registration.spec.checks or () if check.http and check.http.follow_redirects)
    return next((f"spec.checks[{name}].http.followRedirects" for name in led), "")


def advice(registration: Registration, by_esm: Collection[str] = ()) -> str:
    """What is accepted but not as its author may think, "" where there is nothing to say.

    `by_esm`: the connections whose checks consul-esm runs.
    """
    if isinstance(registration.spec, Reason):
        return ""
    checks = registration.spec.checks or ()
    said = [
        f"checks[{c.name}].deregisterCriticalServiceAfter: {c.deregister_critical_service_after} is below Consul's "
        "minimum, 1m is used"
        for c in checks
        if c.deregister_critical_service_after and _below_minimum(c.deregister_critical_service_after)
    ]
    probed = next((name for name in registration.connections if name in by_esm), None)
    led = [f"checks[{c.name}].http" for c in checks if c.http and not c.http.follow_redirects]
    if probed is not None and led:
        said.append(
            f"{', '.join(led)}: consul-esm, which runs it for Consul {probed!r}, follows redirects all the same"
        )
    return "; ".join(said)


def _below_minimum(duration: str) -> bool:
    return milliseconds(duration) < 60_000
