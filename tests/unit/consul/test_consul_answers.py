"""What Consul's answers mean."""

import pytest

from consul_registrar.consul.answers import Answer, Request, failure, next_index
from consul_registrar.consul.errors import (
    Denied,
    Invalid,
    Misdirected,
    NotSent,
    OutcomeUnknown,
    Stale,
    Throttled,
    Unavailable,
)

WRITE = Request("PUT", "/v1/agent/service/register", "http://10.0.0.1:8500")
READ = Request("GET", "/v1/agent/services", "http://10.0.0.1:8500")


@pytest.mark.parametrize(
    ("code", "body", "kind", "reason"),
    [
        (400, "Invalid service address", Invalid, "InvalidRequest"),
        (400, 'Request decode failed: json: unknown field "X"', Invalid, "InvalidRequest"),
        (403, "Permission denied: token with AccessorID '1' lacks permission", Denied, "PermissionDenied"),
        (403, "rpc error making call: ACL not found", Denied, "TokenUnknown"),
        (403, "Endpoint is blocked by agent configuration", Denied, "BlockedByAgent"),
        (401, "ACL support disabled", Denied, "PermissionDenied"),
        (405, "method GET not allowed", Invalid, "InvalidRequest"),
        (408, "a proxy lost its patience", OutcomeUnknown, "ConsulFailed"),
        (409, "a conflict", Stale, "Stale"),
        (413, "Request body too large", Invalid, "RequestTooLarge"),
        (429, "rate limit exceeded, try again later or against a different server", Throttled, "ConsulThrottled"),
        (429, "Your IP is issuing too many concurrent connections", Throttled, "ConsulThrottled"),
        (503, "operation can only be performed by the leader, try again later", Throttled, "ConsulThrottled"),
        (500, "rpc error making call: No cluster leader", Unavailable, "ConsulNoLeader"),
        (503, "No cluster leader", Unavailable, "ConsulNoLeader"),
        (500, "No known Consul servers", Unavailable, "ConsulNoLeader"),
        (500, "node is not the leader", Unavailable, "ConsulNoLeader"),
        (500, "timed out enqueuing operation", Unavailable, "ConsulNoLeader"),
        (500, "leadership lost while committing log", OutcomeUnknown, "ConsulFailed"),
        (500, "rpc error making call: i/o deadline reached", OutcomeUnknown, "ConsulFailed"),
        (502, "Bad Gateway", OutcomeUnknown, "ConsulFailed"),
        (302, "", Misdirected, "UnexpectedRedirect"),
    ],
)
def test_an_answer_to_a_write_means(code, body, kind, reason):
    error = failure(WRITE, Answer(code, {}, body.encode()))
    assert type(error) is kind
    assert error.reason.code == reason
    assert "10.0.0.1" in error.reason.message
    assert str(code) in error.reason.message


def test_a_failed_read_never_leaves_an_outcome_open():
    error = failure(READ, Answer(500, {}, b"rpc error making call: EOF"))
    assert type(error) is NotSent


@pytest.mark.parametrize("code", [200, 204, 404])
def test_a_success_and_a_404_are_left_to_the_caller(code):
    assert failure(WRITE, Answer(code)) is None


def test_throttling_says_how_long_to_wait():
    error = failure(WRITE, Answer(429, {"Retry-After": "7"}, b""))
    assert error.after == 7.0
    assert failure(WRITE, Answer(429, {"Retry-After": "Wed, 21 Oct"}, b"")).after is None


@pytest.mark.parametrize("asked", ["3600", "9" * 400])
def test_who_asks_for_an_hour_is_left_alone_for_a_minute(asked):
    assert failure(READ, Answer(429, {"Retry-After": asked}, b"")).after == 60.0


def test_headers_are_read():
    answer = Answer(200, {"X-Consul-Index": "12", "X-Consul-KnownLeader": "false"})
    assert (answer.index, answer.known_leader, answer.filtered) == (12, False, False)
    assert Answer(200).index == 0
    assert Answer(200, {"X-Consul-Results-Filtered-By-ACLs": "true"}).filtered


def test_a_long_answer_is_cut():
    error = failure(WRITE, Answer(400, {}, b"x" * 10_000))
    assert len(error.reason.message) < 600


@pytest.mark.parametrize(("before", "told", "then"), [(0, 5, 5), (5, 5, 5), (5, 9, 9), (9, 5, 0), (0, 0, 1), (5, 0, 0)])
def test_where_a_blocking_query_goes_on(before, told, then):
    assert next_index(before, told) == then
