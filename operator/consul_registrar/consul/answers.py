"""Decides what an answer of Consul's means; pure. How it got here is `transport.py`'s concern.

Consul's texts are matched by substring: a client agent prefixes what a server said with "rpc error making call: ".
The order of the rows matters, the first that fits decides. A 404 is left to the caller: on a read it says "nothing
there", on a deregistration it says "already gone".
"""

from collections.abc import Callable, Mapping
from dataclasses import field

from consul_registrar.consul.errors import (
    ConsulError,
    Denied,
    Invalid,
    Misdirected,
    NotSent,
    OutcomeUnknown,
    Stale,
    Throttled,
    Unavailable,
)
from consul_registrar.model import Reason
from consul_registrar.values import record

TRANSACTION = "/v1/txn"
"""Its 409 says which of its operations were refused, and why."""

CONSISTENT = (("consistent", ""),)
"""Asks for a read that the leader has made sure of. Without it a leader that was just started answers out of the middle
of its log: with what stood there long ago. For the first read after Consul was out of sight."""

_SHOWN = 300
"""How many characters of an answer's text go into a message."""

LONGEST = 60.0
"""Seconds for which a `Retry-After` is heeded at most. Consul sends none; the word of a proxy mustn't blind us."""


@record(frozen=True, slots=True)
class Request:
    """What was asked, as far as messages and verdicts need it."""

    method: str
    path: str
    address: str

    @property
    def is_write(self) -> bool:
        return self.method != "GET"

    def __str__(self) -> str:
        return f"{self.method} {self.path} at {self.address}"


@record(frozen=True, slots=True)
class Answer:
    """An HTTP answer. The field names are those that py-consul's callbacks read."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def index(self) -> int:
        """`X-Consul-Index`, the place in Consul's log that a blocking query goes on from; 0 where there is none."""
        text = self.headers.get("X-Consul-Index", "")
        return int(text) if text.isdecimal() else 0

    @property
    def known_leader(self) -> bool:
        """Whether the servers had a leader; taken as yes where the answer doesn't say."""
        return self.headers.get("X-Consul-KnownLeader", "true") == "true"

    @property
    def filtered(self) -> bool:
        """Whether ACLs hid a part: such a list is incomplete, and nothing may be concluded from what it lacks."""
        return self.headers.get("X-Consul-Results-Filtered-By-ACLs", "") == "true"

    @property
    def text(self) -> str:
        """The body, short enough for a message."""
        return " ".join(self.body[:_SHOWN].decode(errors="replace").split())


def _unless_written(request: Request, reason: Reason) -> ConsulError:
    """Whether something was applied is an open question for writes alone."""
    return OutcomeUnknown(reason) if request.is_write else NotSent(reason)


_Make = Callable[[Request, Reason, Answer], ConsulError]


def _unavailable(_request: Request, reason: Reason, _answer: Answer) -> ConsulError:
    return Unavailable(reason)


def _throttled(_request: Request, reason: Reason, answer: Answer) -> ConsulError:
    after = answer.headers.get("Retry-After", "")
    return Throttled(reason, min(float(after), LONGEST) if after.isdecimal() else None)


def _denied(_request: Request, reason: Reason, _answer: Answer) -> ConsulError:
    return Denied(reason)


def _invalid(_request: Request, reason: Reason, _answer: Answer) -> ConsulError:
    return Invalid(reason)


def _stale(_request: Request, reason: Reason, _answer: Answer) -> ConsulError:
    return Stale(reason)


def _misdirected(_request: Request, reason: Reason, _answer: Answer) -> ConsulError:
    return Misdirected(reason)


def _unknown(request: Request, reason: Reason, _answer: Answer) -> ConsulError:
    return _unless_written(request, reason)


@record(frozen=True, slots=True)
class _Row:
    """`low`..`high`: status codes; `text`: what the body must hold, in lower case."""

    low: int
    high: int
    text: str
    make: _Make
    code: str
    advice: str


_WAIT = "it is tried again"
_TABLE = (
    _Row(403, 403, "acl not found", _denied, "TokenUnknown", "check the token that the connection names"),
    _Row(
        403, 403, "blocked by agent configuration", _denied, "BlockedByAgent", "the agent's http_config must allow it"
    ),
    _Row(401, 403, "", _denied, "PermissionDenied", "give the token's policy the missing rule"),
    _Row(413, 413, "", _invalid, "RequestTooLarge", "it can't be sent as it stands"),
    _Row(429, 429, "", _throttled, "ConsulThrottled", _WAIT),
    _Row(503, 503, "can only be performed by the leader", _throttled, "ConsulThrottled", _WAIT),
    _Row(300, 399, "", _misdirected, "UnexpectedRedirect", "the address must be Consul's own"),
    _Row(408, 408, "", _unknown, "ConsulFailed", "it is read back, then tried again"),
    _Row(409, 409, "", _stale, "Stale", "what stands is read again, then it is tried again"),
    _Row(400, 499, "", _invalid, "InvalidRequest", "it is not sent again unchanged"),
    _Row(500, 503, "no cluster leader", _unavailable, "ConsulNoLeader", "the servers must elect a leader; " + _WAIT),
    _Row(500, 500, "no known consul servers", _unavailable, "ConsulNoLeader", "the agent must find servers; " + _WAIT),
    _Row(500, 500, "node is not the leader", _unavailable, "ConsulNoLeader", _WAIT),
    _Row(500, 500, "timed out enqueuing operation", _unavailable, "ConsulNoLeader", _WAIT),
    _Row(500, 500, "permission denied", _denied, "PermissionDenied", "give the token's policy the missing rule"),
    _Row(500, 599, "", _unknown, "ConsulFailed", "it is read back, then tried again"),
)


def failure(request: Request, answer: Answer) -> ConsulError | None:
    """What a non-success means; None for a success, for 404 and for a refused transaction, which the caller judges.

    Source of the rules: Consul's agent/http.go (which error becomes which status) and consul/rpc.go (canRetry).
    """
    if 200 <= answer.code < 300 or answer.code == 404 or (answer.code == 409 and request.path == TRANSACTION):
        return None
    body = answer.body.decode(errors="replace").lower()
    row = next((r for r in _TABLE if r.low <= answer.code <= r.high and r.text in body), _TABLE[-1])
    message = f"{request} was answered {answer.code} {answer.text!r}: {row.advice}"
    return row.make(request, Reason(row.code, message), answer)


def not_found(request: Request, answer: Answer) -> Invalid:
    """For callers to whom a 404 is no valid answer."""
    return Invalid(
        Reason("InvalidRequest", f"{request} was answered 404 {answer.text!r}: the address may not be Consul's")
    )


def next_index(before: int, told: int) -> int:
    """The index for the next blocking query after an answer that told one; 0 asks without blocking.

    At least 1, and from the start again when an index goes backwards, since then the servers' log is another one
    (Consul's documentation of blocking queries).
    """
    return 0 if told < before else max(told, 1)


def whole(path: str, answer: Answer) -> Answer:
    """Nothing may be concluded from what a filtered list lacks."""
    if answer.filtered:
        message = (
            f"{path} was answered in part: ACLs hid the rest. Give the token's policy `read` on "
            'agent_prefix "", node_prefix "" and service_prefix ""'
        )
        raise Denied(Reason("ReadIncomplete", message))
    return answer
