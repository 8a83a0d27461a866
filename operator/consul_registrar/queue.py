"""A work queue with client-go's semantics: coalescing, one worker a key, backoff per key.

Decides when a key is worked on, never what that means. A key that is added while it is being worked on is worked on
once more afterwards (dirty and processing sets, client-go util/workqueue). News go before routine: what is only looked
at again, since a process has started or a Consul has come back, waits until nothing else does (as controller-runtime's
priority queue has it). Time comes from the event loop.
"""

import asyncio
import heapq
import itertools
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from consul_registrar.backoff import delay
from consul_registrar.together import is_cancelled

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

_FIRST_DELAY = 0.05
_LONGEST_DELAY = 60.0
_IN_A_ROW = 64


def _unmeasured(_seconds: float) -> None:
    pass


class Ended(StrEnum):
    """What became of the work on a key, in controller-runtime's words."""

    SUCCESS = "success"
    ERROR = "error"
    REQUEUE_AFTER = "requeue_after"


@dataclass(frozen=True, slots=True)
class Numbers:
    """How a queue is: `depth` keys are ready, so many were ever added and retried; the last two in seconds."""

    depth: int = 0
    adds: int = 0
    retries: int = 0
    unfinished: float = 0.0
    """For how long the keys that are being worked on have been, all together."""
    longest: float = 0.0
    """The longest of these."""


class Queue(Generic[K]):
    """Keys to work on. `waited` is told how many seconds each was ready before its turn, `worked` how many it took."""

    def __init__(
        self,
        jitter: Callable[[], float] = random.random,
        waited: Callable[[float], object] = _unmeasured,
        worked: Callable[[float], object] = _unmeasured,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ready: OrderedDict[K, float] = OrderedDict()
        self._routine: OrderedDict[K, float] = OrderedDict()
        self._processing: dict[K, float] = {}
        self._waited = waited
        self._worked = worked
        self._clock = clock
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._counter = itertools.count()
        self._wake = asyncio.Event()
        self._jitter = jitter
        self._adds = 0
        self._retries = 0

    def __len__(self) -> int:
        return len(self._ready) + len(self._routine)

    @property
    def unfinished(self) -> int:
        """How many keys are ready or being worked on."""
        return len(self) + len(self._processing)

    @property
    def idle(self) -> bool:
        """Whether nothing is ready or being worked on; what waits for later doesn't count."""
        return not len(self) and not self._processing

    def numbers(self) -> Numbers:
        """How it is now."""
        now = self._clock()
        since = [now - began for began in self._processing.values()]
        return Numbers(len(self), self._adds, self._retries, sum(since), max(since, default=0.0))

    def add(self, key: K) -> None:
        """Work on the key as soon as possible."""
        self._adds += 1
        if key in self._processing:
            self._again.add(key)
        else:
            since = self._routine.pop(key, None)
            self._ready.setdefault(key, self._clock() if since is None else since)
            self._wake.set()

    def add_routine(self, key: K) -> None:
        """Work on the key once there are no news to work on: nothing is known to have changed for it."""
        self._adds += 1
        if key in self._processing:
            self._again.add(key)
        elif key not in self._ready:
            self._routine.setdefault(key, self._clock())
            self._wake.set()

    def add_after(self, key: K, delay: float) -> None:
        """Work on the key in `delay` seconds at the latest; an earlier date that it has already stands."""
        due = asyncio.get_running_loop().time() + delay
        if self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._later, (due, next(self._counter), key))
        self._wake.set()

    def retry(self, key: K, at_least: float = 0.0) -> float:
        """Work on the key again after a backoff that grows with each failure; how many seconds that is."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self._retries += 1
        wait = max(at_least, delay(failures, _FIRST_DELAY, _LONGEST_DELAY, self._jitter()))
        self.add_after(key, wait)
        return wait

    def forget(self, key: K) -> None:
        """The key is well: its next failure is its first."""
        self._failures.pop(key, None)

    def clear(self) -> list[K]:
        """Take away what is ready, and return it: it needs not be worked on, as it is."""
        left = [*self._ready, *self._routine]
        self._ready.clear()
        self._routine.clear()
        return left

    async def run(self, work: Callable[[K], Awaitable[object]], limit: int) -> None:
        """Work on keys as they come, up to `limit` at a time, until cancelled. What `work` raises stays its key's.

        Of many, so many are begun in a row before the event loop has its turn. Keys that are cut off are ready again.
        """
        slots = asyncio.Semaphore(limit)
        try:
            async with asyncio.TaskGroup() as group:
                for begun in itertools.count(1):
                    await slots.acquire()
                    key = await self._next()
                    group.create_task(self._one(key, work, slots))
                    if not begun % _IN_A_ROW:
                        await asyncio.sleep(0)
        finally:
            self._ready.update(dict.fromkeys(self._processing, self._clock()))
            self._processing.clear()
            self._again.clear()

    async def _one(self, key: K, work: Callable[[K], Awaitable[object]], slots: asyncio.Semaphore) -> None:
        try:
            await work(key)
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            self.retry(key)  # what it waited for was given up
        except Exception:
            wait = self.retry(key)
            logger.exception("working on %s failed unexpectedly, trying again in %.1f s", key, wait)
        slots.release()
        now = self._clock()
        self._worked(now - self._processing.pop(key, now))
        if key in self._again:
            self._again.discard(key)
            self._ready[key] = now
            self._wake.set()

    async def _next(self) -> K:
        while True:
            pause = self._promote()
            if not self._ready and self._routine:
                await asyncio.sleep(0)  # whatever has happened meanwhile may bring news
            if self._ready or self._routine:
                key, since = (self._ready or self._routine).popitem(last=False)
                self._processing[key] = now = self._clock()
                self._waited(now - since)
                return key
            self._wake.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _promote(self) -> float | None:
        """Make ready what is due; seconds until the next date, None without one."""
        now = asyncio.get_running_loop().time()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
        return self._later[0][0] - now if self._later else None
