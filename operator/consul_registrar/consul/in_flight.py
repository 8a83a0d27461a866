"""Keeps which writes of one connection have left and have no answer yet, and notes the answered ones in their log.

Whoever must tell our own doing from somebody else's waits here for the answers that may show it. What follows from the
log is decided in `own_writes.py`.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from consul_registrar.consul.own_writes import OwnWrites

Told = Callable[[int, Iterable[str]], None]
"""Takes the number that Consul told of a transaction, 0 for none, and the nodes that it changed."""


@dataclass(slots=True, eq=False)
class _Request:
    """One on its way. `after`: the highest number that was known when it left; `alone`: no other was there with it."""

    after: int
    alone: bool
    answered: asyncio.Event = field(default_factory=asyncio.Event)


class InFlight:
    """The writes of one connection that are on their way."""

    def __init__(self) -> None:
        self.own = OwnWrites()
        self._requests: set[_Request] = set()

    @contextmanager
    def request(self) -> Iterator[Told]:
        """Something is on its way for the length of the block, which says what became of it."""
        request = _Request(self.own.highest, alone=not self._requests)
        for other in self._requests:
            other.alone = False
        self._requests.add(request)

        def told(index: int, nodes: Iterable[str]) -> None:
            self.own.wrote(index, nodes, time.monotonic(), after=request.after, alone=request.alone)

        try:
            yield told
        finally:
            self._requests.discard(request)
            request.answered.set()

    async def settled(self, within: float) -> None:
        """Wait until all that is on its way now has its answer, `within` seconds at most."""
        try:
            async with asyncio.timeout(within):
                for request in tuple(self._requests):
                    await request.answered.wait()
        except TimeoutError:
            return
