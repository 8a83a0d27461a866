"""Before a cluster's name is claimed nothing can be placed, so nobody is told to look for a place."""

import asyncio
import base64
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from consul_registrar.consul.answers import Answer
from consul_registrar.consul.claim import Name
from consul_registrar.consul.claimed import ClaimedRegistry, Inner
from consul_registrar.consul.errors import NotSent
from consul_registrar.model import CONNECTING, Reason

OURS = Answer(200, {"X-Consul-Index": "7"}, json.dumps([{"Value": base64.b64encode(b"uid").decode()}]).encode())


class Agents:
    """As much of a registry as the claim needs: agents that can be asked or not."""

    name = "default"

    def __init__(self, on_agent: Callable[[str], None]) -> None:
        self.ready = True
        self.on_agent = on_agent
        self.answers = asyncio.Event()

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def get(self, path: str, params: object = ()) -> Answer:
        del path, params
        if not self.ready:
            raise NotSent(Reason(CONNECTING, "there is no agent that could be asked"))
        await self.answers.wait()
        return OURS

    def registrations(self) -> set[Any]:
        return set()


def claimed(told: list[str], on_any: Callable[[], None] = lambda: None) -> tuple[ClaimedRegistry, Agents]:
    made: list[Agents] = []

    def tell(label: str) -> None:
        told.append(label)
        on_any()

    def make(_on_change: object, on_agent: Callable[[str], None], _may_write: object, _may_beat: object) -> Inner:
        made.append(Agents(on_agent))
        return cast("Inner", made[0])

    name = Name("tests", "uid")
    registry = ClaimedRegistry(name, make, lambda _, **__: None, tell, lambda: True, lambda *_: None)
    return registry, made[0]


async def test_agents_that_are_met_before_the_claim_are_told_of_with_it() -> None:
    told: list[str] = []
    any_told = asyncio.Event()
    registry, agents = claimed(told, any_told.set)
    running = asyncio.create_task(registry.run())
    agents.on_agent("node-1")
    agents.on_agent("node-2")
    assert told == []
    agents.answers.set()
    async with asyncio.timeout(10):
        await any_told.wait()
    assert registry.ready
    assert told == [""]
    agents.on_agent("node-1")
    assert told == ["", "node-1"]
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_an_agent_that_goes_when_no_other_answers_is_told_of_at_once() -> None:
    told: list[str] = []
    _, agents = claimed(told)
    agents.ready = False
    agents.on_agent("node-1")
    assert told == ["node-1"]
