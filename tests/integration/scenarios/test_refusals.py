"""What the API server itself refuses, and that it says what must be."""

from typing import Any

import pytest
from operator_world import RESOURCES, connection, registration

from bad_input import VALID, bad_inputs
from devcluster import Cluster
from devcluster.kube import ApiError

PODS = {"selector": {"matchLabels": {"app": "web"}}}
TCP = {"name": "port", "tcp": {}}
ENDPOINT = {"name": "one", "address": "192.0.2.1", "port": 80}
ONE_SOURCE = "must have exactly one of pods, endpoints and"
PORT = "must be a number from 1 to 65535, without quotes, or the name of a port"
BYTES = "must be at most 512 bytes long in UTF-8"
RESERVED = "must not have keys that are reserved"
KINDS = "must have exactly one of readiness, tcp, http"
PATH = f"{RESOURCES}/namespaces/default/serviceregistrations"


def refusal(cluster: Cluster, manifest: dict, path: str = PATH) -> str:
    """What the API server says against an object; nothing is created in any case."""
    with pytest.raises(ApiError) as refused:
        cluster.api.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", manifest)
    return str(refused.value)


@pytest.mark.parametrize(
    ("spec", "must"),
    [
        ({"pods": PODS, "endpoints": [ENDPOINT]}, ONE_SOURCE),
        ({"service": {"name": "web"}, "pods": None}, ONE_SOURCE),
        ({"pods": {"selector": {}}}, "must have at least one of matchLabels and matchExpressions"),
        (
            {"pods": {"selector": {"matchExpressions": [{"key": "app", "operator": "In"}]}}},
            "must have values with In and NotIn, and none with Exists and DoesNotExist",
        ),
        ({"service": {"port": 70000}}, PORT),
        ({"service": {"port": "Web_Port"}}, PORT),
        ({"service": {"port": "8080"}}, PORT),
        ({"service": {"ports": {"http": "8080"}}}, PORT),
        ({"service": {"ports": {"8080": 8080}}}, "must have names of at most 63 characters out of a-z 0-9 -, with a"),
        ({"checks": [{"name": "p", "tcp": {"port": "8080"}}]}, PORT),
        ({"kubernetesService": {"name": "web", "publish": "LoadBalancer"}, "service": {"port": "80"}}, PORT),
        ({"service": {"name": "Consul"}}, "must not be 'consul': that service is Consul's own"),
        ({"service": {"name": "consul"}}, "must not be 'consul': that service is Consul's own"),
        ({"service": {"meta": {"k8s-pod": "mine"}}}, RESERVED),
        ({"service": {"meta": {"managed-by": "me"}}}, RESERVED),
        ({"service": {"meta": {"a b": "x"}}}, "must have keys of at most 128 characters"),
        ({"service": {"meta": {"v": "$(metadata.labels.version)"}}}, "must be text with field paths such as"),
        ({"service": {"meta": {"a": "\u00e9" * 257}}}, BYTES),
        ({"endpoints": [ENDPOINT | {"meta": {"a": "\u00e9" * 257}}]}, BYTES),
        ({"service": {"tags": ["$(oops)"]}}, "must be text with field paths such as"),
        ({"checks": [{"name": "none"}]}, KINDS),
        ({"checks": [TCP | {"http": {}}]}, KINDS),
        ({"checks": [TCP | {"interval": "10ms"}]}, "must be a duration from 1s to 1h"),
        ({"checks": [TCP | {"timeout": "2m"}]}, "must be a duration from 100ms to 1m"),
        ({"checks": [{"name": "r", "readiness": {}, "interval": "5s"}]}, "must not have interval, timeout"),
        (
            {"checks": [TCP | {"failuresBeforeWarning": 5, "failuresBeforeCritical": 2}]},
            "must have failuresBeforeWarning at most failuresBeforeCritical",
        ),
        ({"checks": [TCP | {"failuresBeforeWarning": 2}]}, "must have failuresBeforeWarning at most"),
        ({"endpoints": [ENDPOINT], "service": {"port": 80}}, "must not have service.port or service.ports"),
        (
            {"endpoints": [ENDPOINT], "service": {"ports": {"a": 80}}},
            "must not have service.port or service.ports",
        ),
        ({"endpoints": [ENDPOINT | {"ports": {"a": 80}}]}, "must have exactly one of port and ports"),
        ({"endpoints": [{"name": "one", "address": "192.0.2.1"}]}, "must have exactly one of port and ports"),
        ({"service": {"port": 80, "ports": {"a": 80}}}, "must have at most one of port and ports"),
        ({"service": {"ports": {"a": 80, "b": 81}}}, "must have a defaultPort out of ports"),
        ({"service": {"ports": {"a": 80}, "defaultPort": "b"}}, "must have a defaultPort out of ports"),
        ({"service": {"ports": {"A_b": 80}}}, "must have names of at most 63 characters"),
        (
            {"endpoints": [ENDPOINT], "checks": [{"name": "r", "readiness": {}}]},
            "must not have a readiness check with endpoints",
        ),
        (
            {"endpoints": [ENDPOINT], "checks": [{"name": "p", "tcp": {"port": "http"}}]},
            "must have numbers for the ports of checks with endpoints",
        ),
        ({"endpoints": [ENDPOINT | {"address": "0.0.0.0"}]}, "must be an address that callers can reach"),
    ],
    ids=lambda value: str(value)[:80],
)
def test_a_malformed_registration_is_refused_with_what_must_be(cluster: Cluster, spec: dict, must: str) -> None:
    manifest = registration("refused", **spec)
    manifest["spec"] = {field: value for field, value in manifest["spec"].items() if value is not None}
    assert must in refusal(cluster, manifest)


def test_a_registration_named_consul_needs_another_name_for_its_service(cluster: Cluster) -> None:
    assert "must not publish the service 'consul'" in refusal(cluster, registration("consul"))
    cluster.api.request("POST", f"{PATH}?dryRun=All", registration("consul", service={"name": "other"}))


def test_an_unknown_field_is_refused_by_name(cluster: Cluster) -> None:
    assert 'unknown field \\"spec.servise\\"' in refusal(cluster, registration("web", servise={"name": "web"}))


SECRETLY = {
    "name": "health",
    "http": {"headers": [{"name": "X-A", "valueFrom": {"secretKeyRef": {"name": "probe", "key": "token"}}}]},
}


@pytest.mark.parametrize(
    ("spec", "must"),
    [
        ({"mode": "Agent"}, "must have exactly one of addresses and nodeAgents"),
        (
            {"mode": "Agent", "addresses": ["http://a:8500"], "nodeAgents": {}},
            "must have exactly one of addresses and nodeAgents",
        ),
        (
            {"mode": "Agent", "nodeAgents": {}, "auth": {"token": {}}},
            "must have exactly one of secretKeyRef and file",
        ),
        ({"nodeAgents": {}}, "spec.mode: Required value"),
        (
            {"mode": "Agent", "nodeAgents": {}, "defaults": {"checks": [SECRETLY]}},
            "must have no headers with valueFrom",
        ),
        ({"mode": "Agent", "addresses": ["consul:8500"]}, "spec.addresses[0]"),
    ],
    ids=str,
)
def test_a_malformed_connection_is_refused_with_what_must_be(cluster: Cluster, spec: dict, must: str) -> None:
    assert must in refusal(cluster, connection("refused", **spec), f"{RESOURCES}/consulconnections")


def test_a_connection_never_changes_its_datacenter(cluster: Cluster) -> None:
    path = f"{RESOURCES}/consulconnections/default?dryRun=All"
    patch = {"spec": {"datacenter": "dc2"}}
    with pytest.raises(ApiError, match="must not change datacenter: another Consul is another ConsulConnection"):
        cluster.api.request("PATCH", path, patch, "application/merge-patch+json")


@pytest.mark.parametrize(
    ("kind", "path"), [("ServiceRegistration", PATH), ("ConsulConnection", f"{RESOURCES}/consulconnections")]
)
def test_every_field_refuses_what_it_can_not_be_by_its_name(cluster: Cluster, kind: str, path: str) -> None:
    """A text out of place is taken only by fields that take any text; those are tried on in `test_bad_input.py`."""
    taken = []
    for bad in bad_inputs(kind):
        said = refused(cluster, kind, path, bad.spec)
        if said is None and not bad.text:
            taken.append(str(bad))
        assert said is None or bad.is_named_in(said), f"{bad}: {said}"
    assert taken == []


def refused(cluster: Cluster, kind: str, path: str, spec: Any) -> str | None:
    """What the API server says against a spec, None where it takes it."""
    manifest = {"apiVersion": "consul-registrar.dev/v1alpha1", "kind": kind, "metadata": {"name": "bad"}, "spec": spec}
    try:
        cluster.api.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", manifest)
    except ApiError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", sorted(VALID))
def test_the_examples_that_have_every_field_are_taken(cluster: Cluster, kind: str) -> None:
    path = PATH if kind == "ServiceRegistration" else f"{RESOURCES}/consulconnections"
    assert [refused(cluster, kind, path, spec) for spec in VALID[kind]] == [None] * len(VALID[kind])
