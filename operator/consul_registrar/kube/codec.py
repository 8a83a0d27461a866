"""The shape of what a decoder makes of lists and watches, whatever the kind: pages, events, and who decodes them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec

from consul_registrar.kube.errors import KubeError, Status, error_of


class Versioned(Protocol):
    """What every object from the API is: its identity, and the version (resourceVersion) of what we know of it."""

    @property
    def uid(self) -> str: ...

    @property
    def version(self) -> int: ...


T_co = TypeVar("T_co", bound=Versioned, covariant=True)
T = TypeVar("T", bound=Versioned)


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """One page of a list. `version` is the snapshot's, the same on all pages; what leads on is `token_of`'s to say."""

    items: tuple[T_co, ...]
    version: int


@dataclass(frozen=True, slots=True)
class Put(Generic[T_co]):
    """An object was added or modified."""

    obj: T_co


@dataclass(frozen=True, slots=True)
class Deleted:
    """An object left the watch: deleted, or (while a selector is in use) no longer selected.

    `deleting`: it had a deletionTimestamp, so it is gone whatever the selector.
    """

    uid: str
    version: int
    deleting: bool


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Nothing happened up to this version."""

    version: int


Event = Put[T_co] | Deleted | Bookmark


class MetaWire(msgspec.Struct, gc=False):
    """Object metadata, as far as bookmarks and deletions need it."""

    uid: str | None = None
    resourceVersion: str | None = None  # noqa: N815 - the wire's name
    deletionTimestamp: str | None = None  # noqa: N815


class _Anything(msgspec.Struct, gc=False):
    metadata: MetaWire | None = None


class _EventWire(msgspec.Struct, gc=False):
    type: str
    object: msgspec.Raw


class _ListMeta(msgspec.Struct, gc=False):
    token: str | None = msgspec.field(default=None, name="continue")


class _AnyList(msgspec.Struct, gc=False):
    metadata: _ListMeta | None = None


_EVENT = msgspec.json.Decoder(_EventWire)
_ANY_LIST = msgspec.json.Decoder(_AnyList)
_ANYTHING = msgspec.json.Decoder(_Anything)


@dataclass(frozen=True, slots=True)
class Codec(Generic[T_co]):
    """How one kind is read: its collection's page, and one object of it.

    Both raise `msgspec.DecodeError` for what the API server can't have sent.
    """

    kind: str
    page: Callable[[bytes], Page[T_co]]
    obj: Callable[[bytes | msgspec.Raw], T_co]

    def event(self, line: bytes) -> Event[T_co] | KubeError | None:
        """What a line of a watch says; an error for an ERROR event; None for a type that we don't know."""
        wire = _EVENT.decode(line)
        if wire.type in {"ADDED", "MODIFIED"}:
            return Put(self.obj(wire.object))
        if wire.type == "ERROR":
            return _error(wire.object)
        meta = _ANYTHING.decode(wire.object).metadata or MetaWire()
        if wire.type == "DELETED":
            return Deleted(meta.uid or "", version_of(meta.resourceVersion), meta.deletionTimestamp is not None)
        return Bookmark(version_of(meta.resourceVersion)) if wire.type == "BOOKMARK" else None


def _error(raw: msgspec.Raw) -> KubeError:
    status = msgspec.json.decode(raw, type=Status)
    return error_of(status.code or 500, f"the watch ended: {status.message or status.reason or 'no reason given'}")


def token_of(page: bytes) -> str:
    """What leads on from a page of whatever kind, "" from the last. Raises `msgspec.DecodeError` where it is none."""
    return (_ANY_LIST.decode(page).metadata or _ListMeta()).token or ""


def version_of(text: object) -> int:
    """A resourceVersion as a number, by which versions are ordered (Kubernetes 1.35+: KEP-5504); 0 where missing."""
    return int(text) if isinstance(text, str) and text.isdecimal() else 0


JsonObject = Mapping[str, object]
