"""Services and EndpointSlices from the wire."""

import json
from typing import Any

import pytest

from consul_registrar.kube import SERVICES, SLICES
from consul_registrar.services import EndpointSlice, KubernetesService, ServicePort

FULL = {
    "metadata": {
        "name": "web-lb",
        "namespace": "shop",
        "uid": "s-1",
        "resourceVersion": "42",
        "labels": {"app": "web"},
        "annotations": {"a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
        "deletionTimestamp": "2026-01-01T00:00:00Z",
    },
    "spec": {
        "type": "LoadBalancer",
        "clusterIP": "10.96.0.10",
        "clusterIPs": ["10.96.0.10", "fd00::a"],
        "externalIPs": ["198.51.100.4", "198.51.100.4"],
        "externalTrafficPolicy": "Local",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080, "targetPort": 8080}, {"port": 53, "protocol": "UDP"}],
    },
    "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7", "ipMode": "VIP"}, {"hostname": "lb.example.com"}]}},
}


def slice_of(*endpoints: dict[str, Any], **labels: str) -> dict[str, Any]:
    meta = {"name": "web-lb-x", "namespace": "shop", "uid": "e-1", "resourceVersion": "7", "labels": labels}
    return {"metadata": meta, "endpoints": list(endpoints), "addressType": "IPv4", "ports": [{"port": 8080}]}


def read(found: Any) -> EndpointSlice:
    return SLICES.obj(json.dumps(found).encode())


def test_a_service_is_cut_down_to_what_a_registration_can_use() -> None:
    assert SERVICES.obj(json.dumps(FULL).encode()) == KubernetesService(
        uid="s-1",
        namespace="shop",
        name="web-lb",
        version=42,
        labels={"app": "web"},
        annotations={"a": "b"},
        type="LoadBalancer",
        cluster_ips=("10.96.0.10", "fd00::a"),
        external_ips=("198.51.100.4",),
        ingress=("203.0.113.7", "lb.example.com"),
        ports=(ServicePort("http", 80, "TCP", 30080), ServicePort("", 53, "UDP", 0)),
        local=True,
        deleting=True,
    )


@pytest.mark.parametrize("part", ["metadata", "spec", "status"])
@pytest.mark.parametrize("empty", [None, {}])
def test_what_is_missing_or_null_is_empty(part: str, empty: Any) -> None:
    found = SERVICES.obj(json.dumps(FULL | {part: empty}).encode())
    assert isinstance(found, KubernetesService)


@pytest.mark.parametrize("status", [{"loadBalancer": {}}, {"loadBalancer": None}, {"loadBalancer": {"ingress": None}}])
def test_a_load_balancer_without_addresses_has_none(status: Any) -> None:
    assert SERVICES.obj(json.dumps(FULL | {"status": status}).encode()).ingress == ()


def test_a_headless_service_says_so() -> None:
    found = SERVICES.obj(json.dumps({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}).encode())
    assert (found.headless, found.type) == (True, "ClusterIP")


def test_a_slice_keeps_only_which_nodes_hold_something_ready() -> None:
    ready, unready, unsaid = {"ready": True}, {"ready": False, "serving": True, "terminating": True}, {"ready": None}
    found = slice_of(
        {"addresses": ["10.0.0.1"], "conditions": unready, "nodeName": "node-1", "targetRef": {"kind": "Pod"}},
        {"addresses": ["10.0.0.2"], "conditions": ready, "nodeName": "node-1"},
        {"addresses": ["10.0.0.3"], "conditions": unready, "nodeName": "node-2"},
        {"addresses": ["10.0.0.4"], "conditions": unsaid, "nodeName": "node-3"},
        {"addresses": ["10.0.0.5"]},
        **{"kubernetes.io/service-name": "web-lb"},
    )
    nodes = (("", True), ("node-1", True), ("node-2", False), ("node-3", True))
    assert read(found) == EndpointSlice("e-1", "shop", "web-lb", 7, nodes)


@pytest.mark.parametrize("endpoints", [None, []])
def test_a_slice_may_be_empty_and_of_nobody(endpoints: Any) -> None:
    found = read(slice_of() | {"endpoints": endpoints})
    assert (found.service, found.nodes) == ("", ())


def test_pages_carry_their_items() -> None:
    page = {"metadata": {"resourceVersion": "99"}, "items": [FULL]}
    services = SERVICES.page(json.dumps(page).encode())
    assert ([item.name for item in services.items], services.version) == (["web-lb"], 99)
    slices = SLICES.page(json.dumps({"metadata": {"resourceVersion": "1"}, "items": [slice_of()]}).encode())
    assert ([item.uid for item in slices.items], slices.version) == (["e-1"], 1)
