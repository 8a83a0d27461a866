"""The last writes to Consul: the audit log's newest lines, kept whole and read only when somebody looks."""

import logging
from collections import deque

import msgspec

from consul_registrar.overview import Change

#: Lines that are kept, about 700 bytes each.
KEPT = 500


class _Line(msgspec.Struct):
    """What is shown of an audit line (`audit.py`)."""

    time: str
    operation: str
    cause: str
    outcome: str
    connection: str
    service: str = ""
    registration: str = ""
    pod: str = ""
    instance: str = ""
    node: str = ""


class Recent(logging.Handler):
    """Keeps the last lines. To be added to the audit log's logger."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        """The lines are whole as they are."""
        self._lines.append(str(record.msg))

    def changes(self) -> list[Change]:
        """The newest first."""
        return [_change(line) for line in reversed(self._lines)]


def _change(text: str) -> Change:
    try:
        line = msgspec.json.decode(text, type=_Line)
    except msgspec.DecodeError:  # says that there was something rather than nothing
        return Change("", "an audit line", "", "unreadable", "", "", "", "")
    subject = line.pod or line.instance or line.node
    about = (line.operation, line.cause, line.outcome, line.connection, line.service, line.registration)
    return Change(line.time, *about, subject)
