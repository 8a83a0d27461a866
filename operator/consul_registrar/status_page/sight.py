"""Where the status page's data comes from: the cache, the Consuls and the quarantine, looked at when somebody asks.

Decides how seldom: all registrations are gone through once a second at most, however many look on. What is shown of
them is decided in `overview.py`.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from consul_registrar import __version__, overview
from consul_registrar.cache import Cache
from consul_registrar.consul import RegistryStatus
from consul_registrar.consuls import Consuls
from consul_registrar.model import RegistrationKey
from consul_registrar.objects import Connection, Registration
from consul_registrar.overview import MISSHAPEN, Change, Detail, Held, Looks, Overview, RegistrationRow, Replica
from consul_registrar.quarantine import Quarantine


@dataclass(frozen=True, slots=True)
class Known:
    """What the page is made of: what the operator knows. `unready`: why that can't be trusted, "" where it can."""

    cluster: str
    cache: Cache
    consuls: Consuls
    quarantine: Quarantine
    leads: Callable[[], bool]
    unready: Callable[[], str]


class Sight:
    """Looks at what the operator knows."""

    def __init__(self, known: Known, changes: Callable[[], list[Change]]) -> None:
        self._known = known
        self._changes = changes
        self._name = os.environ.get("HOSTNAME") or socket.gethostname()
        self._rows: dict[RegistrationKey, tuple[Registration, RegistrationRow]] = {}

    def look(self) -> "Look":
        """All that is the same for everybody who asks until the next look."""
        known = self._known
        rows = overview.ordered(self._row(one) for one in known.cache.registrations.values())
        if len(self._rows) > len(rows):
            self._rows = {key: self._rows[key] for key in known.cache.registrations}
        connections = [self._connection(one) for one in known.cache.connections.values()]
        replica = Replica(known.cluster, self._name, __version__, known.leads(), known.unready())
        return Look(known, replica, rows, connections, self._changes())

    def _row(self, registration: Registration) -> RegistrationRow:
        """Made once for each version of a registration: objects aren't changed but exchanged."""
        seen = self._rows.get(registration.key)
        if seen is None or seen[0] is not registration:
            seen = self._rows[registration.key] = (registration, overview.row(registration))
        return seen[1]

    def _connection(self, connection: Connection) -> overview.ConnectionRow:
        looks = _looks(self._known.consuls.status(connection.name))
        try:
            return overview.connection_row(connection, looks, self._held(connection))
        except MISSHAPEN:
            return overview.unreadable(overview.connection_row(connection, looks, None))

    def _held(self, connection: Connection) -> Held | None:
        """A replica that doesn't lead holds nothing itself; it knows what the leader has written."""
        held = self._known.quarantine.held(connection.name)
        if held.subjects:
            return Held(held.subjects, held.digest, held.shown)
        return None if self._known.leads() else overview.told_held(connection)


@dataclass(frozen=True, slots=True)
class Look:
    """One look: what was seen at one moment. Details are looked up as they are asked for."""

    known: Known
    replica: Replica
    rows: list[RegistrationRow]
    connections: list[overview.ConnectionRow]
    changes: list[Change]

    def overview(self, asked: str) -> Overview:
        """All in brief; `asked`: only registrations that match it."""
        return overview.overview(self.replica, self.rows, self.connections, self.changes, asked)

    def detail(self, key: RegistrationKey) -> Detail | None:
        """One registration, None where there is none. Costs as much as it has instances."""
        registration = self.known.cache.registrations.get(key)
        if registration is None:
            return None
        standing = [
            (name, instance)
            for name in list(self.known.consuls.names())
            if (registry := self.known.consuls.registry(name)) is not None
            for subject in registry.subjects(key)
            for instance in registry.instances(key, subject)
        ]
        return overview.detail(self.replica, registration, standing, self.changes)


def _looks(status: RegistryStatus) -> Looks:
    return Looks(
        ready=status.ready,
        reason=status.reason,
        version=status.version,
        datacenter=status.datacenter,
        leader=status.leader or "",
        agents=status.agents,
        agents_ready=status.agents_ready,
        instances=status.instances,
    )
