"""Points in time as Kubernetes writes them: RFC 3339, in UTC, whole seconds."""

from datetime import UTC, datetime

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def now() -> str:
    return datetime.now(UTC).strftime(_FORMAT)


def text(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime(_FORMAT)


def epoch(text: str) -> float:
    """Raises ValueError where it isn't a time."""
    return datetime.fromisoformat(text).timestamp()
