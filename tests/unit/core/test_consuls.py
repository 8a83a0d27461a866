"""Which edits of a connection set it up anew, and which it just goes on with."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from consul_registrar.api.connection import ConsulConnectionSpec
from consul_registrar.cache import Cache
from consul_registrar.consuls import Consuls, NodeRegistry
from unit.core.instant import instantly, settle


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
    ],
)
@instantly
async def test_an_edit_sets_a_connection_up_anew_where_it_says_where_how_or_whether_the_name_is_claimed(
    before: dict[str, Any], after: dict[str, Any], times: int
) -> None:
    assert await served(before, after) == times
