"""A connection's limit of writes: kept by the loop as a whole, without holding up what goes or anybody else."""

import asyncio
from dataclasses import replace

from consul_registrar.changes import Cause, Deregister, Register
from unit.core.build import body, pod
from unit.core.instant import elapsed, instantly
from unit.core.shell import World
from unit.core.situations import HELD, of_consuls

PODS = [pod(f"web-{number}", ip=f"10.0.0.{number + 1}") for number in range(100)]


@instantly
async def test_more_than_the_limit_waits_for_its_turn_and_gets_it() -> None:
    world = World(default={"limits": {"writesPerSecond": 5}})
    async with world.running():
        world.apply(body(**HELD))
        for one in PODS:
            world.run_pod(one)
        began = elapsed()
        for second in range(1, 40):
            await asyncio.sleep(1.0)
            assert len(world.consul.written) <= 5 + 5 * (elapsed() - began) + 1
            if second == 5:
                assert world.cluster.ready == ("False", "Registering")
        assert len(world.consul.held) == len(world.consul.written) == 100
        await asyncio.sleep(2.0)
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_what_is_gone_goes_before_what_waits() -> None:
    world = World(default={"limits": {"writesPerSecond": 2}})
    async with world.running():
        world.apply(body(**HELD))
        first, *others = PODS
        world.run_pod(first)
        await asyncio.sleep(1.0)
        for one in others:
            world.run_pod(one)
        await asyncio.sleep(3.0)
        world.run_pod(replace(first, version=2, deleting=True))
        await asyncio.sleep(0.2)
        assert [c.cause for c in world.consul.written if isinstance(c, Deregister)] == [Cause.GONE]
        assert len(world.consul.held) < 20


@instantly
async def test_a_limit_is_of_one_connection_alone() -> None:
    world = World(default={}, slow={"limits": {"writesPerSecond": 1}})
    async with world.running():
        world.apply(body(of_consuls("slow", "default"), **HELD))
        for one in PODS:
            world.run_pod(one)
        await asyncio.sleep(3.0)
        assert len(world.registries["default"].held) == 100
        assert len(world.registries["slow"].held) <= 5


@instantly
async def test_a_limit_that_is_lifted_lets_everything_through() -> None:
    world = World(default={"limits": {"writesPerSecond": 1}})
    async with world.running():
        world.apply(body(**HELD))
        for one in PODS:
            world.run_pod(one)
        await asyncio.sleep(2.0)
        registry = world.consuls.registry("default")
        world.connect("default")
        await asyncio.sleep(61.0)
        assert len(world.consul.held) == 100
        assert world.consuls.registry("default") is registry, "it was not set up anew"


@instantly
async def test_without_a_limit_nothing_waits() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        for one in PODS:
            world.run_pod(one)
        await asyncio.sleep(0.1)
        assert [type(change) for change in world.consul.written] == [Register] * 100
