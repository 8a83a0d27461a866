"""Pods that are not as most are: in the network of their node, of both families, with an address before they run."""

from typing import Any

import pytest
from operator_world import MERGE, World, always, call, eventually, pod, registration


def into(connection: str, name: str, app: str, **pods: Any) -> dict[str, Any]:
    """A registration of Pods under a name of its own in that connection."""
    source = {"selector": {"matchLabels": {"app": app}}} | pods
    service = {"name": f"{name}-{connection}"}
    return registration(name, consulRefs=[{"name": connection}], service=service, pods=source)


def tell(world: World, name: str, **status: Any) -> None:
    """What a kubelet says of a Pod."""
    path = f"/api/v1/namespaces/{world.namespace}/pods/{name}/status"
    world.cluster.api.request("PATCH", path, {"status": status}, MERGE)


def address(world: World, service: str) -> str:
    (row,) = world.health(service).values()
    return str(row["Service"]["Address"])


def test_a_pod_in_its_nodes_network_is_found_at_its_node(world: World, connection: str) -> None:
    hosted = pod("hosted", "hosted")
    hosted["spec"] |= {"hostNetwork": True, "nodeName": "node-2"}
    hosted["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": 28080}]
    world.apply(hosted, into(connection, "hosted", "hosted"))
    (row,) = world.passing(f"hosted-{connection}", 1).values()
    assert (row["Service"]["Address"], row["Service"]["Port"]) == (world.cluster.nodes["node-2"], 28080)
    assert eventually(lambda: call(row))[0] == 200


@pytest.mark.shows("sreg.spec.pods.ipFamily")
def test_of_a_pod_of_both_families_the_address_of_the_one_that_is_asked_for_is_published(
    world: World, connection: str
) -> None:
    name = f"dual-{connection}"
    world.apply(pod("dual", "dual"), into(connection, "dual", "dual"))
    world.passing(name, 1)
    four = address(world, name)
    tell(world, "dual", podIP=four, podIPs=[{"ip": four}, {"ip": "2001:db8::7"}])
    world.patch("dual", {"pods": {"ipFamily": "IPv6"}})
    eventually(lambda: address(world, name) == "2001:db8::7")
    world.says("dual", "Registered")
    world.patch("dual", {"pods": {"ipFamily": "IPv4"}})
    eventually(lambda: address(world, name) == four)
    world.patch("dual", {"pods": {"ipFamily": None}})
    world.says("dual", "Registered")
    assert address(world, name) == four, "its first"


@pytest.mark.shows("sreg.spec.pods.register")
def test_a_pod_that_is_scheduled_enters_with_its_address_where_that_is_asked_for(world: World, connection: str) -> None:
    """A Pod that has a node and an address, and of which nobody says that it runs, until the node's kubelet does."""
    waiting = pod("early", "early")
    waiting["spec"]["schedulingGates"] = [{"name": "example.com/later"}]
    world.apply(into(connection, "eager", "early", register="Scheduled"), into(connection, "usual", "early"), waiting)
    tell(world, "early", phase="Unknown", podIP="192.0.2.77", podIPs=[{"ip": "192.0.2.77"}])
    always(lambda: world.health(f"eager-{connection}") == {}, during=1)
    path = f"/api/v1/namespaces/{world.namespace}/pods/early"
    world.cluster.api.request("PATCH", path, {"spec": {"schedulingGates": None}}, MERGE)
    eventually(lambda: address(world, f"eager-{connection}") == "192.0.2.77")
    always(lambda: world.health(f"usual-{connection}") == {}, during=1)
    assert world.health(f"eager-{connection}", passing=True) == {}
    tell(world, "early", phase="Pending")
    world.passing(f"usual-{connection}", 1)
    world.passing(f"eager-{connection}", 1)
