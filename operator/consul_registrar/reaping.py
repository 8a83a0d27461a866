"""What to do about an instance that its agent removed: the user asked for it, so it isn't fought over.

Decides whether such an instance is registered again: when what it stands for has changed since (a Pod ready again or
with a restarted container, an edited registration), else after a wait that grows from one minute to ten. What is known
goes into status, and is found there after a restart. The clock (seconds since the epoch) is an argument.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypedDict

from consul_registrar.model import Pod, Reason, RegistrationKey
from consul_registrar.objects import Registration

_FIRST_WAIT = 60.0
_LONGEST_WAIT = 600.0


class Record(TypedDict):
    """What status says of one."""

    subject: str
    connection: str
    name: str
    at: str
    attempts: int
    seen: str


Where = tuple[RegistrationKey, str, str]
"""Registration, subject, connection."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One reaped instance. `tried`: it was registered again since; reaped once more, it waits longer."""

    name: str
    at: float
    attempts: int
    seen: str
    tried: bool = False

    @property
    def due(self) -> float:
        return self.at + min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(self.attempts - 1, 32))


def looks(registration: Registration | None, pod: Pod | None) -> str:
    """What a subject looks like, as far as a change of it is a reason to try again."""
    generation = registration.meta.generation if registration else 0
    return f"{generation}/{pod.ready}/{pod.restarts}" if pod else f"{generation}"


class Reaped:
    """The reaped instances of all registrations."""

    def __init__(self) -> None:
        self._entries: dict[RegistrationKey, dict[tuple[str, str], Entry]] = {}

    def load(self, key: RegistrationKey, recorded: Iterable[Record], epoch: Callable[[str], float]) -> None:
        """Take what status recorded before a restart; `epoch` turns a time into seconds.

        What has a time that `epoch` can't read (ValueError) was written by somebody else, and is passed over.
        """
        for entry in recorded:
            where = (entry["subject"], entry["connection"])
            with suppress(ValueError):
                loaded = Entry(entry["name"], epoch(entry["at"]), entry["attempts"], entry["seen"])
                self._entries.setdefault(key, {}).setdefault(where, loaded)

    def notice(self, where: Where, name: str, seen: str, now: float) -> None:
        """The agent has removed the instance."""
        key, subject, connection = where
        entries = self._entries.setdefault(key, {})
        known = entries.get((subject, connection))
        if known is None or known.tried:
            attempts = known.attempts + 1 if known else 1
            entries[subject, connection] = Entry(name, now, attempts, seen)

    def known(self, where: Where) -> bool:
        """Whether the agent had removed it when it stood last."""
        key, subject, connection = where
        return (subject, connection) in self._entries.get(key, {})

    def waits(self, where: Where, seen: str, now: float) -> float | None:
        """For how many seconds it is to be left alone; None: register it (again), also where the clock was set back."""
        key, subject, connection = where
        entry = self._entries.get(key, {}).get((subject, connection))
        if entry is None or entry.tried or entry.seen != seen or not entry.at <= now < entry.due:
            return None
        return entry.due - now

    def left_alone(self, where: Where, name: str, seen: str, now: float, *, gone: bool) -> bool:
        """Whether what doesn't stand is to be left so for a while; `gone`: its agent has just removed it."""
        if gone:
            self.notice(where, name, seen, now)
        return self.waits(where, seen, now) is not None

    def found(self, where: Where, seen: str, now: float, *, back: bool, well: bool) -> float | None:
        """For how many seconds it is still left alone, None where it isn't. `back`: it stands again.

        `well`: it is well, or nothing of it is left that could be registered.
        """
        if back:
            self.tried(where)
        if well:
            self.forget(where)
        return self.waits(where, seen, now)

    def tried(self, where: Where) -> None:
        """It is registered again."""
        key, subject, connection = where
        entries = self._entries.get(key, {})
        entry = entries.get((subject, connection))
        if entry is not None:
            entries[subject, connection] = replace(entry, tried=True)

    def forget(self, where: Where) -> None:
        """It is well, or there is nothing any more that could be registered."""
        key, subject, connection = where
        entries = self._entries.get(key, {})
        entries.pop((subject, connection), None)
        if not entries:
            self._entries.pop(key, None)

    def forget_all(self, key: RegistrationKey) -> None:
        """The registration is no more."""
        self._entries.pop(key, None)

    def recorded(self, key: RegistrationKey, text: Callable[[float], str]) -> list[Record]:
        """What status says of a registration; `text` turns seconds into a time."""
        return [
            {
                "subject": subject,
                "connection": connection,
                "name": entry.name,
                "at": text(entry.at),
                "attempts": entry.attempts,
                "seen": entry.seen,
            }
            for (subject, connection), entry in sorted(self._entries.get(key, {}).items())
            if not entry.tried
        ]


REAPED = Reason(
    "Reaped",
    "the agent removed the instance after it had been critical for long, as deregisterCriticalServiceAfter asks; it is "
    "registered again when the Pod or the registration changes, else after some minutes",
)
