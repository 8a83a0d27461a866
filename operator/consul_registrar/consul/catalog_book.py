"""Decides what is known of one virtual node: what it holds of ours, at which index each thing stands, what is wrong.

Pure, the clock is an argument. An index names one version of one thing, so that what we write can say which version it
replaces: two who write at the same time never undo each other's work unseen. `Actual` gets each instance as a plan
should see it: what was edited where a plan can't see it (weights, definitions) is shown as missing, so that it is
written again. Statuses are never wrong here: a readiness check's is compared by the plan, any other is consul-esm's.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from consul_registrar.actual import Actual
from consul_registrar.consul.book import REAPED_AFTER, REMEMBERED, Subject, may_be_reaped
from consul_registrar.consul.catalog_wire import CheckRow, NodeRow, ServiceRow
from consul_registrar.consul.virtual import is_probed
from consul_registrar.consul.wire import instance_of, is_ours
from consul_registrar.model import META_HASH, Check, Health, Instance, Key
from consul_registrar.values import record

_STATUSES = frozenset(status.value for status in Health)


@record(frozen=True, slots=True)
class Seen:
    """A check as it stands. `digest`: how all but its status and output should be; `edited`: they aren't."""

    check: Check
    index: int
    digest: int
    edited: bool = False


@record(frozen=True, slots=True)
class Entry:
    """A service as it stands. `shown` is what a plan sees, None where it is not ours. `created` and `index` name its
    version.
    """

    created: int
    index: int
    shown: Instance | None
    seen: tuple[Seen, ...]
    reapable: bool = False

    @property
    def dying(self) -> bool:
        """Whether consul-esm may remove it before long."""
        return self.reapable and self.shown is not None and self.shown.health is Health.CRITICAL


class CatalogBook:
    """What is known of one virtual node."""

    def __init__(self, node: str, cluster: str, connection: str, actual: Actual, reaped: dict[Subject, None]) -> None:
        self.node = node
        self._whose = (cluster, connection)
        self._actual = actual
        self._reaped = reaped
        self._row: NodeRow | None = None
        self._row_written = 0
        self._entries: dict[str, Entry] = {}
        self._strange: dict[str, int] = {}
        self._critical_since: dict[str, float] = {}
        self._watched = False
        self._index = 0
        self._same_log = True

    # --- what it says ---

    @property
    def row(self) -> NodeRow | None:
        """The node itself; None: it doesn't exist, as far as is known."""
        return self._row

    @property
    def probed(self) -> bool:
        """Whether consul-esm is asked to run the checks of this node."""
        return self._row is not None and is_probed(self._row.Meta or {})

    @property
    def bare(self) -> bool:
        """Whether nothing at all stands on it, neither ours nor anybody's."""
        return not self._entries and not self._strange

    def index(self, instance_id: str) -> int:
        """The version of a service that was read or written last; 0: there is none."""
        entry = self._entries.get(instance_id)
        return entry.index if entry else 0

    def shown(self, instance_id: str) -> Instance | None:
        """A service of ours, as a plan sees it; None: there is none."""
        entry = self._entries.get(instance_id)
        return entry.shown if entry else None

    def check_index(self, instance_id: str, check_id: str) -> int:
        """The same for a check. IDs of checks are unique in a node, so one may stand under another service."""
        seen = self._seen(instance_id, check_id)
        return seen.index if seen else self._strange.get(check_id, 0)

    def status(self, instance_id: str, check_id: str) -> Health | None:
        """How a check stands; None where there is none."""
        seen = self._seen(instance_id, check_id)
        return seen.check.status if seen else None

    def _seen(self, instance_id: str, check_id: str) -> Seen | None:
        entry = self._entries.get(instance_id)
        return next((s for s in entry.seen if s.check.id == check_id), None) if entry else None

    def keys(self) -> frozenset[Key]:
        """The keys of all that the node is held to contain, and of their registrations."""
        owned = [(i.owner.key, i.subject) for i in self._actual.on_node(self.node) if i.owner is not None]
        return frozenset(Key(*each) for each in owned) | {Key(registration) for registration, _ in owned}

    # --- what is read ---

    def take(
        self, row: NodeRow | None, services: Sequence[ServiceRow], checks: Sequence[CheckRow], index: int,
        began: int, now: float,
    ) -> frozenset[Key]:  # fmt: skip
        """Take in a complete read of the node, at `index`; returns the keys whose state changed."""
        self._same_log = index >= self._index  # in another log, the same index names another version
        self._index = index
        if began > self._row_written:
            self._row = row
        by_service: dict[str, list[CheckRow]] = {}
        for check in checks:
            by_service.setdefault(check.ServiceID, []).append(check)
        read = {each.ID: self._entry(each, by_service.get(each.ID, [])) for each in services}
        for instance_id in [*read, *self._entries]:
            if self._actual.written_since(self.node, instance_id, began):
                _keep(read, instance_id, self._entries.get(instance_id))
        self._notice_reaped(read, now)
        self._strange = {c.CheckID: c.ModifyIndex for c in checks if not _is_own(c)}
        self._entries = read
        self._notice_critical(now)
        self._watched = True
        ours = [entry.shown for entry in read.values() if entry.shown is not None]
        for instance in ours:
            self._stands(instance)
        return self._actual.replace(self.node, ours, began)

    def interrupted(self) -> None:
        """The node was out of sight: what it lost meanwhile may have any cause."""
        self._watched = False
        self._critical_since.clear()

    def _entry(self, row: ServiceRow, checks: list[CheckRow]) -> Entry:
        """What is as it was is the same object as before: comparing the thousands that are costs next to nothing."""
        known = self._entries.get(row.ID)
        own = [check for check in checks if _is_own(check)]
        if known is not None and self._same_log and _is_same(known, row, own):
            return known
        if not is_ours(row.Meta, *self._whose):
            return Entry(row.CreateIndex, row.ModifyIndex, None, tuple(_first_seen(check) for check in own))
        before = {seen.check.id: seen for seen in known.seen} if known else {}
        return _made(self.node, row, [_seen_again(check, before.get(check.CheckID)) for check in own])

    # --- what is acknowledged ---

    def created(self, row: NodeRow) -> None:
        """The node stands as we wrote it; reads that began before don't know."""
        self._row, self._row_written = row, self._actual.begin()

    def vanished(self) -> None:
        """The node is not there, nor anything on it; the next read tells whom that concerns."""
        self._row = None
        self._entries.clear()
        self._strange.clear()

    def registered(self, row: ServiceRow, checks: Iterable[CheckRow]) -> None:
        """Consul acknowledged a service, and these checks of it."""
        known = self._entries.get(row.ID)
        after = {seen.check.id: seen for seen in known.seen} if known else {}
        for check in checks:
            after[check.CheckID] = _first_seen(check)
            self._strange.pop(check.CheckID, None)
        entry = _made(self.node, row, list(after.values()))
        self._entries[row.ID] = entry
        assert entry.shown is not None
        self._stands(entry.shown)
        self._actual.put(entry.shown)
        if not is_ours(row.Meta, *self._whose):
            self._entries[row.ID] = replace(entry, shown=None)

    def fed(self, instance_id: str, row: CheckRow) -> None:
        """Consul acknowledged a check's status."""
        self._edit(instance_id, row.CheckID, _first_seen(row))

    def dropped(self, instance_id: str, check_id: str) -> None:
        """Consul acknowledged a check's removal."""
        self._edit(instance_id, check_id, None)

    def removed(self, instance_id: str) -> None:
        """Consul acknowledged a service's removal; its checks went with it."""
        self._entries.pop(instance_id, None)
        self._critical_since.pop(instance_id, None)
        self._actual.remove(self.node, instance_id)

    def _edit(self, instance_id: str, check_id: str, new: Seen | None) -> None:
        entry = self._entries.get(instance_id)
        self._strange.pop(check_id, None)
        if entry is None or entry.shown is None:
            return
        seen = [s for s in entry.seen if s.check.id != check_id] + ([new] if new else [])
        seen.sort(key=_by_id)
        shown = replace(entry.shown, checks=_shown(seen))
        self._entries[instance_id] = replace(entry, shown=shown, seen=tuple(seen))
        self._actual.put(shown)

    # --- what consul-esm removes ---

    def _stands(self, instance: Instance) -> None:
        if self._reaped and instance.owner is not None:
            self._reaped.pop((instance.owner.key, instance.subject), None)

    def _notice_critical(self, now: float) -> None:
        """Since when each has been critical; one that was so when first seen may have been for ever."""
        first = now if self._watched else -math.inf
        dying = [i for i, entry in self._entries.items() if entry.reapable and entry.dying]
        self._critical_since = {i: self._critical_since.get(i, first) for i in dying}

    def _notice_reaped(self, read: Mapping[str, Entry], now: float) -> None:
        """One that vanished, not by us, long after it had become critical."""
        if not self._watched:
            return
        for instance_id, since in self._critical_since.items():
            entry = self._entries.get(instance_id)
            if instance_id not in read and entry is not None and entry.shown and now - since >= REAPED_AFTER:
                self._remember(entry.shown)

    def _remember(self, instance: Instance) -> None:
        if instance.owner is not None:
            self._reaped[instance.owner.key, instance.subject] = None
        if len(self._reaped) > REMEMBERED:
            del self._reaped[next(iter(self._reaped))]


def _keep(read: dict[str, Entry], instance_id: str, known: Entry | None) -> None:
    """Our own knowledge of a service is newer than the read."""
    if known is None:
        read.pop(instance_id, None)
    else:
        read[instance_id] = known


def _is_own(check: CheckRow) -> bool:
    """Whether a check is one that we write: its ID begins with its service's."""
    return bool(check.ServiceID) and check.CheckID.startswith(f"{check.ServiceID}:") and check.Status in _STATUSES


def _is_same(known: Entry, row: ServiceRow, checks: Sequence[CheckRow]) -> bool:
    if (known.created, known.index) != (row.CreateIndex, row.ModifyIndex) or len(known.seen) != len(checks):
        return False
    indexes = {seen.check.id: seen.index for seen in known.seen}
    return all(indexes.get(check.CheckID) == check.ModifyIndex for check in checks)


def _first_seen(row: CheckRow) -> Seen:
    """What we wrote, or what is seen for the first time, is taken as right."""
    check = Check(row.CheckID, row.Name, None, Health(row.Status), row.Notes)
    return Seen(check, row.ModifyIndex, row.digest)


def _seen_again(row: CheckRow, before: Seen | None) -> Seen:
    now = _first_seen(row)
    if before is None or before.digest == now.digest:
        return now
    return replace(now, digest=before.digest, edited=True)


def _by_id(seen: Seen) -> str:
    return seen.check.id


def _shown(seen: Sequence[Seen]) -> tuple[Check, ...]:
    return tuple(each.check for each in seen if not each.edited)


def _made(node: str, row: ServiceRow, seen: list[Seen]) -> Entry:
    """A row that has what we never write lacks the hash that every right one has: it is written again as a whole."""
    seen.sort(key=_by_id)
    instance = instance_of(node, row, _shown(seen))
    shown = instance if row.plain else replace(instance, meta=_without_hash(instance))
    return Entry(row.CreateIndex, row.ModifyIndex, shown, tuple(seen), may_be_reaped(instance))


def _without_hash(instance: Instance) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in instance.meta if pair[0] != META_HASH)
