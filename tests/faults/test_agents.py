"""G6: agents restart, forget, leave, and are replaced. What they forgot is told to them again, what they kept too long
goes. What an agent takes out of the catalog by itself is no fault of the operator's, so those instances are excused.
"""

import json
from collections.abc import Iterator

import pytest
from fault_world import Arena, Shop, shop
from operator_world import eventually

from devcluster.kwok import create_nodes
from killpoints import faults

pytestmark = [pytest.mark.goal("G6")]
NODE = "node-1"


@pytest.fixture
def web(arena: Arena) -> Iterator[Shop]:
    """Four Pods, so that both nodes have some."""
    with shop(arena, "agent") as made:
        made.open("web", 4)
        made.settled()
        yield made


def nodes(web: Shop) -> set[str]:
    """The Consul nodes that have an instance."""
    return {row["Node"] for row in web.world.catalog(web.name("web")).values()}


def on_node(web: Shop) -> str:
    return min(name for name, pod in web.world.pods("web").items() if pod["spec"]["nodeName"] == NODE)


def is_given_up(arena: Arena, node: str) -> bool:
    """Whether Consul takes the node's agent for dead. Until then it reserves the name for that one's ID, and refuses
    for good what an agent of another ID pushes.
    """
    checks = arena.oracle.consul(f"/v1/health/node/{node}").value
    return {check["CheckID"]: check["Status"] for check in checks}.get("serfHealth") == "critical"


def test_a_pod_that_goes_while_its_agent_is_down_is_gone_when_the_agent_is_back(arena: Arena, web: Shop) -> None:
    agent = arena.cluster.consul.agents[NODE]
    agent.process.kill()
    web.kill_pod(on_node(web), at_once=True)
    eventually(lambda: len(web.world.pods("web")) == 4)
    agent.process.start()
    web.settled()


def test_an_agent_that_restarts_with_its_data_loses_nothing(arena: Arena, web: Shop) -> None:
    """Killed, so that it doesn't leave."""
    agent = arena.cluster.consul.agents[NODE]
    agent.process.kill()
    agent.process.start()
    web.churn("web", 5, seed=6)
    web.settled()


def test_an_agent_that_lost_its_data_is_told_everything_anew(arena: Arena, web: Shop) -> None:
    arena.oracle.excuse(web.name("web"))
    arena.cluster.consul.agents[NODE].restart(keep_data=False)
    eventually(lambda: arena.oracle.left)
    web.settled()


def test_an_agent_that_leaves_and_comes_back_has_its_instances_again(arena: Arena, web: Shop) -> None:
    arena.oracle.excuse(web.name("web"))
    agent = arena.cluster.consul.agents[NODE]
    agent.process.stop()
    eventually(lambda: NODE not in nodes(web))
    web.scale("web", 5)
    agent.process.start()
    web.settled()


def test_an_agent_that_is_reloaded_keeps_what_it_has(arena: Arena, web: Shop) -> None:
    arena.cluster.consul.agents[NODE].request("PUT", "/v1/agent/reload")
    web.churn("web", 5, seed=7)
    web.settled()


def test_what_an_agent_is_given_between_the_reads_of_its_list_and_of_the_catalog_is_noticed(
    arena: Arena, web: Shop
) -> None:
    """A ghost that nobody tells of again: the catalog was read with it already."""
    agent, gate = arena.cluster.consul.agents[NODE], faults.Gate("before")
    arena.network.inject(lambda r: r.via == NODE and r.kind == "GET catalog/node-services", gate)
    agent.request("PUT", "/v1/agent/service/register", {"Name": "rings"})
    eventually(lambda: gate.hanging)
    meta = web.world.catalog(web.name("web"))[on_node(web)]["ServiceMeta"]
    ghost = {"ID": f"{web.world.namespace}-ghost", "Name": web.name("web"), "Meta": meta | {"k8s-pod-uid": "ghost"}}
    agent.request("PUT", "/v1/agent/service/register", ghost)
    eventually(lambda: len(arena.oracle.instances(web.name("web"))) == 5)
    gate.open()
    web.settled()
    agent.request("PUT", "/v1/agent/service/deregister/rings")


@pytest.mark.exhaustive
def test_what_an_agent_leaves_that_is_gone_for_good_with_its_node_is_cleaned_up(arena: Arena, web: Shop) -> None:
    """And what it remembers when it comes back after all goes, too."""
    cluster = arena.cluster
    cluster.consul.agents[NODE].process.kill()
    cluster.api.request("DELETE", f"/api/v1/nodes/{NODE}")
    try:
        for name, pod in web.world.pods("web").items():
            if pod["spec"]["nodeName"] == NODE:
                web.kill_pod(name, at_once=True)
        web.settled(within=240)
    finally:
        create_nodes(cluster.api, {NODE: cluster.nodes[NODE]})
        cluster.consul.agents[NODE].process.start()
    web.settled()


@pytest.mark.exhaustive
def test_an_agent_that_is_replaced_by_one_of_another_name_takes_its_instances_over(arena: Arena, web: Shop) -> None:
    """The same address, another Consul node. The old one has left, as a drained machine does."""
    arena.oracle.excuse(web.name("web"))
    agent = arena.cluster.consul.agents[NODE]
    file = arena.cluster.state / "consul" / f"{NODE}.json"
    before = file.read_text()
    agent.process.stop()
    agent.lose_data()
    file.write_text(json.dumps(json.loads(before) | {"node_name": "replaced"}))
    agent.process.start(wait=False)
    try:
        eventually(lambda: nodes(web) == {"replaced", "node-2"})
        web.settled()
    finally:
        agent.process.stop()
        agent.lose_data()
        file.write_text(before)
        agent.process.start()
    eventually(lambda: nodes(web) == {"node-1", "node-2"})
    web.settled()


@pytest.mark.parametrize("kept", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_all_agents_restart_at_once_in_the_midst_of_changes(arena: Arena, web: Shop, kept: bool) -> None:
    if not kept:
        arena.oracle.excuse(web.name("web"))
    agents = arena.cluster.consul.agents.values()
    for agent in agents:
        agent.process.kill()
        if not kept:
            agent.lose_data()
    web.churn("web", 5, seed=8)
    if not kept:
        eventually(lambda: all(is_given_up(arena, node) for node in arena.cluster.consul.agents))
    for agent in agents:
        agent.process.start(wait=False)
    web.churn("web", 5, seed=9)
    for agent in agents:
        agent.process.wait_ready()
    web.settled(within=200)
