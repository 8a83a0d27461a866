# ruff: noqa: ARG002 - fakes take what the real ones take
"""What is looked for beside the work: a fault of its own is said once, and disturbs nobody else."""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

import pytest

from consul_registrar.actual import Actual
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.catalog_nodes import CatalogNodes
from consul_registrar.consul.leftovers import Leftovers, Whose
from unit.core.instant import elapsed, instantly

BREAKS = 5
"""How often what is asked first breaks."""


class Servers:
    """An empty catalog. Who asks for its nodes meets a fault that nobody thought of, at first."""

    def __init__(self) -> None:
        self.searches: list[float] = []

    async def get(self, path: str, params: Any = (), **_: Any) -> Answer:
        if path == "/v1/catalog/nodes":
            self.searches.append(elapsed())
            if len(self.searches) <= BREAKS:
                raise RuntimeError("unthought of")
            return Answer(200, {"X-Consul-Index": "5"}, b"[]")
        body = b"[]" if path.startswith("/v1/health") else b'{"Services": []}'
        return Answer(200, {"X-Consul-Index": "5"}, body)

    async def block(self, path: str, params: Any) -> Answer:
        return await asyncio.Event().wait()  # type: ignore[return-value]


class Agents:
    """No agents; to be told so breaks, at first."""

    def __init__(self) -> None:
        self.looks: list[float] = []

    def agents(self) -> Collection[Any] | None:
        self.looks.append(elapsed())
        if len(self.looks) <= BREAKS:
            raise RuntimeError("unthought of")
        return None

    def unaddressed(self) -> Collection[str]:
        return ()

    def meet(self, nodes: Mapping[str, str]) -> None:
        pass


async def runs(what: Any, seconds: float) -> None:
    """It goes on as long as it is let."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await what


def said(caplog: Any) -> int:
    return sum(record.exc_info is not None for record in caplog.records)


@instantly
async def test_a_search_for_nodes_that_breaks_is_tried_again_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    servers: Any = Servers()
    looks: list[tuple[bool, str]] = []
    nothing: Any = lambda *_: None  # noqa: E731

    def look() -> None:
        looks.append((nodes.ready, nodes.broken.code if nodes.broken else ""))

    nodes = CatalogNodes(("c", "n"), 2, servers, Actual("c", "n"), {}, nothing, look, lambda: True, nothing)
    await runs(nodes.run(), 60)
    assert (len(servers.searches), said(caplog)) == (BREAKS + 1, 1)
    assert servers.searches[BREAKS] > 1, "not in a hot loop"
    assert (False, "InternalError") in looks
    assert looks[-1] == (True, "")


@instantly
async def test_a_look_at_what_is_left_that_breaks_is_tried_again_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    agents: Any = Agents()
    nothing: Any = lambda *_: None  # noqa: E731
    await runs(Leftovers(Whose("c", "n"), agents, Actual("c", "n"), nothing, lambda: True).run(), 600)
    assert (len(agents.looks) > BREAKS, said(caplog)) == (True, 1)
    assert agents.looks[BREAKS] >= BREAKS, "not in a hot loop"
