"""Decides what of all that lists and watches deliver reaches the store. No I/O, no clock.

    offered version <= the one held, or the one it went with   kept back (a replay, a stale list, a late event)
    offered version newer                                      put
    seen DELETED                                               removed: the object is gone
    known when a list began, absent from it when complete      vanished: absence, not proof (design chapter 1)
    vanished, and shown by a list that is no older             put: the list without it was wrong (UIDs never come back)

A list older than what was known when it began (its resourceVersion is lower) is stale: nothing of it is used. But an
etcd restored from a backup stays lower for ever, and then the list is the truth. The two can't be told apart from
outside, so a lower version is believed when `CONFIRMATIONS` lists in a row came lower: quorum reads of a healthy
server never do that even once. What then vanishes is still only absence, which the quarantine judges.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from consul_registrar.kube.codec import Bookmark, Deleted, Event, Put, Versioned

CONFIRMATIONS = 3
#: How many removed UIDs are remembered, to keep back what arrives late. Late is a matter of seconds.
REMEMBERED = 8192

T = TypeVar("T", bound=Versioned)
T_contra = TypeVar("T_contra", bound=Versioned, contravariant=True)


class Store(Protocol[T_contra]):
    """Where objects go. Called in the core's loop, in order; must be quick and must not raise.

    Versions needn't be compared: what arrives differs from what was put before, and is newer, except after a restored
    etcd has been accepted, when the older object is the true one.
    """

    def put(self, obj: T_contra) -> None:
        """The object is new, or has changed."""
        ...

    def remove(self, uid: str) -> None:
        """The object was seen to be deleted: it is gone and never comes back. Unknown UIDs are fine."""
        ...

    def vanished(self, uid: str) -> None:
        """The object is absent from a complete list, or left the selector: absence, which may need confirmation."""
        ...


class StaleList(Exception):
    """The list is older than what we know; read it again."""


@dataclass(slots=True)
class Listing:
    """A list under way: what was known when it began, and what it has shown so far."""

    known: frozenset[str]
    floor: int
    version: int = 0
    shown: set[str] = field(default_factory=set)


class Intake(Generic[T]):
    """Stands between the sources of one kind of objects and their store.

    `selective`: the watch has a selector, so that leaving it looks like a deletion.
    """

    def __init__(self, store: Store[T], *, selective: bool = False) -> None:
        self._store = store
        self._selective = selective
        self._held: dict[str, int] = {}
        self._left: dict[str, int] = {}
        self._absent: set[str] = set()
        self._seen = 0
        self._lower_lists = 0

    def __len__(self) -> int:
        return len(self._held)

    def take(self, event: Event[T]) -> None:
        """Take in what a watch delivered."""
        match event:
            case Put(obj):
                self._seen = max(self._seen, obj.version)
                self.offer(obj)
            case Deleted(uid, version, deleting):
                self._seen = max(self._seen, version)
                self._drop(uid, version, gone=deleting or not self._selective)
            case Bookmark(version):
                self._seen = max(self._seen, version)

    def offer(self, obj: T) -> None:
        """Put the object, if it is newer than all that is known of it."""
        if obj.version > max(self._held.get(obj.uid, -1), self._left.get(obj.uid, -1)):
            self._held[obj.uid] = obj.version
            self._forget_left(obj.uid)
            self._store.put(obj)

    def begin(self) -> Listing:
        """Note what is known before the first page is asked for."""
        return Listing(frozenset(self._held), self._seen)

    def page(self, listing: Listing, items: Iterable[T], version: int) -> None:
        """Take in one page; raises `StaleList` where its snapshot is too old to be used."""
        self._judge(listing, version)
        for obj in items:
            listing.shown.add(obj.uid)
            if obj.uid in self._absent and version >= self._left[obj.uid]:
                self._forget_left(obj.uid)
            self.offer(obj)

    def complete(self, listing: Listing) -> int:
        """All pages were taken in: let go what they didn't show. Returns how many vanished."""
        missing = listing.known - listing.shown
        for uid in missing:
            self._drop(uid, listing.version, gone=False)
        self._seen = max(self._seen, listing.version)
        self._lower_lists = 0
        return len(missing)

    def _judge(self, listing: Listing, version: int) -> None:
        listing.version = max(listing.version, version)
        if version >= listing.floor:
            return
        self._lower_lists += 1
        if self._lower_lists < CONFIRMATIONS:
            raise StaleList(f"a list is at version {version}, older than {listing.floor}, which was seen before")
        self._rewind(listing)

    def _rewind(self, listing: Listing) -> None:
        """Believe the lower versions: history starts anew, so no comparison with what was before means anything."""
        self._held = dict.fromkeys(self._held, -1)
        self._left.clear()
        self._absent.clear()
        self._seen = listing.floor = 0

    def _drop(self, uid: str, version: int, *, gone: bool) -> None:
        """Let the object go; an absence counts only if nothing newer is known of it."""
        if not gone and self._held.get(uid, -1) > version:
            return
        known = self._held.pop(uid, None) is not None
        self._left[uid] = version
        (self._absent.discard if gone else self._absent.add)(uid)
        if len(self._left) > REMEMBERED:
            self._forget_left(next(iter(self._left)))
        if gone:
            self._store.remove(uid)
        elif known:
            self._store.vanished(uid)

    def _forget_left(self, uid: str) -> None:
        self._left.pop(uid, None)
        self._absent.discard(uid)
