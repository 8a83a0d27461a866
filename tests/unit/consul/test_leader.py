# ruff: noqa: ARG002 - fakes take what the real ones take
"""Who leads is asked once somebody can be asked, then now and then, and what was told last stands."""

import asyncio
from collections.abc import Sequence

from consul_registrar.consul.answers import Answer
from consul_registrar.consul.errors import ConsulError, NotSent
from consul_registrar.consul.leader import ABOUT, Leader
from consul_registrar.model import Reason
from unit.core.instant import instantly, settle

SILENT = NotSent(Reason("ConsulUnreachable", "nobody answers"))


class Scripted:
    """Says who leads, or that nobody answers."""

    def __init__(self, *says: str | ConsulError) -> None:
        self.says = list(says)
        self.asked = 0

    async def get(self, path: str, params: Sequence[tuple[str, object]] = ()) -> Answer:
        self.asked += 1
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, ConsulError):
            raise said
        return Answer(200, {}, f'"{said}"\n'.encode())

    async def put(self, path: str, params: Sequence[tuple[str, object]], body: bytes) -> Answer:
        raise NotImplementedError


async def known_over(consul: Scripted, seconds: float) -> list[str | None]:
    """What is known of it, each once, while so much time passes."""
    leader = Leader(consul)
    running = asyncio.create_task(leader.run())
    known = [leader.address]
    for _ in range(round(seconds)):
        await asyncio.sleep(1)
        known += [leader.address] if leader.address != known[-1] else []
    running.cancel()
    return known


@instantly
async def test_another_leader_is_noticed_and_what_was_told_last_stands_while_nobody_answers() -> None:
    consul = Scripted("a:8300", "b:8300", SILENT, SILENT, "", "c:8300")
    assert await known_over(consul, 4 * ABOUT) == [None, "a:8300", "b:8300", "", "c:8300"]


@instantly
async def test_while_all_is_as_it_was_it_is_hardly_ever_asked() -> None:
    consul = Scripted("a:8300")
    await known_over(consul, 10 * ABOUT)
    assert consul.asked <= 11


@instantly
async def test_whoever_can_be_asked_at_last_is_asked_at_once_and_then_left_in_peace() -> None:
    consul = Scripted(SILENT, "a:8300")
    leader = Leader(consul)
    running = asyncio.create_task(leader.run())
    await settle()
    assert leader.address is None
    for _ in range(1000):  # agents that come and go
        leader.met()
        await settle()
    assert (leader.address, consul.asked) == ("a:8300", 2)
    running.cancel()
