"""What waits for its turn, or for its confirmation, and is not wanted any more by then."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from consul_registrar.changes import Cause, Change, Deregister
from consul_registrar.consul.errors import ConsulError
from consul_registrar.model import RegistrationKey
from consul_registrar.objects import Registration
from unit.core.build import body, of_endpoints, of_pods, of_service, pod, service, slices
from unit.core.instant import instantly
from unit.core.shell import FakeRegistry, World
from unit.core.situations import HELD, applied, registered

OTHER = {"app": "other"}


def slowly(registry: FakeRegistry, seconds: float) -> Callable[..., Awaitable[Sequence[ConsulError | None]]]:
    """A Consul that takes so long to answer; what it takes, it takes then."""

    async def apply(_: str, changes: Sequence[Change]) -> Sequence[ConsulError | None]:
        await asyncio.sleep(seconds)
        return [registry._take(change) for change in changes]

    return apply


def removed(world: World) -> list[str]:
    return [change.instance.service for change in world.consul.written if isinstance(change, Deregister)]


@instantly
async def test_a_pod_that_is_selected_again_while_its_removal_waits_for_its_turn_stays() -> None:
    async with registered("web-1", "web-2") as world:
        world.consul.apply = slowly(world.consul, 5)  # type: ignore[method-assign]
        world.run_pod(pod("web-1", version=2, labels=OTHER))
        await asyncio.sleep(1)
        world.run_pod(pod("web-2", version=2, ready=False))
        await asyncio.sleep(1.5)
        world.run_pod(pod("web-1", version=3))
        await asyncio.sleep(60)
    assert (removed(world), len(world.consul.held)) == ([], 2)
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_a_pod_that_is_selected_again_while_its_removal_is_being_confirmed_stays() -> None:
    world = World()
    ask, read = world.cluster.registration, world.cluster.pod

    async def answers_late(key: RegistrationKey) -> Registration | None:
        found = await ask(key)
        await asyncio.sleep(3)
        return found

    async def as_it_was(namespace: str, name: str) -> Any:
        await read(namespace, name)
        return pod("web-1", version=2, labels=OTHER)

    async with registered(world=world):
        world.cluster.registration = answers_late  # type: ignore[method-assign]
        world.cluster.pod = as_it_was  # type: ignore[method-assign]
        world.run_pod(pod("web-1", version=2, labels=OTHER))
        await asyncio.sleep(3)
        world.run_pod(pod("web-1", version=3))
        await asyncio.sleep(60)
    assert removed(world) == []


@pytest.mark.parametrize("spec", [of_pods, of_endpoints])
@instantly
async def test_a_name_that_comes_back_while_another_is_being_registered_never_leaves(spec: Any) -> None:
    async with applied(spec=spec(service={"name": "one"})) as world:
        world.consul.apply = slowly(world.consul, 5)  # type: ignore[method-assign]
        world.apply(body(spec(service={"name": "two"}), generation=4, **HELD))
        await asyncio.sleep(2)
        world.apply(body(spec(service={"name": "one"}), generation=5, **HELD))
        await asyncio.sleep(60)
    assert (removed(world), [i.service for i in world.consul.held]) == (["two"], ["one"])


@instantly
async def test_what_is_gone_is_removed_although_it_had_to_wait() -> None:
    async with registered("web-1", "web-2") as world:
        world.consul.apply = slowly(world.consul, 5)  # type: ignore[method-assign]
        world.run_pod(pod("web-2", version=2, ready=False))
        await asyncio.sleep(1)
        world.pods.put(pod("web-1", version=2, deleting=True))
        await asyncio.sleep(10)
    assert [change.cause for change in world.consul.written if isinstance(change, Deregister)] == [Cause.GONE]


@pytest.mark.parametrize("gone", [{"deleting": True}, {"phase": "Failed"}])
@instantly
async def test_a_pod_that_is_gone_before_its_turn_comes_is_never_registered(gone: Any) -> None:
    async with registered() as world:
        world.consul.apply = slowly(world.consul, 5)  # type: ignore[method-assign]
        world.run_pod(pod("web-1", version=2, ready=False))
        await asyncio.sleep(1)
        world.run_pod(pod("web-2"))
        await asyncio.sleep(1)
        world.run_pod(pod("web-2", version=2, **gone))
        await asyncio.sleep(60)
    assert {change.instance.subject for change in world.consul.written} == {"uid-web-1"}
    assert world.cluster.ready == ("True", "Registered")


@pytest.mark.parametrize("labels", [{"app": "db"}, None])
@instantly
async def test_what_is_being_registered_while_its_registration_is_edited_does_not_stay(labels: Any) -> None:
    """It neither stood nor was it counted when the edit was looked at. None: it is edited to have endpoints."""
    async with registered() as world:
        world.consul.apply = slowly(world.consul, 5)  # type: ignore[method-assign]
        world.run_pod(pod("web-2"))
        await asyncio.sleep(1)
        edited = of_pods(pods={"selector": {"matchLabels": labels}}) if labels else of_endpoints()
        world.apply(body(edited, generation=4, **HELD))
        await asyncio.sleep(120)
    assert {i.subject for i in world.consul.held} == (set() if labels else {"primary"})


@instantly
async def test_a_deleted_registration_does_not_go_while_something_of_it_is_being_registered() -> None:
    world = World()
    gone: list[int] = []

    async def remove(_: Any) -> None:
        gone.append(len(world.consul.held))
        world.cluster.registrations.clear()
        world.registrations.remove(body()["metadata"]["uid"])

    world.cluster.remove = remove  # type: ignore[method-assign]
    async with world.running():
        world.apply(body(**HELD))
        world.consul.apply = slowly(world.consul, 5)  # type: ignore[method-assign]
        for number in range(5):
            world.run_pod(pod(f"web-{number}"))
        await asyncio.sleep(1)
        world.apply(body(generation=4, deletionTimestamp="2026-01-01T00:00:00Z", **HELD))
        await asyncio.sleep(60)
    assert (world.consul.held, gone) == ([], [0])
    assert {change.cause for change in world.consul.written} == {Cause.DESIRED, Cause.REGISTRATION_DELETED}


@instantly
async def test_what_is_being_registered_when_its_registration_is_gone_does_not_stay_and_is_forgotten() -> None:
    world = World()
    async with world.running():
        key = world.apply(body(**HELD))
        world.consul.apply = slowly(world.consul, 5)  # type: ignore[method-assign]
        world.run_pod(pod())
        await asyncio.sleep(1)
        world.cluster.registrations.clear()
        world.registrations.vanished(body()["metadata"]["uid"])
        await asyncio.sleep(120)
    assert world.consul.held == []
    assert key not in world.reports.tallies()


@instantly
async def test_an_address_that_is_being_registered_when_its_service_loses_it_does_not_stay() -> None:
    world = World()
    async with world.running():
        world.apply(body(of_service(), **HELD))
        world.consul.apply = slowly(world.consul, 5)  # type: ignore[method-assign]
        world.expose(service(), slices(node_1=True))
        await asyncio.sleep(1)
        world.expose(service(version=2, ingress=("203.0.113.8",)))
        await asyncio.sleep(120)
    assert [i.address for i in world.consul.held] == ["203.0.113.8"]
