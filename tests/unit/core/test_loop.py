"""The loop as a whole, from what arrives to what is written and said; the real Consul and API server are elsewhere."""

from dataclasses import replace
from typing import Any

import pytest

from consul_registrar.arrivals import pods_beside
from consul_registrar.changes import Cause, Deregister, Register
from consul_registrar.consul.errors import NotSent
from consul_registrar.model import META_TAGS, Key
from unit.core.build import KEY, NOW, body, instance, node, of_endpoints, of_pods, pod, reason
from unit.core.instant import instantly
from unit.core.shell import World
from unit.core.situations import HELD, applied, causes, of_consuls, passes, registered, restarted, vanish


@instantly
async def test_a_running_pod_is_registered_and_that_is_said() -> None:
    async with registered() as world:
        assert [(i.service, i.address) for i in world.consul.held] == [("web", "10.0.0.1")]
        assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_what_is_true_already_is_not_written_again() -> None:
    async with registered() as world:
        before = len(world.cluster.statuses)
        for version in range(2, 5):
            world.run_pod(pod(version=version))
            await passes(3)
        world.reports.touch(KEY)
        await passes(3)
    assert causes(world) == [Cause.DESIRED]
    assert len(world.cluster.statuses) == before


@instantly
async def test_when_an_agent_is_ready_what_does_not_stand_yet_goes_first() -> None:
    order: list[str | None] = []

    async def note(key: Key) -> None:
        order.append(key.subject)

    async with registered(*(f"old-{number}" for number in range(8))) as world:
        pass
    for number in range(8):
        world.run_pod(pod(f"new-{number}"))
    world.queue.clear()
    pods_beside(world.cache, world.queue, world.consuls, "node-1")
    async with world._at_work(world.queue.run(note, 1)):
        await passes()
    assert set(order[:8]) == {f"uid-new-{number}" for number in range(8)}
    assert len(order) == 16


@instantly
async def test_a_terminating_pod_is_removed_without_asking_anybody() -> None:
    async with registered() as world:
        world.cluster.answers = False
        world.pods.put(pod(version=2, deleting=True))
        await passes()
    assert (causes(world), world.consul.held) == ([Cause.DESIRED, Cause.GONE], [])
    assert world.cluster.reads == 0


@pytest.mark.parametrize("spec", [{"pods": {}}, of_consuls("default", "missing")])
@instantly
async def test_a_refused_registration_changes_nothing_but_leaves_no_ghost(spec: Any) -> None:
    async with registered() as world:
        world.apply(body(spec, generation=4, **HELD))
        world.run_pod(pod(version=2, ready=False))
        await passes()
        assert causes(world) == [Cause.DESIRED]
        world.pods.remove(pod().uid)
        await passes()
    assert causes(world) == [Cause.DESIRED, Cause.GONE]


@instantly
async def test_a_suspended_registration_writes_nothing_at_all() -> None:
    async with registered() as world:
        world.apply(body(of_pods(suspend=True), generation=4, **HELD))
        world.pods.remove(pod().uid)
        await passes(3)
    assert (causes(world), len(world.consul.held)) == ([Cause.DESIRED], 1)
    assert world.cluster.ready == ("True", "Suspended")


@pytest.mark.parametrize(("exists", "removed"), [(True, False), (False, True)])
@instantly
async def test_a_pod_that_vanished_from_a_list_goes_only_if_a_fresh_read_confirms_it(
    exists: bool, removed: bool
) -> None:
    async with registered() as world:
        if not exists:
            world.cluster.pods.clear()
        vanish(world, "web-1")
        await passes(1)
        assert (len(world.consul.held), world.cluster.reads) == (1, 0)
        await passes(1)
    assert (world.consul.held == []) is removed
    assert world.cluster.reads > 0
    assert bool(world.doubts) is exists
    assert world.consul.written[-1].evidence.confirmed == ("Pod absent, registration at 7" if removed else "")


@instantly
async def test_what_a_narrower_pod_selector_left_is_asked_for_ever_less_often_and_stays_until_it_is_gone() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        world.pods.vanished(pod().uid)
        await passes(3600)
        before = world.cluster.reads
        await passes(24 * 3600)
        looks = (world.cluster.reads - before) / 2  # the Pod, and its registration
        assert 24 * 6 <= looks <= 24 * 12
        assert len(world.consul.held) == 1
        world.cluster.pods.clear()
        await passes(700)
    assert world.consul.held == []


@instantly
async def test_of_a_same_named_successor_the_old_instance_goes_and_the_new_one_stays() -> None:
    async with registered() as world:
        vanish(world, "web-1")
        world.run_pod(pod(uid="successor"))
        await passes(2)
    assert [i.subject for i in world.consul.held] == ["successor"]


@instantly
async def test_an_absence_that_cannot_be_confirmed_removes_nothing_until_it_can() -> None:
    async with registered() as world:
        world.cluster.answers = False
        world.cluster.pods.clear()
        vanish(world, "web-1")
        await passes(20)
        assert len(world.consul.held) == 1
        world.cluster.answers = True
        await passes(120)
    assert world.consul.held == []


@instantly
async def test_a_stale_cache_never_removes_a_pod_that_is_selected_in_truth() -> None:
    async with registered() as world:
        world.pods.put(pod(version=2, labels={"app": "db"}))
        await passes()
    assert causes(world) == [Cause.DESIRED]


@pytest.mark.parametrize(("policy", "held", "said"), [("Observe", 0, "Observed"), ("UpsertOnly", 1, "UpsertOnly")])
@instantly
async def test_a_policy_is_kept_and_said(policy: str, held: int, said: str) -> None:
    async with applied(world=World(default={"policy": policy})) as world:
        if held:
            world.pods.remove(pod().uid)
        await passes(3)
    assert len(world.consul.held) == held
    assert world.cluster.ready == ("False", said)


def tagged(tag: str, **spec: Any) -> Any:
    return of_pods(service={"enableTagOverride": True, "tags": [tag]}, **spec)


def beside_an_older_version(**found: Any) -> World:
    """An instance tagged v1 stands, whose tags a version before this one didn't note."""
    world = World()
    made = instance(tagged("v1"))
    older = replace(made, node="agent-1", meta=tuple(p for p in made.meta if p[0] != META_TAGS), **found)
    world.consul.consul.held[older.node, older.id] = older
    return world


@pytest.mark.parametrize("broken", [0, 3])
@instantly
async def test_tags_that_an_older_version_did_not_note_are_written_with_the_first_edit_that_is_seen(
    broken: int,
) -> None:
    """At the start nothing tells an edit from what others have made of them."""
    async with registered(spec=tagged("v1"), world=beside_an_older_version(tags=("theirs",))) as world:
        assert world.consul.written == []
        world.consul.errors = [NotSent(reason("Refused"))] * broken
        world.apply(body(tagged("v2"), generation=4, **HELD))
        await passes(30)
    (stands,) = world.consul.held
    assert (stands.tags, len(world.consul.written)) == (("v2",), 1)


@instantly
async def test_such_tags_that_are_edited_during_a_suspension_are_written_after_it() -> None:
    world = beside_an_older_version()
    async with world.running():
        world.run_pod(pod())
        for generation, (tag, suspend) in enumerate([("v1", False), ("v1", True), ("v2", True), ("v2", False)], 3):
            world.apply(body(tagged(tag, suspend=suspend), generation=generation, **HELD))
            await passes(3)
    (stands,) = world.consul.held
    assert (stands.tags, len(world.consul.written)) == (("v2",), 1)


@instantly
async def test_an_edited_endpoint_list_adds_and_removes() -> None:
    one, two = ({"name": name, "address": f"{name}.example.com", "port": 1} for name in ("one", "two"))
    world = World()
    async with world.running():
        world.apply(body(of_endpoints(one), **HELD))
        await passes()
        world.apply(body(of_endpoints(two), generation=4, **HELD))
        await passes(3)
    assert [i.subject for i in world.consul.held] == ["two"]


@instantly
async def test_a_name_that_becomes_free_is_taken_by_the_next() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        young = world.apply(body(namespace="other", creationTimestamp=NOW, **HELD))
        world.run_pod(pod(namespace="other"))
        await passes()
        assert world.consul.held == []
        world.cluster.registrations.pop(KEY)
        world.registrations.remove(body()["metadata"]["uid"])
        await passes()
    assert [i.owner.key for i in world.consul.held if i.owner] == [young]


ZONED = of_pods(service={"tags": ["$(node.metadata.labels['zone']:-nowhere)"]})


@instantly
async def test_a_nodes_new_label_reaches_its_pods() -> None:
    world = World()
    world.nodes.put(node())
    async with registered(spec=ZONED, world=world):
        world.nodes.put(node(labels={"zone": "z1"}, version=2))
        await passes()
    assert [i.tags for i in world.consul.held] == [("z1",)]


@instantly
async def test_a_node_that_is_seen_after_its_pods_reaches_them() -> None:
    async with registered(spec=ZONED) as world:
        world.nodes.put(node(labels={"zone": "z1"}))
        await passes()
    assert [i.tags for i in world.consul.held] == [("z1",)]


@instantly
async def test_a_crash_between_two_writes_is_made_good() -> None:
    async with registered() as world:
        (held,) = world.consul.held
    renamed = of_pods(service={"name": "renamed"})
    async with applied(spec=renamed, generation=4, world=restarted(world)) as after:
        assert [type(change) for change in after.consul.written] == [Register, Deregister]
        assert [i.service for i in after.consul.held] == ["renamed"]
    assert held.service == "web"
