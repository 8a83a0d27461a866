"""Logging: console lines or JSON, each with the registration that it is about.

Decides formats and levels; what is logged is everybody's own. The audit log is always JSON (`audit.py`).
"""

import asyncio
import logging
import signal
import sys
from contextvars import ContextVar

from pythonjsonlogger.json import JsonFormatter

from consul_registrar.model import RegistrationKey

logger = logging.getLogger(__name__)
_current: ContextVar[RegistrationKey | None] = ContextVar("registration", default=None)


class about:  # noqa: N801 - reads as a function; a generator would cost more than what it surrounds, as a rule
    """Log lines inside are about this registration, also those of tasks begun inside."""

    __slots__ = ("_registration", "_token")

    def __init__(self, registration: RegistrationKey) -> None:
        self._registration = registration

    def __enter__(self) -> None:
        self._token = _current.set(self._registration)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


class _AddRegistration(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.registration = str(_current.get() or "")
        return True


class _WithoutKopfsTracebacks(logging.Filter):
    """What ends kopf is said in one line, and it is started again: its own frames help nobody."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("kopf"):
            record.exc_info = record.exc_text = None
        return True


class _Console(logging.Formatter):
    """2026-01-31T12:00:00 INFO  shop/web: message"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(about)s%(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        registration = getattr(record, "registration", "")
        record.about = f"{registration}: " if registration else ""
        return super().format(record)


def _json() -> logging.Formatter:
    fields = "{asctime}{levelname}{name}{registration}{message}"
    names = {"asctime": "time", "levelname": "level", "name": "logger"}
    return JsonFormatter(fields, style="{", rename_fields=names)


def set_up(log_format: str, level: str) -> None:
    """Send all logs to stderr in one format: `console` or `json`. kopf speaks up only when something is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_json() if log_format == "json" else _Console())
    handler.addFilter(_AddRegistration())
    handler.addFilter(_WithoutKopfsTracebacks())
    logging.logProcesses = logging.logThreads = logging.logMultiprocessing = False  # no format shows them; they cost
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("kopf", "asyncio", "aiohttp"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    _set_up_audit()


def heed_signals(loop: asyncio.AbstractEventLoop, usual: str) -> None:
    """Let SIGUSR1 have everything logged, and SIGUSR2 as much as usual again. Either may come twice."""
    loop.add_signal_handler(signal.SIGUSR1, _set_level, "debug", "SIGUSR1")
    loop.add_signal_handler(signal.SIGUSR2, _set_level, usual, "SIGUSR2")


def _set_level(level: str, why: str) -> None:
    """Said in a line of that level, which is shown. The audit log and libraries have levels of their own."""
    logging.getLogger().setLevel(level.upper())
    logger.log(logging.getLogger().level, "the log level is %s now, as %s asks", level, why)


def _set_up_audit() -> None:
    """The audit log's lines are whole as they are, whatever the others look like and whichever of them are shown."""
    audit = logging.getLogger("consul_registrar.audit")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    audit.handlers = [handler]
    audit.propagate = False
    audit.setLevel(logging.INFO)
