"""How instances and checks look in Consul's JSON."""

import json

import pytest

from consul_registrar.consul.answers import Answer
from consul_registrar.consul.bodies import definition, duration
from consul_registrar.consul.errors import Misdirected
from consul_registrar.consul.wire import (
    CheckRow,
    Reader,
    ServiceRow,
    decode_checks,
    decode_node_checks,
    decode_node_services,
    decode_self,
    decode_services,
)
from consul_registrar.model import MANAGED_BY, META_CLUSTER, META_CONNECTION, META_MANAGED_BY, META_NONCE, Check, Health
from consul_registrar.probes import HttpProbe, Readiness, TcpProbe, Timing

OURS = {META_MANAGED_BY: MANAGED_BY, META_CLUSTER: "tests", META_CONNECTION: "c", "z": "1", "a": "2"}


@pytest.mark.parametrize(("ms", "text"), [(10_000, "10s"), (500, "500ms"), (1500, "1500ms"), (60_000, "60s")])
def test_durations_carry_their_unit(ms, text):
    assert duration(ms) == text


def test_readiness_is_a_ttl_that_never_runs_out():
    check = Check("i:readiness", "readiness", Readiness(), Health.WARNING)
    assert definition(check) == {
        "CheckID": "i:readiness",
        "Name": "readiness",
        "Status": "warning",
        "TTL": "876000h",
    }


def test_a_tcp_check_of_an_ipv6_address_is_bracketed():
    check = Check("i:t", "t", TcpProbe("fd00::1", 80, Timing(10_000, 2_000)))
    assert definition(check)["TCP"] == "[fd00::1]:80"


def test_an_http_check_follows_redirects_only_where_it_is_said():
    probe = HttpProbe("http://h/", "GET", (), "", "", False, Timing(10_000, 500), follow_redirects=True)
    assert definition(Check("i:h", "h", probe))["DisableRedirects"] is False


def test_an_http_check_follows_no_redirects_and_groups_headers():
    timing = Timing(10_000, 500, 90_000, 1, 2, 3)
    probe = HttpProbe("http://h/", "POST", (("A", "1"), ("B", "2"), ("A", "3")), "body", "name", True, timing)
    assert definition(Check("i:h", "h", probe, None, "note"), Health.PASSING) == {
        "CheckID": "i:h",
        "Name": "h",
        "Notes": "note",
        "Status": "passing",
        "HTTP": "http://h/",
        "Method": "POST",
        "Header": {"A": ["1", "3"], "B": ["2"]},
        "Body": "body",
        "TLSServerName": "name",
        "TLSSkipVerify": True,
        "DisableRedirects": True,
        "Interval": "10s",
        "Timeout": "500ms",
        "DeregisterCriticalServiceAfter": "90s",
        "SuccessBeforePassing": 1,
        "FailuresBeforeWarning": 2,
        "FailuresBeforeCritical": 3,
    }


def test_a_check_that_was_read_back_cannot_be_written():
    with pytest.raises(ValueError, match="no definition"):
        definition(Check("i:h", "h", None))


def test_what_is_read_is_normalised():
    row = ServiceRow("i", "web", "10.0.0.1", 80, ("b", "a"), OURS | {META_NONCE: "n"})
    checks = {
        "i:x": CheckRow("n", "i:x", "x", "critical", "note", "i"),
        "i:maint": CheckRow("n", "i:maint", "m", "maintenance", "", "i"),
        "_service_maintenance:i": CheckRow("n", "_service_maintenance:i", "m", "critical", "", "i"),
        "foreign": CheckRow("n", "foreign", "f", "critical", "", "i"),
    }
    (held,) = Reader("n", "tests", "c").ours({"i": row}, checks)
    assert held.nonce == "n"
    assert held.instance.tags == ("a", "b")
    assert held.instance.meta == tuple(sorted(OURS.items()))
    assert held.instance.checks == (Check("i:x", "x", None, Health.CRITICAL, "note"),)


@pytest.mark.parametrize("other", [META_MANAGED_BY, META_CLUSTER, META_CONNECTION])
def test_others_instances_are_not_seen(other):
    rows = {"i": ServiceRow("i", "web", Meta=OURS | {other: "x"}), "j": ServiceRow("j", "web", Meta=None)}
    assert Reader("n", "tests", "c").ours(rows, {}) == []


def test_what_did_not_change_is_the_same_object():
    reader = Reader("n", "tests", "c")
    rows = {i: ServiceRow(i, "web", Meta=OURS) for i in "ij"}
    first = reader.ours(rows, {})
    second = reader.ours(rows | {"j": ServiceRow("j", "web", Meta=OURS, Port=2)}, {})
    assert second[0] is first[0]
    assert second[1].instance.port == 2


def answer(value: object) -> Answer:
    return Answer(200, {}, json.dumps(value).encode())


def test_answers_without_content_are_empty():
    assert decode_services(answer(None)) == {}
    assert decode_checks(answer({})) == {}
    assert decode_node_services(answer(None)) == {}
    assert decode_node_services(answer({"Node": None, "Services": None})) == {}
    assert decode_node_checks(answer([])) == {}


@pytest.mark.parametrize(
    "decode", [decode_self, decode_services, decode_checks, decode_node_services, decode_node_checks]
)
@pytest.mark.parametrize("body", [b"<html>", b"", b'"text"', b'{"a": 1}', b"[1]", b"\xff"])
def test_what_is_not_consuls_json_is_refused(decode, body):
    if decode is decode_node_services and body == b'{"a": 1}':
        return  # every object is one without services
    with pytest.raises(Misdirected) as caught:
        decode(Answer(200, {}, body))
    assert caught.value.reason.code == "NotConsul"
