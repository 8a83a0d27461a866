"""Everything that is known about one subject of a registration, put together for a decision.

Reads caches, and the API server afresh where an absence is to be confirmed. Decides nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol
from urllib.parse import urlsplit

from consul_registrar import model
from consul_registrar.acceptance import Acceptance
from consul_registrar.addresses import canonical
from consul_registrar.api.connection import ConsulConnectionSpec
from consul_registrar.cache import Cache
from consul_registrar.causes import asked
from consul_registrar.consul.registry import Registry
from consul_registrar.dead_man import heartbeat_id
from consul_registrar.desired import Kept, Present, desired
from consul_registrar.exposure import subjects_of
from consul_registrar.facts import Facts
from consul_registrar.model import Instance, Key, Node, Owner, Pod, Reason, RegistrationKey
from consul_registrar.objects import Registration
from consul_registrar.once import Once
from consul_registrar.rivals import rivals, wanted
from consul_registrar.secret_values import SecretValues
from consul_registrar.service_cache import source_of
from consul_registrar.services import Backends, Exposed, KubernetesService, name_of_address, parts_of
from consul_registrar.terms import CheckTerms, with_defaults


class Unconfirmed(Exception):
    """The API server could not be asked, so nothing may be concluded."""


class Fresh(Protocol):
    """Quorum reads of the API server. None: it has none. They raise Unconfirmed where there is no answer."""

    async def pod(self, namespace: str, name: str) -> Pod | None: ...
    async def registration(self, key: RegistrationKey) -> Registration | None: ...
    async def service(self, namespace: str, name: str) -> KubernetesService | None: ...
    async def backends(self, namespace: str, name: str) -> Backends: ...
    async def definition_leaves(self) -> bool: ...


class Gatherer:
    """Puts facts together."""

    def __init__(self, cluster: str, cache: Cache, acceptance: Acceptance, fresh: Fresh, secrets: SecretValues) -> None:
        self._secrets = secrets
        self._cluster = cluster
        self._cache = cache
        self._acceptance = acceptance
        self._fresh = fresh
        self._by_itself: dict[RegistrationKey, str] = {}
        self._refused: dict[tuple[RegistrationKey, str, str], int] = {}
        self._strangers: Once[tuple[str, str], Sequence[Instance]] = Once()
        self._leaving: Once[tuple[RegistrationKey, str], bool] = Once()

    def facts(self, key: RegistrationKey, subject: str, registry: Registry) -> Facts:
        """What is known now, from the caches."""
        alone = self._alone(key, subject, registry)
        others = list(self._beside(key, subject, registry))
        return replace(alone, rivals=rivals(alone, others)) if others else alone

    def _beside(self, key: RegistrationKey, subject: str, registry: Registry) -> Iterator[Facts]:
        """What is known of the same subject with the other registrations that publish it under the same name there."""
        for other in self._cache.beside(key, registry.name):
            of_service = subjects_of(self._cache.registrations.get(other), self._cache.services)
            if subject in self._cache.selected(other) or subject in of_service or registry.instances(other, subject):
                yield self._alone(other, subject, registry)

    def _alone(self, key: RegistrationKey, subject: str, registry: Registry) -> Facts:
        registration = self._cache.registrations.get(key)
        terms = self._cache.terms(registry.name)
        standing = registry.instances(key, subject)
        pod = self._pod(key, subject, standing)
        uid, address = parts_of(subject)
        exposed = self._cache.services.exposed(uid) if uid else None
        node = self._node(pod.node if pod else _node_of(registration, address))
        facts = Facts(
            owner=Owner(self._cluster, registry.name, key.namespace, key.name),
            subject=subject,
            registration=registration and with_defaults(registration, terms.defaults if terms else None),
            refused=self._acceptance.refusal(key),
            pod=pod,
            node=node,
            place=registry.place(node, f"{key}/{subject}", standing),
            standing=standing,
            check_terms=self._check_terms(terms),
            secrets=self._secrets.values(registration) if registration and registration.secrets else {},
            exposed=exposed,
            heartbeat=heartbeat_id(self._cluster, registry.name) if terms and terms.dead_man else "",
        )
        if (key, subject, registry.name) in self._refused:
            facts = replace(facts, unwritable=self._is_refused(facts))
        name = _name_of_its_own(facts)
        taken = self._acceptance.name_of_pod(key, registry.name, subject, name)
        return replace(facts, name_taken=taken) if taken else facts

    def _is_refused(self, facts: Facts) -> bool:
        want, refused = desired(facts), self._refused[_place(facts)]
        return isinstance(want, Present) and asked(want.instance) == refused

    def refused(self, facts: Facts, instance: Instance) -> bool:
        """Consul refuses an instance for good, so its rivals needn't wait for it; whether that is new."""
        before, now = self._refused.get(_place(facts)), asked(instance)
        self._refused[_place(facts)] = now
        return before != now

    def taken(self, facts: Facts) -> None:
        """Consul has taken all that was to be written."""
        self._refused.pop(_place(facts), None)

    def _pod(self, key: RegistrationKey, subject: str, standing: Sequence[Instance]) -> Pod | None:
        """The Pod that the subject is. An endpoint may be named like any Pod's UID: that makes it no Pod."""
        pod, registration = self._cache.pod(subject), self._cache.registrations.get(key)
        if pod is None or pod.namespace != key.namespace:
            return None
        if registration is None or isinstance(registration.spec, Reason) or registration.spec.pods is not None:
            return pod
        return pod if any(i.meta_value(model.META_POD_UID) == subject for i in standing) else None

    def _check_terms(self, terms: ConsulConnectionSpec | None) -> CheckTerms | None:
        if terms is None or terms.check_policy is None:
            return None
        consul = frozenset(canonical(urlsplit(address).hostname or "") for address in terms.addresses or ())
        agent_port = terms.node_agents.port if terms.node_agents else 0
        return CheckTerms(terms.check_policy, self._cache.node_addresses, consul, agent_port)

    def overlooked(self, facts: Facts) -> Iterator[Key]:
        """What must be looked at again after a write that was decided on these facts.

        Whoever looked at an edit, or at the end, of the registration or Service meanwhile didn't see what stands now.
        """
        key = facts.owner.key
        now, before = self._cache.registrations.get(key), facts.registration
        exposed = self._cache.services.exposed(parts_of(facts.subject)[0]) if facts.exposed else None
        edited = now is not before and (now and _edition(now)) != (before and _edition(before))
        if edited or exposed != facts.exposed:
            yield Key(key, facts.subject)
        if now is None:
            yield Key(key)

    def hold(self, facts: Facts) -> bool:
        """Whether nothing has happened since they were gathered that may forbid what they ask for."""
        if facts.pod is not None and not facts.pod.gone:
            pod = self._cache.pod(facts.subject)
            if pod is None or pod.gone:
                return False
        return next(self.overlooked(facts), None) is None

    def knows_secrets(self, key: RegistrationKey) -> bool:
        """Whether the Secrets that the registration's checks name are known; else all is looked at once they are."""
        registration = self._cache.registrations.get(key)
        return registration is None or not registration.secrets or self._secrets.known(registration)

    async def strangers(self, registry: Registry, key: RegistrationKey, subject: str) -> tuple[Instance, ...]:
        """What is nobody's under the registration's service name, where it adopts that. Raises the errors of Consul.

        One question at a time for each name: many subjects of a registration ask it together.
        """
        registration = self._cache.registrations.get(key)
        if registration is None or not registration.adopts or registration.deleting or not registry.ready:
            return ()
        if not isinstance(wanted(self.facts(key, subject, registry)), Present):
            return ()  # above all what is to go must not wait for an answer
        each = registration.names_each
        service = _name_of_its_own(self._alone(key, subject, registry)) if each else registration.service
        if not service:
            return ()
        return tuple(await self._strangers.ask((registry.name, service), lambda: registry.strangers(service)))

    async def afresh(self, facts: Facts) -> Facts:
        """The same facts, but registration and Pod or Service as the API server has them now. Raises Unconfirmed."""
        registration = await self._fresh.registration(facts.owner.key)
        known_as = facts.pod.name if facts.pod else _pod_of(facts)
        pod = await self._fresh.pod(facts.owner.namespace, known_as) if known_as else None
        if pod is not None and pod.uid != facts.subject:
            pod = None  # another Pod has the name now: this one is gone
        return replace(facts, registration=registration, pod=pod, exposed=await self._exposed_afresh(facts))

    async def _exposed_afresh(self, facts: Facts) -> Exposed | None:
        """The Service that the subject is of, with its endpoints, as the API server has them now."""
        uid, _ = parts_of(facts.subject)
        known = facts.exposed.service.name if facts.exposed else _meta(facts, model.META_SERVICE)
        if not uid or not known:
            return None
        service = await self._fresh.service(facts.owner.namespace, known)
        if service is None or service.uid != uid:  # another one has the name now
            return None
        return Exposed(service, await self._fresh.backends(facts.owner.namespace, known))

    async def swept_along(self, registration: Registration) -> bool:
        """Whether a deleted registration goes since its definition (the CRD) does. Raises Unconfirmed.

        Then nobody has asked for what it registered to go. Asked after its deletion was seen, so that the answer "by
        itself" holds for good: the API server deletes objects of a definition only once that is being deleted.
        """
        key, uid = registration.key, registration.meta.uid
        if self._by_itself.get(key) != uid:
            # Many subjects of a registration ask it together.
            if await self._leaving.ask((key, uid), self._fresh.definition_leaves):
                return True
            self._by_itself[key] = uid
        return False

    def forget(self, key: RegistrationKey) -> None:
        """The registration is no more."""
        self._by_itself.pop(key, None)
        self._refused = {place: what for place, what in self._refused.items() if place[0] != key}

    def name(self, subject: str) -> str:
        """What people call a subject."""
        pod = self._cache.pod(subject)
        uid, address = parts_of(subject)
        exposed = self._cache.services.exposed(uid) if uid else None
        if exposed is not None:
            return name_of_address(exposed.service.name, address)
        return pod.name if pod else subject

    def _node(self, name: str) -> Node | None:
        """The node of this name; of one that isn't known only the name, so that the registry can say so."""
        return (self._cache.nodes.get(name) or Node("", name, 0, {}, {})) if name else None


def _edition(registration: Registration) -> tuple[str, int, str]:
    meta = registration.meta
    return meta.uid, meta.generation, meta.deleted


def _place(facts: Facts) -> tuple[RegistrationKey, str, str]:
    return facts.owner.key, facts.subject, facts.owner.connection


def _node_of(registration: Registration | None, address: str) -> str:
    """The node on which one address of a Service is, "" where it is on none."""
    source = source_of(registration)
    return address if source is not None and source.publish == "NodePort" else ""


def _name_of_its_own(facts: Facts) -> str:
    """The name that field paths make, or have made, for the subject; "" where they don't."""
    if facts.registration is None or not facts.registration.names_each:
        return ""
    match desired(facts):
        case Present(instance):
            return instance.service
        case Kept():
            return next((i.service for i in facts.standing), "")
        case _:
            return ""


def _pod_of(facts: Facts) -> str:
    """The Pod's name, where what stands says that the subject is one."""
    return _meta(facts, model.META_POD) if _meta(facts, model.META_POD_UID) else ""


def _meta(facts: Facts, key: str) -> str:
    return next((value for i in facts.standing if (value := i.meta_value(key))), "")
