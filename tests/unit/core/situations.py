"""How tests of the loop open: what is true when each begins. What goes on then is the test's own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from consul_registrar.changes import Cause
from consul_registrar.objects import FINALIZER
from unit.core.build import body, of_pods, pod
from unit.core.shell import World

HELD = {"finalizers": [FINALIZER]}
"""The metadata of a registration that may be registered at once."""
TEN = tuple(f"web-{number}" for number in range(10))
"""The names of Pods enough for the quarantine."""


async def passes(seconds: float = 0.1) -> None:
    await asyncio.sleep(seconds)


def causes(world: World) -> list[Cause]:
    """Why each write was made."""
    return [change.cause for change in world.consul.written]


def of_consuls(*names: str, **spec: Any) -> dict[str, Any]:
    """A spec that has its Pods registered in these Consuls."""
    return of_pods(consulRefs=[{"name": name} for name in names], **spec)


@asynccontextmanager
async def applied(*pods: str, spec: Any = None, world: World | None = None, **metadata: Any) -> AsyncIterator[World]:
    """The registration shop/web was applied, its Pods (web-1 unless others are named) run, all has come to rest."""
    world = world or World()
    async with world.running():
        world.apply(body(spec, **(HELD | metadata)))
        for name in pods or ("web-1",):
            world.run_pod(pod(name))
        await passes(3)
        yield world


@asynccontextmanager
async def registered(*pods: str, world: World | None = None, **applied_with: Any) -> AsyncIterator[World]:
    """The same, and each of the Pods stands in Consul."""
    async with applied(*pods, world=world, **applied_with) as world:
        assert {i.subject for i in world.consul.held} == {pod(name).uid for name in pods or ("web-1",)}
        yield world


def vanish(world: World, *pods: str) -> None:
    """These aren't in the next list, and nobody saw them go."""
    for name in pods:
        world.pods.vanished(pod(name).uid)


def restarted(before: World) -> World:
    """Another process beside the same Consul."""
    after = World()
    after.consul.consul = before.consul.consul
    return after
