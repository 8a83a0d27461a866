"""The Consuls that are written to: one registry and its lanes for each connection, kept true to the connections' specs.

Decides which connections there are and what may be done with each. How a registry is made from a spec (addresses,
credentials) is `consul/`'s and `credentials.py`'s; what is written is decided in `reconcile.py`.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

from consul_registrar.api.base import milliseconds
from consul_registrar.api.connection import ConsulConnectionSpec, RemovalGuard
from consul_registrar.audit import Audit
from consul_registrar.cache import Cache
from consul_registrar.changes import Change, Deregister
from consul_registrar.consul import ConsulError, NotSent, Paced, Registry, RegistryStatus
from consul_registrar.guard import Terms
from consul_registrar.model import CONNECTING, Node, Reason, RegistrationKey
from consul_registrar.objects import beyond
from consul_registrar.pace import Pace
from consul_registrar.writer import Lanes, Still, always

logger = logging.getLogger(__name__)

_BEING_SET_UP = Reason(CONNECTING, "the connection is being set up")
_RETRY = 5.0  # seconds between two tries to set up a connection: a missing Secret, an unreadable file


class NodeRegistry(Registry, Protocol):
    """A registry that wants to know the cluster's nodes: agents stand on them."""

    def set_nodes(self, nodes: Mapping[str, Node]) -> None: ...


class Unusable(Exception):
    """A connection can't be set up as it is."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.message)
        self.reason = reason


#: Makes a registry from a connection's name and spec, and runs what it needs beside it (credentials) until cancelled.
#: Calls back with the registry once it is made. Raises Unusable.
Serve = Callable[[str, ConsulConnectionSpec, Callable[[NodeRegistry], None]], Awaitable[None]]


@dataclass(slots=True)
class _Link:
    """One connection at work."""

    spec: ConsulConnectionSpec
    registry: NodeRegistry | None = None
    lanes: Lanes | None = None
    pace: Pace = field(default_factory=Pace)
    reason: Reason = _BEING_SET_UP


class Consuls:
    """All connections at work."""

    def __init__(
        self, cache: Cache, serve: Serve, count: Callable[[str, str, str, str], None], on_state: Callable[[str], None]
    ) -> None:
        self._cache = cache
        self._serve = serve
        self._count = count
        self._on_state = on_state
        self._links: dict[str, _Link] = {}
        self._refused: dict[str, Reason] = {}
        self._registering: Counter[RegistrationKey] = Counter()
        self._changed = asyncio.Event()

    # which there are

    def put(self, name: str, spec: ConsulConnectionSpec | Reason) -> None:
        """A connection is there, or was edited."""
        spec = spec if isinstance(spec, Reason) else beyond(spec) or spec
        if isinstance(spec, Reason):
            self.remove(name)
            self._refused[name] = spec
            return
        self._refused.pop(name, None)
        known = self._links.get(name)
        if known is None or _rebuilds(known.spec, spec):
            self._links[name] = _Link(spec)
            self._changed.set()
        else:
            known.spec = spec

    def remove(self, name: str) -> None:
        """A connection is no more."""
        self._refused.pop(name, None)
        if self._links.pop(name, None) is not None:
            self._changed.set()

    def set_nodes(self) -> None:
        """Nodes of the cluster have changed."""
        for link in self._links.values():
            if link.registry is not None:
                link.registry.set_nodes(self._cache.nodes)

    async def run(self) -> None:
        """Keep one task for each connection, for ever."""
        running: dict[int, tuple[_Link, asyncio.Task[None]]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                wanted = {id(link): (name, link) for name, link in self._links.items()}
                for key in running.keys() - wanted.keys():
                    running.pop(key)[1].cancel()
                for key in wanted.keys() - running.keys():
                    name, link = wanted[key]
                    running[key] = (link, group.create_task(self._keep(name, link)))
                await self._changed.wait()

    async def _keep(self, name: str, link: _Link) -> None:
        """Serve it again and again: at once where it ended since its authorities changed, else after a while."""
        while True:
            pause = _RETRY
            try:
                await self._serve(name, link.spec, lambda registry: self._take(link, registry))
                link.reason, pause = _BEING_SET_UP, 0.0
            except Unusable as error:
                link.reason = error.reason
                logger.warning("connection %r: %s", name, error.reason.message)
            except Exception as error:
                link.reason = Reason("InternalError", f"{type(error).__name__}: {error}")
                logger.exception("connection %r ended unexpectedly and is set up again", name)
            link.registry = link.lanes = None
            self._on_state(name)
            await asyncio.sleep(pause)

    def _take(self, link: _Link, registry: NodeRegistry) -> None:
        registry.set_nodes(self._cache.nodes)
        link.registry = registry
        link.lanes = Lanes(registry, Audit(registry.name, lambda *what: self._count(registry.name, *what)))

    # how they look

    def names(self) -> AbstractSet[str]:
        """The connections at work."""
        return self._links.keys()

    def registry(self, name: str) -> Registry | None:
        """The registry of a connection, None while there is none."""
        link = self._links.get(name)
        return link.registry if link else None

    def status(self, name: str) -> RegistryStatus:
        """How a connection looks."""
        link = self._links.get(name)
        if link is None and name in self._cache.connections and name not in self._refused:
            return RegistryStatus(ready=False, reason=Reason(CONNECTING, "the connection is about to be set up"))
        if link is None:
            missing = Reason("ConnectionNotFound", f"there is no ConsulConnection {name!r}")
            return RegistryStatus(ready=False, reason=self._refused.get(name, missing))
        return link.registry.status() if link.registry else RegistryStatus(ready=False, reason=link.reason)

    def down(self, name: str) -> Reason | None:
        """Why a connection can't be written to at all, None where it can."""
        registry = self.registry(name)
        return None if registry is not None and registry.ready else self.status(name).reason

    def is_connecting(self, name: str) -> bool:
        """Whether nothing is known of it yet, shortly after the start."""
        reason = self.down(name)
        return reason is not None and reason.code == CONNECTING

    def staleness(self) -> dict[str, float]:
        """For how long the Consuls at work weren't heard of, each by that of its watches which wasn't for longest."""
        now = time.monotonic()
        heard = {name: registry.heard() for name, registry in self._registries()}
        return {name: now - at for name, at in heard.items() if at is not None}

    def policy(self, name: str) -> str:
        """What may be written: Sync, UpsertOnly or Observe."""
        link = self._links.get(name)
        return link.spec.policy if link else "Sync"

    def removal_terms(self, name: str) -> Terms:
        """When removals by absence are held there."""
        link = self._links.get(name)
        return _terms(link.spec.removal_guard) if link else Terms()

    # whom they concern

    def wanted(self, key: RegistrationKey, name: str) -> bool:
        """Whether a registration wants to be in a connection."""
        registration = self._cache.registrations.get(key)
        return registration is not None and not registration.deleting and name in registration.connections

    def concerned(self, key: RegistrationKey, subject: str) -> set[str]:
        """The connections where a registration wants this subject to be, or has it."""
        registration = self._cache.registrations.get(key)
        wanted = set(registration.connections) if registration else set()
        holding = {name for name, registry in self._registries() if registry.instances(key, subject)}
        return wanted | holding

    def subjects(self, key: RegistrationKey) -> set[str]:
        """The subjects for which a registration has something in any Consul."""
        return {subject for _, registry in self._registries() for subject in registry.subjects(key)}

    def stands(self, key: RegistrationKey, subject: str) -> bool:
        """Whether a registration has something in any Consul for this subject."""
        return any(registry.instances(key, subject) for _, registry in self._registries())

    async def obstacle(self, key: RegistrationKey, connections: Sequence[str]) -> Reason | None:
        """Why a deleted registration can't go yet; None: nothing of it is left that could be removed.

        What a connection's policy keeps in Consul is no obstacle: it will never be removed by us.
        """
        for name in connections:
            why = await self._uncleanable(key, name) if self.policy(name) == "Sync" else ""
            if why:
                return Reason("DeregistrationBlocked", f"Consul {name!r} can't be cleaned: {why}")
        if self._registering[key]:
            return Reason("Deleting", f"{self._registering[key]} instances are just being registered")
        left = sum(len(r.subjects(key)) for name, r in self._registries() if self.policy(name) == "Sync")
        return Reason("Deleting", f"{left} instances are still to be removed") if left else None

    async def _uncleanable(self, key: RegistrationKey, name: str) -> str:
        """Why a connection can't be cleaned of a registration now, "" where it can, or needn't."""
        registry = self.registry(name)
        if registry is None:
            return "" if self._is_nowhere(name) else self.status(name).reason.message
        try:
            nodes = await registry.out_of_reach(key)
        except ConsulError as error:
            return error.reason.message
        return f"instances stand on {', '.join(nodes)}, whose agents don't answer" if nodes else ""

    def _is_nowhere(self, name: str) -> bool:
        """Whether there is no such connection: its own finalizer would have kept it while a registration named it."""
        return name not in self._links and name not in self._cache.connections

    async def reread(self, connections: Sequence[str]) -> None:
        """Read anew all that these Consuls hold; returns once it is taken in. Raises ConsulError."""
        for name in connections:
            registry = self.registry(name)
            if registry is None:
                raise NotSent(self.status(name).reason)
            await registry.reread()

    async def dissolve(self, name: str) -> None:
        """Take back what a connection that is about to go has made beside instances, if its policy lets us."""
        registry = self.registry(name)
        if registry is not None and self.policy(name) == "Sync":
            await registry.dissolve()

    def _registries(self) -> list[tuple[str, Registry]]:
        return [(name, link.registry) for name, link in self._links.items() if link.registry is not None]

    # writing

    async def stop_writing(self) -> None:
        """Send nothing more to any Consul; returns when nothing is in flight."""
        await asyncio.gather(*(link.lanes.stop() for link in self._links.values() if link.lanes is not None))

    async def write(
        self, name: str, change: Change, still: Still = always, registering: RegistrationKey | None = None
    ) -> None:
        """Write one change. Raises the ConsulError that it met; `Paced` where the connection's limit says so.

        `registering`: whose instance it registers, which may stand from then on, though nobody sees it yet.
        """
        link = self._links.get(name)
        if link is None or link.lanes is None:
            raise NotSent(self.status(name).reason)
        _keep_pace(link, change)
        if registering is None:
            await link.lanes.write(change, still)
            return
        self._registering[registering] += 1
        try:
            await link.lanes.write(change, still)
        finally:
            self._registering[registering] -= 1
            if not self._registering[registering]:
                del self._registering[registering]


def _terms(guard: RemovalGuard) -> Terms:
    return Terms(
        share=guard.share / 100,
        at_least=guard.at_least,
        after=None if guard.release == "Manual" else milliseconds(guard.after) / 1000,
        rate=float(guard.rate),
    )


def _keep_pace(link: _Link, change: Change) -> None:
    """Nobody waits here: a limit would keep those waiting whom it doesn't concern, too."""
    rate = link.spec.limits.writes_per_second
    if rate is None:
        return
    urgent = isinstance(change, Deregister) and change.cause.urgent
    after = link.pace.admit(rate, asyncio.get_running_loop().time(), urgent=urgent)
    if after:
        message = f"spec.limits.writesPerSecond of the connection is {rate}: the change waits for its turn"
        raise Paced(Reason("WritesLimited", message), after)


def _rebuilds(old: ConsulConnectionSpec, new: ConsulConnectionSpec) -> bool:
    """Whether an edit needs a new registry: all that says where and how, not what may be done.

    Where nothing may be written the cluster's name isn't claimed, so that makes a difference too.
    """
    kept = {"policy", "shared_names", "removal_guard", "allowed_namespaces", "allow_endpoints", "limits"}
    kept |= {"service_name_pattern", "check_policy", "defaults"}
    claims = (old.policy == "Observe") == (new.policy == "Observe")
    return not claims or old.model_dump(exclude=kept) != new.model_dump(exclude=kept)
