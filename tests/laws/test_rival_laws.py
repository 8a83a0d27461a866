"""Whatever registrations come, change and go: at rest no Pod's port is published twice under one name in one Consul."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from consul_registrar.objects import FINALIZER
from unit.core.build import PODS, body, pod
from unit.core.instant import instantly
from unit.core.shell import World

NAMES = st.sampled_from(["one", "two", "three"])
SPECS = st.fixed_dictionaries(
    {
        "service": st.fixed_dictionaries(
            {
                "name": st.sampled_from(["web", "web", "db", "$(metadata.labels['svc'])"]),
                "port": st.sampled_from([8080, 8080, 9090]),
            }
        ),
        "pods": st.sampled_from([PODS, PODS, {"selector": {"matchLabels": {"app": "other"}}}]),
        "suspend": st.sampled_from([False, False, False, True]),
    }
)
STEPS = st.lists(st.tuples(NAMES, st.none() | SPECS), min_size=2, max_size=8)
CREATED = {"one": "2026-01-03T00:00:00Z", "two": "2026-01-02T00:00:00Z", "three": "2026-01-01T00:00:00Z"}


def meta(name: str, generation: int) -> dict[str, Any]:
    return {"name": name, "creationTimestamp": CREATED[name], "generation": generation, "finalizers": [FINALIZER]}


@given(steps=STEPS)
def test_at_rest_nothing_is_published_twice_and_nobody_who_could_publish_is_missing(steps: Any) -> None:
    _play(steps)


@instantly
async def _play(steps: Any) -> None:
    world = World()
    alive: dict[str, Any] = {}
    pods = [pod(f"web-{n}", ip=f"10.0.0.{n}", labels={"app": "web", "svc": svc}) for n, svc in enumerate(("web", "db"))]
    async with world.running():
        for each in pods:
            world.run_pod(each)
        for generation, (name, spec) in enumerate(steps, 1):
            if spec is not None:
                alive[name] = spec
                world.apply(body(spec, **meta(name, generation)))
            elif name in alive:
                key = world.apply(body(alive.pop(name), **meta(name, generation), deletionTimestamp="2026"))
                await asyncio.sleep(2)
                world.cluster.registrations.pop(key)
                world.registrations.remove(f"uid-of-shop-{name}")
            await asyncio.sleep(0.05)
        await asyncio.sleep(900)  # what an edit left is held for 300 s at first, and drained after that
    _is_as_it_should(world, alive, pods)


def _is_as_it_should(world: World, alive: dict[str, Any], pods: Any) -> None:
    held = [
        (i.service, i.address, i.port) for i in world.consul.held if i.owner
    ]  # what a suspended one left is nobody's
    suspended = [name for name, spec in alive.items() if spec["suspend"]]
    if not suspended:
        assert sorted(held) == sorted(set(held)), held
    should = {
        (_named(spec["service"]["name"], each), each.ip, spec["service"]["port"])
        for spec in alive.values()
        if not spec["suspend"] and spec["pods"] == PODS
        for each in pods
    }
    assert should <= set(held), (should, held)


def _named(name: str, of: Any) -> str:
    return of.labels["svc"] if "$(" in name else name
