"""Logging: console lines or JSON, each with the registration that it is about.

Decides formats and levels; what is logged is everybody's own. The audit log is always JSON (`audit.py`).
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pythonjsonlogger.json import JsonFormatter

from consul_registrar.model import RegistrationKey

_current: ContextVar[str] = ContextVar("registration", default="")


@contextmanager
def about(registration: RegistrationKey) -> Iterator[None]:
    """Log lines inside are about this registration, also those of tasks begun inside."""
    token = _current.set(str(registration))
    try:
        yield
    finally:
        _current.reset(token)


class _AddRegistration(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.registration = _current.get()
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
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("kopf", "asyncio", "aiohttp"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    _set_up_audit()


def _set_up_audit() -> None:
    """The audit log's lines are whole as they are, whatever the others look like and whichever of them are shown."""
    audit = logging.getLogger("consul_registrar.audit")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    audit.handlers = [handler]
    audit.propagate = False
    audit.setLevel(logging.INFO)
