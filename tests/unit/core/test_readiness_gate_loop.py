"""How a Pod with our readiness gate is told: the loop around the table."""

from dataclasses import replace
from typing import Any

import pytest

from consul_registrar.consul.errors import Denied
from consul_registrar.kube import Forbidden, Unavailable
from consul_registrar.model import Gate, Health, Pod
from unit.core.build import body, of_pods, pod, reason
from unit.core.instant import elapsed, instantly
from unit.core.shell import World
from unit.core.situations import HELD, passes
from unit.core.test_gate_answer import THROUGH


def gated(**fields: Any) -> Pod:
    return pod(**({"gate": Gate()} | fields))


def answers(world: World) -> list[tuple[str, str]]:
    return [(status, why) for _, status, why in world.cluster.answers_given]


@instantly
async def test_a_registered_pod_is_let_through_at_once_and_told_once() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(gated())
        await passes(0.2)
        assert answers(world) == [("True", "Registered")]
        world.run_pod(gated(version=5, gate=Gate("True", "Registered", "by us")))
        await passes(30)
    assert answers(world) == [("True", "Registered")]


@instantly
async def test_a_pod_without_the_gate_is_told_nothing() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes(30)
    assert answers(world) == []


@instantly
async def test_who_is_not_ready_waits_and_is_told_after_a_second_and_let_through_when_it_is() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(gated(ready=False))
        await passes(0.9)
        assert answers(world) == []
        await passes(5)
        assert answers(world) == [("False", "NotPassing")]
        world.run_pod(gated(version=3, ready=True, gate=Gate("False", "NotPassing")))
        await passes()
    assert answers(world)[1:] == [("True", "Registered")]


@instantly
async def test_what_stands_otherwise_than_it_should_is_not_registered_yet() -> None:
    """An agent that holds it, and a catalog that doesn't: its checks are missing, so it would look healthy."""
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(gated(ready=False))
        await passes(3)
        for where, held in world.consul.consul.held.items():
            world.consul.consul.held[where] = replace(held, checks=())
        world.consul.errors = [Denied(reason("PermissionDenied"))]
        world.run_pod(gated(version=5, gate=Gate("False", "NotPassing")))
        await passes(60)
    assert answers(world) == [("False", "NotPassing"), ("False", "PermissionDenied"), ("True", "Registered")]


@instantly
async def test_a_pod_that_enters_only_when_ready_is_told_why_it_waits() -> None:
    world = World()
    async with world.running():
        world.apply(body(of_pods(pods={"selector": {"matchLabels": {"app": "web"}}, "register": "Ready"}), **HELD))
        world.run_pod(gated(ready=False))
        await passes(2)
    assert answers(world) == [("False", "PodNotReady")]


@instantly
async def test_neither_health_nor_an_outage_nor_drift_takes_a_pod_back() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(gated())
        await passes(2)
        world.run_pod(gated(version=9, ready=False, gate=THROUGH))
        await passes(30)
        assert world.consul.held[0].health is Health.CRITICAL
        world.consul.ready = False
        world.run_pod(gated(version=10, gate=THROUGH))
        await passes(30)
        world.consul.ready = True
        world.consul.errors = [Denied(reason("PermissionDenied"))] * 3
        world.consul.consul.held.clear()
        world.run_pod(gated(version=11, gate=THROUGH))
        await passes(100)
    assert answers(world) == [("True", "Registered")]
    assert world.consul.held


@instantly
async def test_after_a_restart_nothing_is_written_while_nothing_is_known() -> None:
    world = World(default={"connecting": True})
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(gated(gate=THROUGH))
        world.run_pod(gated(name="web-2"))
        await passes(30)
    assert answers(world) == []


@instantly
async def test_without_a_registration_a_pod_is_told_so_and_taken_back_only_after_ten_seconds() -> None:
    world = World()
    async with world.running():
        world.run_pod(gated())
        world.run_pod(gated(name="web-2", gate=THROUGH))
        await passes(9)
        assert answers(world) == [("False", "NotSelected")]
        await passes(2)
    assert answers(world) == [("False", "NotSelected")] * 2


@instantly
async def test_a_term_that_was_lost_counts_for_nothing_when_a_pod_is_taken_back() -> None:
    world = World()
    async with world.running():
        world.run_pod(gated(gate=THROUGH))
        await passes(9)
    await passes(60)
    async with world.running():
        await passes(9)
        assert answers(world) == []
        await passes(2)
    assert answers(world) == [("False", "NotSelected")]


@instantly
async def test_a_deleted_registration_lets_go_of_a_pod_only_once_its_instance_is_gone() -> None:
    world = World()
    async with world.running():
        key = world.apply(body(**HELD))
        world.run_pod(gated())
        await passes(2)
        world.cluster.answers = False  # no removal can be confirmed
        world.apply(body(deletionTimestamp="2026-02-02T00:00:00Z", generation=4, **HELD))
        world.registrations.remove(f"uid-of-{key.namespace}-{key.name}")
        await passes(30)
        assert world.consul.held
        assert answers(world) == [("True", "Registered")]
        world.cluster.answers, world.cluster.registrations = True, {}
        await passes(200)
    assert not world.consul.held
    assert answers(world)[1:] == [("False", "NotSelected")]


@instantly
async def test_an_orphaned_pod_is_taken_back_as_well() -> None:
    world = World()
    spec = of_pods(deletionPolicy="Orphan")
    async with world.running():
        key = world.apply(body(spec, **HELD))
        world.run_pod(gated())
        await passes(2)
        world.apply(body(spec, deletionTimestamp="2026-02-02T00:00:00Z", generation=4, **HELD))
        await passes(2)
        world.registrations.remove(f"uid-of-{key.namespace}-{key.name}")
        await passes(30)
    assert len(world.consul.held) == 1
    assert answers(world)[1:] == [("False", "NotSelected")]


@instantly
async def test_a_registration_that_takes_anothers_place_within_ten_seconds_is_not_noticed() -> None:
    world = World()
    async with world.running():
        key = world.apply(body(**HELD))
        world.run_pod(gated())
        await passes(2)
        world.apply(body(deletionTimestamp="2026-02-02T00:00:00Z", generation=4, **HELD))
        await passes(1)
        world.registrations.remove(f"uid-of-{key.namespace}-{key.name}")
        assert not world.consul.held
        await passes(5)
        world.apply(body(uid="another", **HELD))
        await passes(30)
    assert answers(world) == [("True", "Registered")]


@pytest.mark.parametrize(
    ("spec", "connections", "why"),
    [
        (of_pods(suspend=True), {}, "Suspended"),
        (of_pods(), {"default": {"policy": "Observe"}}, "Observed"),
        (of_pods(consulRefs=[{"name": "nowhere"}]), {}, "ConnectionNotFound"),
        (of_pods(service={"port": "none"}), {}, "PortNotFound"),
        (of_pods(checks=[{"name": "odd"}]), {}, "InvalidSpec"),
    ],
)
@instantly
async def test_what_is_not_registered_is_not_let_through_and_told_why(
    spec: dict[str, Any], connections: dict[str, Any], why: str
) -> None:
    world = World(**connections)
    async with world.running():
        world.apply(body(**HELD))  # a malformed one keeps the selector that it had
        world.apply(body(spec, generation=4, **HELD))
        world.run_pod(gated())
        await passes(3)
    assert answers(world) == [("False", why)]


@instantly
async def test_all_registrations_that_select_a_pod_must_hold_in_all_of_their_consuls() -> None:
    world = World(default={}, other={})
    both = of_pods(consulRefs=[{"name": "default"}, {"name": "other"}])
    async with world.running():
        world.registries["other"].ready = False
        world.apply(body(name="a", **HELD))
        world.apply(body(both, name="b", **HELD))
        world.run_pod(gated())
        await passes(3)
        assert answers(world) == [("False", "Unreachable")]
        world.registries["other"].ready = True
        world.reconsider()
        await passes(3)
    assert answers(world)[1:] == [("True", "Registered")]


@instantly
async def test_held_removals_keep_a_pod_through() -> None:
    """Its registration vanished while nobody watched: what it left is held, and so is the answer."""
    world = World()
    async with world.running():
        key = world.apply(body(**HELD))
        for number in range(5):
            world.run_pod(gated(name=f"web-{number}"))
        await passes(3)
        assert answers(world) == [("True", "Registered")] * 5
        world.cluster.registrations.clear()
        world.registrations.vanished(f"uid-of-{key.namespace}-{key.name}")
        await passes(60)
    assert len(world.consul.held) == 5
    assert answers(world) == [("True", "Registered")] * 5


@instantly
async def test_an_error_is_tried_again_with_growing_pauses_and_nobody_else_waits_for_it() -> None:
    world = World()
    world.cluster.gate_errors = [Unavailable("no answer")] * 4
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(gated())
        await passes(10)
    assert answers(world) == [("True", "Registered")]
    assert world.consul.held


@instantly
async def test_what_is_forbidden_is_said_once_and_tried_seldom_until_it_is_allowed() -> None:
    world = World()
    world.cluster.gate_errors = [Forbidden("pods/status is forbidden")] * 3
    async with world.running():
        world.apply(body(**HELD))
        for number in range(3):
            world.run_pod(gated(name=f"web-{number}"))
        await passes(20)
        assert world.cluster.events.count(("ReadinessGateForbidden", True)) == 1
        assert len(world.cluster.gate_errors) == 2  # one has tried, for all of its namespace
        assert len(world.consul.held) == 3
        assert world.cluster.ready == ("True", "Registered")
        await passes(120)
    assert answers(world) == [("True", "Registered")] * 3
    assert world.cluster.events.count(("ReadinessGateForbidden", True)) == 1


@instantly
async def test_a_pod_that_is_gone_is_not_told_anything() -> None:
    world = World()
    async with world.running():
        world.run_pod(gated())
        world.pods.put(gated(version=2, deleting=True))
        world.run_pod(gated(name="web-2"))
        world.pods.remove(gated(name="web-2").uid)
        await passes(20)
    assert answers(world) == []


@instantly
async def test_who_was_set_true_by_hand_stays_so() -> None:
    """The way out while the operator can't answer, as where Consul is down for long."""
    world = World()
    async with world.running():
        world.consul.ready = False
        world.apply(body(**HELD))
        world.run_pod(gated(gate=Gate("True", "ByHand", "")))
        await passes(30)
        assert elapsed() > 30
    assert answers(world) == []
