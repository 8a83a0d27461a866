"""Which log lines there are, while the operator runs, and in what form."""

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
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


LINES = """
import logging, sys
from consul_registrar import logs
from consul_registrar.model import RegistrationKey
logs.set_up(sys.argv[1], "info")
with logs.about(RegistrationKey("shop", "web")):
    logging.getLogger("some").warning("so it is")
logging.getLogger("some").info("about none")
logging.getLogger("some").debug("nobody asked for it")
"""


def logged(log_format: str) -> list[str]:
    """What a process of its own logs; the form is the whole process's."""
    ended = subprocess.run([sys.executable, "-c", LINES, log_format], capture_output=True, text=True, check=True)
    return ended.stderr.splitlines()


def test_json_lines_say_when_how_grave_who_and_about_which_registration() -> None:
    lines = [json.loads(line) for line in logged("json")]
    assert [set(line) for line in lines] == [{"time", "level", "logger", "registration", "message"}] * 2
    assert [(line["level"], line["logger"], line["registration"], line["message"]) for line in lines] == [
        ("WARNING", "some", "shop/web", "so it is"),
        ("INFO", "some", "", "about none"),
    ]


def test_console_lines_are_for_people() -> None:
    assert [re.sub(r"^[\d-]{10}T[\d:]{8} ", "", line) for line in logged("console")] == [
        "WARNING shop/web: so it is",
        "INFO    about none",
    ]
