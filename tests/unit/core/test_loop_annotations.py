"""What a person asks the loop for by annotation: to read all anew, to adopt, to let go."""

from typing import Any

import pytest

from consul_registrar.changes import Cause
from consul_registrar.consul.errors import NotSent
from consul_registrar.objects import ADOPT, RESYNC, SKIP_DEREGISTRATION
from unit.core.build import NOW, body, of_pods, pod, reason
from unit.core.instant import instantly
from unit.core.shell import World
from unit.core.situations import HELD, applied, causes, of_consuls, passes, registered

ADOPTS: Any = {"annotations": {ADOPT: "true"}}


def asks(value: str) -> Any:
    return {"annotations": {RESYNC: value}}


@instantly
async def test_each_new_value_of_the_annotation_has_all_read_anew_and_is_echoed() -> None:
    async with registered() as world:
        assert "resync" not in world.cluster.statuses[-1][1]
        world.apply(body(**HELD, **asks("one")))
        await passes(3)
        assert (world.consul.rereads, len(world.doubts)) == (1, 1)
        assert world.cluster.statuses[-1][1]["resync"] == "one"
        world.apply(body(**HELD, **asks("one"), generation=4))
        await passes(3)
        assert world.consul.rereads == 1
        world.apply(body(**HELD, **asks("two"), generation=4))
        await passes(3)
        world.apply(body(**HELD, generation=4))
        await passes(3)
    assert (world.consul.rereads, world.cluster.statuses[-1][1]["resync"]) == (2, "two")
    assert causes(world) == [Cause.DESIRED]


@instantly
async def test_what_could_not_be_read_anew_is_tried_again_before_it_is_echoed() -> None:
    async with registered() as world:
        world.consul.unanswered = NotSent(reason("ConsulUnreachable"))
        world.apply(body(**HELD, **asks("one")))
        await passes(3)
        assert "resync" not in world.cluster.statuses[-1][1]
        world.consul.unanswered = None
        await passes(60)
    assert world.cluster.statuses[-1][1]["resync"] == "one"


@instantly
async def test_a_resync_that_waits_for_a_consul_reads_nothing_of_the_cluster_meanwhile() -> None:
    world = World(default={}, far={"connecting": True})
    async with world.running():
        world.apply(body(of_consuls("default", "far"), **HELD, **asks("one")))
        await passes(600)
    assert world.doubts == []


@instantly
async def test_where_something_is_to_be_adopted_what_is_gone_does_not_wait_for_an_answer() -> None:
    async with applied(**ADOPTS) as world:
        world.consul.unanswered = NotSent(reason("NoLeader"))
        world.pods.put(pod(version=2, deleting=True))
        await passes()
    assert world.consul.held == []


@instantly
async def test_what_was_read_anew_before_a_restart_is_not_again() -> None:
    async with applied(**asks("one"), status={"resync": "one"}) as world:
        assert world.consul.rereads == 0
        assert world.cluster.statuses[-1][1]["resync"] == "one"


@pytest.mark.parametrize(("metadata", "left"), [({}, 2), (ADOPTS, 1), ({"annotations": {ADOPT: "no"}}, 2)])
@instantly
async def test_what_is_nobodys_is_adopted_by_annotation_only(metadata: Any, left: int) -> None:
    async with registered(spec=of_pods(deletionPolicy="Orphan")) as world:
        world.apply(body(of_pods(deletionPolicy="Orphan"), deletionTimestamp=NOW, **HELD))
        await passes(1)
        world.registrations.remove("uid-of-shop-web")
        await passes(1)
        assert [i.owner for i in world.consul.held] == [None]
        world.apply(body(uid="another", **HELD, **metadata))
        await passes(3)
    assert len(world.consul.held) == left
    assert sum(i.owner is not None for i in world.consul.held) == 1


@instantly
async def test_while_it_is_not_known_what_is_nobodys_nothing_is_registered_beside_it() -> None:
    world = World()
    world.consul.unanswered = NotSent(reason("ConsulUnreachable"))
    async with applied(**ADOPTS, world=world):
        assert (causes(world), world.cluster.ready) == ([], ("False", "ConsulUnreachable"))
        world.consul.unanswered = None
        await passes(60)
    assert causes(world) == [Cause.DESIRED]


@instantly
async def test_a_person_may_let_it_go_at_once() -> None:
    async with registered() as world:
        world.consul.ready, world.consul.errors = False, [NotSent(reason("Refused"))] * 10_000
        world.apply(body(deletionTimestamp=NOW, annotations={SKIP_DEREGISTRATION: ""}, **HELD))
        await passes(1)
    assert "removed" in world.cluster.finalizers
