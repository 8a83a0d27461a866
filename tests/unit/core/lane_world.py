"""A lane, and a Consul behind it that takes batches when it is let."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from consul_registrar.audit import Audit
from consul_registrar.changes import Cause, Change, Register
from consul_registrar.consul.errors import (
    ConsulError,
)
from consul_registrar.writer import Lane
from unit.core.build import instance, pod
from unit.core.instant import settle

Answers = Sequence[ConsulError | None]


BATCH = 8
ROOM = 3 * BATCH


class Consul:
    """Takes batches, each when it is let through."""

    name = "default"
    batch = BATCH
    room = ROOM

    def __init__(self, answer: Callable[[Sequence[Change]], Answers] | None = None) -> None:
        self.batches: list[list[Change]] = []
        self.nodes: list[str] = []
        self.open = asyncio.Event()
        self._answer = answer or (lambda changes: [None] * len(changes))

    def lane(self, node: str) -> str:
        return node

    async def apply(self, node: str, changes: Sequence[Change]) -> Answers:
        self.batches.append(list(changes))
        self.nodes.append(node)
        await self.open.wait()
        return self._answer(changes)


class World:
    def __init__(self, answer: Any = None) -> None:
        self.consul: Any = Consul(answer)
        self.audited: list[tuple[str, str, str]] = []
        self.audit = Audit("default", lambda *line: self.audited.append(line))
        self.lane = Lane(self.consul, "agent-1", self.audit)

    async def begin(self, *changes: Change) -> list["asyncio.Task[None]"]:
        tasks = [asyncio.create_task(self.lane.write(change)) for change in changes]
        await settle()
        return tasks

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.consul.batches]


def changes(count: int) -> list[Change]:
    return [Register(instance(pod=pod(f"web-{i}")), (), Cause.DESIRED) for i in range(count)]


async def results(tasks: Any) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)
