"""What status says of a generation is true of that generation: "in sync" is said once Consul has answered all of it."""

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from consul_registrar.changes import Change
from consul_registrar.consul.errors import ConsulError
from consul_registrar.objects import FINALIZER, Registration, registration
from consul_registrar.selectors import selects
from unit.core.build import PODS, body, pod
from unit.core.instant import instantly
from unit.core.shell import World

MANY = [pod(f"web-{number}", labels={"app": "web", "track": "odd" if number % 2 else "even"}) for number in range(4)]
EDITS = st.fixed_dictionaries(
    {
        "service": st.sampled_from([{"tags": ["v1"]}, {"tags": ["v2"]}, {"tags": ["v1"], "name": "db"}]),
        "pods": st.sampled_from(
            [PODS, PODS, *({"selector": {"matchLabels": {"track": track}}} for track in ("odd", "none"))]
        ),
    }
)
STEPS = st.lists(st.tuples(EDITS, st.sampled_from([0.0, 0.01, 0.3, 1.2, 4.0])), min_size=1, max_size=6)
DELAYS = st.sampled_from([0.0, 0.05, 0.4, 2.0])


class Judged:
    """A world whose Consul takes its time, and whose API server judges each status as it is written."""

    def __init__(self, delay: float) -> None:
        self.world = World()
        self.delay = delay
        self.generations: dict[int, Registration] = {}
        self.claims: list[int] = []
        self.wrong: list[str] = []
        self._apply = self.world.consul.apply
        self.world.consul.apply = self.apply  # type: ignore[method-assign]
        self.world.cluster.write = self.write  # type: ignore[method-assign]

    async def apply(self, node: str, changes: Sequence[Change]) -> Sequence[ConsulError | None]:
        """Consul has it at once, and says so later."""
        outcomes = await self._apply(node, changes)
        await asyncio.sleep(self.delay)
        return outcomes

    async def write(self, _: Registration, wanted: Any) -> None:
        generation = wanted["observedGeneration"]
        conditions = {condition["type"]: condition for condition in wanted["conditions"]}
        if conditions["Synced"]["status"] == "True" or conditions["Ready"]["status"] == "True":
            self.claims.append(generation)
            if self.stands() != self.due(self.generations[generation]):
                self.wrong.append(f"generation {generation} at {asyncio.get_running_loop().time()}: {self.stands()}")

    def stands(self) -> set[tuple[str, str, tuple[str, ...]]]:
        return {(i.subject, i.service, i.tags) for i in self.world.consul.held}

    def due(self, of: Registration) -> set[tuple[str, str, tuple[str, ...]]]:
        assert of.spec is not None
        spec: Any = of.spec
        chosen = [each for each in MANY if selects(spec.pods.selector, each.labels)]
        return {(each.uid, of.service, tuple(spec.service.tags)) for each in chosen}

    def edit(self, spec: Any) -> None:
        generation = len(self.generations) + 1
        made = body(spec, generation=generation, resourceVersion=str(generation), finalizers=[FINALIZER])
        self.generations[generation] = registration(made)
        self.world.apply(made)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, delay=DELAYS)
def test_nothing_is_said_to_be_in_sync_that_consul_does_not_hold_yet(steps: Any, delay: float) -> None:
    _play(steps, delay)


@instantly
async def _play(steps: Any, delay: float) -> None:
    judged = Judged(delay)
    for each in MANY:
        judged.world.run_pod(each)
    async with judged.world.running():
        for spec, pause in steps:
            judged.edit(spec)
            await asyncio.sleep(pause)
        await asyncio.sleep(900)
    assert judged.wrong == []
    assert judged.claims[-1:] == [len(steps)]
