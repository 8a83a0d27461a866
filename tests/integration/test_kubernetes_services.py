"""A Kubernetes Service as a source, in both modes at once: the real endpoint controller, status by hand where a cloud's
controller would write it. Each registration names a connection of either mode, and each must hold the same.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from operator_world import (
    EXAMPLES,
    MERGE,
    Operator,
    World,
    always,
    defined,
    deployment,
    eventually,
    registration,
    statuses,
)
from operator_world import connection as connecting

from devcluster import Cluster, Options

MODES = ("agents", "catalog")
READ = {"services", "endpointslices", "pods", "nodes"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Pods have addresses that EndpointSlices may hold; nothing answers there."""
    with defined(Options(nodes=3, routable_pods=True), tmp_path_factory.mktemp("services")) as one:
        servers = {"addresses": [one.consul.server.http_addr], "virtualNodes": 2}
        lax = {"removalGuard": {"atLeast": 100}}  # each test removes much of the little that there is
        both = (
            connecting("agents", mode="Agent", nodeAgents={}, **lax),
            connecting("catalog", mode="Catalog", **servers, **lax),
        )
        one.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(both))
        one.kubectl("apply", "-f", str(EXAMPLES / "01-connection-agent-on-each-node.yaml"))
        yield one


def of_service(name: str, publish: str, **spec: Any) -> dict[str, Any]:
    source = {"name": name, "publish": publish}
    return registration(name, kubernetesService=source, consulRefs=[{"name": mode} for mode in MODES], **spec)


def service(name: str, *, kind: str = "ClusterIP", selector: bool = True, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    wanted = {"type": kind, "ports": ports} | ({"selector": {"app": name}} if selector else {}) | spec
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": wanted}


def slice_of(name: str, **nodes: bool) -> dict[str, Any]:
    """An EndpointSlice made by hand; node to whether the endpoint there is ready."""
    endpoints = [
        {"addresses": [f"10.1.0.{at}"], "nodeName": node.replace("_", "-"), "conditions": {"ready": ready}}
        for at, (node, ready) in enumerate(nodes.items(), 1)
    ]
    labels = {"kubernetes.io/service-name": name}
    head = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4"}
    return head | {"metadata": {"name": f"{name}-by-hand", "labels": labels}, "endpoints": endpoints, "ports": []}


def ingress(world: World, name: str, *addresses: str) -> None:
    """What a cloud's controller writes."""
    path = f"/api/v1/namespaces/{world.namespace}/services/{name}/status"
    entries = [{"ip" if address[0].isdigit() else "hostname": address} for address in addresses]
    world.cluster.api.request("PATCH", path, {"status": {"loadBalancer": {"ingress": entries}}}, MERGE)


def rows(world: World, name: str, mode: str) -> dict[str, dict[str, Any]]:
    """What the health API says of a service in one connection, by address."""
    found = world.consul(f"/v1/health/service/{name}")
    mine = [row for row in found if row["Service"]["Meta"]["k8s-connection"] == mode]
    return {row["Service"]["Address"]: row for row in mine}


def holds(world: World, name: str, expected: dict[str, str], port: int = 80) -> None:
    """Wait until both modes hold these addresses with this health of their readiness, and nothing else."""

    def look() -> None:
        for mode in MODES:
            found = rows(world, name, mode)
            assert {at: statuses(row)["readiness"] for at, row in found.items()} == expected, mode
            assert {row["Service"]["Port"] for row in found.values()} <= {port}

    eventually(look)


def indexes(world: World, name: str) -> dict[str, int]:
    return {row["ServiceID"] + row["Node"]: row["ModifyIndex"] for row in world.consul(f"/v1/catalog/service/{name}")}


def test_the_example_registers_the_nodes_that_hold_a_pod(world: World) -> None:
    world.example("11-kubernetes-service.yaml")
    found = world.passing("gateway", 2)
    node_port = world.cluster.api.request("GET", f"/api/v1/namespaces/{world.namespace}/services/gateway")
    pods = world.pods("gateway")
    on = {pod["spec"]["nodeName"] for pod in pods.values()}
    assert found.keys() == on
    assert {row["Service"]["Port"] for row in found.values()} == {node_port["spec"]["ports"][0]["nodePort"]}
    assert {name: row["Service"]["Address"] for name, row in found.items()} == {n: world.cluster.nodes[n] for n in on}
    assert {name: row["Service"]["Tags"] for name, row in found.items()} == {name: [name] for name in on}
    assert all(row["Node"]["Node"] == name for name, row in found.items()), "each on its own node's agent"
    world.says("gateway", "Registered")
    world.kubectl("scale", "deployment", "gateway", "--replicas=0")
    eventually(lambda: world.health("gateway") == {})
    world.says("gateway", "NoEndpoints")


@pytest.mark.parametrize(
    ("file", "name", "addresses"),
    [
        ("12-load-balancer.yaml", "edge", {"203.0.113.17"}),
        ("13-cluster-ip.yaml", "inner", None),
        ("14-external-ip.yaml", "uplink", {"198.51.100.4", "198.51.100.5"}),
    ],
)
def test_the_example_of_each_kind_of_address_registers_it(
    world: World, file: str, name: str, addresses: set[str] | None
) -> None:
    world.example(file)
    if name == "edge":
        ingress(world, name, "203.0.113.17")
    found = world.passing(name, len(addresses or {"its cluster IP"}))
    found_service = world.cluster.api.request("GET", f"/api/v1/namespaces/{world.namespace}/services/{name}")
    wanted = addresses or {found_service["spec"]["clusterIP"]}
    assert {(row["Service"]["Address"], row["Service"]["Port"]) for row in found.values()} == {
        (at, 80) for at in wanted
    }
    world.says(name, "Registered")


@pytest.mark.shows("sreg.spec.kubernetesService.name", "sreg.spec.kubernetesService.publish")
def test_a_load_balancer_is_awaited_follows_its_address_and_goes_with_its_service(world: World) -> None:
    world.apply(service("lb", kind="LoadBalancer"), of_service("lb", "LoadBalancer"), deployment("lb", 2))
    assert world.says("lb", "LoadBalancerPending")["status"] == "True"
    ingress(world, "lb", "203.0.113.7")
    holds(world, "lb", {"203.0.113.7": "passing"})
    for mode in MODES:
        meta = rows(world, "lb", mode)["203.0.113.7"]["Service"]["Meta"]
        uid = world.cluster.api.request("GET", f"/api/v1/namespaces/{world.namespace}/services/lb")["metadata"]["uid"]
        assert (meta["k8s-service"], meta["k8s-service-uid"], meta["k8s-endpoint"]) == ("lb", uid, "203.0.113.7")
        assert "k8s-pod" not in meta
    world.says("lb", "Registered", message="2 of 2 instances registered, 2 passing")
    ingress(world, "lb", "203.0.113.8", "lb.example.com")
    holds(world, "lb", {"203.0.113.8": "passing", "lb.example.com": "passing"})
    world.kubectl("delete", "service", "lb", "--wait=false")
    eventually(lambda: world.health("lb") == {})
    assert world.says("lb", "KubernetesServiceNotFound")["status"] == "False"


def test_a_cluster_ip_is_one_instance_whose_health_follows_the_endpoints(world: World) -> None:
    name = "a-name-longer-than-a-containers"
    ports = [{"name": name, "port": 80, "targetPort": 8080}, {"name": "other", "port": 81}]
    world.apply(service("ip", ports=ports), of_service("ip", "ClusterIP", service={"port": name}), deployment("ip", 2))
    path = f"/api/v1/namespaces/{world.namespace}/services/ip"
    address = eventually(lambda: world.cluster.api.request("GET", path)["spec"]["clusterIP"])
    holds(world, "ip", {address: "passing"})
    before = indexes(world, "ip")
    first, second = eventually(lambda: len(found := list(world.pods("ip"))) == 2 and found)
    world.annotate(first, ready="false")
    world.kubectl("scale", "deployment", "ip", "--replicas=3")
    eventually(lambda: len(world.pods("ip")) == 3)
    always(lambda: indexes(world, "ip") == before, during=2)
    world.kubectl("scale", "deployment", "ip", "--replicas=0")
    holds(world, "ip", {address: "critical"})
    world.kubectl("scale", "deployment", "ip", "--replicas=1")
    holds(world, "ip", {address: "passing"})
    for name in world.pods("ip"):
        world.annotate(name, ready="false")
    holds(world, "ip", {address: "critical"})
    assert second not in world.pods("ip")
    world.says("ip", "Registered")


@pytest.mark.shows("sreg.spec.kubernetesService.ipFamily")
def test_of_a_service_of_both_families_the_address_of_the_one_that_is_asked_for_is_published(world: World) -> None:
    both = service("dual", selector=False, ipFamilyPolicy="RequireDualStack")
    asking = of_service("dual", "ClusterIP")
    asking["spec"]["kubernetesService"]["ipFamily"] = "IPv6"
    world.apply(both, slice_of("dual", node_1=True), asking)
    path = f"/api/v1/namespaces/{world.namespace}/services/dual"
    four, six = eventually(lambda: sorted(world.cluster.api.request("GET", path)["spec"]["clusterIPs"], key=len))
    assert ":" in six
    holds(world, "dual", {six: "passing"})
    world.patch("dual", {"kubernetesService": {"ipFamily": "IPv4"}})
    holds(world, "dual", {four: "passing"})
    world.apply(service("dual", selector=False, ipFamilyPolicy="SingleStack"))
    holds(world, "dual", {four: "passing"})
    world.patch("dual", {"kubernetesService": {"ipFamily": "IPv6"}})
    assert "has no IPv6 address" in world.says("dual", "AddressNotFound")["message"]
    holds(world, "dual", {four: "passing"})


def test_external_ips_of_a_service_without_selector_follow_slices_made_by_hand(world: World) -> None:
    world.apply(
        service("ext", selector=False, externalIPs=["198.51.100.4", "198.51.100.5"]),
        slice_of("ext", node_1=True, node_2=False),
        of_service("ext", "ExternalIP"),
    )
    holds(world, "ext", {"198.51.100.4": "passing", "198.51.100.5": "passing"})
    world.apply(slice_of("ext", node_1=False, node_2=False))
    holds(world, "ext", {"198.51.100.4": "critical", "198.51.100.5": "critical"})
    world.kubectl("delete", "endpointslice", "ext-by-hand")
    world.apply(slice_of("ext", node_2=True))
    holds(world, "ext", {"198.51.100.4": "passing", "198.51.100.5": "passing"})
    world.patch("ext", {"kubernetesService": {"publish": "ClusterIP"}})
    address = world.cluster.api.request("GET", f"/api/v1/namespaces/{world.namespace}/services/ext")["spec"][
        "clusterIP"
    ]
    holds(world, "ext", {address: "passing"})


def test_a_node_ports_health_is_that_of_its_own_node_where_the_policy_is_local(world: World) -> None:
    local = service("local", kind="NodePort", selector=False, externalTrafficPolicy="Local")
    world.apply(local, slice_of("local", node_1=True, node_2=False), of_service("local", "NodePort"))
    path = f"/api/v1/namespaces/{world.namespace}/services/local"
    port = eventually(lambda: world.cluster.api.request("GET", path)["spec"]["ports"][0]["nodePort"])
    one, two, three = (world.cluster.nodes[f"node-{number}"] for number in (1, 2, 3))
    holds(world, "local", {one: "passing", two: "critical"}, port)
    world.apply(slice_of("local", node_2=True, node_3=True))
    holds(world, "local", {two: "passing", three: "passing"}, port)
    world.kubectl("patch", "service", "local", "-p", '{"spec": {"externalTrafficPolicy": "Cluster"}}')
    world.apply(slice_of("local", node_2=False, node_3=True))
    holds(world, "local", {two: "passing", three: "passing"}, port)


def reads(world: World) -> int:
    """How often the API server was asked for Services, slices, Pods or Nodes, by anybody."""
    count = 0
    for line in world.cluster.kubectl("get", "--raw", "/metrics").splitlines():
        if line.startswith("apiserver_request_total{"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if labels["verb"] in {"GET", "LIST"} and labels["resource"] in READ:
                count += round(float(line.split()[-1]))
    return count


def test_the_api_server_is_not_asked_for_each_endpoint(world: World) -> None:
    """Watches tell of them. Kubernetes' own controllers ask for this and that meanwhile, but not so often."""
    many = 500
    world.apply(service("wide", selector=False), of_service("wide", "ClusterIP"), slice_of("wide", node_1=True))
    path = f"/api/v1/namespaces/{world.namespace}/services/wide"
    address = world.cluster.api.request("GET", path)["spec"]["clusterIP"]
    holds(world, "wide", {address: "passing"})
    before = reads(world)
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{world.namespace}/endpointslices/wide-by-hand"
    for ready in (False, True, False):
        ends = [
            {
                "addresses": [f"10.2.{at % 2}.{at // 2}"],
                "nodeName": f"node-{at % 3 + 1}",
                "conditions": {"ready": ready},
            }
            for at in range(many)
        ]
        world.cluster.api.request("PATCH", slices, {"endpoints": ends}, MERGE)
        holds(world, "wide", {address: "passing" if ready else "critical"})
    assert 0 < before <= reads(world) < before + many


def test_a_service_that_goes_and_comes_back_while_no_operator_runs_is_another_one(
    world: World, operator: Operator
) -> None:
    for name in ("again", "for-good"):
        by_hand = slice_of(name, node_1=True)
        world.apply(service(name, kind="LoadBalancer", selector=False), by_hand, of_service(name, "LoadBalancer"))
        ingress(world, name, "203.0.113.9")
        holds(world, name, {"203.0.113.9": "passing"})
    before = indexes(world, "again")
    operator.kill()
    world.kubectl("delete", "service", "again", "for-good")
    world.apply(service("again", kind="LoadBalancer", selector=False), slice_of("again", node_1=True))
    ingress(world, "again", "203.0.113.9")
    operator.start()
    eventually(lambda: not indexes(world, "again").keys() & before.keys() and len(indexes(world, "again")) == 2)
    holds(world, "again", {"203.0.113.9": "passing"})
    eventually(lambda: world.health("for-good") == {})


def test_a_restart_writes_nothing(world: World, operator: Operator) -> None:
    by_hand = slice_of("still", node_1=True)
    world.apply(service("still", kind="NodePort", selector=False), by_hand, of_service("still", "NodePort"))
    world.registered("still", 2)  # in both modes
    before = indexes(world, "still")
    operator.kill()
    operator.start()
    eventually(lambda: 'leader_election_master_status{name="consul-registrar"} 1.0' in operator.get("/metrics"))
    always(lambda: indexes(world, "still") == before, during=3)
    assert len(before) == 2
