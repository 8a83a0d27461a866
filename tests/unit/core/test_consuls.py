"""Which edits of a connection set it up anew, which it just goes on with, and which it is refused for."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from consul_registrar.api.connection import ConsulConnectionSpec
from consul_registrar.cache import Cache
from consul_registrar.consuls import Consuls, NodeRegistry, Unusable
from unit.core.build import reason
from unit.core.instant import elapsed, instantly, settle


def spec(**fields: Any) -> ConsulConnectionSpec:
    return ConsulConnectionSpec.model_validate({"mode": "Agent", "nodeAgents": {}, **fields})


async def served(before: dict[str, Any], after: dict[str, Any]) -> int:
    """How often a connection is set up when it is edited once."""
    begun: list[ConsulConnectionSpec] = []

    async def serve(name: str, wanted: ConsulConnectionSpec, take: Callable[[NodeRegistry], None]) -> None:
        begun.append(wanted)
        await asyncio.Event().wait()

    consuls = Consuls(Cache(), serve, lambda *_: None, lambda _: None)
    running = asyncio.create_task(consuls.run())
    for each in (before, after):
        consuls.put("one", spec(**each))
        await settle()
    running.cancel()
    return len(begun)


@pytest.mark.parametrize(
    ("before", "after", "times"),
    [
        ({}, {}, 1),
        ({}, {"policy": "UpsertOnly"}, 1),
        ({}, {"sharedNames": "Allow"}, 1),
        ({}, {"policy": "Observe"}, 2),
        ({"policy": "Observe"}, {"policy": "UpsertOnly"}, 2),
        ({}, {"takeOverFrom": "a-b-c"}, 2),
        ({}, {"nodeAgents": {"port": 8501}}, 2),
        ({}, {"namespace": "team-a"}, 1),
        ({"partition": "team-a"}, {"partition": "team-b"}, 0),
        ({"partition": "team-a"}, {}, 1),
    ],
)
@instantly
async def test_an_edit_sets_a_connection_up_anew_where_it_says_where_how_or_whether_the_name_is_claimed(
    before: dict[str, Any], after: dict[str, Any], times: int
) -> None:
    assert await served(before, after) == times


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"namespace": "team-a"}, "spec.namespace must not be set"),
        ({"partition": "team-a"}, "spec.partition must not be set"),
        ({"namespace": "default", "partition": "default"}, "spec.namespace and spec.partition must not be set"),
    ],
)
@instantly
async def test_what_consul_enterprise_alone_has_is_refused_before_any_consul_is_asked(
    fields: dict[str, Any], says: str
) -> None:
    consuls = Consuls(Cache(), _never_served, lambda *_: None, lambda _: None)
    running = asyncio.create_task(consuls.run())
    consuls.put("one", spec(**fields))
    await settle()
    assert not consuls.status("one").ready
    assert consuls.status("one").reason.code == "EnterpriseOnly"
    assert says in consuls.status("one").reason.message
    consuls.put("one", spec())
    assert consuls.status("one").reason.code == "AgentConnecting"
    running.cancel()


async def _never_served(name: str, wanted: ConsulConnectionSpec, take: Callable[[NodeRegistry], None]) -> None:
    assert (wanted.namespace, wanted.partition) == (None, None)
    await asyncio.Event().wait()


class Set:
    """A connection that is set up again and again; each time ends as the next of `ends` says, the last goes on."""

    def __init__(self, *ends: Unusable | None) -> None:
        self._ends = list(ends)
        self.begun: list[float] = []
        self.consuls = Consuls(Cache(), self._serve, lambda *_: None, lambda _: None)

    async def _serve(self, *_: object) -> None:
        self.begun.append(elapsed())
        if len(self.begun) > len(self._ends):
            await asyncio.Event().wait()
        await asyncio.sleep(10)
        if (error := self._ends[len(self.begun) - 1]) is not None:
            raise error

    async def run(self, seconds: float, *specs: ConsulConnectionSpec) -> None:
        running = asyncio.create_task(self.consuls.run())
        for each in specs:
            self.consuls.put("one", each)
            await asyncio.sleep(seconds)
        running.cancel()


@instantly
async def test_a_connection_whose_authorities_have_changed_is_set_up_anew_at_once() -> None:
    world = Set(Unusable(reason("SecretNotFound")), None)
    await world.run(60, spec())
    assert world.begun == [0.0, 15.0, 25.0]
    assert world.consuls.is_connecting("one")


@instantly
async def test_a_connection_that_could_not_be_set_up_is_tried_at_once_when_it_is_edited() -> None:
    world = Set(Unusable(reason("SecretNotFound")))
    await world.run(11, spec(), spec(nodeAgents={"port": 8501}))
    assert world.begun == [0.0, 11.0]
