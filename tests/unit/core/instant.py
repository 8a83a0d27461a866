"""An event loop whose time jumps to the next timer as soon as nothing else is to be done: no test waits for a clock."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")


class InstantLoop(asyncio.SelectorEventLoop):
    """Its time begins at zero and moves only over the pauses."""

    def __init__(self) -> None:
        self._moment = 0.0
        super().__init__()

    def time(self) -> float:
        return self._moment

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self._moment = max(self._moment, self._scheduled[0].when())
        super()._run_once()


def instantly(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in an instant loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=InstantLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def elapsed() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()


async def settle() -> None:
    """Let everything run that needs no time."""
    for _ in range(20):
        await asyncio.sleep(0)
