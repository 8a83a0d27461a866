"""What stands on agents that the operator doesn't register with any more is removed: of a vanished node, of a moved
connection."""

from collections.abc import Iterator

import pytest
from operator_world import EXAMPLES, MERGE, Operator, World, connection, defined, deployment, eventually, registration

from devcluster import Cluster, Options

CONNECTIONS = "/apis/consul-registrar.dev/v1alpha1/consulconnections"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for this module alone, since it loses a node."""
    with defined(Options(nodes=3), tmp_path_factory.mktemp("left")) as one:
        one.kubectl("apply", "-f", str(EXAMPLES / "01-connection-agent-on-each-node.yaml"))
        yield one


def nodes_of(world: World, service: str) -> set[str]:
    return {row["Node"] for row in world.consul(f"/v1/catalog/service/{service}")}


def test_a_connection_led_to_another_agent_moves_its_instances(world: World, cluster: Cluster) -> None:
    """The new ones stand, healthy, before the old ones go."""
    agents = cluster.consul.agents
    world.apply(connection("moving", mode="Agent", addresses=[agents["node-1"].http_addr]))
    world.apply(deployment("moved", 3), registration("moved", consulRefs=[{"name": "moving"}]))
    world.passing("moved", 3)
    assert nodes_of(world, "moved") == {"node-1"}
    spec = {"spec": {"addresses": [agents["node-2"].http_addr]}}
    cluster.api.request("PATCH", f"{CONNECTIONS}/moving", spec, MERGE)
    eventually(lambda: nodes_of(world, "moved") == {"node-2"})
    world.passing("moved", 3)
    held = agents["node-1"].request("GET", "/v1/agent/services")
    assert "moved" not in {row["Service"] for row in held.values()}
    world.says("moved", "Registered")


def test_what_a_vanished_node_left_is_removed_and_nothing_else(
    world: World, cluster: Cluster, operator: Operator
) -> None:
    agent = cluster.consul.agents["node-3"]
    agent.request("PUT", "/v1/agent/service/register", {"ID": "vm", "Name": "vanish", "Port": 1})
    world.apply(deployment("vanish", 6), registration("vanish"))
    eventually(lambda: len(world.catalog("vanish")) == 7 and "node-3" in nodes_of(world, "vanish"))
    foreign = world.catalog("vanish")["vm"]
    lost = [name for name, row in world.catalog("vanish").items() if row["Node"] == "node-3" and name != "vm"]
    assert lost
    agent.process.kill()
    cluster.api.request("DELETE", "/api/v1/nodes/node-3")
    for name in lost:
        world.kubectl("delete", "pod", name, "--force", "--grace-period=0", "--ignore-not-found")

    def cleaned() -> bool:
        rows = world.consul("/v1/catalog/service/vanish")
        return len(rows) == 7 and [row["ServiceID"] for row in rows if row["Node"] == "node-3"] == ["vm"]

    eventually(cleaned)
    assert world.catalog("vanish")["vm"] == foreign
    world.says("vanish", "Registered")
    operator.restart()
    eventually(lambda: cleaned() and world.catalog("vanish")["vm"] == foreign)
