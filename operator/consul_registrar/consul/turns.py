"""Decides which requests may be on their way together: so many at most, no two that make the same thing, and none
beside one that goes alone.

Each in its turn: whoever waits keeps those who came later waiting, so nobody waits for ever.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager


class Turns:
    """The requests of one writer, `most` of them at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._door = asyncio.Lock()
        self._inside: list[AbstractSet[str]] = []
        self._left = asyncio.Event()

    @asynccontextmanager
    async def beside(self, makes: AbstractSet[str]) -> AsyncIterator[None]:
        """With others, but none that makes the same; each is inside for the length of the block."""
        async with self._door:
            await self._until(lambda: len(self._inside) < self._most and not self._is_made(makes))
            self._inside.append(makes)
        try:
            yield
        finally:
            self._inside.remove(makes)
            self._left.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """With no other."""
        async with self._door:
            await self._until(lambda: not self._inside)
            yield

    def _is_made(self, makes: AbstractSet[str]) -> bool:
        return any(makes & others for others in self._inside)

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Only whoever stands at the door waits here."""
        while not holds():
            self._left.clear()
            await self._left.wait()
