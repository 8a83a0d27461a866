"""What can go wrong between us and the Kubernetes API, by what follows from it.

    KubeError
    ├── Unavailable      nobody answered, or with a server's error; try again, the outcome of a write is unknown
    │   ├── Throttled    … not before `after` seconds (429)
    │   └── Silent       a watch was open, and nothing came, not even a bookmark
    ├── Gone             the version or the continue token has expired (410); list again from the start
    ├── NotFound         the object, or its kind, is not there (404)
    ├── Conflict         the object differs from what we assumed (409); read again, then decide again
    ├── Invalid          the request is wrong as it stands (400, 422, …); never repeat it unchanged
    ├── Forbidden        RBAC or admission refuses it (403); nothing changes until they do
    └── LoginFailed      there are no credentials, or the server refuses them (401) even when read afresh

Each carries the `Reason` that the condition, the Event and the log line share. `retry` says whether time alone may
help. What to do about each is left to the caller.
"""

import msgspec

from consul_registrar.model import Reason

#: Seconds for which a `Retry-After` is heeded at most. The API server asks for few; a proxy may ask for an hour.
LONGEST = 60.0


class KubeError(Exception):
    """Base of the tree; never raised itself."""

    retry = False
    code = "KubernetesError"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.reason = Reason(self.code, message)


class Unavailable(KubeError):
    """Nobody answered, or the server failed. A write may have been applied."""

    retry = True
    code = "KubernetesUnavailable"


class Throttled(Unavailable):
    """The server pushes back; `after` is the number of seconds it asked for, None where it didn't say."""

    code = "KubernetesThrottled"

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Silent(Unavailable):
    """A watch was open, but brought nothing for longer than the server's bookmarks are apart."""

    code = "KubernetesSilent"


class Gone(KubeError):
    """The resource version or continue token has expired."""

    retry = True
    code = "KubernetesVersionExpired"


class NotFound(KubeError):
    """There is no such object, or its kind is not installed."""

    code = "KubernetesNotFound"


class Conflict(KubeError):
    """The object is not as we assumed, or exists already."""

    retry = True
    code = "KubernetesConflict"


class Invalid(KubeError):
    """The server can't accept the request as it stands."""

    code = "KubernetesInvalid"


class Forbidden(KubeError):
    """RBAC or admission refuses the request."""

    code = "KubernetesForbidden"


class LoginFailed(KubeError):
    """There is no way to log in, or the server doesn't accept the credentials."""

    code = "KubernetesLoginFailed"


_BY_STATUS: dict[int, type[KubeError]] = {
    401: LoginFailed,
    403: Forbidden,
    404: NotFound,
    408: Unavailable,
    409: Conflict,
    410: Gone,
}


class Status(msgspec.Struct):
    """The `Status` object with which the API server explains a refusal, and ends a watch (`ERROR` events)."""

    code: int | None = None
    reason: str | None = None
    message: str | None = None


def error_of(code: int, message: str, after: float | None = None) -> KubeError:
    """The error that an HTTP status, or the code in a watch's ERROR event, stands for."""
    if code == 429:
        return Throttled(message, after)
    if code >= 500:
        return Unavailable(message)
    return _BY_STATUS.get(code, Invalid)(message)


def message_of(body: bytes) -> str:
    """What an error's body says, in at most 500 characters: the message of a `Status`, else the text itself."""
    try:
        text = msgspec.json.decode(body, type=Status).message
    except msgspec.DecodeError:
        text = None
    return (text or body.decode(errors="replace"))[:500]


def seconds_of(header: str | None) -> float | None:
    """The seconds of a `Retry-After` header; None where it is missing or a date (which the API server never sends)."""
    try:
        return min(max(0.0, float(header)), LONGEST) if header else None
    except ValueError:
        return None
