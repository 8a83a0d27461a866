"""A Consul that pushes back, doesn't answer or has no leader: how often it is tried, and who waits for it."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from consul_registrar.audit import Audit
from consul_registrar.changes import Cause, Change, Register
from consul_registrar.consul.errors import (
    NotSent,
    Throttled,
    Unavailable,
)
from consul_registrar.writer import Lanes
from unit.core.build import instance, reason
from unit.core.instant import elapsed, instantly, settle
from unit.core.lane_world import BATCH, ROOM, Answers, Consul, World, changes, results


def throttling(times: int, after: float | None) -> Callable[[Sequence[Change]], Answers]:
    """Pushes back so many times."""
    left = [Throttled(reason("ConsulThrottled"), after)] * times

    def answer(changes: Sequence[Change]) -> Answers:
        return [left.pop()] * len(changes) if left else [None] * len(changes)

    return answer


@instantly
async def test_one_of_several_in_flight_that_is_pushed_back_lets_nothing_leave_until_all_are_answered() -> None:
    busy = Throttled(reason("ConsulThrottled"), 7.0)
    world = World(lambda batch: [busy if len(world.consul.batches) <= 3 else None for _ in batch])
    tasks = await world.begin(*changes(1))
    tasks += await world.begin(*changes(3 * BATCH))
    assert world.sizes == [1, BATCH, BATCH]
    world.consul.open.set()
    outcomes = await results(tasks)
    assert 7.0 <= elapsed() < 8.0
    assert world.sizes == [1, BATCH, BATCH, 1, BATCH - 1]
    assert outcomes.count(busy) == 1 + 2 * BATCH


@pytest.mark.parametrize(("after", "least", "most"), [(7.0, 14, 15), (None, 0.5, 3)])
@instantly
async def test_a_consul_that_pushes_back_is_left_alone_by_all_whose_turn_it_would_be(
    after: float | None, least: float, most: float
) -> None:
    world = World(throttling(2, after))
    world.consul.open.set()
    began = elapsed()
    answers = [answer for change in changes(3) for answer in await results(await world.begin(change))]
    assert [type(answer) for answer in answers] == [Throttled, Throttled, type(None)]
    assert least <= elapsed() - began <= most
    assert world.sizes == [1, 1, 1]


@instantly
async def test_who_waits_while_a_consul_is_left_alone_is_told_when_the_writing_ends() -> None:
    world = World(throttling(1, 60.0))
    world.consul.open.set()
    first, second = [await world.begin(change) for change in changes(2)]
    await asyncio.sleep(1)
    await world.lane.stop()
    assert [type(answer) for answer in await results([*first, *second])] == [Throttled, NotSent]
    assert elapsed() < 2


@instantly
async def test_what_only_waits_for_its_own_turn_keeps_nobody_else_waiting() -> None:
    """One change of many is refused so: it isn't Consul that pushes back."""
    mixed = [Throttled(reason("ConsulThrottled"), 60.0), None]
    world = World(lambda batch: mixed[: len(batch)] if len(batch) == 2 else [None] * len(batch))
    first, *others = changes(4)
    tasks = await world.begin(first)
    tasks += await world.begin(*others[:2])
    world.consul.open.set()
    await settle()
    tasks += await world.begin(others[2])
    await results(tasks)
    assert elapsed() < 1


class Outage:
    """A Consul without a leader until a time, asked by a crowd of which each tries again when it is refused."""

    def __init__(self, seconds: float) -> None:
        self._until = seconds
        self.tries = 0
        self.world = World(self._answer)
        self.world.consul.open.set()

    def _answer(self, changes: Sequence[Change]) -> Answers:
        if elapsed() >= self._until:
            return [None] * len(changes)
        self.tries += 1
        return [Unavailable(reason("ConsulNoLeader"))] * len(changes)

    async def crowd(self, size: int) -> None:
        await asyncio.gather(*map(self._persist, changes(size)))

    async def _persist(self, change: Change) -> None:
        wait = 0.05
        while True:
            with contextlib.suppress(NotSent):
                return await self.world.lane.write(change)
            await asyncio.sleep(wait)
            wait = min(2 * wait, 60.0)


@pytest.mark.parametrize("size", [100, 3000])
@instantly
async def test_how_often_a_consul_without_a_leader_is_tried_depends_on_time_and_not_on_how_many_wait(size: int) -> None:
    outage = Outage(60.0)
    await outage.crowd(size)
    assert 10 <= outage.tries <= 30
    at_once = ROOM // BATCH
    assert outage.world.sizes[: outage.tries] == [BATCH] * at_once + [1] * (outage.tries - at_once)
    applied = [change.id for batch in outage.world.consul.batches[outage.tries :] for change in batch]
    assert sorted(applied) == sorted(change.id for change in changes(size))


@instantly
async def test_a_crowd_that_waits_for_one_consul_goes_on_as_soon_as_it_answers() -> None:
    outage = Outage(60.0)
    await outage.crowd(500)
    assert elapsed() <= 65


@instantly
async def test_only_a_crowd_waits_for_a_consul_that_is_left_alone_and_whoever_else_comes_is_told_why() -> None:
    outage = Outage(60.0)
    tasks = await outage.world.begin(*changes(3000))
    assert sum(task.done() for task in tasks) == 3000 - 512
    (late,) = await outage.world.begin(*changes(1))
    assert isinstance(late.exception(), Unavailable)
    assert isinstance(tasks[-1].exception(), Unavailable)
    await outage.world.lane.stop()
    await results(tasks)


@instantly
async def test_an_agent_that_does_not_answer_keeps_nobody_waiting_who_goes_to_another() -> None:
    def answer(sent: Sequence[Change]) -> Answers:
        return [Unavailable(reason("ConsulUnreachable")) if c.node == "agent-1" else None for c in sent]

    consul: Any = Consul(answer)
    consul.open.set()
    lanes = Lanes(consul, Audit("default", lambda *_: None))

    def write(place: str) -> "asyncio.Task[None]":
        return asyncio.create_task(lanes.write(Register(instance(place=place), (), Cause.DESIRED)))

    lost = [write("agent-1") for _ in range(20)]
    await settle()
    await results([write("agent-2")])
    assert elapsed() == 0.0
    assert not lost[-1].done()
    await lanes.stop()
    await results(lost)
