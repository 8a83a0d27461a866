"""The status and the finalizer of ConsulConnections: how each Consul looks, written when that changes.

Decides what is said of a connection and when a deleted one may go: when no registration refers to it any more. A
registration's own status is `reports.py`'s.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from consul_registrar.cache import Cache
from consul_registrar.conditions import Verdict, conditions, ready_of
from consul_registrar.consul import RegistryStatus
from consul_registrar.model import CONNECTING, Reason
from consul_registrar.objects import FINALIZER, Connection

logger = logging.getLogger(__name__)

_LOOKS = 1.0  # seconds between two looks at all connections; there are few, and looking costs nothing


class Publisher(Protocol):
    """Writes to the API server. They raise where it doesn't answer; `event` never does."""

    async def write_connection(self, connection: Connection, wanted: Mapping[str, Any]) -> None: ...
    async def event_connection(self, connection: Connection, reason: Reason, *, warning: bool) -> None: ...
    async def hold_connection(self, connection: Connection) -> None: ...
    async def release_connection(self, connection: Connection) -> None: ...


class Consuls(Protocol):
    """How the Consuls look."""

    def status(self, name: str) -> RegistryStatus: ...


class ConnectionStatus:
    """Keeps the connections' statuses true."""

    def __init__(self, cache: Cache, consuls: Consuls, publisher: Publisher, now: Callable[[], str]) -> None:
        self._cache = cache
        self._consuls = consuls
        self._publisher = publisher
        self._now = now
        self._changed = asyncio.Event()

    def look(self) -> None:
        """Don't wait for the next look: a connection has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Look at all connections for ever."""
        while True:
            self._changed.clear()
            for connection in list(self._cache.connections.values()):
                if connection.meta.uid:
                    await self._keep(connection)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOKS):
                    await self._changed.wait()

    async def _keep(self, connection: Connection) -> None:
        try:
            await self._hold(connection)
            await self._publish(connection)
        except Exception as error:
            logger.warning("connection %r: not written, trying again: %s", connection.name, error)

    async def _hold(self, connection: Connection) -> None:
        """A connection stays while registrations refer to it: without it they could not be cleaned."""
        held = FINALIZER in connection.meta.finalizers
        if not connection.meta.deleted and not held:
            await self._publisher.hold_connection(connection)
        if connection.meta.deleted and held and not self._users(connection.name):
            await self._publisher.release_connection(connection)

    def _users(self, name: str) -> list[str]:
        return sorted(str(r.key) for r in self._cache.registrations.values() if name in r.connections)

    async def _publish(self, connection: Connection) -> None:
        if self._cache.connections.get(connection.name) is not connection:
            return  # it has gone, or changed, while it was held or released
        looks = self._consuls.status(connection.name)
        if looks.reason.code == CONNECTING:
            return
        verdict = self._verdict(connection, looks)
        wanted = _status(connection, looks, verdict, self._now())
        if wanted == connection.status:
            return
        await self._publisher.write_connection(connection, wanted)
        self._cache.note_connection_status(connection.name, connection.meta.uid, wanted)
        if ready_of(connection.status) != (verdict.text, verdict.reason.code):
            level = logging.INFO if verdict.status else logging.WARNING
            logger.log(level, "connection %r: %s: %s", connection.name, verdict.reason.code, verdict.reason.message)
            await self._publisher.event_connection(connection, verdict.reason, warning=not verdict.status)

    def _verdict(self, connection: Connection, looks: RegistryStatus) -> Verdict:
        users = self._users(connection.name)
        if connection.meta.deleted and users:
            named = ", ".join(users[:3]) + (f" and {len(users) - 3} more" if len(users) > 3 else "")
            return Verdict(False, Reason("InUse", f"deleted, but registrations refer to it: {named}"))
        return Verdict(looks.ready, looks.reason)


def _status(connection: Connection, looks: RegistryStatus, verdict: Verdict, now: str) -> dict[str, Any]:
    generation = connection.meta.generation
    known = connection.status.get("conditions") or []
    made: dict[str, Any] = {
        "observedGeneration": generation,
        "agents": looks.agents,
        "agentsReady": looks.agents_ready,
        "instances": looks.instances,
        "conditions": conditions(known, {"Ready": verdict}, generation, now),
    }
    texts = {"version": looks.version, "datacenter": looks.datacenter}
    return made | {name: text for name, text in texts.items() if text}
