"""However slow Consul is: what happens while a write waits or is on its way is made good, and nothing living leaves.

Laws 1, 4 and 5 over the whole loop, as in `test_policy_laws.py`; but each answer takes its time, and what has happened
meanwhile is judged by when a write was sent. Registrations come under other names, too.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from consul_registrar.changes import Change, Register
from consul_registrar.consul.errors import ConsulError, NotSent, OutcomeUnknown
from laws.test_policy_laws import NAMES, PODS, Play
from unit.core.build import reason
from unit.core.instant import instantly

SPECS = st.fixed_dictionaries(
    {
        "port": st.just(8080),
        "app": st.sampled_from(["web", "web", "other"]),
        "suspend": st.sampled_from([False, False, False, True]),
        "service": st.sampled_from(["a", "b"]),
    }
)
WHICH_POD = st.integers(0, PODS - 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("apply"), st.sampled_from(NAMES), SPECS),
        st.tuples(st.just("delete"), st.sampled_from(NAMES), st.none()),
        st.tuples(st.just("pod"), WHICH_POD, st.sampled_from(["web", "web", "other"])),
        st.tuples(st.just("pod"), WHICH_POD, st.sampled_from(["web", "web", "other"])),
        st.tuples(st.just("gone"), WHICH_POD, st.booleans()),
        st.tuples(st.just("fails"), st.integers(1, 3), st.booleans()),
        st.tuples(st.just("waits"), st.sampled_from([2.0, 7.0, 20.0]), st.none()),
    ),
    min_size=12,
    max_size=24,
)


@dataclass
class Slow(Play):
    """A play in which Consul takes so many seconds for each answer."""

    seconds: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.world.consul.apply = self.apply  # type: ignore[method-assign]

    async def apply(self, _: str, changes: Sequence[Change]) -> Sequence[ConsulError | None]:
        self.wrong += [
            f"{type(change).__name__} {change.instance.id} {change.cause}: {why}"
            for change in changes
            for why in self.faults(change)
        ]
        await asyncio.sleep(self.seconds)
        return [self.take(change) for change in changes]

    def take(self, change: Change) -> ConsulError | None:
        applied = self.failing.pop() if self.failing else None
        if applied is False:
            return NotSent(reason("Refused"))
        self._take(change)
        return OutcomeUnknown(reason("TimedOut")) if applied else None

    def faults(self, change: Change) -> Iterator[str]:
        """Of another name than is wanted it may leave, though its Pod lives: what is wanted stands by then."""
        owner = change.instance.owner
        spec = self.wanted.get(owner.registration) if owner else None
        known = {each.uid for each in self.pods.values()}
        if spec and change.instance.service == _named(owner.registration if owner else "", spec):
            yield from super().faults(change)
        if isinstance(change, Register) and change.instance.subject not in known and owner:
            yield "its Pod is gone"

    def service(self, name: str) -> dict[str, Any]:
        return super().service(name) | {"name": _named(name, self.wanted[name])}

    def named(self) -> set[tuple[str, str]]:
        """Which names stand for whom, of those that may be written."""
        held = [i for i in self.world.consul.held if i.owner]
        return {
            (i.owner.registration, i.service)
            for i in held
            if i.owner and not self.wanted.get(i.owner.registration, {}).get("suspend")
        }


def _named(name: str, spec: Any) -> str:
    return f"{name}-{spec['service']}"


@given(steps=STEPS)
def test_whatever_happens_while_a_write_waits_or_is_on_its_way_is_made_good(steps: Any) -> None:
    _play(steps)


@instantly
async def _play(steps: Any) -> None:
    play = Slow()
    async with play.world.running():
        for step in steps:
            await play.step(*step)
        play.failing.clear()
        play.seconds = 0.0
        await asyncio.sleep(1500)
        assert play.does() == play.should()
        assert play.named() <= {(name, _named(name, spec)) for name, spec in play.wanted.items()}
        assert len(play.world.consul.held) == len({(i.owner, i.subject) for i in play.world.consul.held})
        assert not play.leaving
        play.world.consul.written.clear()
        await asyncio.sleep(700)
    assert play.wrong == []
    assert play.world.consul.written == []
