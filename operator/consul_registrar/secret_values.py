"""Values of Secrets that checks name in their headers: read when they are first needed, and again while they are used.

Decides when a Secret is read. Secrets aren't watched: that would take the right to read all of them. The values go to
Consul's agents and nowhere else: not into status, logs, Events or metadata.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet

from consul_registrar.model import Hidden, Reason, RegistrationKey
from consul_registrar.objects import Registration

logger = logging.getLogger(__name__)

#: Seconds between two reads of a Secret that is used.
PACE = 30.0

#: Reads one key of a Secret (namespace, name, key); a Reason where it can't be had.
Read = Callable[[str, str, str], Awaitable[Hidden | Reason]]
_Ref = tuple[str, str, str]


class SecretValues:
    """The values in use. `changed` is called with the registrations whose values are others than before."""

    def __init__(
        self,
        read: Read,
        registration: Callable[[RegistrationKey], Registration | None],
        changed: Callable[[AbstractSet[RegistrationKey]], None],
    ) -> None:
        self._read = read
        self._registration = registration
        self._changed = changed
        self._values: dict[_Ref, Hidden | Reason] = {}
        self._users: dict[_Ref, set[RegistrationKey]] = {}
        self._reading: dict[_Ref, asyncio.Task[None]] = {}

    def values(self, registration: Registration) -> Mapping[tuple[str, str], Hidden | Reason]:
        """What is known, by the name of the Secret and its key."""
        refs = _refs(registration)
        return {ref[1:]: self._values[ref] for ref in refs if ref in self._values} if refs else {}

    def known(self, registration: Registration) -> bool:
        """Whether all that it names is known. Else it is being read from now on, and `changed` is called afterwards.

        Nobody waits here: what is to go needs no Secret.
        """
        for ref in _refs(registration):
            self._users.setdefault(ref, set()).add(registration.key)
            if ref not in self._values and ref not in self._reading:
                self._reading[ref] = asyncio.create_task(self._first(ref))
        return all(ref in self._values for ref in _refs(registration))

    async def _first(self, ref: _Ref) -> None:
        try:
            value: Hidden | Reason = await self._read(*ref)
        except Exception as error:
            logger.exception("reading Secret %s/%s failed unexpectedly", *ref[:2])
            value = Reason("SecretUnreadable", f"Secret {ref[0]}/{ref[1]}: {type(error).__name__}")
        finally:
            del self._reading[ref]
        self._values[ref] = value
        self._changed(frozenset(self._users.get(ref, ())))

    def forget(self) -> None:
        """What was read may be old, since nobody has read it again: each is read when it is needed next."""
        self._values.clear()

    async def run(self) -> None:
        """Read again what is used, for ever."""
        while True:
            await asyncio.sleep(PACE)
            for ref in list(self._users):
                await self._refresh(ref)

    def _still_use(self, ref: _Ref) -> set[RegistrationKey]:
        """Those of its users that are there and name it; without any it is forgotten."""
        known = ((key, self._registration(key)) for key in self._users[ref])
        self._users[ref] = {key for key, found in known if found is not None and ref in _refs(found)}
        if not self._users[ref]:
            del self._users[ref]
            self._values.pop(ref, None)
            return set()
        return self._users[ref]

    async def _refresh(self, ref: _Ref) -> None:
        """A value goes on being used where the API server doesn't say what it is now."""
        if not self._still_use(ref):
            return
        before, now = self._values.get(ref), await self._read(*ref)
        unknown = isinstance(now, Reason) and now.code == "SecretUnreadable" and isinstance(before, Hidden)
        if unknown or _told(before) == _told(now):
            return
        self._values[ref] = now
        logger.info("Secret %s/%s has changed: checks that use its key %r are defined anew", *ref)
        self._changed(frozenset(self._users[ref]))


def _told(value: Hidden | Reason | None) -> object:
    """By its version: so it is the same after a restart."""
    return value.version if isinstance(value, Hidden) else value


def _refs(registration: Registration) -> tuple[_Ref, ...]:
    return tuple((registration.key.namespace, *ref) for ref in registration.secrets)
