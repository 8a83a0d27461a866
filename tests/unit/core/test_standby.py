"""A process that doesn't lead keeps in mind what is to be done, and begins its term with that."""

import asyncio

from consul_registrar.changes import Cause, Deregister, Register
from consul_registrar.model import Key
from unit.core.build import KEY, body, pod
from unit.core.instant import instantly
from unit.core.shell import World
from unit.core.situations import HELD

MANY = [pod(uid=f"uid-{number}", name=f"web-{number}") for number in range(40)]


async def led_by_another() -> World:
    """One Consul that holds everything, as another process left it."""
    world = World()
    world.apply(body(**HELD))
    for each in MANY:
        world.run_pod(each)
    async with world.running():
        await asyncio.sleep(3)
    world.consul.written.clear()
    world.cluster.statuses.clear()
    return world


@instantly
async def test_a_standby_writes_nothing_to_anybody() -> None:
    world = await led_by_another()
    async with world.standing_by():
        world.apply(body(generation=9))
        world.run_pod(pod(uid="new", name="web-new"))
        world.pods.remove("uid-0")
        await asyncio.sleep(3)
    assert world.consul.written == []
    assert world.cluster.statuses == []
    assert world.cluster.finalizers == []


@instantly
async def test_a_new_leader_writes_what_is_new_before_it_looks_at_all() -> None:
    world = await led_by_another()
    looked: list[str] = []
    look = world.reconciler.reconcile

    async def reconcile(registration: object, subject: str) -> None:
        looked.append(subject)
        await look(KEY, subject)

    async with world.standing_by():
        world.run_pod(pod(uid="new", name="web-new"))
        world.pods.remove("uid-0")
        await asyncio.sleep(1)
    world.reconciler.reconcile = reconcile  # type: ignore[method-assign,assignment]
    async with world.running():
        await asyncio.sleep(3)
    assert looked[:2] == ["new", "uid-0"]
    assert {each.uid for each in MANY} < set(looked)
    assert [type(change) for change in world.consul.written] == [Register, Deregister]


@instantly
async def test_a_look_that_fails_unexpectedly_ends_nothing_and_is_due() -> None:
    world = await led_by_another()

    def look(_: object) -> None:
        raise KeyError("a mistake")

    usual, world.lifecycle.look = world.lifecycle.look, look  # type: ignore[method-assign]
    async with world.standing_by():
        world.apply(body(generation=9, **HELD))
        await asyncio.sleep(1)
        world.run_pod(pod(uid="new", name="web-new"))
        await asyncio.sleep(1)
        world.lifecycle.look = usual  # type: ignore[method-assign]
    async with world.running():
        await asyncio.sleep(3)
    assert [change.instance.subject for change in world.consul.written] == ["new"]


@instantly
async def test_what_the_leader_does_is_due_no_longer() -> None:
    world = await led_by_another()
    async with world.standing_by():
        world.run_pod(pod(uid="new", name="web-new"))
        await asyncio.sleep(1)
        leader = World()
        leader.apply(body(**HELD))
        leader.run_pod(pod(uid="new", name="web-new"))
        async with leader.running():
            await asyncio.sleep(1)
        world.consul.consul.held.update(leader.consul.consul.held)
        world.queue.add(Key(KEY, "new"))  # the watch tells of it
        await asyncio.sleep(1)
    assert Key(KEY, "new") not in list(world.queue._ready)
    async with world.running():
        await asyncio.sleep(3)
    assert world.consul.written == []


@instantly
async def test_a_new_leader_says_how_all_stand_without_a_change_in_between() -> None:
    """What was counted while standing by still holds: a term doesn't begin with "registering"."""
    world = await led_by_another()
    async with world.standing_by():
        world.run_pod(pod(uid="new", name="web-new"))
        await asyncio.sleep(3)
    async with world.running():
        await asyncio.sleep(3)
    (said,) = [status["instances"] for _, status in world.cluster.statuses]
    assert said["registered"] == len(MANY) + 1
    assert [change.cause for change in world.consul.written] == [Cause.DESIRED]


@instantly
async def test_what_is_listed_before_the_caches_are_full_is_looked_at_once() -> None:
    world = World()
    world.apply(body(**HELD))
    for each in MANY:
        world.run_pod(each)
    assert len(world.queue) == len(MANY) + 1
    world.standby.begin()
    assert len(world.queue) == 1
    async with world.running():
        await asyncio.sleep(3)
    assert len(world.consul.held) == len(MANY)


@instantly
async def test_what_consul_holds_of_a_registration_that_is_no_more_is_not_forgotten_when_the_caches_are_full() -> None:
    world = World()
    world.apply(body(**HELD))
    world.run_pod(pod())
    async with world.running():
        await asyncio.sleep(3)
    world.cache.remove_registration(KEY)
    world.cluster.registrations.clear()
    world.queue.add(Key(KEY))  # as a Consul tells that is read before the last page of Pods
    world.standby.begin()
    async with world.running():
        await asyncio.sleep(60)
    assert world.consul.held == []
