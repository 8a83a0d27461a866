"""Decides when an agent is read, and what is read: its own lists, and what the catalog holds of its node.

Two blocking queries to the catalog, through the agent, tell that something has changed, services or checks; their
filters let nothing through, so that such an answer costs next to nothing. Then all is read: the agent's own lists,
which are the truth, and the catalog's rows, which are only compared with them (`drift.py`). Only after that the queries
wait on, from the indexes of that read: so no change is missed, and an agent is read a few times a second at most, less
often where our own writes go on, since each of them rings too. What is known is kept in `book.py`; whether the agent
may be written to is `session.py`'s decision. The lists that a session begins with aren't read a second time: the
catalog is compared with those.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

from consul_registrar.actual import Actual
from consul_registrar.backoff import Backoff
from consul_registrar.consul import wire
from consul_registrar.consul.answers import Answer, whole
from consul_registrar.consul.book import Book
from consul_registrar.consul.drift import Catalog
from consul_registrar.consul.errors import Misdirected, NotSent, asked
from consul_registrar.consul.identity import replaced, still_the_same
from consul_registrar.consul.transport import RETRY, Transport
from consul_registrar.consul.wire import Held, Identity
from consul_registrar.model import Key, Reason
from consul_registrar.together import together

T = TypeVar("T")

_NOTHING = (("filter", 'ID == ""'), ("filter", 'CheckID == ""'))
"""Filters that no service and no check passes."""

SPACING = 0.2
"""Seconds between two reads of one agent at least; five times what a read takes, where that is more, up to `SLOWEST`:
an agent that is slow to answer has no time to spare."""

SLOWEST = 2.0

OWN = 0.7
"""The same while our own writes go on. With `drift.SETTLE` it leaves what others spoil meanwhile wrong for two seconds
at most."""

WAIT = "60s"
"""How long a blocking query waits; also the time in which a connection that broke in silence is noticed."""

UNREACHABLE = "ConsulUnreachable"


@dataclass(frozen=True, slots=True)
class _Lists:
    """What an agent holds by a read that began at `began`: the IDs of all services, and what of them is ours."""

    began: int
    services: AbstractSet[str]
    ours: Sequence[Held]


class AgentWatch:
    """Reads one agent. `on_change` gets the keys that a read found changed; `on_servers` is told why the servers behind
    the agent don't answer, None when they do; `on_list` gets the IDs of all services that it holds.
    """

    def __init__(
        self,
        identity: Identity,
        book: Book,
        transport: Transport,
        actual: Actual,
        on_change: Callable[[AbstractSet[Key]], None],
        on_servers: Callable[[Reason | None], None],
        on_list: Callable[[AbstractSet[str]], None],
    ) -> None:
        self._identity = identity
        self._book = book
        self._transport = transport
        self._actual = actual
        self._on_change = on_change
        self._on_servers = on_servers
        self._on_list = on_list
        self._paths = _paths_of(book.node)
        self._lists: _Lists | None = None
        self._apart: AbstractSet[str] = frozenset()
        self._indexes = [0, 0]
        self._armed = (asyncio.Event(), asyncio.Event())
        self._rung = asyncio.Event()
        self._read_at = -math.inf
        self._wrote_at = -math.inf
        self._heard = [time.monotonic()] * 2
        self._spacing = SPACING
        self._unheard = Backoff(*RETRY, random.random)
        self._not_before = -math.inf

    def wake(self) -> None:
        """What is known may be wrong: read all of it soon."""
        self._lists = None
        self._rung.set()

    def wrote(self) -> None:
        """We wrote to the agent; the catalog will tell of it."""
        self._wrote_at = time.monotonic()

    @property
    def heard(self) -> float:
        """When that of the two queries was answered last which wasn't for longer; a read answers both."""
        return min(self._heard)

    async def run(self) -> None:
        """Read whenever there is news, until something fails. Raises the tree of `errors.py`."""
        self._rung.set()
        await together(*(self._bell(which) for which in range(len(self._paths))), self._refresh())

    # --- what ---

    async def begin(self) -> AbstractSet[Key]:
        """Read the agent's own lists, enough to begin with; returns what changed. `run` goes on from there."""
        at = time.monotonic()
        self._lists = lists = await self._own_lists()
        self._note_read(at)  # the catalog isn't urgent: what is new is written first
        return self._book.take(lists.ours, None, lists.began, self._read_at)

    async def _read(self) -> AbstractSet[Key]:
        at = time.monotonic()
        begun, self._lists = self._lists, None
        lists = begun or await self._own_lists()
        catalog = await self._catalog()
        if catalog:
            self._heed(catalog.services.keys() - lists.services)
        self._note_read(at)
        return self._book.take(lists.ours, catalog, lists.began, self._read_at)

    def _heed(self, apart: AbstractSet[str]) -> None:
        """What the catalog has and the agent's list, read before it, has not may have come in between: that rings
        nobody, so both are read again, once. What is leaving rings by itself; some things never leave.
        """
        if apart - self._apart:
            self._rung.set()
        self._apart = apart

    def _note_read(self, since: float) -> None:
        """A read that began at `since` is done: the next one keeps its distance."""
        self._read_at = time.monotonic()
        self._spacing = min(max(SPACING, 5 * (self._read_at - since)), SLOWEST)

    async def _own_lists(self) -> _Lists:
        book, began = self._book, self._actual.begin()
        services = await self._get("/v1/agent/services", wire.decode_services)
        checks = await self._get("/v1/agent/checks", wire.decode_checks)
        stranger = next((row.Node for row in checks.values() if row.Node != book.node), None)
        if stranger is not None:
            raise Misdirected(replaced(self._transport.endpoint, book.node, stranger))
        if book.misses(services.keys(), began):  # an agent that lost its data: what it lacks was removed by nobody
            await still_the_same(self._transport, self._identity)
        self._on_list(services.keys())
        return _Lists(began, services.keys(), book.reader.ours(services, checks))

    async def _get(self, path: str, decode: Callable[[Answer], T]) -> T:
        return decode(whole(path, await self._transport.get(_as_is, path)))

    async def _catalog(self) -> Catalog | None:
        """What the catalog holds, None where it has no leader to answer; the queries wait on from there."""
        try:
            services, checks = [whole(path, await self._transport.get(_as_is, path)) for path in self._paths]
        except NotSent as error:
            self._without_servers(error)
            self._indexes = [0, 0]
            self._not_before = time.monotonic() + max(self._unheard(), asked(error))
            return None
        else:
            self._unheard.reset()
            self._not_before = -math.inf
            self._indexes = [max(services.index, 1), max(checks.index, 1)]
            self._heard = [time.monotonic()] * 2
            return Catalog(wire.decode_node_services(services), wire.decode_node_checks(checks))
        finally:
            for armed in self._armed:
                armed.set()

    def _without_servers(self, error: NotSent) -> None:
        """Servers without a leader are waited for; an agent that is gone is not."""
        if error.reason.code == UNREACHABLE:
            raise error
        self._on_servers(error.reason)

    # --- when ---

    async def _bell(self, which: int) -> None:
        """One blocking query after the other. After a change it waits for the read that takes the change in."""
        backoff = Backoff(*RETRY, random.random)
        while True:
            await self._armed[which].wait()
            index, asked_at = self._indexes[which], time.monotonic()
            params = [("index", index), ("wait", WAIT), _NOTHING[which]]
            try:
                answer = await self._transport.get(_as_is, self._paths[which], params)
            except NotSent as error:
                self._without_servers(error)
                self._indexes[which] = 0
                await asyncio.sleep(max(backoff(), asked(error)))
                continue
            self._on_servers(None)
            backoff.reset()
            self._heard[which] = time.monotonic()
            if answer.index != index:
                self._armed[which].clear()
                self._rung.set()
            else:  # after `WAIT`, as a rule; but who answers at once isn't asked at once again
                await asyncio.sleep(asked_at + SPACING - time.monotonic())

    async def _refresh(self) -> None:
        while True:
            await self._due()
            changed = await self._read()
            if changed:
                self._on_change(changed)

    async def _due(self) -> None:
        """Until there is news, or until what looks wrong is due for another look. News during a read are not lost."""
        due = self._book.look_again_at()
        wait = None if due == math.inf else max(0.0, due - time.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._rung.wait()
        writing = time.monotonic() < self._wrote_at + OWN
        earliest = self._read_at + max(self._spacing, OWN if writing else 0.0)
        await asyncio.sleep(max(earliest, self._not_before) - time.monotonic())
        self._rung.clear()


def _paths_of(node: str) -> tuple[str, str]:
    name = quote(node, safe="")
    return f"/v1/catalog/node-services/{name}", f"/v1/health/node/{name}"


def _as_is(answer: Answer) -> Answer:
    return answer
