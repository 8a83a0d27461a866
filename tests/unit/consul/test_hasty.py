"""A Consul, or what stands before it, that answers blocking queries at once though nothing has changed: no hot loop."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import pytest

from consul_registrar.actual import Actual
from consul_registrar.consul.agent_watch import AgentWatch
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.book import Book
from consul_registrar.consul.catalog_book import CatalogBook
from consul_registrar.consul.catalog_servers import Servers
from consul_registrar.consul.catalog_watch import NodeWatch, Watched
from consul_registrar.consul.in_flight import InFlight
from consul_registrar.consul.transport import Transport
from consul_registrar.consul.wire import Identity, Reader

LASTS = 1.0
MOST = 24  # two queries, about five times a second each


class Hasty:
    """Answers everything at once; `headers`: those of its answers."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.waited = 0
        self._headers = headers

    async def get(self, callback: Callable[[Answer], Any], path: str, params: Sequence[tuple[str, object]] = ()) -> Any:
        return callback(await self.block(path, params) if params else self._answer(path))

    async def block(self, path: str, _: object) -> Answer:
        self.waited += 1
        await asyncio.sleep(0.001)
        return self._answer(path)

    def _answer(self, path: str) -> Answer:
        bodies = {"/v1/catalog/node-services/node-1": b'{"Services": []}', "/v1/health/node/node-1": b"[]"}
        return Answer(200, self._headers, bodies.get(path, b"{}"))


class HastyServers(Hasty):
    async def get(self, path: str, _: object = (), **_how: object) -> Answer:  # type: ignore[override]
        return self._answer(path)


async def watched_for_a_while(watch: Any) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LASTS):
            await watch.run()


HEADERS = pytest.mark.parametrize("headers", [{"X-Consul-Index": "7"}, {}], ids=["the same index", "no index"])


@HEADERS
async def test_an_agent_that_answers_at_once(headers: dict[str, str]) -> None:
    hasty, actual = Hasty(headers), Actual("tests", "default")
    book = Book("node-1", Reader("node-1", "tests", "default"), actual, {})
    identity = Identity("node-1", "id", "dc1", "1.22.7")
    await watched_for_a_while(AgentWatch(identity, book, cast("Transport", hasty), actual, *[lambda _: None] * 3))
    assert 2 <= hasty.waited <= MOST


@HEADERS
async def test_servers_that_answer_at_once(headers: dict[str, str]) -> None:
    hasty, actual = HastyServers(headers), Actual("tests", "default")
    book = CatalogBook("node-1", "tests", "default", actual, {})
    watched = Watched("tests", "default", cast("Servers", hasty), actual, InFlight(), lambda _: None, lambda: None)
    await watched_for_a_while(NodeWatch(book, watched))
    assert 2 <= hasty.waited <= MOST
