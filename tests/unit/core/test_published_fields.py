"""What each field of a registration publishes, beyond the simplest: addresses, weights, further addresses, checks."""

from dataclasses import replace
from typing import Any

import pytest

from consul_registrar.changes import Cause
from consul_registrar.desired import Absent, Kept, Present, desired
from consul_registrar.model import META_HASH, Check, ContainerPort, Health, Hidden, TaggedAddress, Weights
from consul_registrar.probes import (
    AliasProbe,
    GrpcProbe,
    H2PingProbe,
    HttpProbe,
    Readiness,
    TcpProbe,
    Timing,
    TtlProbe,
    UdpProbe,
)
from unit.core.build import OLD, PODS, endpoint, facts, instance, of_endpoint, of_endpoints, of_pods, pod, registration

DUAL = {
    "ip": "10.0.0.1",
    "ips": ("10.0.0.1", "fd00::1"),
    "host_ip": "192.168.0.1",
    "host_ips": ("192.168.0.1", "fd01::1"),
}
ON_NODE = (ContainerPort("http", 8080, host_port=30080),)
TIMING = Timing(10_000, 2_000)


def pods(**more: Any) -> dict[str, Any]:
    return {"pods": PODS | more}


def problem(spec: Any, **fields: Any) -> str:
    want = desired(facts(spec, **fields))
    assert isinstance(want, Kept), want
    assert want.problem
    return want.reason.code


def check(spec: Any, **fields: Any) -> Check:
    (one,) = instance(of_pods(checks=[{"name": "probe"} | spec]), **fields).checks
    return one


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({}, "10.0.0.1"),
        ({"ipFamily": "IPv4"}, "10.0.0.1"),
        ({"ipFamily": "IPv6"}, "fd00::1"),
        ({"address": "HostIP"}, "192.168.0.1"),
        ({"address": "HostIP", "ipFamily": "IPv6"}, "fd01::1"),
    ],
)
def test_an_address_is_the_pods_or_its_nodes_of_the_wanted_family(given: Any, address: str) -> None:
    assert instance(pods(**given), pod=pod(ports=ON_NODE, **DUAL)).address == address


def test_an_address_of_a_family_that_there_is_not_is_a_problem_of_that_pod() -> None:
    assert problem(pods(ipFamily="IPv6")) == "AddressNotFound"
    assert instance(pods(ipFamily="IPv6"), pod=pod(ip="fd00::2")).address == "fd00::2"


@pytest.mark.parametrize("port", [None, "http", 8080])
def test_at_the_nodes_address_the_port_is_the_nodes(port: Any) -> None:
    spec = pods(address="HostIP") | {"service": {"port": port}, "checks": [{"name": "port", "tcp": {}}]}
    found = instance(spec, pod=pod(ports=ON_NODE))
    assert (found.address, found.port) == ("192.168.0.1", 30080)
    assert found.checks[0].probe == TcpProbe("192.168.0.1", 30080, TIMING)


def test_a_port_that_no_port_of_the_node_leads_to_is_a_problem() -> None:
    assert problem(pods(address="HostIP")) == "HostPortNotFound"


# --- weights, further addresses, tags -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        ({}, Weights(1, 1)),
        ({"passing": 10}, Weights(10, 1)),
        ({"passing": 65535, "warning": 0}, Weights(65535, 0)),
        ({"passing": "$(metadata.annotations['w'])"}, Weights(7, 1)),
        ({"passing": "$(metadata.annotations['none']:-3)"}, Weights(3, 1)),
    ],
)
def test_weights_are_numbers_or_found_at_a_field_path(given: Any, weights: Weights) -> None:
    assert instance(of_pods(service={"weights": given}), pod=pod(annotations={"w": "7"})).weights == weights


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "65536", "999999999999", "ten", "٣", " 7"])
def test_a_weight_that_is_none_is_a_problem_of_that_pod(text: str) -> None:
    spec = of_pods(service={"weights": {"passing": "$(metadata.annotations['w'])"}})
    assert problem(spec, pod=pod(annotations={"w": text})) == "ValueInvalid"


def test_further_addresses_are_sorted_by_name() -> None:
    at = {"wan": {"address": "203.0.113.7", "port": 443}, "edge": {"address": "edge.example.com", "port": 8443}}
    assert instance(of_pods(service={"taggedAddresses": at})).tagged == (
        TaggedAddress("edge", "edge.example.com", 8443),
        TaggedAddress("wan", "203.0.113.7", 443),
    )


def test_tags_may_be_left_to_others() -> None:
    assert instance(of_pods(service={"enableTagOverride": True})).tag_override


def test_an_endpoint_has_tags_weights_and_checks_of_its_own() -> None:
    first = endpoint(tags=["rw", "a"], weights={"passing": 9}, checks=["port"])
    spec = of_endpoints(
        first,
        endpoint("second"),
        endpoint("third", checks=[]),
        service={"tags": ["a", "b"], "weights": {"warning": 2}},
        checks=[{"name": "port", "tcp": {}}, {"name": "health", "http": {}}],
    )
    own, second, third = (desired(of_endpoint(name, spec)) for name in ("primary", "second", "third"))
    assert isinstance(own, Present)
    assert isinstance(second, Present)
    assert isinstance(third, Present)
    assert (own.instance.tags, own.instance.weights) == (("a", "b", "rw"), Weights(9, 1))
    assert [c.name for c in own.instance.checks] == ["port"]
    assert (second.instance.tags, second.instance.weights) == (("a", "b"), Weights(1, 2))
    assert [c.name for c in second.instance.checks] == ["port", "health"]
    assert third.instance.checks == ()


# --- checks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "kind", "probe"),
    [
        ({"udp": {"port": 53}}, "udp", UdpProbe("10.0.0.1", 53, TIMING)),
        ({"grpc": {}}, "grpc", GrpcProbe("10.0.0.1", 8080, "", False, "", False, TIMING)),
        (
            {"grpc": {"service": "shop.Web", "tls": True, "tlsServerName": "web", "tlsSkipVerify": True}},
            "grpc",
            GrpcProbe("10.0.0.1", 8080, "shop.Web", True, "web", True, TIMING),
        ),
        ({"h2ping": {"port": "http"}}, "h2ping", H2PingProbe("10.0.0.1", 8080, True, "", False, TIMING)),
        ({"ttl": {"ttl": "30s"}}, "ttl", TtlProbe(30_000)),
        (
            {"ttl": {"ttl": "30s"}, "deregisterCriticalServiceAfter": "30s"},
            "ttl",
            TtlProbe(30_000, 60_000),
        ),
        ({"alias": {"serviceId": "db-1"}}, "alias", AliasProbe("db-1", "")),
        ({"alias": {"node": "vm-3"}}, "alias", AliasProbe("", "vm-3")),
    ],
)
def test_each_kind_of_check_becomes_its_probe(spec: Any, kind: str, probe: Any) -> None:
    found = check(spec)
    assert found.id.endswith(f":probe:{kind}")
    assert found.probe == probe


def test_paths_and_headers_of_http_checks_may_hold_field_paths() -> None:
    http = {
        "path": "/health/$(metadata.name)",
        "headers": [{"name": "Host", "value": "$(metadata.labels['app']).example.com"}],
    }
    probe = check({"http": http}).probe
    assert isinstance(probe, HttpProbe)
    assert probe.url == "http://10.0.0.1:8080/health/web-1"
    assert probe.headers == (("Host", "web.example.com"),)


@pytest.mark.parametrize(
    ("http", "value"),
    [
        ({"path": "$(metadata.annotations['a'])"}, "no-slash"),
        ({"path": "/$(metadata.annotations['a'])"}, "two words"),
        ({"path": "/$(metadata.annotations['a'])"}, "a#b"),
        ({"path": "/$(metadata.annotations['a'])"}, "a\r\nHost: evil"),
        ({"path": "/$(metadata.annotations['a'])"}, "x" * 3000),
        ({"headers": [{"name": "X", "value": "$(metadata.annotations['a'])"}]}, "1\r\nX-Evil: 2"),
        ({"headers": [{"name": "X", "value": "$(metadata.annotations['a'])"}]}, "x" * 2000),
        ({"headers": [{"name": "X", "value": "$(metadata.annotations['a'])"}]}, "é"),
    ],
)
def test_what_an_annotation_brings_into_a_request_is_checked_again(http: Any, value: str) -> None:
    if http.get("path", "/").startswith("/"):
        spec = of_pods(checks=[{"name": "probe", "http": http}])
        assert problem(spec, pod=pod(annotations={"a": value})) == "ValueInvalid"
    else:
        assert problem(of_pods(checks=[{"name": "probe", "http": http}])) == "InvalidSpec"


def test_a_header_without_a_value_is_a_problem_of_that_pod() -> None:
    http = {"headers": [{"name": "X", "value": "$(metadata.labels['missing'])"}]}
    assert problem(of_pods(checks=[{"name": "probe", "http": http}])) == "FieldPathNotFound"


# --- termination ----------------------------------------------------------------------------------------------------

CRITICAL = pods(onTermination="Critical")


def test_an_instance_is_shown_critical_while_its_pod_terminates() -> None:
    standing = (instance(CRITICAL),)
    found = instance(CRITICAL, pod=pod(deleting=True), standing=standing)
    assert [(c.probe, c.status) for c in found.checks] == [(Readiness(), Health.CRITICAL)]
    assert replace(found, checks=()) == replace(standing[0], checks=())


@pytest.mark.parametrize("specs", [[], [{"name": "port", "tcp": {}}]])
def test_what_has_no_readiness_check_has_one_that_says_that_it_drains(specs: Any) -> None:
    spec = CRITICAL | {"checks": specs}
    before, after = instance(spec), instance(spec, pod=pod(deleting=True), standing=(instance(spec),))
    assert (before.checks[-1].name, before.checks[-1].status) == ("draining", Health.PASSING)
    assert after.checks[-1].status is Health.CRITICAL
    assert len(before.checks) == len(specs) + 1
    assert instance(of_pods(checks=specs)).checks == before.checks[:-1]


@pytest.mark.parametrize(
    "known",
    [
        facts(CRITICAL, pod=pod(deleting=True)),  # nothing stands: nothing is added for a Pod on its way out
        facts(CRITICAL, pod=pod(deleting=True, deleted=True), standing=(instance(),)),
        facts(CRITICAL, pod=pod(deleting=True, phase="Succeeded"), standing=(instance(),)),
        facts(pod=pod(deleting=True), standing=(instance(),)),
        facts(registration=None, pod=pod(deleting=True), standing=(instance(),)),
        facts(
            registration=registration(CRITICAL, deletionTimestamp=OLD), pod=pod(deleting=True), standing=(instance(),)
        ),
    ],
)
def test_it_goes_when_the_pod_has_or_nobody_wants_it_to_stay(known: Any) -> None:
    want = desired(known)
    assert isinstance(want, Absent)
    assert want.cause is Cause.GONE


def test_what_is_secret_is_not_in_the_hash_but_its_version_is() -> None:
    """Else somebody who reads the metadata could try values until one fits."""
    header = {"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    spec = of_pods(checks=[{"name": "probe", "http": {"headers": [header]}}])

    def hashed(value: str, version: str) -> str:
        return instance(spec, secrets={("s", "k"): Hidden(value, version)}).meta_value(META_HASH)

    assert hashed("one", "1") == hashed("two", "1") != hashed("one", "2")
    assert "s3cret" not in repr(instance(spec, secrets={("s", "k"): Hidden("s3cret", "1")}))


def test_a_value_out_of_a_secret_that_no_header_may_have_is_refused_without_showing_it() -> None:
    header = {"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    spec = of_pods(checks=[{"name": "probe", "http": {"headers": [header]}}])
    want = desired(facts(spec, secrets={("s", "k"): Hidden("a\r\nHost: b", "1")}))
    assert isinstance(want, Kept)
    assert want.reason.code == "ValueInvalid"
    assert "Host" not in want.reason.message
