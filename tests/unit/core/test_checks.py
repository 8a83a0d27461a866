"""The checks of an instance: what of the spec becomes of them, and the hash that tells them apart."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from consul_registrar.checks import checks_hash
from consul_registrar.model import META_HASH, Check, ContainerPort, Health, Instance
from consul_registrar.probes import HttpProbe, Readiness, TcpProbe, Timing
from unit.core.build import HTTP, instance, of_pods, pod


def checks(*specs: Any, **fields: Any) -> tuple[Check, ...]:
    return instance(of_pods(checks=list(specs)), **fields).checks


def probe(spec: Any, **fields: Any) -> TcpProbe | HttpProbe:
    (check,) = checks({"name": "probe"} | spec, **fields)
    assert isinstance(check.probe, TcpProbe | HttpProbe)
    return check.probe


@pytest.mark.parametrize(("ready", "health"), [(True, Health.PASSING), (False, Health.CRITICAL)])
def test_unset_checks_mirror_the_pods_readiness(ready: bool, health: Health) -> None:
    found = instance(pod=pod(ready=ready))
    assert found.checks == (Check(f"{found.id}:readiness:readiness", "readiness", Readiness(), health),)
    assert found.health == health


def test_no_checks_are_none() -> None:
    assert checks() == ()
    assert instance(of_pods(checks=[])).health == Health.PASSING


def test_check_ids_hold_instance_name_and_kind() -> None:
    found = instance(
        of_pods(
            checks=[
                {"name": "a", "readiness": {}, "notes": "n"},
                {"name": "b", "tcp": {}},
                {"name": "c", "http": {}, "initialStatus": "warning"},
            ]
        )
    )
    assert [c.id.removeprefix(found.id) for c in found.checks] == [":a:readiness", ":b:tcp", ":c:http"]
    assert [c.status for c in found.checks] == [Health.PASSING, None, Health.WARNING]
    assert found.checks[0].notes == "n"


def test_a_tcp_check_opens_the_instances_own_port_by_default() -> None:
    assert probe({"tcp": {}}) == TcpProbe("10.0.0.1", 8080, Timing(interval=10_000, timeout=2_000))
    assert probe({"tcp": {"port": 9}}) == TcpProbe("10.0.0.1", 9, Timing(interval=10_000, timeout=2_000))


def test_an_http_check_gets_the_root_by_default() -> None:
    found = probe({"http": {}})
    assert found == HttpProbe(
        url="http://10.0.0.1:8080/",
        method="GET",
        headers=(),
        body="",
        tls_server_name="",
        tls_skip_verify=False,
        timing=Timing(interval=10_000, timeout=2_000),
    )


def test_an_http_check_is_what_the_spec_says() -> None:
    http = {
        "path": "/health?x=1",
        "port": "admin",
        "scheme": "https",
        "method": "POST",
        "headers": [{"name": "X-B", "value": "2"}, {"name": "X-A", "value": "1"}],
        "body": "{}",
        "tlsServerName": "web.example.com",
        "tlsSkipVerify": True,
        "followRedirects": True,
    }
    spec = of_pods(service={"port": 1}, checks=[{"name": "a", "http": http, "interval": "5s", "timeout": "500ms"}])
    found = instance(spec, pod=pod(ports=(HTTP, ContainerPort("admin", 9)))).checks[0].probe
    assert found == HttpProbe(
        url="https://10.0.0.1:9/health?x=1",
        method="POST",
        headers=(("X-A", "1"), ("X-B", "2")),
        body="{}",
        tls_server_name="web.example.com",
        tls_skip_verify=True,
        timing=Timing(interval=5_000, timeout=500),
        follow_redirects=True,
    )


def test_ipv6_addresses_stand_in_brackets_in_urls_only() -> None:
    six = pod(ip="2001:db8::1")
    http, tcp = probe({"http": {}}, pod=six), probe({"tcp": {}}, pod=six)
    assert isinstance(http, HttpProbe)
    assert isinstance(tcp, TcpProbe)
    assert http.url == "http://[2001:db8::1]:8080/"
    assert (tcp.host, instance(pod=six).address) == ("2001:db8::1", "2001:db8::1")


@pytest.mark.parametrize(
    ("given", "taken"),
    [(None, None), ("1s", 60_000), ("59s", 60_000), ("1m", 60_000), ("90s", 90_000), ("1h", 3_600_000)],
)
def test_consuls_minimum_of_a_minute_is_taken_for_less(given: str | None, taken: int | None) -> None:
    more = {} if given is None else {"deregisterCriticalServiceAfter": given}
    assert probe({"tcp": {}} | more).timing.deregister_after == taken


def test_thresholds_are_taken_over() -> None:
    spec = {"tcp": {}, "successBeforePassing": 2, "failuresBeforeWarning": 1, "failuresBeforeCritical": 3}
    timing = probe(spec).timing
    counts = (timing.success_before_passing, timing.failures_before_warning, timing.failures_before_critical)
    assert counts == (2, 1, 3)


def hashed(*specs: Any, **fields: Any) -> str:
    return instance(of_pods(checks=list(specs)), **fields).meta_value(META_HASH)


TCP: dict[str, Any] = {"name": "a", "tcp": {}}


@pytest.mark.parametrize(
    "same",
    [
        TCP | {"interval": "10s"},
        TCP | {"interval": "10000ms", "timeout": "2s"},
        TCP | {"tcp": {"port": "http"}},
        TCP | {"failuresBeforeCritical": 0},
    ],
)
def test_the_hash_is_that_of_the_meaning_not_of_the_words(same: Any) -> None:
    assert hashed(same) == hashed(TCP)


@pytest.mark.parametrize(
    "other",
    [
        TCP | {"name": "b"},
        TCP | {"interval": "11s"},
        TCP | {"timeout": "1s"},
        TCP | {"tcp": {"port": 1}},
        TCP | {"notes": "x"},
        TCP | {"initialStatus": "passing"},
        TCP | {"deregisterCriticalServiceAfter": "1m"},
        {"name": "a", "http": {}},
        {"name": "a", "readiness": {}},
    ],
)
def test_the_hash_tells_definitions_apart(other: Any) -> None:
    assert hashed(other) != hashed(TCP)


def test_the_hash_is_versioned_and_says_whether_the_agent_may_reap() -> None:
    assert hashed(TCP).startswith("1-")
    assert hashed(TCP | {"deregisterCriticalServiceAfter": "5m"}).startswith("1r-")


def test_readiness_is_no_part_of_the_hash() -> None:
    readiness = {"name": "a", "readiness": {}}
    assert hashed(readiness, pod=pod(ready=False)) == hashed(readiness, pod=pod(ready=True))


def test_the_hash_of_one_definition_never_changes() -> None:
    """Another value here rewrites every check in every Consul at an upgrade: raise the hash's version then."""
    known = (Check("id:readiness:readiness", "readiness", Readiness(), Health.PASSING),)
    assert checks_hash(known) == "1-43ecb8afe09e8f53"


def test_an_instance_without_owner_in_its_meta_is_foreign() -> None:
    assert Instance("n", "i", "s", "a", 1).owner is None
    assert replace(instance(), meta=(("managed-by", "consul-registrar"),)).owner is None
    foreign = tuple((k, "somebody" if k == "managed-by" else v) for k, v in instance().meta)
    assert replace(instance(), meta=foreign).owner is None


@pytest.mark.parametrize("notes", ["", 'says "ready" \\ or not', "tab\t, ünïcödé, \u2028 and \x7f"])
def test_the_hash_of_a_readiness_check_is_that_of_its_json_with_sorted_keys(notes: str) -> None:
    check = Check("web-1:ready:readiness", "ready", Readiness(), Health.PASSING, notes)
    written = [{"id": check.id, "name": check.name, "probe": {}, "status": None, "notes": notes}]
    digest = hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:16]
    assert checks_hash((check,)) == f"1-{digest}"
    assert checks_hash((check, check)) != checks_hash((check,))
