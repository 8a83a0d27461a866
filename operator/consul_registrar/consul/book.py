"""Decides what is known of one agent: what it holds of ours, what of that is wrong in the catalog, what it reaped.

Pure, the clock is an argument. The agent's own list is the truth; `Actual` gets it as a plan should see it. Reading
and writing are `session.py`'s and `sender.py`'s concern.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from consul_registrar.actual import Actual
from consul_registrar.consul.drift import SETTLE, Catalog, Ledger, Things, differences, shown
from consul_registrar.consul.registry import OnVisible, ignore
from consul_registrar.consul.wire import Held, Reader
from consul_registrar.dead_man import follows
from consul_registrar.model import META_HASH, META_TAGS, Check, Health, Instance, Key, RegistrationKey

REAPED_AFTER = 55.0
"""Seconds; a little less than the shortest time for which Consul lets a service be critical before it is reaped."""

REMEMBERED = 10_000
"""How many reaped subjects are remembered; what was reaped first is forgotten first."""

Subject = tuple[RegistrationKey, str]
Edit = Callable[[Check], Check | None]


def may_be_reaped(instance: Instance) -> bool:
    """Whether a check has a deregister-critical-after; the hash in the meta says so, also after a restart of ours."""
    return instance.meta_value(META_HASH).startswith("1r-")


class Book:
    """What is known of one agent's node."""

    def __init__(
        self,
        node: str,
        reader: Reader,
        actual: Actual,
        reaped: dict[Subject, None],
        on_visible: OnVisible = ignore,
    ) -> None:
        self.node = node
        self.reader = reader
        self._actual = actual
        self._reaped = reaped
        self._on_visible = on_visible
        self._invisible: dict[str, int] = {}
        self._looked_for = math.inf
        self._held: dict[str, Held] = {}
        self._edited: dict[str, tuple[str, ...]] = {}
        self._ledger = Ledger()
        self._critical_since: dict[str, float] = {}
        self._watched = False
        self._target = ""
        self._old: set[str] = set()
        self._due: set[str] = set()

    def holds(self, instance_id: str) -> Held | None:
        """An instance as the agent's own list has it."""
        return self._held.get(instance_id)

    def wrong(self, instance_id: str) -> Things:
        """What of it is wrong in the catalog for good."""
        return self._ledger.wrong(instance_id)

    def hangs(self) -> bool:
        """Whether an instance hangs on the heartbeat."""
        return any(follows(check.id) for held in self._held.values() for check in held.instance.checks)

    def misses(self, listed: AbstractSet[str], began: int) -> bool:
        """Whether something that the agent held is not in a list of it that began at `began`, without our doing."""
        gone = self._held.keys() - listed
        return any(not self._actual.written_since(self.node, instance_id, began) for instance_id in gone)

    def look_again_at(self) -> float:
        """When both sides must be read again, to confirm what looks wrong, or to see what was written; infinity for
        never.
        """
        return min(self._ledger.ripe_at(), self._looked_for)

    def not_pushed(self) -> int:
        """How many instances stay wrong in the catalog although they were written anew."""
        return self._ledger.stubborn()

    def old(self, instance_id: str) -> bool:
        """Whether an instance stands under a token that was replaced."""
        return instance_id in self._old

    def left(self, target: str) -> int:
        """How many instances don't stand under the token `target` yet."""
        return len(self._old) if target == self._target else len(self._held)

    def renew(self, target: str) -> frozenset[Key]:
        """Let the turn of one more instance come that doesn't stand under the token `target`; returns its key."""
        if target != self._target:
            self._target, self._old, self._due = target, set(self._held), set()
        instance_id = min(self._old - self._due, default=None)
        if instance_id is None:
            return frozenset()
        self._due.add(instance_id)
        return self._actual.revise(self._seen(self._held[instance_id].instance, self._ledger.wrong(instance_id)))

    def renewed(self, instance_id: str) -> None:
        """The agent was given an instance with all of its checks: it stands under the token in use."""
        self._old.discard(instance_id)
        self._due.discard(instance_id)

    def interrupted(self) -> None:
        """The agent was out of sight: what it lost meanwhile may have any cause."""
        self._watched = False
        self._critical_since.clear()

    def keys(self) -> frozenset[Key]:
        """The keys of all that the node is held to contain, and of their registrations."""
        owned = [(owner.key, i.subject) for i in self._actual.on_node(self.node) if (owner := i.owner) is not None]
        return frozenset(Key(*each) for each in owned) | {Key(registration) for registration, _ in owned}

    def take(self, listed: Iterable[Held], catalog: Catalog | None, began: int, now: float) -> frozenset[Key]:
        """Take in a complete read of the agent's list, and of the catalog where it was read; returns the keys whose
        state changed.
        """
        read = {held.instance.id: held for held in listed}
        for instance_id in read.keys() | self._held.keys():
            if self._actual.written_since(self.node, instance_id, began):
                _keep(read, instance_id, self._held.get(instance_id))
        self._notice_reaped(read, now)
        self._held = read
        if catalog is not None:
            self._edited = _edited_tags(read, catalog)
        self._old &= read.keys()
        self._due &= read.keys()
        for held in read.values():
            self._stands(held.instance)
        self._notice_critical(now)
        self._watched = True
        self._notice_visible(catalog)
        seen = [self._seen(held.instance, self._judge(held, catalog, now)) for held in read.values()]
        return self._actual.replace(self.node, seen, began)

    def registered(self, held: Held, now: float) -> None:
        """The agent acknowledged the instance."""
        instance = held.instance
        self._held[instance.id] = held
        self._edited.pop(instance.id, None)
        self._ledger.wrote(instance.id, now)
        self._stands(instance)
        self._actual.put(instance)

    def fed(self, instance_id: str, check_id: str, status: Health, now: float) -> None:
        """The agent acknowledged a check's status."""
        self._edit(instance_id, check_id, now, lambda c: replace(c, status=status))

    def dropped(self, instance_id: str, check_id: str, now: float) -> None:
        """The agent acknowledged a check's removal."""
        self._edit(instance_id, check_id, now, lambda _: None)

    def removed(self, instance_id: str) -> None:
        """The agent acknowledged the instance's removal."""
        self._held.pop(instance_id, None)
        self._ledger.forget(instance_id)
        self.renewed(instance_id)
        self._actual.remove(self.node, instance_id)

    def await_visible(self, instance_id: str, version: int | None, now: float) -> None:
        """What was decided on this version of a Pod was acknowledged. The catalog may have been read since, with it."""
        if version is not None:
            self._invisible[instance_id] = version
            self._looked_for = min(self._looked_for, now + SETTLE)

    def _notice_visible(self, catalog: Catalog | None) -> None:
        """What was written is compared with a catalog that was read after it, or during it: both will do."""
        self._looked_for = math.inf
        if catalog is None:
            return
        for instance_id in [one for one in self._invisible if self._is_visible(one, catalog)]:
            self._on_visible(self._invisible.pop(instance_id))

    def _is_visible(self, instance_id: str, catalog: Catalog) -> bool:
        held = self._held.get(instance_id)
        return not differences(held, catalog) if held else instance_id not in catalog.services

    def _edit(self, instance_id: str, check_id: str, now: float, edit: Edit) -> None:
        held = self._held.get(instance_id)
        if held is None:
            return
        edited = (edit(check) if check.id == check_id else check for check in held.instance.checks)
        instance = replace(held.instance, checks=tuple(check for check in edited if check is not None))
        self._held[instance_id] = replace(held, instance=instance)
        self._ledger.wrote(instance_id, now, check_id)
        self._actual.put(self._seen(instance, self._ledger.wrong(instance_id)))

    def _seen(self, held: Instance, wrong: Things) -> Instance:
        """An instance as a plan should see it."""
        held = replace(held, tags=self._edited[held.id]) if held.id in self._edited else held
        return replace(shown(held, wrong), outdated=True) if held.id in self._due else shown(held, wrong)

    def _stands(self, instance: Instance) -> None:
        if self._reaped and instance.owner is not None:
            self._reaped.pop((instance.owner.key, instance.subject), None)

    def _judge(self, held: Held, catalog: Catalog | None, now: float) -> Things:
        if catalog is None:
            return self._ledger.wrong(held.instance.id)
        return self._ledger.see(held.instance.id, differences(held, catalog), now)

    def _notice_critical(self, now: float) -> None:
        """Since when each instance has been critical; one that was so when first seen may have been for ever."""
        first = now if self._watched else -math.inf
        critical = [i for i, held in self._held.items() if held.instance.health is Health.CRITICAL]
        self._critical_since = {i: self._critical_since.get(i, first) for i in critical}

    def _notice_reaped(self, read: Mapping[str, Held], now: float) -> None:
        """An instance that vanished from a watched agent, not by us, long after it had become critical."""
        if not self._watched:
            return
        for instance_id in self._held.keys() - read.keys():
            instance = self._held[instance_id].instance
            long = now - self._critical_since.get(instance_id, math.inf) >= REAPED_AFTER
            self._ledger.forget(instance_id)
            if long and may_be_reaped(instance) and instance.owner is not None:
                self._remember(instance.owner.key, instance.subject)

    def _remember(self, registration: RegistrationKey, subject: str) -> None:
        self._reaped[registration, subject] = None
        if len(self._reaped) > REMEMBERED:
            del self._reaped[next(iter(self._reaped))]


def _edited_tags(read: Mapping[str, Held], catalog: Catalog) -> dict[str, tuple[str, ...]]:
    """The tags of instances whose tags others may edit: they do so in the catalog, and the agent takes them over a
    minute or two later. Not those of a row from before an edit of ours that is on its way there.
    """
    edited = {}
    for own in (held.instance for held in read.values() if held.instance.tag_override):
        row = catalog.services.get(own.id)
        if row is not None and (row.Meta or {}).get(META_TAGS) == own.meta_value(META_TAGS):
            edited[own.id] = tuple(sorted(row.Tags or ()))
    return edited


def _keep(read: dict[str, Held], instance_id: str, known: Held | None) -> None:
    """Our own knowledge of an instance is newer than the read."""
    if known is None:
        read.pop(instance_id, None)
    else:
        read[instance_id] = known
