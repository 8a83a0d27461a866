"""What a registration joins: what is said of it and when it is looked for, each once, and over a restart."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from consul_registrar.conditions import FOREIGN, Picture, status
from consul_registrar.consul.errors import NotSent
from consul_registrar.foreign import edition, joins, published, told
from consul_registrar.model import Health, Reason
from consul_registrar.objects import ADOPT, RESYNC, Registration
from consul_registrar.tally import Outcome, Tally
from unit.core.build import KEY, NOW, OLD, body, instance, of_pods, pod, reason, registration
from unit.core.instant import instantly
from unit.core.shell import World
from unit.core.situations import HELD, applied, passes

JOINED = ("JoinsForeignInstances", True)
VM = [("vm-1", "web-on-a-vm")]
WELL = Outcome("web-1", True, True, Health.PASSING)


def picture(of: Registration | None = None, outcome: Outcome | None = WELL, **fields: Any) -> Picture:
    tally = Tally()
    tally.put("default", "uid-web-1", outcome, 0)
    defaults: dict[str, Any] = {"refused": None, "advice": "", "down": {}, "policies": {}}
    return Picture(registration=of or registration(), summary=tally.summary(), **(defaults | fields))


def found(of: Registration | None = None, **fields: Any) -> Any:
    """The condition in a status that is made of this."""
    made = status(picture(of, **fields), NOW)["consuls"][0]["conditions"]
    return next((one for one in made if one["type"] == FOREIGN), None)


# --- what is said ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("places", "says"),
    [
        (VM, "Consul 'default' holds 1 instance of 'web' that no operator has registered (on vm-1)"),
        ([*VM, ("vm-1", "b"), ("vm-0", "c")], "3 instances of 'web' that no operator has registered (on vm-0, vm-1)"),
        ([(f"vm-{n}", "a") for n in range(9)], "holds 9 instances of 'web'"),
        ([(f"vm-{n}", "a") for n in range(9)], "(on vm-0, vm-1, vm-2 and 6 more nodes)"),
    ],
)  # fmt: skip
def test_what_is_joined_is_told_with_number_and_nodes(places: list[tuple[str, str]], says: str) -> None:
    joined = joins("default", "web", places)
    assert joined is not None
    assert says in joined.message


def test_of_nothing_foreign_nothing_is_said() -> None:
    assert joins("default", "web", []) is None
    assert found(foreign={"default": None}) is None
    assert found() is None


@pytest.mark.parametrize(
    "short",
    [
        picture(of=registration(of_pods(service={"name": "$(metadata.labels['app'])"}))),
        picture(of=registration(deletionTimestamp=OLD)),
        picture(refused=reason("ServiceNameTaken")),
        picture(blocked=reason("FinalizerNotAdded")),
        picture(awaited=1),
        picture(down={"default": reason("Unreachable")}),
        picture(outcome=Outcome("web-1", False, False, None, reason("PodNotRunning"))),
        picture(outcome=None),
    ],
)
def test_only_where_a_name_is_published_it_is_looked_up(short: Picture) -> None:
    assert published(picture()) == ["default"]
    assert published(picture(outcome=Outcome("web-1", True, False, withheld=True))) == ["default"]
    assert published(short) == []


def test_until_it_was_looked_at_again_it_is_said_as_before_and_never_changes_ready() -> None:
    joined = joins("default", "web", VM)
    before = status(picture(foreign={"default": joined}), OLD)
    assert before["conditions"][0]["status"] == "True"
    known = registration(status=before)
    assert status(picture(known), NOW) == before
    assert status(picture(known, foreign={"default": joined}), NOW) == before
    assert found(known, foreign={"default": None}) is None
    edited = registration(status=before, generation=4)
    assert found(edited)["observedGeneration"] == 3
    assert found(edited, foreign={"default": joined})["observedGeneration"] == 4


def test_a_look_is_due_for_another_name_another_object_and_when_somebody_asks() -> None:
    one = edition(registration())
    assert edition(registration(of_pods(service={"tags": ["v1"]}), generation=4)) == one
    for other in (
        registration(of_pods(service={"name": "other"})),
        registration(uid="another"),
        registration(annotations={RESYNC: "again"}),
        registration(annotations={ADOPT: "true"}),
        registration(of_pods(consulRefs=[{"name": "default"}, {"name": "another"}])),
    ):
        assert edition(other) != one


# --- when it is looked for ------------------------------------------------------------------------------------------


def with_vm() -> World:
    world = World()
    world.consul.consul.held["vm-1", "on-a-vm"] = replace(instance(), node="vm-1", id="on-a-vm", meta=())
    return world


@asynccontextmanager
async def joining() -> AsyncIterator[World]:
    """A Pod was registered beside a VM, and what stands beside it was looked for."""
    async with applied(world=with_vm()) as world:
        await passes(2)
        yield world


def said(world: World) -> Any:
    return told(world.cluster.statuses[-1][1], "default")


@instantly
async def test_joining_foreign_instances_is_told_once_however_often_pods_come() -> None:
    world = with_vm()
    async with world.running():
        world.apply(body(**HELD))
        for number in range(5):
            world.run_pod(pod(f"web-{number}"))
            await passes(3)
    assert world.consul.looks == 1
    assert world.cluster.events.count(JOINED) == 1
    assert said(world) == ("True", "JoinsForeignInstances")
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_a_restart_looks_once_more_and_says_nothing_again() -> None:
    after = World()
    async with joining() as world:
        pass
    after.consul.consul = world.consul.consul
    async with after.running():
        after.apply(body(status=world.cluster.statuses[-1][1], **HELD))
        after.run_pod(pod())
        await passes(5)
    assert after.consul.looks == 1
    assert (after.consul.written, after.cluster.statuses, after.cluster.events) == ([], [], [])


@instantly
async def test_another_name_is_looked_up_and_what_is_not_joined_any_more_is_not_said() -> None:
    async with joining() as world:
        world.apply(body(of_pods(service={"name": "other"}), **(HELD | {"generation": 4})))
        await passes(5)
        assert said(world) is None
        world.apply(body(**(HELD | {"generation": 5})))
        await passes(5)
    assert said(world) == ("True", "JoinsForeignInstances")
    assert world.cluster.events.count(JOINED) == 2
    assert world.consul.looks == 3


@instantly
async def test_what_was_adopted_is_not_joined_any_more_and_what_cannot_be_is_not_looked_up_for_ever() -> None:
    async with joining() as world:
        assert said(world) == ("True", "JoinsForeignInstances")
        world.apply(body(annotations={ADOPT: "true"}, **HELD))
        await passes(20)
        assert [i.id for i in world.consul.held if i.owner is None] == []
        assert said(world) is None
        world.consul.consul.held["vm-1", "else"] = replace(instance(), node="vm-1", id="else", meta=(), address="x")
        world.apply(body(annotations={ADOPT: "true", RESYNC: "1"}, **HELD))
        await passes(5)
        before = world.consul.looks
        await passes(600)
    assert said(world) == ("True", "JoinsForeignInstances")
    assert world.consul.looks <= before + 1


@instantly
async def test_a_look_that_fails_is_made_again_after_a_while_and_asks_for_nobody_else_meanwhile() -> None:
    world = with_vm()
    world.consul.unanswered = NotSent(Reason("ConsulUnreachable", "no answer"))
    async with world.running():
        for name in ("web", *(f"other-{number}" for number in range(8))):
            world.apply(body(name=name, **HELD))
        world.run_pod(pod())
        await passes(5)
        assert world.consul.looks <= 2
        world.consul.unanswered = None
        await passes(40)
    assert world.cluster.events.count(JOINED) == 1


@instantly
async def test_while_there_is_a_crowd_a_look_waits() -> None:
    world = with_vm()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        world.crowded = True
        await passes(8)
        assert (world.consul.looks, len(world.cluster.statuses) > 0) == (0, True)
        world.crowded = False
        await passes(2)
    assert world.consul.looks == 1


@instantly
async def test_of_a_registration_that_is_gone_no_finding_is_kept() -> None:
    async with joining() as world:
        world.cluster.registrations.clear()
        world.registrations.remove(registration().meta.uid)
        await passes(100)
    assert world.consul.subjects(KEY) == set()
    assert (world.outlook._asked, world.outlook._found, world.reports._joins) == ({}, {}, {})
