"""Group commit: what goes to one Consul leaves at once when nothing is in flight, else with the next batch.

    nothing in flight ──what waits──> in flight ──a full batch waits, and there is room──> in flight, side by side

Decides what is sent together and in which order; nothing waits on a timer. What to send is decided before, and for what
may be wrong by the time of its turn once more then; how it is sent is the registry's matter. The order of one
instance's changes is kept: what follows one that is in flight waits for its answer. A Consul that pushes back, doesn't
answer or has no leader is left alone by all for a while, not only by those whom it has refused; then one change tries
for all of them.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain

from consul_registrar import metrics, tracing
from consul_registrar.audit import Audit
from consul_registrar.backoff import Backoff
from consul_registrar.changes import Change
from consul_registrar.consul.errors import (
    ConsulError,
    NotSent,
    OutcomeUnknown,
    Overtaken,
    Throttled,
    Unavailable,
    asked,
)
from consul_registrar.consul.registry import Registry
from consul_registrar.model import Reason
from consul_registrar.values import record

_STOPPING = Reason("Stopping", "the operator stops")
_OVERTAKEN = Reason("Overtaken", "what it was decided on has changed before its turn came: it is decided anew")

#: Seconds for which a Consul is left alone that doesn't say for how long: at first, and at most.
_LEFT_ALONE = (0.5, 5.0)

#: What all others would meet, too.
_TROUBLE = (Throttled, Unavailable)

#: How many wait for one that is left alone; the others come back later, and leave those be who go to another Consul.
_CROWD = 512

#: Whether a change is still wanted. Asked when its turn has come, before it leaves the lane; must not raise.
Still = Callable[[], bool]

logger = logging.getLogger(__name__)


@record(frozen=True, slots=True)
class _Waiting:
    change: Change
    done: asyncio.Future[ConsulError | None]
    still: Still
    span: tracing.Span | None


_Flight = asyncio.Task[list[ConsulError | None]]


def always() -> bool:
    """For what is right however late it is sent."""
    return True


class Lane:
    """The writes to one Consul node, or to several that are written to together. `emptied` is called when nothing is
    in flight any more, and nothing waits.
    """

    def __init__(
        self, registry: Registry, node: str, audit: Audit, emptied: Callable[[], object] = lambda: None
    ) -> None:
        self._registry = registry
        self._node = node
        self._audit = audit
        self._emptied = emptied
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._depth = 0
        self._flights: dict[_Flight, list[_Waiting]] = {}
        self._news = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._patience = Backoff(*_LEFT_ALONE, random.random)
        self._trouble: ConsulError | None = None

    async def write(self, change: Change, still: Still = always) -> None:
        """Write one change; returns when Consul has acknowledged it. Raises the ConsulError that it met, or that
        keeps a crowd waiting already.
        """
        if self._trouble is not None and self._depth >= _CROWD:
            raise self._trouble.with_traceback(None)
        done: asyncio.Future[ConsulError | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(change.node, deque()).append(_Waiting(change, done, still, tracing.asked(change)))
        self._depth += 1
        if self._depth >= self._registry.batch:
            self._news.set()
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())
        error = await done
        if error is not None:
            raise error.with_traceback(None)  # many share one: it must not grow by the frames of each

    async def stop(self) -> None:
        """Send nothing more; returns when nothing is in flight. Those who wait are told."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)

    async def _send(self) -> None:
        try:
            while self._waiting or self._flights:
                self._launch()
                if self._flights:
                    self._news.clear()
                    await self._news.wait()
                    await self._land()
        finally:
            try:
                await self._abort()
            finally:  # also where whoever wants it to end loses patience
                self._sender = None
                self._abandon()
                self._emptied()

    async def _abort(self) -> None:
        """End what is in flight; returns when nothing is."""
        for flight in self._flights:
            flight.cancel()
        await asyncio.gather(*self._flights, return_exceptions=True)

    def _launch(self) -> None:
        """Let leave what may: all, where nothing is in flight; beside others only where a full batch waits."""
        alone = not self._flights
        while (room := self._room(alone=alone)) and (batch := self._next_batch(room)):
            if wanted := [waiting for waiting in batch if _is_wanted(waiting)]:
                flight = asyncio.create_task(self._commit(wanted))
                flight.add_done_callback(lambda _: self._news.set())
                self._flights[flight] = wanted

    def _room(self, *, alone: bool) -> int:
        """How many may leave together now."""
        if self._trouble is not None:
            return 0 if self._flights else 1
        free = self._registry.room - sum(map(len, self._flights.values()))
        full = self._registry.batch
        if alone:
            return min(free, full)
        return full if min(free, self._depth) >= full else 0

    def _next_batch(self, limit: int) -> list[_Waiting]:
        """Who waits longest, and all that goes to the same node; so on until it is full. Each node in its turn.

        Whoever watches a node is woken by each batch that touches it: so a batch touches few.
        """
        flying = {waiting.change.id for waiting in chain.from_iterable(self._flights.values())}
        batch: list[_Waiting] = []
        for node in list(self._waiting):
            if len(batch) >= limit:
                break
            waiting, held = self._waiting.pop(node), list[_Waiting]()
            while waiting and len(batch) < limit:
                first = waiting.popleft()
                (held if first.change.id in flying else batch).append(first)
            waiting.extendleft(reversed(held))
            if waiting:
                self._waiting[node] = waiting
        self._depth -= len(batch)
        return batch

    async def _land(self) -> None:
        """Take in the answers that have come; where all of them are trouble, those that are still to come, too."""
        outcomes = self._taken_in([flight for flight in self._flights if flight.done()])
        if outcomes and all(isinstance(error, _TROUBLE) for error in outcomes):
            await asyncio.gather(*self._flights, return_exceptions=True)
            outcomes += self._taken_in(list(self._flights))
        if outcomes:
            await self._leave_alone(outcomes)

    def _taken_in(self, flights: Sequence[_Flight]) -> list[ConsulError | None]:
        """They aren't in flight any more. One that others have cancelled says nothing."""
        for flight in flights:
            del self._flights[flight]
        return [outcome for flight in flights if not flight.cancelled() for outcome in flight.result()]

    async def _leave_alone(self, outcomes: Sequence[ConsulError | None]) -> None:
        """Where all that has just landed met what others would meet: as long as was asked for, else ever longer."""
        met = [error for error in outcomes if isinstance(error, _TROUBLE)]
        if len(met) < len(outcomes):
            self._trouble = None
            self._patience.reset()
            return
        self._trouble = met[0]
        self._turn_away(self._trouble)
        await asyncio.sleep(max(*map(asked, met), self._patience()))

    def _turn_away(self, error: ConsulError) -> None:
        """Those who came last, down to a crowd."""
        while self._depth > _CROWD:
            node, waiting = next(reversed(self._waiting.items()))
            _tell(waiting.pop(), error)
            self._depth -= 1
            if not waiting:
                del self._waiting[node]

    async def _commit(self, batch: list[_Waiting]) -> list[ConsulError | None]:
        """One outcome each, whatever happens: somebody waits for every change."""
        unknown = OutcomeUnknown(Reason("Interrupted", "the write was interrupted; what became of it is read back"))
        outcomes: list[ConsulError | None] = [unknown] * len(batch)
        try:
            sending = self._registry.apply(self._node, [waiting.change for waiting in batch])
            answers = await tracing.writing(sending, self._registry.name, self._node, batch)
            outcomes = [answer for answer, _ in zip(answers, batch, strict=True)]
        except Exception:
            logger.exception("writing to Consul node %s failed unexpectedly", self._node)
        finally:
            self._answer(batch, outcomes)
        return outcomes

    def _answer(self, batch: list[_Waiting], outcomes: list[ConsulError | None]) -> None:
        metrics.batch_size.observe(len(batch))
        for waiting, outcome in zip(batch, outcomes, strict=True):
            self._audit.record(waiting.change, outcome, len(batch))
            _tell(waiting, outcome)

    def _abandon(self) -> None:
        """On the way out: nobody shall wait for what will not be sent."""
        for waiting in chain(*self._flights.values(), *self._waiting.values()):  # who was sent knows more already
            _tell(waiting, NotSent(_STOPPING))
        self._flights.clear()
        self._waiting.clear()
        self._depth = 0


def _is_wanted(waiting: _Waiting) -> bool:
    """Whether it is to be sent; else whoever waits for it is told."""
    if waiting.still():
        return True
    _tell(waiting, Overtaken(_OVERTAKEN))
    return False


def _tell(waiting: _Waiting, outcome: ConsulError | None) -> None:
    if not waiting.done.done():
        waiting.done.set_result(outcome)


class Lanes:
    """The lanes of a registry: those in which there is something."""

    def __init__(self, registry: Registry, audit: Audit) -> None:
        self._lane_of = registry.lane
        self._make: Callable[[str], Lane] = lambda node: Lane(registry, node, audit, lambda: self._lanes.pop(node))
        self._lanes: dict[str, Lane] = {}

    async def stop(self) -> None:
        """Send nothing more, to any node; returns when nothing is in flight."""
        await asyncio.gather(*(lane.stop() for lane in self._lanes.values()))

    async def write(self, change: Change, still: Still = always) -> None:
        """Write one change through its lane. Raises the ConsulError that it met."""
        name = self._lane_of(change.node)
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = self._make(name)
        await lane.write(change, still)
