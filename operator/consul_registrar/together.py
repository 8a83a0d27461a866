"""Decides how tasks that need each other end: when one of them fails, all of them, with the error of that one.

`asyncio.TaskGroup` would do, but before Python 3.13 it forgets that it was cancelled when one of its tasks fails at the
same moment, so that a loop that goes on after errors would never end; and it may leave its task looking cancelled
(python/cpython#116720). So a group stands only where nothing goes on after its failure.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def is_cancelled() -> bool:
    """Whether somebody wants the running task to end: else a CancelledError in it is that of something it waits for."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def together(*each: Coroutine[Any, Any, None]) -> None:
    """Run them side by side until one returns or fails; returns, or raises what it raised, once all have ended."""
    await _run(each, asyncio.FIRST_COMPLETED)


async def results(each: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run them side by side, to the end of all; raises what the first raised that fails, once all have ended."""
    tasks = await _run(each, asyncio.FIRST_EXCEPTION)
    return [task.result() for task in tasks]


async def _run(each: Iterable[Coroutine[Any, Any, T]], until: str) -> "list[asyncio.Task[T]]":
    tasks = [asyncio.create_task(one) for one in each]
    if not tasks:
        return []
    try:
        ended, _ = await asyncio.wait(tasks, return_when=until)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()
    return tasks
