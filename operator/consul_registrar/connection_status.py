"""The status and the finalizer of ConsulConnections: how each Consul looks, written when that changes.

Decides what is said of a connection and when a deleted one may go: when no registration refers to it any more. Takes
approvals of held removals from its annotation. A registration's own status is `reports.py`'s.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from consul_registrar import token_status
from consul_registrar.cache import Cache
from consul_registrar.conditions import Verdict, conditions, says
from consul_registrar.consul import RegistryStatus
from consul_registrar.guard import HeldSet, Terms
from consul_registrar.model import CONNECTING, Key, Reason
from consul_registrar.objects import APPROVE_REMOVALS, FINALIZER, Connection
from consul_registrar.queue import Queue
from consul_registrar.together import together

logger = logging.getLogger(__name__)

NOTHING_HELD = Reason("NothingHeld", "no removal is held")
_AS_EVER = {NOTHING_HELD.code, "TokenInUse"}
_DISSOLVES = 10.0  # seconds for taking back what a connection has made beside instances
_AT_ONCE = 64  # connections that are looked at side by side: more than there are, as a rule
_LOOKS = 1.0  # seconds between two looks at all connections; there are few, and looking costs nothing


class Publisher(Protocol):
    """Writes to the API server. They raise where it doesn't answer; `event` never does."""

    async def write_connection(self, connection: Connection, wanted: Mapping[str, Any]) -> None: ...
    async def event_connection(self, connection: Connection, reason: Reason, *, warning: bool) -> None: ...
    async def hold_connection(self, connection: Connection) -> None: ...
    async def release_connection(self, connection: Connection) -> None: ...
    async def use_up(self, connection: Connection, annotation: str) -> bool: ...


class Consuls(Protocol):
    """How the Consuls look."""

    def status(self, name: str) -> RegistryStatus: ...
    def removal_terms(self, name: str) -> Terms: ...
    async def dissolve(self, name: str) -> None: ...


class Quarantine(Protocol):
    """What is held, and its release."""

    def held(self, connection: str) -> HeldSet: ...
    def approve(self, connection: str, digest: str) -> tuple[Key, ...]: ...


class ConnectionStatus:
    """Keeps the connections' statuses true."""

    def __init__(
        self,
        cache: Cache,
        consuls: Consuls,
        quarantine: Quarantine,
        queue: Queue[Key],
        publisher: Publisher,
        now: Callable[[], str],
    ) -> None:
        self._cache = cache
        self._consuls = consuls
        self._quarantine = quarantine
        self._queue = queue
        self._publisher = publisher
        self._now = now
        self._changed = asyncio.Event()
        self._due: Queue[str] = Queue()

    def look(self) -> None:
        """Don't wait for the next look: a connection has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Look at all connections for ever, at each apart from the others: one that hangs keeps nobody waiting."""
        await together(self._due.run(self._keep, _AT_ONCE), self._look_at_all())

    async def _look_at_all(self) -> None:
        while True:
            self._changed.clear()
            for connection in self._cache.connections.values():
                if connection.meta.uid:
                    self._due.add(connection.name)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOKS):
                    await self._changed.wait()

    async def _keep(self, name: str) -> None:
        connection = self._cache.connections.get(name)
        if connection is None or not connection.meta.uid:
            return
        try:
            await self._hold(connection)
            await self._approve(connection)
            await self._publish(connection)
        except Exception as error:
            logger.warning("connection %r: not written, trying again: %s", connection.name, error)

    async def _hold(self, connection: Connection) -> None:
        """A connection stays while registrations refer to it: without it they could not be cleaned."""
        held = FINALIZER in connection.meta.finalizers
        if not connection.meta.deleted and not held:
            await self._publisher.hold_connection(connection)
        if connection.meta.deleted and held and not self._users(connection.name):
            with suppress(TimeoutError):  # what is left of it then does no harm, and its deletion must not hang
                async with asyncio.timeout(_DISSOLVES):
                    await self._consuls.dissolve(connection.name)
            await self._publisher.release_connection(connection)
            self._cache.note_connection_released(connection.name, connection.meta.uid, FINALIZER)

    async def _approve(self, connection: Connection) -> None:
        """Release what a person names. The approval is used up before it is acted upon, so that it works once."""
        digest = connection.meta.annotations.get(APPROVE_REMOVALS)
        held = self._quarantine.held(connection.name)
        if not digest or digest != held.digest or not await self._publisher.use_up(connection, APPROVE_REMOVALS):
            return
        for key in self._quarantine.approve(connection.name, digest):
            self._queue.add(key)
        reason = Reason("RemovalsApproved", f"{held.subjects} held removals were approved ({digest})")
        logger.warning("connection %r: %s: %s", connection.name, reason.code, reason.message)
        await self._publisher.event_connection(connection, reason, warning=False)

    def _users(self, name: str) -> list[str]:
        return sorted(str(r.key) for r in self._cache.registrations.values() if name in r.connections)

    async def _publish(self, connection: Connection) -> None:
        if self._cache.connections.get(connection.name) is not connection:
            return  # it has gone, or changed, while it was held or released
        looks = self._consuls.status(connection.name)
        if looks.reason.code == CONNECTING:
            return
        held = self._quarantine.held(connection.name)
        verdicts = {
            "Ready": self._verdict(connection, looks),
            "RemovalsHeld": _holds(held, connection, self._consuls.removal_terms(connection.name)),
            **token_status.verdict(looks.token),
        }
        wanted = _status(connection, looks, held, verdicts, self._now())
        if wanted == connection.status:
            return
        await self._publisher.write_connection(connection, wanted)
        self._cache.note_connection_status(connection.name, connection.meta.uid, wanted)
        for kind, verdict in verdicts.items():
            await self._announce(connection, kind, verdict)

    async def _announce(self, connection: Connection, kind: str, verdict: Verdict) -> None:
        """An Event and a log line where a condition has changed; what is as ever is no news at first."""
        before, code = says(connection.status, kind), verdict.reason.code
        if before == (verdict.text, code) or (before is None and code in _AS_EVER):
            return
        good = verdict.status is (kind != "RemovalsHeld") or code == "TokenRotating"
        level = logging.INFO if good else logging.WARNING
        logger.log(level, "connection %r: %s: %s", connection.name, verdict.reason.code, verdict.reason.message)
        await self._publisher.event_connection(connection, verdict.reason, warning=not good)

    def _verdict(self, connection: Connection, looks: RegistryStatus) -> Verdict:
        users = self._users(connection.name) if connection.meta.deleted else []
        if users:
            named = ", ".join(users[:3]) + (f" and {len(users) - 3} more" if len(users) > 3 else "")
            return Verdict(False, Reason("InUse", f"deleted, but registrations refer to it: {named}"))
        return Verdict(looks.ready, looks.reason)


def _holds(held: HeldSet, connection: Connection, terms: Terms) -> Verdict:
    """The condition RemovalsHeld: what is held, and what ends that."""
    if not held.subjects:
        return Verdict(False, NOTHING_HELD)
    shown = ", ".join(held.shown[:3]) + (f" and {held.subjects - 3} more" if held.subjects > 3 else "")
    by_itself = "" if terms.after is None else f"; what is still absent after {terms.after:.0f} s is removed"
    stale = connection.meta.annotations.get(APPROVE_REMOVALS)
    unlike = f"; the approval of {stale!r} names something else" if stale and stale != held.digest else ""
    message = (
        f"{held.subjects} removals are held, since too much is absent at once: {shown}{by_itself}; to remove them now, "
        f"annotate this connection with {APPROVE_REMOVALS}={held.digest}{unlike}"
    )
    return Verdict(True, Reason("RemovalsHeld", message))


def _status(
    connection: Connection, looks: RegistryStatus, held: HeldSet, verdicts: Mapping[str, Verdict], now: str
) -> dict[str, Any]:
    generation = connection.meta.generation
    known = connection.status.get("conditions") or []
    made: dict[str, Any] = {
        "observedGeneration": generation,
        "agents": looks.agents,
        "agentsReady": looks.agents_ready,
        "instances": looks.instances,
        "conditions": conditions(known, verdicts, generation, now),
    }
    made |= token_status.entry(looks.token, connection.status)
    if held.subjects:
        made["removals"] = {"held": held.subjects, "hash": held.digest, "shown": list(held.shown)}
    return made | _of_consul(looks, connection.status)


def _of_consul(looks: RegistryStatus, before: Mapping[str, Any]) -> dict[str, str]:
    """What Consul says of itself. What it hasn't told yet, after a start, stays as it was said."""
    told = {"version": looks.version or None, "datacenter": looks.datacenter or None, "leader": looks.leader}
    texts = {name: before.get(name, "") if text is None else text for name, text in told.items()}
    return {name: text for name, text in texts.items() if text}
