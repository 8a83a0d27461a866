"""Decides when an agent is read, and what is read: its own lists, and what the catalog holds of its node.

Two blocking queries to the catalog, through the agent, tell when to read the agent's own lists again; these are the
truth, the catalog's rows are only compared with them (`drift.py`). What is known is kept in `book.py`; whether the
agent may be written to is `session.py`'s decision.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import TypeVar
from urllib.parse import quote

from consul_registrar.actual import Actual
from consul_registrar.backoff import Backoff
from consul_registrar.consul import wire
from consul_registrar.consul.answers import Answer, next_index, whole
from consul_registrar.consul.book import Book
from consul_registrar.consul.drift import Catalog
from consul_registrar.consul.errors import ConsulError, Misdirected, NotSent
from consul_registrar.consul.identity import replaced, still_the_same
from consul_registrar.consul.transport import RETRY, Transport
from consul_registrar.consul.wire import CheckRow, Identity, ServiceRow
from consul_registrar.model import Key, Reason

T = TypeVar("T")

SPACING = 0.2
"""Seconds between two reads of one agent at least."""

WAIT = "60s"
"""How long a blocking query waits; also the time in which a connection that broke in silence is noticed."""

UNREACHABLE = "ConsulUnreachable"


class AgentWatch:
    """Reads one agent. `on_change` gets the keys that a read found changed; `on_servers` is told why the servers behind
    the agent don't answer, None when they do.
    """

    def __init__(
        self,
        identity: Identity,
        book: Book,
        transport: Transport,
        actual: Actual,
        on_change: Callable[[AbstractSet[Key]], None],
        on_servers: Callable[[Reason | None], None],
    ) -> None:
        self._identity = identity
        self._book = book
        self._transport = transport
        self._actual = actual
        self._on_change = on_change
        self._on_servers = on_servers
        self._wake = asyncio.Event()
        self._services: Mapping[str, ServiceRow] | None = None
        self._checks: Mapping[str, CheckRow] | None = None

    def wake(self) -> None:
        """What is known may be wrong: read it soon."""
        self._wake.set()

    async def run(self) -> None:
        """Read whenever there is news, until something fails. Raises the tree of `errors.py`."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(self._services_path(), self._take_services))
                group.create_task(self._follow(self._checks_path(), self._take_checks))
                group.create_task(self._refresh())
        except ExceptionGroup as group_error:
            known, unknown = group_error.split(ConsulError)
            raise (unknown or known or group_error).exceptions[0] from group_error

    async def read(self) -> AbstractSet[Key]:
        """Read the agent's lists completely, and the catalog afresh where that is due; returns what changed."""
        book = self._book
        began = self._actual.begin()
        services = await self._get("/v1/agent/services", wire.decode_services)
        checks = await self._get("/v1/agent/checks", wire.decode_checks)
        stranger = next((row.Node for row in checks.values() if row.Node != book.node), None)
        if stranger is not None:
            raise Misdirected(replaced(self._transport.endpoint, book.node, stranger))
        if book.misses(services.keys()):  # an agent that lost its data: what it lacks was not removed by anybody
            await still_the_same(self._transport, self._identity)
        fresh = book.look_again_at() <= time.monotonic() and await self._look_afresh()
        return book.take(book.reader.ours(services, checks), self._catalog(), began, time.monotonic(), fresh=fresh)

    async def _get(self, path: str, decode: Callable[[Answer], T]) -> T:
        return decode(whole(path, await self._transport.get(_as_is, path)))

    def _catalog(self) -> Catalog | None:
        if self._services is None or self._checks is None:
            return None
        return Catalog(self._services, self._checks)

    async def _look_afresh(self) -> bool:
        """Read the catalog without waiting; False where it has no leader to answer."""
        try:
            self._services = await self._get(self._services_path(), wire.decode_node_services)
            self._checks = await self._get(self._checks_path(), wire.decode_node_checks)
        except NotSent as error:
            if error.reason.code == UNREACHABLE:
                raise
            return False
        return True

    def _services_path(self) -> str:
        return f"/v1/catalog/node-services/{quote(self._book.node, safe='')}"

    def _checks_path(self) -> str:
        return f"/v1/health/node/{quote(self._book.node, safe='')}"

    # --- when it is read again ---

    def _take_services(self, answer: Answer) -> None:
        self._services = wire.decode_node_services(answer)

    def _take_checks(self, answer: Answer) -> None:
        self._checks = wire.decode_node_checks(answer)

    async def _follow(self, path: str, take: Callable[[Answer], None]) -> None:
        """One blocking query after the other. Servers without a leader are waited for; an agent that is gone is not."""
        index, backoff = 0, Backoff(*RETRY, random.random)
        while True:
            try:
                params = [("index", index), ("wait", WAIT)] if index else []
                answer = await self._transport.get(_as_is, path, params)
            except NotSent as error:
                if error.reason.code == UNREACHABLE:
                    raise
                self._on_servers(error.reason)
                index = 0
                await asyncio.sleep(backoff())
                continue
            self._on_servers(None)
            backoff.reset()
            if answer.index != index or not index:
                take(whole(path, answer))
                self._wake.set()
            index = next_index(index, answer.index)
            await asyncio.sleep(SPACING)

    async def _refresh(self) -> None:
        while True:
            await self._woken()
            began = time.monotonic()
            changed = await self.read()
            if changed:
                self._on_change(changed)
            took = time.monotonic() - began
            await asyncio.sleep(min(max(SPACING, 5 * took), 2.0))

    async def _woken(self) -> None:
        """Until there is news, or until what looks wrong is due for a fresh look. News during a read are not lost."""
        due = self._book.look_again_at()
        wait = None if due == math.inf else max(0.0, due - time.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._wake.wait()
        self._wake.clear()


def _as_is(answer: Answer) -> Answer:
    return answer
