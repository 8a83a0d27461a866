"""Checks out of readiness probes: what the kubelet runs, told to Consul; and what can't be told has a reason."""

from dataclasses import replace
from typing import Any

import pytest

from consul_registrar.desired import Kept, desired
from consul_registrar.kube.records import PODS
from consul_registrar.model import Check, ReadinessProbe, Reason
from consul_registrar.probes import GrpcProbe, HttpProbe, Readiness, TcpProbe, Timing
from unit.core.build import facts, instance, of_endpoints, of_pods, pod, registration

FROM_PROBES = of_pods(checksFromProbes=True)
USUAL = Timing(10_000, 1_000, failures_before_critical=3)
HTTP = ReadinessProbe("main", "http", "", 8080, "/health", False, (("X-A", "b"),), 10, 1, 1, 3)


def derived(*probes: ReadinessProbe, spec: Any = None, **fields: Any) -> tuple[Check, ...]:
    return instance(spec or FROM_PROBES, pod=pod(probes=probes, **fields)).checks


def problem(*probes: ReadinessProbe) -> tuple[str, str]:
    want = desired(facts(FROM_PROBES, pod=pod(probes=probes)))
    assert isinstance(want, Kept)
    return want.reason.code, want.reason.message


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        (HTTP, HttpProbe("http://10.0.0.1:8080/health", "GET", (("X-A", "b"),), "", "", False, USUAL)),
        (
            replace(HTTP, https=True, port=8443, text="health", headers=()),
            HttpProbe("https://10.0.0.1:8443/health", "GET", (), "", "", True, USUAL),
        ),
        (replace(HTTP, kind="tcp"), TcpProbe("10.0.0.1", 8080, USUAL)),
        (replace(HTTP, kind="grpc", port=9000, text="s"), GrpcProbe("10.0.0.1", 9000, "s", False, "", False, USUAL)),
        (
            replace(HTTP, kind="tcp", period=3, timeout=2, successes=2, failures=1),
            TcpProbe("10.0.0.1", 8080, Timing(3_000, 2_000, success_before_passing=2)),
        ),
    ],
)
def test_a_probe_becomes_a_check_with_its_port_times_and_thresholds(probe: ReadinessProbe, expected: Any) -> None:
    (check,) = derived(probe)
    assert (check.name, check.probe, check.status) == ("probe:main", expected, None)


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    (check,) = derived(HTTP, ip="fd00::1")
    assert isinstance(check.probe, HttpProbe)
    assert check.probe.url == "http://[fd00::1]:8080/health"


def test_a_port_of_a_probe_is_one_of_its_own_container() -> None:
    """So the kubelet has it; another container may have one of that name too."""
    raw = b"""{"metadata": {"name": "one", "uid": "u", "resourceVersion": "1"}, "spec": {"containers": [
      {"name": "other", "ports": [{"name": "http", "containerPort": 80}]},
      {"name": "main", "readinessProbe": {"tcpSocket": {"port": "http"}}}]}}"""
    [probe] = PODS.obj(raw).probes
    code, message = problem(probe)
    assert code == "PortNotFound"
    assert "container 'main'" in message


def test_they_stand_beside_the_checks_of_the_spec_and_instead_of_the_default() -> None:
    spec = of_pods(checksFromProbes=True, checks=[{"name": "ready", "readiness": {}}])
    assert [type(check.probe) for check in derived(HTTP, spec=spec)] == [Readiness, HttpProbe]
    assert [check.name for check in derived(HTTP, replace(HTTP, container="side"))] == ["probe:main", "probe:side"]


@pytest.mark.parametrize(
    ("probe", "code", "message"),
    [
        (replace(HTTP, kind="exec"), "ProbeNotSupported", "container 'main' runs a command"),
        (replace(HTTP, host="127.0.0.1"), "ProbeNotSupported", "has a host (127.0.0.1)"),
        (replace(HTTP, port="nowhere"), "PortNotFound", "names the port 'nowhere'"),
        (replace(HTTP, text="/a b"), "ValueInvalid", "must be a path without spaces"),
        (replace(HTTP, headers=(("X", "a\r\nHost: b"),)), "ValueInvalid", "header X"),
    ],
)
def test_what_can_not_be_told_has_a_reason(probe: ReadinessProbe, code: str, message: str) -> None:
    found = problem(probe)
    assert found[0] == code
    assert message in found[1]


def test_a_pod_without_a_readiness_probe_has_a_reason() -> None:
    assert problem()[0] == "ProbeNotFound"


def test_only_pods_have_probes() -> None:
    spec = registration(of_endpoints(checksFromProbes=True)).spec
    assert isinstance(spec, Reason)
    assert "checksFromProbes without pods" in spec.message


def test_probes_are_read_with_the_defaults_of_kubernetes() -> None:
    raw = b"""{"metadata": {"name": "one", "uid": "u", "resourceVersion": "1"}, "spec": {"containers": [
      {"name": "main", "readinessProbe": {"httpGet": {"path": "/h", "port": "http", "scheme": "HTTPS",
        "httpHeaders": [{"name": "X-A", "value": "b"}]}, "periodSeconds": 5, "timeoutSeconds": 2},
        "ports": [{"name": "http", "containerPort": 8080}]},
      {"name": "side", "ports": [{"name": "http", "containerPort": 81}, {"name": "dns", "containerPort": 53}],
       "readinessProbe": {"tcpSocket": {"port": "http"}}},
      {"name": "none"}, {"name": "null", "readinessProbe": null},
      {"name": "tcp", "readinessProbe": {"tcpSocket": {"port": 80}, "successThreshold": 2, "failureThreshold": 4}},
      {"name": "rpc", "readinessProbe": {"grpc": {"port": 9000, "service": null}}},
      {"name": "cmd", "readinessProbe": {"exec": {"command": ["true"]}}}
    ]}}"""
    assert PODS.obj(raw).probes == (
        ReadinessProbe("main", "http", "", 8080, "/h", True, (("X-A", "b"),), 5, 2, 1, 3),
        ReadinessProbe("side", "tcp", "", 81, "", False, (), 10, 1, 1, 3),
        ReadinessProbe("tcp", "tcp", "", 80, "", False, (), 10, 1, 2, 4),
        ReadinessProbe("rpc", "grpc", "", 9000, "", False, (), 10, 1, 1, 3),
        ReadinessProbe("cmd", "exec", "", 0, "", False, (), 10, 1, 1, 3),
    )
