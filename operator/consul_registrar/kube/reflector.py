"""Keeps a store true to one collection of the API server: list, watch for ever, list again when it must.

    ended by                                       then
    the server, in order; a broken connection      resume from the last version seen, unless the server is behind it
    410, silence, undecodable data, a bug          list again
    `FRUITLESS` attempts in a row without news     list again: the version may be of another history
    a stale list                                   list again; `intake.py` decides when to believe it
    `doubt`: somebody has read otherwise           list again
    `resync` seconds since the last list           list again: what an event didn't tell can't go unnoticed for ever

Nothing ends it but cancellation, and every round waits, from 0.1 to 10 s: a server that answers and hangs up at once is
not hammered. What reaches the store is decided in `intake.py`; what follows from it, elsewhere.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from consul_registrar.backoff import Backoff
from consul_registrar.kube.client import KubeClient
from consul_registrar.kube.codec import Bookmark, Codec, Deleted, Event, Put, Versioned
from consul_registrar.kube.errors import Gone, KubeError, Silent, Throttled
from consul_registrar.kube.intake import Intake, StaleList, Store
from consul_registrar.kube.listing import PAGE, complete_list

_log = logging.getLogger(__name__)

T = TypeVar("T", bound=Versioned)

FRUITLESS = 5
#: Seconds after which a round counts as good even if nothing happened in it.
_LASTED = 10.0
#: Seconds between complete lists while all is well; each costs a fifth of a second of CPU for 2,000 Pods.
RESYNC = 600.0
#: Seconds between two doubts that are heeded, at first and at most: each costs a list, and one that the list before
#: didn't settle, as where another `--pod-selector` left instances behind, would cost one for ever.
_DOUBTS = (10.0, 60.0)
#: Seconds without any doubt after which the next one is a first one.
_SETTLED = 120.0


class Reflector(Generic[T]):
    """One collection. `selector` is applied by the API server; what leaves it `vanished`, unless it is terminating."""

    def __init__(
        self,
        client: KubeClient,
        path: str,
        codec: Codec[T],
        store: Store[T],
        *,
        selector: str = "",
        limit: int = PAGE,
        resync: float = RESYNC,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.synced = asyncio.Event()
        self._client = client
        self._path = path
        self._codec = codec
        self._intake = Intake(store, selective=bool(selector))
        self._selector = selector
        self._limit = limit
        self._resync = resync
        self._clock = clock
        self._heard = self._listed = clock()
        self._version = 0
        self._fruitless = 0
        self._backoff = Backoff(0.1, 10.0, random.random)
        self._watching: asyncio.Timeout | None = None
        self._doubts = Backoff(*_DOUBTS, lambda: 1.0)
        self._may_doubt_at = 0.0
        self._doubted = 0.0

    def staleness(self) -> float:
        """Seconds since the last event, bookmark or complete list; from the start where there was none."""
        return self._clock() - self._heard

    def doubt(self) -> None:
        """A fresh read has contradicted what was delivered: list again soon."""
        now = self._clock()
        if now - self._doubted > _SETTLED:
            self._doubts.reset()
        self._doubted = now
        if self._watching is None or self._watching.expired() or now < self._may_doubt_at:
            return
        _log.info("%s: what was delivered is in doubt, listing again", self._path)
        self._may_doubt_at = now + self._doubts()
        self._watching.reschedule(0)

    async def run(self) -> None:
        """List and watch for ever; returns only when cancelled."""
        while True:
            began, patience = self._clock(), 0.0
            try:
                await self._round()
            except KubeError as error:
                patience = self._after(error)
            except StaleList as error:
                _log.warning("%s: %s", self._path, error)
            except Exception:
                _log.exception("%s: listing again after an unexpected error", self._path)
                self._version = 0
            if self._clock() - began > _LASTED:
                self._fruitful()
            await asyncio.sleep(max(patience, self._backoff()))

    async def _round(self) -> None:
        """List where it must, then watch until the stream ends."""
        self._fruitless += 1
        if not self._version or self._fruitless > FRUITLESS:
            await self._list()
        else:
            await self._see_history()
        try:
            async with asyncio.timeout(max(0.0, self._listed + self._resync - self._clock())) as self._watching:
                await self._watch()
        except TimeoutError:
            self._version = 0
        finally:
            self._watching = None

    async def _watch(self) -> None:
        async with self._client.watch(self._path, str(self._version), selector=self._selector) as lines:
            async for line in lines:
                self._hear(line)

    async def _list(self) -> None:
        self._version = 0
        self._version = await complete_list(
            self._client, [self._path], self._codec, self._intake, selector=self._selector, limit=self._limit
        )
        self._heard = self._listed = self._clock()
        self._fruitless = 0
        self.synced.set()

    async def _see_history(self) -> None:
        """Raise StaleList where the server is behind what was seen: its etcd was restored from a backup.

        A watch from a version to come would wait for it in silence, and never tell what the backup lacks.
        """
        page = self._codec.page(await self._client.list_page(self._path, limit=1, selector=self._selector))
        if page.version < self._version:
            behind, self._version = self._version, 0
            raise StaleList(f"the server is at version {page.version}, and {behind} was seen before")

    def _hear(self, line: bytes) -> None:
        event = self._codec.event(line)
        if isinstance(event, KubeError):
            raise event
        if event is None:
            _log.warning("%s: the watch sent an event of an unknown type, which is ignored", self._path)
            return
        self._intake.take(event)
        self._heard = self._clock()
        version = _version_after(event)
        if version > self._version:
            self._version = version
            self._fruitful()

    def _fruitful(self) -> None:
        self._fruitless = 0
        self._backoff.reset()

    def _after(self, error: KubeError) -> float:
        """What an error means for the next round; returns the seconds that the server asked us to wait."""
        if isinstance(error, Gone | Silent):
            self._version = 0
        _log.log(logging.DEBUG if isinstance(error, Gone) else logging.WARNING, "%s: %s", self._path, error)
        return error.after or 0.0 if isinstance(error, Throttled) else 0.0


def _version_after(event: Event[T]) -> int:
    match event:
        case Put(obj):
            return obj.version
        case Deleted(version=version) | Bookmark(version=version):
            return version
