"""Group commit: what leaves together, in which order, and that everybody gets an answer."""

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from consul_registrar.audit import Audit
from consul_registrar.changes import NO_EVIDENCE, Cause, Change, Deregister, Evidence, Register
from consul_registrar.consul.errors import (
    Denied,
    NotSent,
    OutcomeUnknown,
    Overtaken,
)
from consul_registrar.writer import Lanes
from unit.core.build import instance, reason
from unit.core.instant import instantly, settle
from unit.core.lane_world import BATCH, Answers, Consul, World, changes, results


@instantly
async def test_the_first_leaves_at_once_and_what_comes_meanwhile_leaves_together() -> None:
    world, (first, *others) = World(), changes(5)
    tasks = await world.begin(first)
    tasks += await world.begin(*others)
    assert world.consul.batches == [[first]]
    world.consul.open.set()
    assert await results(tasks) == [None] * 5
    assert world.consul.batches == [[first], others]


@instantly
async def test_a_batch_is_no_larger_than_its_limit() -> None:
    world = World()
    tasks = await world.begin(*changes(1))
    tasks += await world.begin(*changes(2 * BATCH + 1))
    world.consul.open.set()
    await results(tasks)
    assert world.sizes == [1, BATCH, BATCH, 1]


@instantly
async def test_changes_leave_in_the_order_in_which_they_came() -> None:
    world = World()
    (register,) = changes(1)
    sequence = [register, Deregister(register.instance, Cause.GONE), register, *changes(BATCH)]
    world.consul.open.set()
    await results(await world.begin(*sequence))
    assert [change for batch in world.consul.batches for change in batch] == sequence


@instantly
async def test_full_batches_leave_beside_what_is_in_flight_as_long_as_there_is_room() -> None:
    world = World()
    tasks = await world.begin(*changes(1))
    tasks += await world.begin(*changes(4 * BATCH)[1:])
    assert world.sizes == [1, BATCH, BATCH]
    world.consul.open.set()
    await results(tasks)
    assert world.sizes == [1, BATCH, BATCH, BATCH, BATCH - 1]


@instantly
async def test_what_follows_a_change_in_flight_waits_for_its_answer_and_others_do_not() -> None:
    world = World()
    first, *others = changes(BATCH + 1)
    second = Deregister(first.instance, Cause.GONE)
    tasks = await world.begin(first)
    tasks += await world.begin(second, *others)
    assert world.consul.batches == [[first], others]
    world.consul.open.set()
    assert await results(tasks) == [None] * (BATCH + 2)
    assert world.consul.batches == [[first], others, [second]]


@instantly
async def test_what_does_not_fill_a_batch_waits_for_what_is_in_flight() -> None:
    world = World()
    tasks = await world.begin(*changes(1))
    tasks += await world.begin(*changes(3))
    assert world.sizes == [1]
    world.consul.open.set()
    await results(tasks)
    assert world.sizes == [1, 3]


@instantly
async def test_after_a_pause_the_next_leaves_at_once_again() -> None:
    world = World()
    world.consul.open.set()
    for _ in range(2):
        await results(await world.begin(*changes(1)))
    assert world.sizes == [1, 1]


@instantly
async def test_each_change_gets_its_own_answer() -> None:
    denied = Denied(reason("Denied"))
    world = World(lambda sent: [denied if i == 1 else None for i in range(len(sent))])
    world.consul.open.set()
    assert await results(await world.begin(*changes(3))) == [None, denied, None]
    assert [outcome for _, _, outcome in world.audited] == ["applied", "refused", "applied"]


def _raises(sent: Sequence[Change]) -> Answers:
    raise RuntimeError("a bug")


@pytest.mark.parametrize("answer", [_raises, lambda _: []], ids=["it raises", "it answers too little"])
@instantly
async def test_an_unexpected_failure_answers_everybody_and_the_lane_goes_on(answer: Any) -> None:
    world = World(answer)
    tasks = await world.begin(*changes(2))
    tasks += await world.begin(*changes(2))
    world.consul.open.set()
    async with asyncio.timeout(1):
        found = await results(tasks)
    assert [type(each) for each in found] == [OutcomeUnknown] * 4
    assert {outcome for _, _, outcome in world.audited} == {"unknown"}


@instantly
async def test_cancellation_answers_everybody_and_does_not_claim_to_know_what_became_of_what_was_sent() -> None:
    world = World()
    tasks = await world.begin(*changes(1))
    tasks += await world.begin(*changes(2))
    world.lane._sender.cancel()
    async with asyncio.timeout(1):
        sent, *waiting = await results(tasks)
    assert isinstance(sent, OutcomeUnknown)
    assert [type(each) for each in waiting] == [NotSent, NotSent]
    world.consul.open.set()
    assert await results(await world.begin(*changes(1))) == [None]


@instantly
async def test_who_ends_it_twice_leaves_nobody_waiting_and_a_lane_that_goes_on() -> None:
    """The first waits for what doesn't end at once when it is cancelled."""
    world = World()
    let_go = asyncio.Event()

    async def clings(_node: str, changes: Sequence[Change]) -> Answers:
        try:
            await asyncio.Event().wait()
        finally:
            await let_go.wait()
        return [None] * len(changes)

    ends, world.consul.apply = world.consul.apply, clings
    tasks = await world.begin(*changes(1))
    tasks += await world.begin(*changes(3)[1:])
    for _ in range(2):
        world.lane._sender.cancel()
        await settle()
    let_go.set()
    assert {type(each) for each in await results(tasks)} <= {NotSent, OutcomeUnknown}
    world.consul.apply = ends
    world.consul.open.set()
    assert await results(await world.begin(*changes(1))) == [None]


@instantly
async def test_what_is_cancelled_by_others_on_its_way_is_unknown_and_the_lane_goes_on() -> None:
    """aiohttp cancels who waits for a connection when its pool is closed."""
    world = World(lambda changes: (_ for _ in ()).throw(asyncio.CancelledError) if len(changes) == 1 else [None] * 2)
    world.consul.open.set()
    tasks = await world.begin(*changes(1))
    tasks += await world.begin(*changes(3)[1:])
    assert [type(each) for each in await results(tasks)] == [OutcomeUnknown, type(None), type(None)]


@instantly
async def test_a_writer_that_stops_waiting_disturbs_nobody() -> None:
    world = World()
    tasks = await world.begin(*changes(1))
    tasks += await world.begin(*changes(2))
    tasks[1].cancel()
    world.consul.open.set()
    first, cancelled, last = await results(tasks)
    assert (first, type(cancelled), last) == (None, asyncio.CancelledError, None)


@instantly
async def test_each_node_has_its_own_lane_for_as_long_as_there_is_something_in_it() -> None:
    consul: Any = Consul()
    lanes = Lanes(consul, Audit("default", lambda *_: None))
    both = [Register(instance(place=place), (), Cause.DESIRED) for place in ("agent-1", "agent-2")]
    tasks = [asyncio.create_task(lanes.write(change)) for change in both]
    await settle()
    assert consul.nodes == ["agent-1", "agent-2"]
    consul.open.set()
    assert await results(tasks) == [None, None]
    assert not lanes._lanes


def test_every_write_leaves_one_line_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "consul_registrar.audit"):
        _write_once()
    (record,) = caplog.records
    line = json.loads(record.getMessage())
    assert {key: line[key] for key in ("operation", "cause", "outcome", "node", "pod", "registration", "batch")} == {
        "operation": "deregister",
        "cause": "gone",
        "outcome": "applied",
        "node": "agent-1",
        "pod": "web-1",
        "registration": "shop/web",
        "batch": 1,
    }


def test_a_line_names_the_versions_that_were_looked_at_and_what_confirmed_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "consul_registrar.audit"):
        _write_once(Evidence(pod=42, registration=7, confirmed="Pod absent, registration at 8"))
        _write_once(Evidence(registration=7))
    first, second = (json.loads(record.getMessage()) for record in caplog.records)
    assert (first["resourceVersion"], first["registrationVersion"]) == ("42", "7")
    assert first["confirmed"] == "Pod absent, registration at 8"
    assert second.keys() & {"resourceVersion", "confirmed"} == set()


@instantly
async def _write_once(evidence: Evidence = NO_EVIDENCE) -> None:
    world = World()
    world.consul.open.set()
    await world.lane.write(Deregister(instance(), Cause.GONE, evidence))


@instantly
async def test_a_batch_touches_few_nodes_and_nobody_waits_for_ever() -> None:
    world = World()
    world.consul.batch, world.consul.room = 64, 128
    tasks = await world.begin(*changes(1))
    crowd = [
        replace(change, instance=replace(change.instance, node=f"n{i % 4}")) for i, change in enumerate(changes(81)[1:])
    ]
    tasks += await world.begin(*crowd)
    world.consul.open.set()
    await results(tasks)
    nodes = [[change.node for change in batch] for batch in world.consul.batches]
    assert nodes[1:] == [["n0"] * 20 + ["n1"] * 20 + ["n2"] * 20 + ["n3"] * 4, ["n3"] * 16]


@instantly
async def test_what_is_not_wanted_any_more_when_its_turn_comes_is_not_sent_and_leaves_no_line() -> None:
    world, (first, second, third) = World(), changes(3)
    wanted = {"second": True}
    tasks = await world.begin(first)
    tasks += [asyncio.create_task(world.lane.write(second, lambda: wanted["second"]))]
    tasks += await world.begin(third)
    wanted["second"] = False
    world.consul.open.set()
    answers = await results(tasks)
    assert [type(answer) for answer in answers] == [type(None), Overtaken, type(None)]
    assert world.consul.batches == [[first], [third]]
    assert len(world.audited) == 2
