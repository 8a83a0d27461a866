"""A registration as a whole: its finalizer, its deletion, and what keeps it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from consul_registrar.changes import Cause
from consul_registrar.consul.errors import NotSent
from consul_registrar.kube import Forbidden
from consul_registrar.model import Health
from unit.core.build import KEY, NOW, body, of_pods, pod, reason
from unit.core.instant import instantly
from unit.core.shell import World
from unit.core.situations import HELD, applied, causes, of_consuls, passes, registered


@asynccontextmanager
async def without_a_finalizer(spec: Any = None, **connection: Any) -> AsyncIterator[World]:
    """A registration was applied and its Pod runs; the API server hasn't taken the finalizer yet."""
    world = World(default=connection)
    world.cluster.takes_finalizers.clear()
    async with world.running():
        world.apply(body(spec))
        world.run_pod(pod())
        await passes()
        yield world


@instantly
async def test_the_finalizer_comes_before_it_is_needed_and_only_once() -> None:
    world = World()
    async with world.running():
        world.apply(body())
        await passes()
        world.apply(body(resourceVersion="8", **HELD))
        await passes()
    assert world.cluster.finalizers == ["added"]


@instantly
async def test_nothing_is_registered_before_the_finalizer_stands_and_all_is_at_once_when_it_does() -> None:
    async with without_a_finalizer() as world:
        world.run_pod(pod("web-2"))
        await passes(20)
        assert world.consul.written == []
        world.cluster.takes_finalizers.set()
        await passes(3)
    assert {i.subject for i in world.consul.held} == {"uid-web-1", "uid-web-2"}
    assert (world.cluster.finalizers, world.cluster.ready) == (["added"], ("True", "Registered"))


@instantly
async def test_a_registration_that_goes_before_its_finalizer_stands_leaves_nothing() -> None:
    async with without_a_finalizer() as world:
        world.cluster.registrations.clear()
        world.cluster.takes_finalizers.set()
        await passes(3)
        world.registrations.remove(body()["metadata"]["uid"])
        await passes(3)
    assert (world.consul.written, world.consul.held) == ([], [])


@instantly
async def test_a_finalizer_that_cannot_be_added_is_said_and_tried_again() -> None:
    world = World()
    async with world.running():
        world.cluster.finalizer_errors = [Forbidden("may not patch serviceregistrations")] * 8
        world.apply(body())
        world.run_pod(pod())
        await passes(4)
        assert (world.consul.written, world.cluster.ready) == ([], ("False", "FinalizerNotAdded"))
        await passes(60)
    assert (len(world.consul.held), world.cluster.ready) == (1, ("True", "Registered"))


@instantly
async def test_what_stands_is_kept_true_although_somebody_took_the_finalizer_away() -> None:
    async with registered("web-1", "web-2") as world:
        world.cluster.takes_finalizers.clear()
        world.apply(body(resourceVersion="9"))
        world.run_pod(pod("web-1", ready=False, version=9))
        world.pods.remove("uid-web-2")
        await passes()
        assert [(i.subject, i.health) for i in world.consul.held] == [("uid-web-1", Health.CRITICAL)]
        world.cluster.takes_finalizers.set()
        await passes(3)
    assert world.cluster.finalizers == ["added"]


@pytest.mark.parametrize("spec", [of_pods(suspend=True), of_pods()])
@instantly
async def test_who_may_write_nothing_is_counted_without_waiting_for_the_finalizer(spec: Any) -> None:
    async with without_a_finalizer(spec, **({} if spec.get("suspend") else {"policy": "Observe"})) as world:
        assert [tally.summary().total.withheld for tally in world.reports.tallies().values()] == [1]


@instantly
async def test_a_deleted_registration_goes_when_nothing_of_it_stands() -> None:
    async with registered("web-1", "web-2") as world:
        world.apply(body(deletionTimestamp=NOW, **HELD))
        await passes(2)
    assert (world.consul.held, set(world.cluster.finalizers)) == ([], {"removed"})
    assert causes(world)[2:] == [Cause.REGISTRATION_DELETED] * 2


@pytest.mark.parametrize("spec", [of_pods(deletionPolicy="Orphan"), of_pods(suspend=True)])
@instantly
async def test_orphans_stay_owned_by_nobody(spec: Any) -> None:
    async with registered() as world:
        world.apply(body(spec, generation=4, deletionTimestamp=NOW, **HELD))
        await passes(2)
    assert [i.owner for i in world.consul.held] == [None]
    assert "removed" in world.cluster.finalizers


@instantly
async def test_a_consul_that_cannot_be_cleaned_blocks_deletion_for_a_while_only() -> None:
    async with registered() as world:
        world.consul.ready, world.consul.errors = False, [NotSent(reason("Refused"))] * 10_000
        world.apply(body(deletionTimestamp=NOW, **HELD))
        await passes(5)
        assert world.cluster.finalizers == []
        assert world.cluster.ready == ("False", "DeregistrationBlocked")
        world.age = 601.0
        await passes(60)
    assert "removed" in world.cluster.finalizers


@pytest.mark.parametrize("refs", [["nowhere"], ["default", "nowhere"]])
@instantly
async def test_a_connection_that_does_not_exist_does_not_keep_what_names_it(refs: list[str]) -> None:
    spec = of_consuls(*refs)
    async with applied(spec=of_consuls(refs[0])) as world:
        assert len(world.consul.held) == refs.count("default")
        world.apply(body(spec, generation=4, **HELD))
        await passes()
        world.apply(body(spec, generation=4, deletionTimestamp=NOW, **HELD))
        await passes(2)
    assert (world.consul.held, world.cluster.finalizers) == ([], ["removed"])


@instantly
async def test_a_connection_that_is_not_set_up_yet_keeps_what_names_it() -> None:
    world = World(default={}, far={"connecting": True})
    async with world.running():
        spec = of_consuls("far")
        world.apply(body(spec, **HELD))
        await passes()
        world.apply(body(spec, deletionTimestamp=NOW, **HELD))
        await passes(5)
        assert world.cluster.finalizers == []
    assert world.cluster.ready == ("False", "DeregistrationBlocked")


@pytest.mark.parametrize("policy", ["Orphan", "Deregister"])
@instantly
async def test_what_was_deleted_long_ago_while_no_operator_ran_is_cleaned_before_it_goes(policy: str) -> None:
    """Else its instances were absences that nobody asked for: held, and removed whatever the policy says."""
    world = World()
    left: list[Any] = []

    async def remove(_: Any) -> None:
        left.append([i.owner for i in world.consul.held])

    world.cluster.remove = remove  # type: ignore[method-assign]
    async with registered(world=world):
        world.age, world.consul.ready = 3600.0, False
        world.apply(body(of_pods(deletionPolicy=policy), generation=4, deletionTimestamp=NOW, **HELD))
        await passes(20)
        assert left == []
        world.consul.ready = True
        world.reconsider()
        await passes(5)
    assert left[0] == ([None] if policy == "Orphan" else [])


@instantly
async def test_a_time_in_which_another_led_is_none_in_which_this_process_tried_to_clean() -> None:
    async with registered() as world:
        world.consul.ready = False
        world.apply(body(generation=4, deletionTimestamp=NOW, **HELD))
        await passes(20)
    async with world.standing_by():
        await passes(120)
    world.age = 3600.0
    async with world.running():
        await passes(20)
        assert "removed" not in world.cluster.finalizers
        await passes(60)
    assert "removed" in world.cluster.finalizers


@instantly
async def test_a_registration_that_went_unseen_leaves_nothing_and_is_forgotten() -> None:
    async with registered() as world:
        world.cluster.registrations.clear()
        world.registrations.vanished(body()["metadata"]["uid"])
        await passes(40)
    assert (world.consul.held, causes(world)[-1]) == ([], Cause.VANISHED)
    assert KEY not in world.reports.tallies()
