"""An agent's own lists are read once to begin with; the catalog is compared with them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest

from consul_registrar.actual import Actual
from consul_registrar.consul.agent_watch import AgentWatch
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.book import Book
from consul_registrar.consul.transport import Transport
from consul_registrar.consul.wire import Identity, Reader

LISTS = "/v1/agent/services"
CATALOG = "/v1/health/node/node-1"
SERVICES = "/v1/catalog/node-services/node-1"
ROW = {"ID": "web-1", "Service": "web"}


class Scripted:
    """An agent without services; `catalog`: what the servers hold of its node. Blocking queries are never answered."""

    def __init__(self, catalog: Sequence[object]) -> None:
        self.asked: list[str] = []
        self.waiting = asyncio.Semaphore(0)
        self._bodies: dict[str, object] = {SERVICES: {"Services": catalog}}

    async def get(self, callback: Callable[[Answer], Any], path: str, params: Sequence[tuple[str, object]] = ()) -> Any:
        if params:
            self.waiting.release()
            await asyncio.Event().wait()
        self.asked.append(path)
        return callback(Answer(200, {"X-Consul-Index": "7"}, json.dumps(self._bodies.get(path)).encode()))


def watched(agent: Scripted) -> tuple[AgentWatch, Actual]:
    actual = Actual("tests", "default")
    book = Book("node-1", Reader("node-1", "tests", "default"), actual, {})
    identity = Identity("node-1", "id", "dc1", "1.22.7")
    return AgentWatch(identity, book, cast("Transport", agent), actual, *[lambda _: None] * 3), actual


@asynccontextmanager
async def running(watch: AgentWatch) -> AsyncIterator[None]:
    task = asyncio.create_task(watch.run())
    async with asyncio.timeout(20):
        yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("catalog", "reads"), [([], 1), ([ROW], 2)], ids=["as the list", "something came meanwhile"])
async def test_the_lists_are_read_again_only_where_the_catalog_knows_more(catalog: list[object], reads: int) -> None:
    agent = Scripted(catalog)
    watch, _ = watched(agent)
    await watch.begin()
    async with running(watch):
        while agent.asked.count(CATALOG) < reads:  # noqa: ASYNC110 - what changes is what was asked
            await asyncio.sleep(0.01)
        await agent.waiting.acquire()
        assert agent.asked.count(LISTS) == reads


async def test_who_wants_all_read_anew_gets_no_lists_from_before() -> None:
    agent = Scripted([])
    watch, actual = watched(agent)
    await watch.begin()
    async with running(watch):
        began = actual.begin()
        watch.wake()
        while actual.taken("node-1") < began:  # noqa: ASYNC110 - what changes is what was taken in
            await asyncio.sleep(0.01)
    assert agent.asked.count(LISTS) == 2


class Answering(Scripted):
    """Answers blocking queries of these paths at once, over and over: nothing has changed."""

    def __init__(self, *answered: str) -> None:
        super().__init__([])
        self._answered = answered

    async def get(self, callback: Callable[[Answer], Any], path: str, params: Sequence[tuple[str, object]] = ()) -> Any:
        if params and path in self._answered:
            self.waiting.release()
            params = ()
        return await super().get(callback, path, params)


@pytest.mark.parametrize(
    ("answered", "fresh"),
    [((SERVICES, CATALOG), True), ((SERVICES,), False), ((), False)],
    ids=["both", "one", "neither"],
)
async def test_a_watch_is_as_fresh_as_that_of_its_queries_that_was_not_answered_for_longer(
    answered: tuple[str, ...], fresh: bool
) -> None:
    agent = Answering(*answered)
    watch, _ = watched(agent)
    await watch.begin()
    async with running(watch):
        await agent.waiting.acquire()
        heard = watch.heard
        for _ in range(2 * len(answered) + 1):
            await agent.waiting.acquire()
        assert (watch.heard > heard) is fresh
