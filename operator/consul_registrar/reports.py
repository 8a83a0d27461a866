"""What is said of registrations: tallies become status and Events, written when they differ, at most once a second.

Decides when to write; what is said is decided in `conditions.py`, how it reaches the API server is `kube/`'s matter.
Nothing is said before every subject's outcome is known: a fresh start must not look like a change. While a crowd of
subjects is worked on, instances go before what is said of them.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

from consul_registrar.acceptance import Acceptance, advice
from consul_registrar.backoff import delay
from consul_registrar.cache import Cache
from consul_registrar.conditions import Picture, says, status
from consul_registrar.exposure import Lack, lack
from consul_registrar.foreign import published, told
from consul_registrar.kube import Throttled
from consul_registrar.logs import about
from consul_registrar.model import CONNECTING, Reason, RegistrationKey
from consul_registrar.objects import Registration
from consul_registrar.outlook import Outlook
from consul_registrar.reaping import Reaped
from consul_registrar.service_cache import source_of
from consul_registrar.tally import Outcome, Tally

logger = logging.getLogger(__name__)

#: Seconds between two writes of one status; and at most, once it couldn't be written so often in a row.
_SPACING = 1.0
_LONGEST = 10.0
_SOON = 5
#: Statuses that are written at a time: the API server has to answer for the lease beside them, within seconds.
_AT_ONCE = 8
#: Seconds for which statuses wait, at most, while a crowd of subjects is worked on; and between two looks at that.
_INSTANCES_FIRST = 5.0
_LOOK = 0.1
#: Reasons of Ready that are worth a person's attention although nothing is wrong yet.
_WARNINGS = {"NoPodsMatched"}
#: Reasons of Ready on the way to another: no Event.
_PASSING = {"Registering", "Deleting", "Reconciling"}


class Publisher(Protocol):
    """Writes to the API server. `write` raises where it doesn't answer; `event` never does."""

    async def write(self, registration: Registration, wanted: Mapping[str, Any]) -> None: ...
    async def event(self, registration: Registration, reason: Reason, *, warning: bool) -> None: ...


class Standing(Protocol):
    """How the Consuls look."""

    def down(self, name: str) -> Reason | None: ...
    def policy(self, name: str) -> str: ...


def _never() -> bool:
    return False


class Reports:
    """Keeps the tallies and writes what follows from them. `crowded`: whether many subjects are due at present."""

    def __init__(
        self,
        cache: Cache,
        acceptance: Acceptance,
        consuls: Standing,
        reaped: Reaped,
        publisher: Publisher,
        outlook: Outlook,
        now: Callable[[], str],
        text: Callable[[float], str],
        crowded: Callable[[], bool] = _never,
    ) -> None:
        self._cache = cache
        self._acceptance = acceptance
        self._consuls = consuls
        self._reaped = reaped
        self._publisher = publisher
        self._outlook = outlook
        self._now = now
        self._text = text
        self._crowded = crowded
        self._crowd_is_over: float | None = None
        self._tallies: dict[RegistrationKey, Tally] = {}
        self._complete: set[RegistrationKey] = set()
        self._blocked: dict[RegistrationKey, Reason | None] = {}
        self._announced: dict[RegistrationKey, tuple[str, str]] = {}
        self._joins: dict[RegistrationKey, dict[str, tuple[str, str] | None]] = {}
        self._resyncs: dict[RegistrationKey, str] = {}
        self._due: asyncio.Queue[RegistrationKey] = asyncio.Queue()
        self._busy: set[RegistrationKey] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._again: set[RegistrationKey] = set()
        self._failures: dict[RegistrationKey, int] = {}
        self._late: dict[RegistrationKey, asyncio.TimerHandle] = {}

    # what the loop tells

    def expect(self, key: RegistrationKey, connection: str, subject: str) -> None:
        """An outcome will follow."""
        self._tally(key).expect(connection, subject)

    def complete(self, key: RegistrationKey) -> None:
        """All its subjects are expected by now: only from then on can outcomes be known not to be missing."""
        self._complete.add(key)

    def edition(self, key: RegistrationKey) -> int:
        """To be asked for before facts are gathered, and told with what became of them."""
        return self._tallies[key].edition if key in self._tallies else 0

    def put(self, key: RegistrationKey, connection: str, subject: str, outcome: Outcome | None, edition: int) -> None:
        """What became of a subject; None: nothing is left of it."""
        if outcome is None and key not in self._tallies:
            return
        if self._tally(key).put(connection, subject, outcome, edition):
            self.touch(key)

    def stands(self, key: RegistrationKey, connection: str, subject: str, edition: int) -> None:
        """What was said of a subject is confirmed."""
        if self._tally(key).stands(connection, subject, edition):
            self.touch(key)

    def renew(self, key: RegistrationKey) -> None:
        """The registration was edited: what was said of its subjects is about another spec, and it may have others."""
        self._tally(key).renew()
        self._complete.discard(key)

    def resync(self, key: RegistrationKey, value: str) -> None:
        """All of the registration was read anew, as an annotation of this value asked; outcomes will follow."""
        self._resyncs[key] = value
        self._tally(key).renew()
        self.touch(key)

    def resynced(self, registration: Registration) -> str:
        """The value of that annotation for which this was done last, "" where it never was."""
        return self._resyncs.get(registration.key) or str(registration.status.get("resync", ""))

    def block(self, key: RegistrationKey, reason: Reason | None) -> None:
        """Why the registration's beginning or deletion can't go on; None: it does."""
        if self._blocked.get(key) != reason:
            self._blocked[key] = reason
            self.touch(key)

    def touch(self, key: RegistrationKey) -> None:
        """Something that status speaks of may have changed."""
        if key not in self._cache.registrations or not self._may_speak(key):
            return
        if key in self._busy:
            self._again.add(key)
        else:
            self._busy.add(key)
            self._due.put_nowait(key)

    def forget(self, key: RegistrationKey) -> None:
        """The registration is no more."""
        self._tallies.pop(key, None)
        self._complete.discard(key)
        self._again.discard(key)
        self._blocked.pop(key, None)
        self._announced.pop(key, None)
        self._joins.pop(key, None)
        self._outlook.forget(key)
        self._late.pop(key, None)
        self._failures.pop(key, None)
        self._resyncs.pop(key, None)
        self._reaped.forget_all(key)

    # what the loop asks

    def subjects(self, key: RegistrationKey) -> set[str]:
        """The subjects for which there is an outcome, or will be."""
        return self._tallies[key].subjects() if key in self._tallies else set()

    def outcome(self, key: RegistrationKey, connection: str, subject: str) -> Outcome | None:
        """The last outcome of a subject."""
        return self._tallies[key].outcome(connection, subject) if key in self._tallies else None

    def consuls(self, key: RegistrationKey) -> AbstractSet[str]:
        """The Consuls for which there are outcomes."""
        return self._tallies[key].connections() if key in self._tallies else frozenset()

    def tallies(self) -> Mapping[RegistrationKey, Tally]:
        """All tallies, for metrics."""
        return self._tallies

    def _tally(self, key: RegistrationKey) -> Tally:
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = Tally()
        return tally

    # writing

    async def run(self) -> None:
        """Write statuses until cancelled; each registration's at most once a second."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    key = await self._due.get()
                    await self._let_instances_first()
                    group.create_task(self._serve(key))
        finally:  # what a lost term cuts off, the next one must be able to serve
            self._busy.clear()

    async def _let_instances_first(self) -> None:
        """Wait while there is a crowd, once for each: one that lasts must not keep everything unsaid."""
        time = asyncio.get_running_loop().time
        if not self._crowded():
            self._crowd_is_over = None
        elif self._crowd_is_over is None:
            self._crowd_is_over = time() + _INSTANCES_FIRST
        while self._crowd_is_over is not None and time() < self._crowd_is_over and self._crowded():  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)

    async def _serve(self, key: RegistrationKey) -> None:
        with about(key):
            await self._serve_once(key)
        self._busy.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.touch(key)

    async def _serve_once(self, key: RegistrationKey) -> None:
        try:
            async with self._slots:
                await self._publish(key)
        except Exception as error:
            wait = self._put_off(key, error)
            logger.warning("status not written, trying again in %.1f s: %s", wait, error)
            self._again.add(key)
        else:
            wait = _SPACING
            self._failures.pop(key, None)
        await asyncio.sleep(wait)

    def _put_off(self, key: RegistrationKey, error: Exception) -> float:
        """Seconds until the next try: an API server that is short of time gets it."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        asked = error.after or 0.0 if isinstance(error, Throttled) else 0.0
        chance = random.random()  # noqa: S311 - spreads, keeps no secret
        return max(_SPACING, asked, delay(failures - _SOON, _SPACING, _LONGEST, chance))

    async def _publish(self, key: RegistrationKey) -> None:
        registration = self._cache.registrations.get(key)
        if registration is None or (registration.status and not self._may_speak(key)):
            return  # an outcome may have become awaited since its turn was asked for
        picture = self._picture(registration)
        wanted = status(picture, self._now())
        if wanted != registration.status:
            await self._publisher.write(registration, wanted)
            self._cache.note_status(key, registration.meta.uid, wanted)
        await self._announce(registration, wanted["conditions"][0])
        for name in registration.connections:
            await self._announce_foreign(registration, name, picture.foreign.get(name), told(wanted, name))
        for name in published(picture):
            self._outlook.look(registration, name)

    def _may_speak(self, key: RegistrationKey) -> bool:
        """Not before all outcomes, or why none come, are known; after a second status says that they are awaited."""
        known = key in self._complete and not self._awaited(key) and not self._is_connecting(key)
        if known or self._blocked.get(key) is not None:
            self._late.pop(key, None)
            return True
        if key not in self._late:
            self._late[key] = asyncio.get_running_loop().call_later(_SPACING, self._speak_anyway, key)
        return False

    def _awaited(self, key: RegistrationKey) -> int:
        return self._tallies[key].awaited if key in self._tallies else 0

    def _is_connecting(self, key: RegistrationKey) -> bool:
        registration = self._cache.registrations.get(key)
        reasons = (self._consuls.down(name) for name in (registration.connections if registration else ()))
        return any(reason is not None and reason.code == CONNECTING for reason in reasons)

    def _speak_anyway(self, key: RegistrationKey) -> None:
        registration = self._cache.registrations.get(key)
        if registration is not None and not registration.status and key not in self._busy:
            self._busy.add(key)
            self._due.put_nowait(key)

    def _picture(self, registration: Registration) -> Picture:
        key = registration.key
        down = {name: self._consuls.down(name) for name in registration.connections}
        tally = self._tally(key)
        return Picture(
            registration=registration,
            refused=self._acceptance.refusal(key),
            advice=advice(registration, self._by_esm(registration)),
            summary=tally.summary(),
            down={name: reason for name, reason in down.items() if reason is not None},
            policies={name: self._consuls.policy(name) for name in registration.connections},
            reaped=self._reaped.recorded(key, self._text),
            blocked=self._blocked.get(key),
            awaited=max(tally.awaited, key not in self._complete),
            resync=self.resynced(registration),
            lack=self._lack(registration),
            foreign=self._outlook.found(registration),
        )

    def _by_esm(self, registration: Registration) -> list[str]:
        """The Consuls in which consul-esm runs what checks a registration has."""
        terms = ((name, self._cache.terms(name)) for name in registration.connections)
        return [name for name, spec in terms if spec is not None and spec.mode == "Catalog"]

    def _lack(self, registration: Registration) -> Lack | None:
        source = source_of(registration)
        return lack(source, self._cache.services.published_by(registration)) if source else None

    async def _announce(self, registration: Registration, condition: Mapping[str, Any]) -> None:
        """An Event and a log line where Ready has changed to something lasting, also over a restart."""
        said = self._announced.get(registration.key) or says(registration.status)
        new = (condition["status"], condition["reason"])
        if new == said or condition["reason"] in _PASSING:
            return
        self._announced[registration.key] = new
        warning = condition["status"] == "False" or condition["reason"] in _WARNINGS
        reason = Reason(condition["reason"], condition["message"])
        logger.log(logging.WARNING if warning else logging.INFO, "%s: %s", reason.code, reason.message)
        await self._publisher.event(registration, reason, warning=warning)

    async def _announce_foreign(
        self, registration: Registration, name: str, found: Reason | None, new: tuple[str, str] | None
    ) -> None:
        """An Event and a log line where it has come to be said that something foreign is joined in a Consul."""
        said = self._joins.setdefault(registration.key, {})
        before = said[name] if name in said else told(registration.status, name)
        said[name] = new
        if found is None or new == before:
            return
        logger.warning("%s: %s", found.code, found.message)
        await self._publisher.event(registration, found, warning=True)
