"""What the loop says, when, and how often: status and Events."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from consul_registrar.changes import Cause
from consul_registrar.consul.errors import NotSent
from consul_registrar.kube import Forbidden
from consul_registrar.kube import Throttled as KubeThrottled
from consul_registrar.model import Key
from unit.core.build import body, of_pods, pod, reason
from unit.core.instant import elapsed, instantly
from unit.core.shell import World
from unit.core.situations import HELD, TEN, causes, passes, registered, restarted


@instantly
async def test_of_a_deleted_registration_nothing_is_remembered() -> None:
    world = World()
    async with world.running():
        for number in range(20):
            key = world.apply(body(**HELD, name=f"r-{number}"))
            await passes(0.1)
            world.registrations.remove(world.cache.registrations[key].meta.uid)
            world.reports.touch(key)
        await passes(60)
        left = (world.reports._again, world.reports._late, world.reports._busy, world.reports._complete)
    assert not any(left)


@instantly
async def test_status_is_written_at_most_once_a_second() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        for i in range(30):
            world.run_pod(pod(f"web-{i}", ip=f"10.0.0.{i}"))
            await passes(0.1)
        await passes(3)
    times = [at for at, _ in world.cluster.statuses]
    assert all(later - earlier > 0.999 for earlier, later in pairwise(times))
    assert world.cluster.statuses[-1][1]["instances"]["summary"] == "30/30"


@instantly
async def test_events_come_on_change_only() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        await passes(3)
        for version in (1, 2):
            world.run_pod(pod(version=version))
            await passes(3)
        world.pods.put(pod(version=3, ready=False))
        await passes(3)
    assert world.cluster.events == [("NoPodsMatched", True), ("Registered", False)]


@instantly
async def test_a_status_that_was_not_written_is_written_later() -> None:
    world = World()
    async with world.running():
        world.cluster.answers = False
        world.apply(body(**HELD))
        await passes(5)
        assert world.cluster.statuses == []
        world.cluster.answers = True
        await passes(3)
    assert world.cluster.ready == ("True", "NoPodsMatched")


@pytest.mark.parametrize(("error", "most"), [(Forbidden("no"), 30), (KubeThrottled("later", 40.0), 5)])
@instantly
async def test_a_status_that_is_refused_is_tried_ever_less_often_and_not_before_it_may(error: Any, most: int) -> None:
    world, tried = World(), list[float]()
    write = world.cluster.write

    async def refuse(*_: Any) -> None:
        tried.append(elapsed())
        raise error

    async with world.running():
        world.cluster.write = refuse  # type: ignore[method-assign]
        world.apply(body(**HELD))
        await passes(120)
        assert 2 <= len(tried) <= most
        world.cluster.write = write  # type: ignore[method-assign]
        await passes(41)
        assert world.cluster.ready == ("True", "NoPodsMatched")
        world.run_pod(pod())
        await passes(3)
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_a_restart_says_nothing_that_was_said_before() -> None:
    async with registered() as world:
        pass
    async with registered(status=world.cluster.statuses[-1][1], world=restarted(world)) as after:
        pass
    assert (after.consul.written, after.cluster.statuses, after.cluster.events) == ([], [], [])


@pytest.mark.parametrize("seen", [True, False])
@instantly
async def test_of_one_that_was_made_again_under_its_name_nothing_is_said_that_was_true_of_the_other(seen: bool) -> None:
    """Whether or not its deletion was seen: it has the same generation as the other had."""
    async with registered() as world:
        assert world.cluster.ready == ("True", "Registered")
        world.cluster.statuses.clear()
        world.consul.errors = [NotSent(reason("Refused"))] * 8
        if seen:
            world.registrations.remove(body()["metadata"]["uid"])
        world.apply(body(of_pods(service={"name": "another"}), uid="another", **HELD))
        await passes(0.5)
        assert [status for _, status in world.cluster.statuses if "Registered" in str(status["conditions"][0])] == []
        await passes(60)
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_a_restart_says_nothing_before_all_outcomes_are_known() -> None:
    """What was asked for before the registration was looked at (a Consul that connects does) must not be said yet."""
    pods = [pod(name) for name in TEN[:3]]
    async with registered(*TEN[:3]) as world:
        pass
    after = restarted(world)
    after.consul.here = reason("AgentConnecting")
    async with after.running():
        key = after.apply(body(status=world.cluster.statuses[-1][1], **HELD))
        for one in pods:
            after.run_pod(one)
        after.reports.touch(key)
        await passes(3)
        after.consul.here = "agent-1"
        for one in pods:
            after.queue.add(Key(key, one.uid))
            await passes(3)
    assert (after.consul.written, after.cluster.statuses, after.cluster.events) == ([], [], [])


@instantly
async def test_statuses_are_written_a_few_at_a_time() -> None:
    world, open_, under_way, most = World(), asyncio.Event(), 0, 0

    async def write(_found: Any, _wanted: Any) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await open_.wait()
        under_way -= 1

    world.cluster.write = write  # type: ignore[method-assign]
    async with world.running():
        for number in range(30):
            world.apply(body(name=f"web-{number}", **HELD))
        await passes(1)
        assert 0 < most < 10
        open_.set()
        await passes(3)
        assert under_way == 0


@instantly
async def test_a_crowd_of_subjects_goes_before_statuses() -> None:
    world = World()
    world.crowded = True
    async with registered(world=world):
        assert causes(world) == [Cause.DESIRED]
        assert world.cluster.statuses == []
        world.crowded = False
        await passes(1)
        assert world.cluster.ready == ("True", "Registered")
    assert len(world.cluster.statuses) == 1


@instantly
async def test_a_crowd_that_lasts_does_not_keep_everything_unsaid() -> None:
    world = World()
    world.crowded = True
    async with world.running():
        for name in ("one", "two"):
            world.apply(body(name=name, **HELD))
        world.run_pod(pod())
        await passes(7)
        said = [at for at, _ in world.cluster.statuses]
    assert len(said) == 2
    assert said[1] - said[0] < 1
