"""The loop where many would go at once: what is held, what is let go, and what never waits."""

from consul_registrar.model import Namespace
from unit.core.build import NOW, body, of_pods, pod
from unit.core.instant import instantly
from unit.core.shell import World
from unit.core.situations import HELD, TEN, of_consuls, passes, registered, vanish


@instantly
async def test_many_that_vanish_at_once_are_held_and_that_is_said() -> None:
    async with registered(*TEN) as world:
        world.cluster.pods.clear()
        vanish(world, *TEN[:5])
        await passes(10)
        assert len(world.consul.held) == 10
        assert world.cluster.ready == ("False", "RemovalHeld")
        assert ("RemovalHeld", True) in world.cluster.events
        assert world.quarantine.held("default").subjects == 5
        reads = world.cluster.reads
        await passes(200)
        assert (len(world.consul.held), world.cluster.reads) == (10, reads)
        await passes(300)
    assert len(world.consul.held) == 5
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_what_is_held_and_comes_back_is_let_go_without_a_write() -> None:
    async with registered(*TEN) as world:
        kept = dict(world.cluster.pods)
        world.cluster.pods.clear()
        vanish(world, *TEN[:5])
        await passes(10)
        for each in kept.values():
            world.run_pod(each)
        await passes(600)
    assert len(world.consul.written) == 10
    assert world.quarantine.held("default").subjects == 0
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_a_wrong_list_is_found_out_by_reading_a_few_afresh() -> None:
    async with registered(*TEN) as world:
        vanish(world, *TEN)
        await passes(5)
        assert len(world.doubts) > 0
        assert world.cluster.reads <= 6
        assert len(world.consul.held) == 10


@instantly
async def test_pods_that_are_gone_are_never_held() -> None:
    async with registered(*TEN) as world:
        for name in TEN:
            world.pods.remove(pod(name).uid)
        await passes(0.1)
    assert world.consul.held == []


@instantly
async def test_a_selector_that_would_take_all_is_held_and_its_correction_undoes_it() -> None:
    async with registered(*TEN) as world:
        typo = of_pods(pods={"selector": {"matchLabels": {"app": "wbe"}}})
        world.apply(body(typo, generation=4, **HELD))
        await passes(100)
        assert len(world.consul.held) == 10
        assert world.cluster.ready == ("False", "RemovalHeld")
        world.apply(body(generation=5, **HELD))
        await passes(600)
    assert len(world.consul.written) == 10
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_a_namespace_that_is_not_allowed_any_more_keeps_what_stands_and_is_looked_at_when_its_labels_change() -> (
    None
):
    world = World(default={"allowedNamespaces": {"selector": {"matchLabels": {"team": "a"}}}})
    world.namespaces.put(Namespace("uid", "shop", 1, {"team": "a"}))
    async with registered(*TEN, world=world):
        world.namespaces.put(Namespace("uid", "shop", 2, {}))
        await passes(3)
        assert world.cluster.ready == ("False", "NamespaceNotAllowed")
        world.pods.remove(pod("web-0").uid)
        await passes(3)
        assert len(world.consul.held) == 9
        world.namespaces.put(Namespace("uid", "shop", 3, {"team": "a"}))
        await passes(3)
    assert world.cluster.ready == ("True", "Registered")
    assert len(world.consul.written) == 11


@instantly
async def test_a_deleted_registration_of_many_is_not_held() -> None:
    async with registered(*TEN) as world:
        world.apply(body(deletionTimestamp=NOW, generation=4, **HELD))
        await passes(1)
    assert world.consul.held == []
    assert world.cluster.finalizers[-1] == "removed"


@instantly
async def test_registrations_that_go_with_their_definition_let_go_at_once_and_what_they_left_is_held() -> None:
    async with registered(*TEN) as world:
        world.cluster.defined = False
        world.apply(body(deletionTimestamp=NOW, generation=4, **HELD))
        await passes(1)
        assert world.cluster.finalizers[-1] == "removed"
        world.cluster.registrations.clear()
        world.registrations.remove(body()["metadata"]["uid"])
        await passes(100)
        assert len(world.consul.held) == 10
        world.cluster.defined = True
        world.apply(body(uid="made-again", **HELD))
        await passes(600)
    assert len(world.consul.written) == 10
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_a_connection_that_releases_by_hand_holds_for_ever() -> None:
    async with registered(*TEN, world=World(default={"removalGuard": {"release": "Manual"}})) as world:
        world.cluster.pods.clear()
        vanish(world, *TEN[:5])
        await passes(100_000)
        assert len(world.consul.held) == 10
        for key in world.quarantine.approve("default", world.quarantine.held("default").digest):
            world.queue.add(key)
        await passes(5)
    assert len(world.consul.held) == 5


@instantly
async def test_each_consul_holds_for_itself() -> None:
    world = World(default={}, other={"removalGuard": {"share": 100}})
    async with registered(*TEN, spec=of_consuls("default", "other"), world=world):
        world.cluster.pods.clear()
        vanish(world, *TEN[:5])
        await passes(10)
    assert [len(world.registries[name].held) for name in ("default", "other")] == [10, 5]
