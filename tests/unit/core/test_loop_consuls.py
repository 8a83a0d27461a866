"""The loop beside a Consul in trouble, beside several, and beside an agent that connects or has reaped."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from consul_registrar.changes import Cause
from consul_registrar.consul.errors import Denied, NotSent, Throttled
from unit.core.build import KEY, body, of_pods, pod, reason
from unit.core.instant import elapsed, instantly
from unit.core.shell import World
from unit.core.situations import HELD, applied, causes, of_consuls, passes, registered


@instantly
async def test_one_consuls_trouble_is_its_own() -> None:
    world = World(default={}, far={})
    world.registries["far"].errors = [NotSent(reason("Refused"))] * 1000
    async with registered(spec=of_consuls("far", "default"), world=world):
        assert world.cluster.ready == ("False", "Refused")
        world.registries["far"].errors.clear()
        await passes(120)
    assert len(world.registries["far"].held) == 1
    assert world.cluster.ready == ("True", "Registered")
    assert causes(world) == [Cause.DESIRED]


@pytest.mark.parametrize(
    ("error", "earliest"), [(Denied(reason("Denied")), 30.0), (Throttled(reason("Busy"), after=7.0), 7.0)]
)
@instantly
async def test_what_time_alone_does_not_mend_is_tried_later(error: Any, earliest: float) -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        await passes()
        world.consul.errors = [error]
        world.run_pod(pod())
        await passes(earliest - 1)
        assert world.consul.held == []
        await passes(3)
    assert len(world.consul.held) == 1


@instantly
async def test_a_bug_in_one_consul_is_said_and_retried() -> None:
    world = World(default={}, far={})
    world.registries["far"].place = None  # type: ignore[assignment, method-assign]
    async with applied(spec=of_consuls("far", "default"), world=world):
        assert len(world.consul.held) == 1
        assert world.cluster.ready == ("False", "InternalError")


@instantly
async def test_while_an_agent_is_being_connected_nothing_is_done_or_said() -> None:
    world = World()
    world.consul.here = reason("AgentConnecting")
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes(0.5)
        assert (world.consul.written, world.cluster.statuses) == ([], [])
        await passes(3)
    assert world.cluster.ready == ("Unknown", "Reconciling")


@instantly
async def test_who_waits_for_an_agent_looks_again_by_himself_and_seldom() -> None:
    """Should nobody tell that it is connected, or will never be."""
    world, asked = World(), []
    world.consul.here = reason("AgentConnecting")
    place = world.consul.place
    world.consul.place = lambda *about: asked.append(elapsed()) or place(*about)  # type: ignore[method-assign,func-returns-value]
    async with applied(world=world):
        await passes(300)
        assert len(asked) < 20
        world.consul.here = "agent-1"
        await passes(31)
    assert len(world.consul.held) == 1


@instantly
async def test_moving_to_another_consul_makes_before_it_breaks() -> None:
    world = World(default={}, far={})
    async with registered(world=world):
        world.apply(body(of_consuls("far"), generation=4, **HELD))
        await passes(3)
    assert (len(world.consul.held), len(world.registries["far"].held)) == (0, 1)
    assert causes(world) == [Cause.DESIRED, Cause.UNSELECTED]


@instantly
async def test_leaving_a_consul_that_never_connected_does_not_keep_status_waiting() -> None:
    async with applied(spec=of_consuls("far"), world=World(default={}, far={"connecting": True})) as world:
        world.apply(body(of_consuls("default"), generation=4, **HELD))
        await passes(3)
        assert len(world.consul.held) == 1
        await passes(60)
    assert world.cluster.ready == ("True", "Registered")


REAPING = of_pods(checks=[{"name": "a", "tcp": {}, "deregisterCriticalServiceAfter": "1m"}])


@asynccontextmanager
async def reaped() -> AsyncIterator[World]:
    """The instance of a Pod that runs was removed by its agent just now."""
    async with registered(spec=REAPING) as world:
        world.consul.reap(pod().uid)
        world.pods.put(pod(version=2))
        yield world


@instantly
async def test_what_its_agent_reaped_is_said_and_registered_again_after_a_minute() -> None:
    async with reaped() as world:
        await passes(55)
        assert (world.consul.held, world.cluster.ready) == ([], ("False", "Reaped"))
        assert len(world.cluster.statuses[-1][1]["reaped"]) == 1
        await passes(10)
    assert len(world.consul.held) == 1
    assert causes(world) == [Cause.DESIRED, Cause.REAPED]
    assert world.reports.outcome(KEY, "default", pod().uid) is not None


@instantly
async def test_what_its_agent_reaped_is_registered_at_once_when_the_pod_changes() -> None:
    async with reaped() as world:
        await passes(3)
        world.pods.put(pod(version=3, restarts=1))
        await passes(3)
    assert len(world.consul.held) == 1


@instantly
async def test_a_failed_write_is_no_second_reaping() -> None:
    async with reaped() as world:
        await passes(3)
        world.consul.errors = [NotSent(reason("Refused"))]
        await passes(62)
    assert len(world.consul.held) == 1
