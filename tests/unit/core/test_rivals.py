"""Several registrations over one Pod and port under one service name: whose it is, and no gap when that changes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from consul_registrar.changes import Cause, Change, Deregister, Register
from consul_registrar.consul.errors import ConsulError, Invalid
from consul_registrar.facts import Facts
from consul_registrar.model import ContainerPort, Health, Owner, RegistrationKey
from consul_registrar.rivals import rivals
from unit.core.build import NOW, OLD, body, facts, of_pods, pod, reason, registration
from unit.core.instant import instantly
from unit.core.shell import World
from unit.core.situations import HELD, passes

WEB = {"service": {"name": "web", "port": 8080}}
FIRST = RegistrationKey("shop", "first")


def first(spec: Any = None, **metadata: Any) -> Any:
    return body(of_pods(**(spec or WEB)), name="first", **({"creationTimestamp": OLD} | HELD | metadata))


def second(spec: Any = None, **metadata: Any) -> Any:
    return body(of_pods(**(spec or WEB)), name="second", **({"creationTimestamp": NOW} | HELD | metadata))


@asynccontextmanager
async def side_by_side(*registrations: Any, world: World | None = None) -> AsyncIterator[World]:
    """These were applied, in this order, and the Pod that they select runs; all has come to rest."""
    world = world or World()
    async with world.running():
        for each in registrations:
            world.apply(each)
        world.run_pod(pod())
        await passes(3)
        yield world


def owners(world: World, service: str = "web") -> list[str]:
    return sorted(i.owner.registration for i in world.consul.held if i.owner and i.service == service)


def worst(world: World) -> Any:
    """What was said last of a problem."""
    return next(s["problems"]["worst"][0] for _, s in reversed(world.cluster.statuses) if "problems" in s)


@pytest.mark.parametrize("order", [(first, second), (second, first)])
@instantly
async def test_the_older_registration_has_the_pod_and_the_younger_says_so(order: Any) -> None:
    world = World()
    async with world.running():
        for each in order:
            world.apply(each())
        world.run_pod(pod())
        await passes(3)
    assert owners(world) == ["first"]
    assert worst(world)["reason"] == "Conflict"
    assert "registration shop/first publishes this Pod at 10.0.0.1:8080 as service 'web'" in worst(world)["message"]


@instantly
async def test_names_that_differ_in_case_alone_are_one_and_so_a_conflict() -> None:
    async with side_by_side(first(), second({"service": {"name": "WEB", "port": 8080}})) as world:
        assert [i.service for i in world.consul.held] == ["web"]
        assert worst(world)["reason"] == "Conflict"


@pytest.mark.parametrize(
    "other",
    [
        {"service": {"name": "web", "port": 9090}},
        {"service": {"name": "web-too", "port": 8080}},
        WEB | {"consulRefs": [{"name": "other"}]},
        {"service": {"name": "web", "port": 8080}, "pods": {"selector": {"matchLabels": {"app": "db"}}}},
    ],
)
@instantly
async def test_another_port_name_consul_or_pod_is_no_conflict(other: Any) -> None:
    world = World(default={}, other={})
    async with world.running():
        world.apply(first())
        world.apply(second(other))
        world.run_pod(pod())
        world.run_pod(pod("web-2", ip="10.0.0.2", labels={"app": "db"}))
        await passes(3)
    assert sum(len(r.held) for r in world.registries.values()) == 2
    assert not any("problems" in said for _, said in world.cluster.statuses)


@pytest.mark.parametrize(
    "edited",
    [
        {"name": "web", "ports": {"http": 8080, "admin": 9090}, "defaultPort": "http"},
        {"name": "web", "port": 9090},
    ],
)
@instantly
async def test_an_edit_into_a_conflict_takes_nothing_away_that_the_older_does_not_publish(edited: Any) -> None:
    world = World()
    async with world.running():
        world.apply(first({"service": {"name": "web", "port": 9090}}))
        world.apply(second())
        for number in range(5):
            world.run_pod(pod(f"web-{number}", ip=f"10.0.0.{number}"))
        await passes(3)
        world.consul.written.clear()
        world.apply(second({"service": edited}, generation=2))
        await passes(3)
    assert world.consul.written == []
    assert owners(world) == ["first"] * 5 + ["second"] * 5
    assert worst(world)["reason"] == "Conflict"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["older first", "younger first"])
@instantly
async def test_two_that_swap_their_ports_in_one_step_are_edited_where_they_stand(order: tuple[int, int]) -> None:
    world = World()
    here, there = ({"service": {"name": "web", "port": port}} for port in (8080, 9090))
    async with world.running():
        world.apply(first(here))
        world.apply(second(there))
        for number in range(3):
            world.run_pod(pod(f"web-{number}", ip=f"10.0.0.{number}"))
        await passes(3)
        world.consul.written.clear()
        edits = (first(there, generation=4), second(here, generation=4))
        for each in order:
            world.apply(edits[each])
        await passes(3)
    assert {(type(change), change.cause) for change in world.consul.written} == {(Register, Cause.EDITED)}
    stands = [(i.owner.registration, i.port) for i in world.consul.held if i.owner]
    assert sorted(stands) == [("first", 9090)] * 3 + [("second", 8080)] * 3


@instantly
async def test_when_the_older_is_deleted_the_younger_is_there_before_it_goes() -> None:
    world = World()
    async with world.running():
        world.apply(first())
        world.apply(second())
        for number in range(5):
            world.run_pod(pod(f"web-{number}", ip=f"10.0.0.{number}"))
        await passes(3)
        world.consul.written.clear()
        world.apply(first(deletionTimestamp=NOW))
        await passes(3)
    assert owners(world) == ["second"] * 5
    for subject in {change.instance.subject for change in world.consul.written}:
        mine = [type(change) for change in world.consul.written if change.instance.subject == subject]
        assert mine == [Register, Deregister]
    assert "removed" in world.cluster.finalizers


@instantly
async def test_when_the_older_publishes_something_else_the_younger_takes_over() -> None:
    world = World()
    async with world.running():
        world.apply(first())
        world.apply(second())
        world.run_pod(pod(ports=(ContainerPort("http", 8080), ContainerPort("admin", 9090))))
        await passes(3)
        world.apply(first({"service": {"name": "web", "port": 9090}}, generation=4))
        await passes(3)
    assert {(i.owner.registration, i.port) for i in world.consul.held if i.owner} == {("first", 9090), ("second", 8080)}


@instantly
async def test_an_older_one_that_is_edited_into_the_name_takes_it_without_a_gap() -> None:
    async with side_by_side(first({"service": {"name": "other", "port": 8080}}), second()) as world:
        world.consul.written.clear()
        world.apply(first(generation=4))
        await passes(3)
    assert owners(world) == ["first"]
    kinds = [(type(change), change.instance.owner.registration) for change in world.consul.written]  # type: ignore[union-attr]
    assert kinds.index((Register, "first")) < kinds.index((Deregister, "second"))
    assert all(c.cause in {Cause.DESIRED, Cause.REPLACED} for c in world.consul.written if not hasattr(c, "check"))


@instantly
async def test_one_that_is_refused_or_suspended_has_only_what_stands() -> None:
    async with side_by_side(first(WEB | {"consulRefs": [{"name": "default"}, {"name": "missing"}]}), second()) as world:
        assert owners(world) == ["second"]
        world.apply(first(WEB | {"suspend": True}, generation=4))
        await passes(3)
        assert owners(world) == ["second"]
        world.apply(first(generation=5))
        await passes(3)
        assert owners(world) == ["first"]
        world.apply(first(WEB | {"suspend": True}, generation=6))
        await passes(3)
    assert owners(world) == ["first"]


@instantly
async def test_a_conflict_that_nobody_tells_the_end_of_is_looked_at_again() -> None:
    """The older one is refused by an edit of something else, and its Pod's instance was removed by hand."""
    world = World()
    async with world.running():
        world.apply(first(WEB | {"consulRefs": [{"name": "default"}, {"name": "missing"}]}))
        world.apply(second())
        world.run_pod(pod(ready=False))
        await passes(1)
        world.apply(first(generation=4))
        await passes(1)
        assert owners(world) == ["first"]
        world.connect("missing")
        world.cache.registrations.pop(FIRST)  # as if nothing had been told
        world.consul.consul.held.clear()
        await passes(40)
    assert owners(world) == ["second"]


@instantly
async def test_a_pod_that_ends_leaves_neither_of_them_anything() -> None:
    async with side_by_side(first(), second()) as world:
        world.pods.put(pod(version=2, deleting=True))
        await passes(1)
    assert world.consul.held == []


def test_of_one_second_the_first_by_name_is_the_older() -> None:
    def of(name: str) -> Facts:
        made = registration(of_pods(**WEB), name=name)
        return facts(of_pods(**WEB), registration=made, owner=Owner("prod", "default", *made.key))

    (seen,) = rivals(of("second"), [of("first")])
    assert (seen.older, seen.publishes, seen.stands) == (True, True, False)


# --- rivals that can't publish ---------------------------------------------------------------------------------------

REFUSED_CHECK = WEB | {"checks": [{"name": "port", "tcp": {}}]}
READINESS_ONLY = {"checkPolicy": {"types": ["readiness"]}}


@instantly
async def test_an_older_registration_whose_check_is_not_allowed_keeps_nobody_out() -> None:
    world = World(default=READINESS_ONLY)
    async with side_by_side(first(REFUSED_CHECK), second(), world=world):
        assert owners(world) == ["second"]


def refusing(world: World, registration: str) -> list[str]:
    """Consul refuses what these registrations write, until they leave the list."""
    refused, take = [registration], world.consul._take

    def taken(change: Change) -> ConsulError | None:
        owner = change.instance.owner
        return Invalid(reason("InvalidRequest")) if owner and owner.registration in refused else take(change)

    world.consul._take = taken  # type: ignore[method-assign]
    return refused


@instantly
async def test_an_older_registration_that_consul_refuses_keeps_nobody_out_and_takes_over_once_it_is_taken() -> None:
    world = World()
    refused = refusing(world, "first")
    async with side_by_side(first(), second(), world=world):
        assert owners(world) == ["second"]
        await passes(200)
        assert owners(world) == ["second"]
        world.consul.written.clear()
        refused.clear()
        await passes(40)
    assert owners(world) == ["first"]
    assert [type(change) for change in world.consul.written] == [Register, Deregister]


@instantly
async def test_what_is_deleted_does_not_wait_for_an_heir_that_consul_refuses() -> None:
    world = World()
    refusing(world, "first")
    async with side_by_side(second(), world=world):
        world.apply(first())
        await passes(3)
        world.apply(second(deletionTimestamp=NOW, generation=9))
        await passes(40)
    assert owners(world) == []
    assert "removed" in world.cluster.finalizers


@instantly
async def test_an_edit_of_one_that_was_refused_is_waited_for_again() -> None:
    world = World()
    refused = refusing(world, "first")
    async with side_by_side(first(), world=world):
        refused.clear()
        world.consul.written.clear()
        world.apply(first({"service": {"name": "web", "port": 8080, "tags": ["new"]}}, generation=4))
        world.apply(second())
        await passes(3)
    assert owners(world) == ["first"]
    assert len(world.consul.written) == 1


@instantly
async def test_nothing_is_kept_for_an_heir_whose_check_is_not_allowed() -> None:
    world = World(default=READINESS_ONLY)
    async with side_by_side(second(), world=world):
        world.apply(first(REFUSED_CHECK))
        world.apply(second(deletionTimestamp=NOW, generation=9))
        await passes(3)
    assert owners(world) == []


@instantly
async def test_what_stands_has_its_health_until_the_older_one_really_stands() -> None:
    world = World()
    taken = world.consul._take
    world.consul._take = lambda change: (  # type: ignore[method-assign]
        Invalid(reason("InvalidRequest"))
        if change.instance.owner and change.instance.owner.registration == "first"
        else taken(change)
    )
    async with side_by_side(second(), world=world):
        world.apply(first())
        await passes(3)
        world.run_pod(pod(version=2, ready=False))
        await passes(3)
    assert [(i.owner and i.owner.registration, i.health) for i in world.consul.held] == [("second", Health.CRITICAL)]
