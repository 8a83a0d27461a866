"""A Service through the whole loop: what changes of it does to Consul and to status, and what a cold cache doesn't."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from consul_registrar import service_cache
from consul_registrar.changes import Cause, Deregister, Feed
from consul_registrar.model import Health
from consul_registrar.services import EndpointSlice
from unit.core.build import body, connection, node, of_service, service, slices
from unit.core.instant import instantly
from unit.core.shell import World
from unit.core.situations import HELD, causes

SETTLED = 5.0


def known(world: World) -> dict[str, Health]:
    return {i.address: i.health for i in world.consul.held}


def on(*names: str) -> list[Any]:
    return [node(name, addresses={"InternalIP": f"192.168.0.{name[-1]}"}) for name in names]


@asynccontextmanager
async def exposed(publish: str = "LoadBalancer", *, world: World | None = None) -> AsyncIterator[World]:
    """A registration publishes the Service, which has a ready endpoint on node-1; all has come to rest."""
    world = world or World()
    async with world.running():
        world.apply(body(of_service(publish), **HELD))
        world.expose(service(), slices(node_1=True))
        await asyncio.sleep(3)
        yield world


@instantly
async def test_a_service_is_registered_and_that_is_said() -> None:
    async with exposed() as world:
        assert known(world) == {"203.0.113.7": Health.PASSING}
        assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_a_service_that_comes_later_is_awaited_and_its_lack_is_said() -> None:
    world = World()
    async with world.running():
        world.apply(body(of_service(), **HELD))
        await asyncio.sleep(3)
        assert world.cluster.ready == ("False", "KubernetesServiceNotFound")
        world.expose(service(ingress=()))
        await asyncio.sleep(3)
        assert world.cluster.ready == ("True", "LoadBalancerPending")
        world.expose(service(version=2))
        await asyncio.sleep(3)
    assert known(world) == {"203.0.113.7": Health.CRITICAL}
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_its_health_follows_its_endpoints_and_nothing_else_of_them_is_written_or_asked_for() -> None:
    async with exposed() as world:
        for version, nodes in enumerate(({"node_1": True, "node_2": True}, {"node_2": True}, {"node_2": False}), 2):
            world.expose(service(), slices(version=version, **nodes))
            await asyncio.sleep(1)
        assert known(world) == {"203.0.113.7": Health.CRITICAL}
        world.expose(service(), slices(version=9, node_2=False), slices(part="b", node_3=True))
        await asyncio.sleep(1)
        assert known(world) == {"203.0.113.7": Health.PASSING}
        world.slices.remove("uid-web-lb-b")
        await asyncio.sleep(1)
    assert known(world) == {"203.0.113.7": Health.CRITICAL}
    assert causes(world) == [Cause.DESIRED] + [Cause.READINESS] * 3
    assert world.cluster.reads == 0, "the API server isn't asked about endpoints"


@instantly
async def test_another_address_takes_the_place_of_one_after_a_fresh_read() -> None:
    async with exposed() as world:
        world.expose(service(version=2, ingress=("203.0.113.8",)))
        await asyncio.sleep(0.1)
        assert known(world) == {"203.0.113.7": Health.CRITICAL, "203.0.113.8": Health.PASSING}
        await asyncio.sleep(SETTLED)
    assert known(world) == {"203.0.113.8": Health.PASSING}
    (removal,) = (c for c in world.consul.written if isinstance(c, Deregister))
    assert (removal.cause, removal.evidence.confirmed) == (Cause.UNSELECTED, "Service at 2, registration at 7")


@instantly
async def test_a_deleted_service_is_removed_at_once_without_asking_anybody() -> None:
    async with exposed() as world:
        world.cluster.answers = False
        world.services.remove("uid-web-lb")
        await asyncio.sleep(0.1)
        assert (causes(world), known(world)) == ([Cause.DESIRED, Cause.GONE], {})
        world.cluster.answers = True
        await asyncio.sleep(3)
    assert world.cluster.ready == ("False", "KubernetesServiceNotFound")


@instantly
async def test_a_service_that_is_terminating_is_removed_at_once() -> None:
    world = World()
    async with world.running():
        world.apply(body(of_service("NodePort"), **HELD))
        for each in on("node-1", "node-2", "node-3", "node-4"):
            world.nodes.put(each)
        world.expose(service(), slices(node_1=True, node_2=True, node_3=True, node_4=False))
        await asyncio.sleep(1)
        assert len(known(world)) == 4
        world.expose(service(version=2, deleting=True))
        await asyncio.sleep(0.1)
    assert known(world) == {}
    assert world.cluster.reads == 0


@pytest.mark.parametrize("there", [True, False])
@instantly
async def test_a_service_that_vanished_from_a_list_goes_only_if_a_fresh_read_confirms_it(there: bool) -> None:
    async with exposed() as world:
        if not there:
            del world.cluster.services["shop", "web-lb"]
        world.services.vanished("uid-web-lb")
        await asyncio.sleep(SETTLED)
    assert known(world) == ({"203.0.113.7": Health.PASSING} if there else {})
    assert bool(world.doubts) is there


@instantly
async def test_of_a_same_named_successor_the_old_instance_goes_and_the_new_one_comes() -> None:
    async with exposed() as world:
        world.services.remove("uid-web-lb")
        world.expose(service(uid="successor", version=5))
        await asyncio.sleep(1)
    (held,) = world.consul.held
    assert held.subject == "successor/203.0.113.7"
    assert Cause.GONE in causes(world)


@instantly
async def test_a_node_is_added_with_its_first_endpoint_and_leaves_with_its_last() -> None:
    world = World()
    async with world.running():
        world.apply(body(of_service("NodePort"), **HELD))
        for each in on("node-1", "node-2"):
            world.nodes.put(each)
        world.expose(service(local=True), slices(node_1=True))
        await asyncio.sleep(1)
        world.expose(service(local=True), slices(version=2, node_1=True, node_2=True))
        await asyncio.sleep(0.1)
        assert known(world) == {"192.168.0.1": Health.PASSING, "192.168.0.2": Health.PASSING}
        world.expose(service(local=True), slices(version=3, node_2=True))
        await asyncio.sleep(0.1)
        assert known(world) == {"192.168.0.1": Health.CRITICAL, "192.168.0.2": Health.PASSING}
        await asyncio.sleep(SETTLED)
    assert known(world) == {"192.168.0.2": Health.PASSING}


@instantly
async def test_many_nodes_that_lose_their_endpoints_at_once_are_held_but_critical() -> None:
    world = World()
    names = [f"node-{number}" for number in range(1, 6)]
    async with world.running():
        world.apply(body(of_service("NodePort"), **HELD))
        for each in on(*names):
            world.nodes.put(each)
        world.expose(service(), slices(**{name.replace("-", "_"): True for name in names}))
        await asyncio.sleep(1)
        world.expose(service(), EndpointSlice("uid-web-lb-a", "shop", "web-lb", 2, ()))
        await asyncio.sleep(SETTLED)
        assert world.cluster.ready == ("False", "RemovalHeld")
    assert set(known(world).values()) == {Health.CRITICAL}
    assert len(known(world)) == 5
    assert not any(isinstance(change, Deregister) for change in world.consul.written)
    assert sum(isinstance(change, Feed) for change in world.consul.written) == 5


@instantly
async def test_a_nodes_new_address_reaches_its_node_ports() -> None:
    async with exposed("NodePort") as world:
        assert world.cluster.ready == ("False", "AddressNotFound")
        world.nodes.put(*on("node-1"))
        await asyncio.sleep(1)
        assert known(world) == {"192.168.0.1": Health.PASSING}
        world.nodes.put(node("node-1", addresses={"InternalIP": "192.168.0.9"}))
        await asyncio.sleep(1)
    assert known(world) == {"192.168.0.9": Health.PASSING}


@instantly
async def test_publishing_another_service_makes_before_it_breaks() -> None:
    world = World()
    async with world.running():
        world.apply(body(of_service(), **HELD))
        world.expose(service(), slices(node_1=True))
        world.expose(service("other", ingress=("203.0.113.9",)), slices("other", node_1=True))
        await asyncio.sleep(1)
        other = {"kubernetesService": {"name": "other", "publish": "LoadBalancer"}}
        world.apply(body(other, generation=4, resourceVersion="8", **HELD))
        await asyncio.sleep(SETTLED)
    assert known(world) == {"203.0.113.9": Health.PASSING}
    kinds = [isinstance(change, Deregister) for change in world.consul.written]
    assert kinds == sorted(kinds)


@instantly
async def test_external_ips_need_a_connection_that_allows_endpoints() -> None:
    world = World(default={"allowEndpoints": False})
    async with exposed("ExternalIP", world=world):
        assert (known(world), world.cluster.ready) == ({}, ("False", "EndpointsNotAllowed"))
        world.apply(body(of_service("LoadBalancer"), generation=4, resourceVersion="8", **HELD))
        await asyncio.sleep(3)
    assert known(world) == {"203.0.113.7": Health.PASSING}
    assert connection().spec.allow_endpoints  # type: ignore[union-attr] # the default


@instantly
async def test_of_two_registrations_of_one_service_and_name_the_older_one_has_it() -> None:
    world = World()
    async with world.running():
        world.apply(body(of_service("ClusterIP"), **HELD))
        young = of_service("ClusterIP", service={"name": "web"})
        world.apply(body(young, name="young", creationTimestamp="2026-02-02T00:00:00Z", **HELD))
        world.expose(service(), slices(node_1=True))
        await asyncio.sleep(3)
    assert [held.owner.registration for held in world.consul.held if held.owner] == ["web"]


@instantly
async def test_what_is_true_already_is_not_written_again() -> None:
    async with exposed() as world:
        before = len(world.cluster.statuses)
        for version in range(2, 5):
            world.expose(service(version=version), slices(version=version, node_1=True))
            await asyncio.sleep(3)
    assert (causes(world), len(world.cluster.statuses)) == ([Cause.DESIRED], before)


def test_of_a_service_that_nobody_publishes_its_endpoints_are_put_away_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Most Services are none of ours, and the largest have thousands of endpoints."""
    world, counted = World(), list[str]()
    count = service_cache.together
    monkeypatch.setattr(service_cache, "together", lambda each: counted.append("") or count(each))
    for version in range(10):
        world.slices.put(slices(version=version, node_1=True))
        world.slices.put(slices(part="b", version=version, node_2=True))
    world.slices.remove("uid-web-lb-b")
    assert counted == []
    assert len(world.queue) == 0
