"""Whatever happens: a Pod is let through its gate only once it is found, and taken back only once it isn't."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from consul_registrar.model import Gate, Health, Instance, Pod
from consul_registrar.objects import FINALIZER, Registration
from unit.core.build import PODS, body, pod
from unit.core.instant import instantly
from unit.core.shell import World

OTHERS = {"selector": {"matchLabels": {"app": "other"}}}
SPECS = st.fixed_dictionaries(
    {
        "service": st.sampled_from([{"name": "web", "port": 8080}, {"name": "db", "port": 8080}]),
        "pods": st.sampled_from([PODS, PODS, PODS | {"register": "Ready"}, OTHERS]),
        "suspend": st.sampled_from([False, False, False, True]),
        "consulRefs": st.sampled_from([[{"name": "default"}], [{"name": "default"}, {"name": "other"}]]),
    }
)
REGISTRATIONS, NAMES = st.sampled_from(["one", "two"]), st.sampled_from(["web-1", "web-2"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("apply"), REGISTRATIONS, SPECS),
        st.tuples(st.just("delete"), REGISTRATIONS, st.none()),
        st.tuples(st.just("ready"), NAMES, st.booleans()),
        st.tuples(st.just("answers"), st.sampled_from(["default", "other"]), st.booleans()),
        st.tuples(st.just("lose"), NAMES, st.none()),
        st.tuples(st.just("lead anew"), st.none(), st.none()),
    ),
    min_size=2,
    max_size=10,
)
PAUSES = st.sampled_from([0.1, 2.0, 15.0])


class Watched:
    """A world whose API server has the Pods, and judges each answer as it comes."""

    def __init__(self) -> None:
        self.world = World(default={}, other={})
        self.world.cluster.answer = self.answer  # type: ignore[method-assign]
        self.version = 10
        self.wrong: list[str] = []

    def change(self, name: str, **fields: Any) -> int:
        """A Pod changes; the watch tells a little later."""
        self.version += 1
        new = replace(self.world.cluster.pods["shop", name], version=self.version, **fields)
        self.world.cluster.pods["shop", name] = new
        asyncio.get_running_loop().call_later(0.05, self.world.pods.put, new)
        return self.version

    async def answer(self, found: Pod, gate: Gate) -> int:
        before = self.world.cluster.pods["shop", found.name].gate
        if gate.status == "True" and not self.is_found(found):
            self.wrong.append(f"{found.name} was let through")
        elif gate.status != "True" and before is not None and before.status == "True" and list(self.of(found)):
            self.wrong.append(f"{found.name} was taken back")
        return self.change(found.name, gate=gate)

    def of(self, found: Pod) -> Iterator[Instance]:
        """What registrations have of a Pod, in any Consul."""
        registries = self.world.registries.values()
        return (i for registry in registries for i in registry.held if i.owner and i.subject == found.uid)

    def selecting(self, found: Pod) -> list[Registration]:
        known = self.world.cache.registrations
        return [known[key] for key in self.world.cache.selecting(found) if not known[key].deleting]

    def is_found(self, found: Pod) -> bool:
        """Whether each registration that selects it has it in each of its Consuls, passing."""
        passing = {
            (i.owner.registration, i.owner.connection) for i in self.of(found) if i.owner and i.health is Health.PASSING
        }
        wanted = {(r.key.name, name) for r in self.selecting(found) for name in r.connections}
        return bool(wanted) and wanted <= passing

    async def step(self, kind: str, name: Any, value: Any) -> None:
        world, meta = self.world, {"name": name, "finalizers": [FINALIZER], "generation": self.version}
        match kind:
            case "apply":
                world.apply(body(value, **meta))
            case "delete":
                await self.delete(name, meta)
            case "ready":
                self.change(name, ready=value)
            case "answers":
                world.registries[name].ready = value
                world.reconsider()
            case "lose":
                held = world.consul.consul.held
                for where in [where for where, i in held.items() if i.subject == f"uid-{name}"]:
                    del held[where]
                world.reconsider()
        self.version += 1

    async def delete(self, name: str, meta: Any) -> None:
        known = next((r for key, r in self.world.cluster.registrations.items() if key.name == name), None)
        if known is not None:
            key = self.world.apply(body(**meta, deletionTimestamp="2026"))
            await asyncio.sleep(2)
            self.world.cluster.registrations.pop(key)
            self.world.registrations.remove(f"uid-of-shop-{name}")


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, pauses=st.lists(PAUSES, min_size=10, max_size=10))
def test_nobody_is_let_through_unfound_or_taken_back_while_found_and_at_rest_the_answer_is_right(
    steps: Any, pauses: Any
) -> None:
    _play(steps, pauses)


@instantly
async def _play(steps: Any, pauses: Any) -> None:
    watched = Watched()
    for number, name in enumerate(("web-1", "web-2"), 1):
        watched.world.run_pod(pod(name, ip=f"10.0.0.{number}", gate=Gate()))
    terms: list[list[Any]] = [[]]
    for step, pause in zip(steps, pauses, strict=False):
        if step[0] == "lead anew":
            terms.append([])
        else:
            terms[-1].append((step, pause))
    for term in terms:
        async with watched.world.running():
            for step, pause in term:
                await watched.step(*step)
                await asyncio.sleep(pause)
    await _rests(watched)


async def _rests(watched: Watched) -> None:
    async with watched.world.running():
        for registry in watched.world.registries.values():
            registry.ready = True
        watched.world.reconsider()
        await asyncio.sleep(400)
        assert watched.wrong == []
        for found in watched.world.cluster.pods.values():
            assert found.gate is not None
            if watched.is_found(found):
                assert found.gate.status == "True", found
            elif not list(watched.of(found)) and all(r.suspended for r in watched.selecting(found)):
                assert found.gate.status == "False", found
