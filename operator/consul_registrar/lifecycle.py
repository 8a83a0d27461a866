"""A registration as a whole: its finalizer, then which subjects it has, and how it ends.

The finalizer comes first: what a registration without one leaves in Consul when it goes, nobody was asked to remove.
Decides when a deleted registration may go: when nothing of it stands in any Consul any more; a Consul that can't be
asked blocks that for a while, never for ever. That is looked at apart from its subjects, ever less often: whether one
may go must not hurry what failed and is put off. What happens to each subject is decided in `reconcile.py`.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

from consul_registrar.backoff import Backoff
from consul_registrar.cache import Cache
from consul_registrar.consuls import Consuls
from consul_registrar.exposure import subjects_of
from consul_registrar.gather import Gatherer
from consul_registrar.kube import KubeError
from consul_registrar.logs import about
from consul_registrar.model import Key, Reason, RegistrationKey
from consul_registrar.objects import FINALIZER, RESYNC, SKIP_DEREGISTRATION, Registration
from consul_registrar.queue import Ended, Queue
from consul_registrar.reports import Reports

logger = logging.getLogger(__name__)

#: Seconds after which a deleted registration lets go although its Consul can't be cleaned (design chapter 4).
LETS_GO_AFTER = 600.0
#: Seconds for which this process has tried by then: what was deleted while none ran has had no chance yet.
_TRIES = 60.0
_LOOKS_AGAIN = (0.3, 5.0)  # seconds between two looks whether one may go; with the last of its instances it does
_AT_ONCE = 8  # registrations whose end is seen to at a time
_READS_ANEW = 30.0  # seconds; a read that takes longer is begun again
_IS_FORGOTTEN = 30.0  # seconds between two looks whether all that it left is gone; that may be held for long


class Finalizers(Protocol):
    """Adds and removes our finalizer. They raise KubeError where the API server doesn't do it.

    `add` says whether it stands now: it does not where the registration is gone, or going.
    """

    async def add(self, registration: Registration) -> bool: ...
    async def remove(self, registration: Registration) -> None: ...


@dataclass(slots=True)
class _Departure:
    """A registration on its way out. `since`: when this process began to clean up after it."""

    since: float
    patience: Backoff = field(default_factory=lambda: Backoff(*_LOOKS_AGAIN, random.random))


class Lifecycle:
    """Takes care of registrations as a whole."""

    def __init__(
        self,
        cache: Cache,
        consuls: Consuls,
        queue: Queue[Key],
        reports: Reports,
        finalizers: Finalizers,
        gatherer: Gatherer,
        age: Callable[[str], float],
        clock: Callable[[], float],
        doubt: Callable[[], None],
    ) -> None:
        self._cache = cache
        self._consuls = consuls
        self._queue = queue
        self._reports = reports
        self._finalizers = finalizers
        self._gatherer = gatherer
        self._age = age
        self._clock = clock
        self._doubt = doubt
        self._leaving: Queue[RegistrationKey] = Queue()
        self._departures: dict[RegistrationKey, _Departure] = {}

    async def run(self) -> None:
        """See to the end of those that are deleted, until cancelled."""
        await self._leaving.run(self._see_off, _AT_ONCE)

    def begin_term(self) -> None:
        """This process leads from now on: what it couldn't clean in an earlier term it hasn't tried in this one."""
        self._departures.clear()

    async def reconcile(self, key: RegistrationKey) -> Ended:
        """Put its subjects on the queue and see to its beginning and its end. Never raises."""
        with about(key):
            try:
                await self._pass(key)
            except Exception as error:
                delay = self._queue.retry(Key(key))
                logger.warning("trying again in %.1f s: %s: %s", delay, type(error).__name__, error)
                return Ended.ERROR
            self._queue.forget(Key(key))
            return Ended.SUCCESS

    def look(self, key: RegistrationKey) -> None:
        """Put its subjects on the queue, and no more: what a process does that doesn't lead."""
        registration = self._cache.registrations.get(key)
        self._expand(key, registration)
        if registration is None:
            self._forget(key)

    async def _pass(self, key: RegistrationKey) -> None:
        try:
            await self._hold(self._cache.registrations.get(key))
        finally:
            self.look(key)
        registration = self._cache.registrations.get(key)
        if registration is None or not registration.deleting:
            self._departures.pop(key, None)
        if registration is None:
            return
        if registration.deleting:
            self._leaving.add(key)
        self._reports.touch(key)
        if not registration.deleting and registration.resync not in {"", self._reports.resynced(registration)}:
            await self._read_anew(registration)

    async def _hold(self, registration: Registration | None) -> None:
        """See that our finalizer stands, without which nothing new is written (`reconcile.py`)."""
        if registration is None or registration.deleting:
            return
        if not registration.held:
            await self._add_finalizer(registration)
        self._reports.block(registration.key, None)

    async def _add_finalizer(self, registration: Registration) -> None:
        key, meta = registration.key, registration.meta
        try:
            stands = await self._finalizers.add(registration)
        except KubeError as error:
            message = f"without the finalizer {FINALIZER} nothing is registered, and it can't be added: {error}"
            self._reports.block(key, Reason("FinalizerNotAdded", message))
            raise
        if stands:
            self._cache.note_finalizers(key, meta.uid, (*meta.finalizers, FINALIZER))

    async def _read_anew(self, registration: Registration) -> None:
        """As somebody asks by an annotation: what its Consuls hold and, a little later, what the cluster has."""
        logger.info("reading all of it anew, as the annotation %s=%s asks", RESYNC, registration.resync)
        async with asyncio.timeout(_READS_ANEW):
            await self._consuls.reread(registration.connections)
        self._doubt()  # not before: a Consul that can't be read has this tried again and again
        self._reports.resync(registration.key, registration.resync)
        self._expand(registration.key, registration)

    def _expand(self, key: RegistrationKey, registration: Registration | None) -> None:
        """Each subject that it has, wants or had. What doesn't stand yet, or stands and isn't wanted, goes first."""
        standing = self._consuls.subjects(key)
        wanted = self._wanted(key, registration)
        connections = registration.connections if registration else ()
        for subject in standing if registration and registration.deleting else wanted:
            for name in connections:
                self._reports.expect(key, name, subject)
        self._reports.complete(key)
        routine = (wanted & standing) | self._reports.subjects(key)
        if connections and all(self._consuls.is_connecting(name) for name in connections):
            wanted = routine = set()  # nothing could be done; all are looked at once that is over
        for subject in wanted ^ standing:
            self._queue.add(Key(key, subject))
        for subject in routine:
            self._queue.add_routine(Key(key, subject))

    def _wanted(self, key: RegistrationKey, registration: Registration | None) -> AbstractSet[str]:
        """The subjects that it is to have: a deleted one none."""
        if registration is not None and registration.deleting:
            return frozenset()
        return self._cache.selected(key) | _endpoints(registration) | subjects_of(registration, self._cache.services)

    def _forget(self, key: RegistrationKey) -> None:
        """Once nothing of it is left; until then its subjects are still being removed."""
        if self._consuls.subjects(key):
            self._queue.add_after(Key(key), _IS_FORGOTTEN)
        else:
            self._reports.forget(key)
            self._gatherer.forget(key)

    async def _see_off(self, key: RegistrationKey) -> None:
        """Let it go if it can, else look again later. Never raises."""
        registration = self._cache.registrations.get(key)
        if registration is None or not registration.deleting:
            return
        departure = self._departures.setdefault(key, _Departure(self._clock()))
        with about(key):
            try:
                goes = await self._depart(registration, departure.since)
            except Exception as error:
                goes = False
                logger.warning("it can't be let go, which is tried again: %s: %s", type(error).__name__, error)
        if not goes:
            self._leaving.add_after(key, departure.patience())

    async def _depart(self, registration: Registration, since: float) -> bool:
        """Whether it needs no further look. `since`: when this process began to clean up after it."""
        if not registration.held:
            return True
        if await self._gatherer.swept_along(registration):
            logger.warning("its definition is deleted: letting go; removing what it registered is up to the quarantine")
            return await self._let_go(registration)
        obstacle = await self._consuls.obstacle(registration.key, registration.connections)
        if obstacle is not None:
            if SKIP_DEREGISTRATION not in registration.meta.annotations and not self._overdue(registration, since):
                blocks = obstacle.code == "DeregistrationBlocked"
                self._reports.block(registration.key, obstacle if blocks else None)
                return False
            logger.warning("letting go although Consul was not cleaned: %s", obstacle.message)
        return await self._let_go(registration)

    async def _let_go(self, registration: Registration) -> bool:
        meta = registration.meta
        await self._finalizers.remove(registration)
        left = tuple(name for name in meta.finalizers if name != FINALIZER)
        self._cache.note_finalizers(registration.key, meta.uid, left)
        return True

    def _overdue(self, registration: Registration, since: float) -> bool:
        return self._age(registration.meta.deleted) > LETS_GO_AFTER and self._clock() - since > _TRIES


def _endpoints(registration: Registration | None) -> set[str]:
    if registration is None or isinstance(registration.spec, Reason):
        return set()
    return {endpoint.name for endpoint in registration.spec.endpoints or ()}
