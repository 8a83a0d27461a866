"""Decides that what many ask together is asked once; what is asked, and of whom, is theirs to say."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Once(Generic[K, T]):
    """The questions under way, by what they are about. No answer is kept: who comes after it asks anew."""

    def __init__(self) -> None:
        self._under_way: dict[K, asyncio.Future[T]] = {}

    async def ask(self, about: K, question: Callable[[], Awaitable[T]]) -> T:
        """The answer, or what the question raises. Who is cancelled waits no longer; the others still do."""
        if about not in self._under_way:
            asked = asyncio.ensure_future(question())
            self._under_way[about] = asked
            asked.add_done_callback(lambda _: self._under_way.pop(about))
        return await asyncio.shield(self._under_way[about])
