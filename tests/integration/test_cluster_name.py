"""The cluster's name is its alone in Consul: what is said when another cluster holds it, and how it comes back."""

import base64
from collections.abc import Iterator

import pytest
from operator_world import MERGE, RESOURCES, Operator, World, always, deployment, eventually, registration
from operator_world import connection as connecting

from devcluster import Cluster

KEY = "consul-registrar/clusters/test"
CONNECTIONS = f"{RESOURCES}/consulconnections"
OTHER = "0b5f5a9e-0000-4000-8000-000000000000"


def claim(cluster: Cluster) -> dict:
    return cluster.consul.server.request("GET", f"/v1/kv/{KEY}")[0]


def holder(cluster: Cluster) -> str:
    return base64.b64decode(claim(cluster)["Value"]).decode()


def own_uid(cluster: Cluster) -> str:
    return str(cluster.api.request("GET", "/api/v1/namespaces/kube-system")["metadata"]["uid"])


@pytest.fixture(params=["default", "taking"], ids=["agent", "catalog"])
def connection(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[str]:
    """The name of a connection of each mode; it takes nothing over before and after."""
    if request.param == "taking":
        spec = {"mode": "Catalog", "addresses": [cluster.consul.http_addr], "virtualNodes": 2}
        cluster.api.request("POST", CONNECTIONS, connecting("taking", **spec))
    yield request.param
    cluster.api.request("PATCH", f"{CONNECTIONS}/{request.param}", {"spec": {"takeOverFrom": None}}, MERGE)
    value = base64.b64encode(own_uid(cluster).encode()).decode()
    cluster.consul.server.request("PUT", "/v1/txn", [{"KV": {"Verb": "set", "Key": KEY, "Value": value}}])
    if request.param == "taking":
        cluster.kubectl("delete", "sreg", "--all", "-A", "--timeout=180s")
        cluster.kubectl("delete", "cconn", "taking", "--timeout=180s")


def reason(cluster: Cluster, name: str) -> str:
    conditions = cluster.api.request("GET", f"{CONNECTIONS}/{name}").get("status", {}).get("conditions", [])
    return next((c["reason"] for c in conditions if c["type"] == "Ready"), "")


def test_the_name_is_claimed_with_the_uid_of_kube_system(world: World, cluster: Cluster) -> None:
    world.apply(deployment("claims", 1), registration("claims"))
    world.passing("claims", 1)
    assert holder(cluster) == own_uid(cluster)


def test_a_restart_leaves_the_claim_as_it_is(world: World, cluster: Cluster, operator: Operator) -> None:
    world.apply(deployment("claims", 1), registration("claims"))
    world.passing("claims", 1)
    before = claim(cluster)
    operator.kill()
    operator.start()
    eventually(lambda: 'leader_election_master_status{name="consul-registrar"} 1.0' in operator.get("/metrics"))
    always(lambda: claim(cluster) == before, during=2)


@pytest.mark.shows("cconn.spec.takeOverFrom")
def test_while_another_cluster_holds_the_name_nothing_is_written_and_everybody_says_so(
    world: World, cluster: Cluster, connection: str
) -> None:
    world.apply(deployment("claims", 2), registration("claims", consulRefs=[{"name": connection}]))
    before = {name: row["Service"]["ModifyIndex"] for name, row in world.passing("claims", 2).items()}
    value = base64.b64encode(OTHER.encode()).decode()
    cluster.consul.server.request("PUT", "/v1/txn", [{"KV": {"Verb": "set", "Key": KEY, "Value": value}}])
    eventually(lambda: reason(cluster, connection) == "ClusterNameTaken")
    assert OTHER in world.says("claims", "ClusterNameTaken")["message"]
    world.kubectl("scale", "deployment", "claims", "--replicas=3")
    eventually(lambda: len(world.pods("claims")) == 3)
    always(
        lambda: {name: row["Service"]["ModifyIndex"] for name, row in world.health("claims").items()} == before,
        during=2,
    )

    cluster.api.request("PATCH", f"{CONNECTIONS}/{connection}", {"spec": {"takeOverFrom": OTHER}}, MERGE)
    world.passing("claims", 3)
    assert holder(cluster) == own_uid(cluster)
    world.says("claims", "Registered")
    eventually(lambda: reason(cluster, connection) in {"AgentsReady", "CatalogReady"})
