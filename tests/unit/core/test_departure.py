"""How a deleted registration goes: at once when it can, without haste while it can't."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from consul_registrar.changes import Change
from consul_registrar.consul.errors import ConsulError, Denied, NotSent
from unit.core.build import NOW, body, reason
from unit.core.instant import elapsed, instantly
from unit.core.shell import World
from unit.core.situations import HELD, registered


@asynccontextmanager
async def deleted(*pods: str, world: World | None = None) -> AsyncIterator[World]:
    """The registration stood with these Pods, and has been deleted just now."""
    async with registered(*pods, world=world) as world:
        world.apply(body(deletionTimestamp=NOW, **HELD))
        yield world


@pytest.mark.parametrize(("error", "most"), [(Denied(reason("PermissionDenied")), 5), (NotSent(reason("Refused")), 16)])
@instantly
async def test_while_a_removal_fails_it_is_tried_no_more_often_than_anything_that_fails(error: Any, most: int) -> None:
    async with deleted() as world:
        world.consul.errors = [error] * 10_000
        await asyncio.sleep(90)
        assert 10_000 - len(world.consul.errors) <= most
        world.consul.errors.clear()
        world.reconsider()
        await asyncio.sleep(1)
    assert (world.consul.held, set(world.cluster.finalizers)) == ([], {"removed"})


@instantly
async def test_who_cannot_be_asked_what_is_left_is_asked_ever_less_often() -> None:
    world = World()
    asked: list[float] = []

    async def out_of_reach(_: Any) -> Sequence[str]:
        asked.append(elapsed())
        return ["agent-2"]

    world.consul.out_of_reach = out_of_reach  # type: ignore[method-assign]
    async with deleted(world=world):
        await asyncio.sleep(300)
        assert 30 <= len(asked) <= 110
        assert world.cluster.ready == ("False", "DeregistrationBlocked")


@instantly
async def test_many_that_go_with_their_registration_are_each_looked_at_a_few_times_and_it_goes_with_the_last() -> None:
    world, count, gone = World(), 100, 0.0
    names = [f"web-{number}" for number in range(count)]

    async def apply(node: str, changes: Sequence[Change]) -> Sequence[ConsulError | None]:
        nonlocal gone
        await asyncio.sleep(1)
        outcomes = [world.consul._take(change) for change in changes]
        gone = elapsed()
        return outcomes

    async with deleted(*names, world=world):
        world.consul.apply = apply  # type: ignore[method-assign]
        before = world.queue.numbers().adds
        while not world.cluster.finalizers:  # noqa: ASYNC110 - in the time of the loop
            await asyncio.sleep(0.01)
        assert elapsed() - gone < 0.1
        assert world.queue.numbers().adds - before < 5 * count
    assert world.consul.held == []


@instantly
async def test_whether_it_goes_with_its_definition_is_asked_once_for_all_its_instances() -> None:
    world = World()
    asked: list[float] = []

    async def definition_leaves() -> bool:
        asked.append(elapsed())
        await asyncio.sleep(0.05)
        return False

    world.cluster.definition_leaves = definition_leaves  # type: ignore[method-assign]
    async with deleted(*(f"web-{number}" for number in range(50)), world=world):
        await asyncio.sleep(5)
    assert (world.consul.held, set(world.cluster.finalizers)) == ([], {"removed"})
    assert len(asked) <= 2
