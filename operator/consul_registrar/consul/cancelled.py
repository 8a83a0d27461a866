"""Being cancelled while a task group ends with an error: before Python 3.13 the group raises only the error."""

import asyncio


def heed_cancellation() -> None:
    """Raise what a task group has swallowed; for loops that go on after errors (python/cpython#116720)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
