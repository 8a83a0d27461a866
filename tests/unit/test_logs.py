"""Which log lines there are, while the operator runs."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator

import pytest

from consul_registrar import logs


@pytest.fixture
async def quiet() -> AsyncIterator[None]:
    """An operator that was started with --log-level error."""
    root, loop = logging.getLogger(), asyncio.get_running_loop()
    before = root.level
    root.setLevel("ERROR")
    logs.heed_signals(loop, "error")
    yield
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        loop.remove_signal_handler(number)
    root.setLevel(before)


@pytest.mark.usefixtures("quiet")
async def test_signals_say_how_much_is_logged_may_come_twice_and_leave_a_line(caplog: pytest.LogCaptureFixture) -> None:
    for number, level in (
        (signal.SIGUSR1, "DEBUG"),
        (signal.SIGUSR1, "DEBUG"),
        (signal.SIGUSR2, "ERROR"),
        (signal.SIGUSR2, "ERROR"),
    ):
        caplog.clear()
        os.kill(os.getpid(), number)
        while not caplog.messages:  # noqa: ASYNC110 - the loop hears of a signal when it looks for what has come
            await asyncio.sleep(0)
        assert caplog.messages == [f"the log level is {level.lower()} now, as {number.name} asks"]
        assert logging.getLogger().level == getattr(logging, level)
