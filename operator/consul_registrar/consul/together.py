"""Decides how tasks that need each other end: all of them with the first, and with the error of that one.

`asyncio.TaskGroup` would do, but before Python 3.13 it forgets that it was cancelled when one of its tasks fails at the
same moment, so that a loop that goes on after errors would never end (python/cpython#116720).
"""

import asyncio
from collections.abc import Coroutine


async def together(*each: Coroutine[None, None, None]) -> None:
    """Run them side by side until one returns or fails; returns, or raises what it raised, once all have ended."""
    tasks = [asyncio.create_task(one) for one in each]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()
