"""Consul stops, is gone, and comes back: status says why, nothing hangs, and all is right again afterwards."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from operator_world import World, deployment, eventually, registration

from devcluster import Cluster
from devcluster.process import Process


@pytest.fixture
def mortal(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, whose Consul may be killed: afterwards all of it runs again."""
    yield cluster
    revive(cluster)


def kill_agents(cluster: Cluster) -> None:
    for agent in cluster.consul.agents.values():
        agent.process.kill()


def revive(cluster: Cluster) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda process: process.start(), cluster.consul.processes))


def agents_ready(cluster: Cluster) -> int:
    found = json.loads(cluster.kubectl("get", "cconn", "default", "-o", "json"))
    return found["status"]["agentsReady"]


@pytest.mark.parametrize("stop", [Process.kill, Process.stop], ids=["failed", "left"])
def test_while_consul_is_gone_status_says_so_and_afterwards_all_is_right_again(
    mortal: Cluster, world: World, stop: Callable[[Process], None]
) -> None:
    """An agent that is killed fails; one that is asked to stop takes all that it holds out of the catalog."""
    world.apply(registration("outage"), deployment("outage", 3))
    before = world.passing("outage", 3)
    world.says("outage", "Registered")
    for agent in mortal.consul.agents.values():
        stop(agent.process)

    def told() -> None:
        condition = world.condition("outage")
        assert condition["status"] == "False"
        assert "Consul 'default'" in condition["message"]

    eventually(told)
    eventually(lambda: agents_ready(mortal) == 0)
    gone = min(before)
    world.kubectl("delete", "pod", gone, "--wait=false")
    eventually(lambda: gone not in world.pods("outage") and len(world.pods("outage")) == 3)
    revive(mortal)
    eventually(lambda: world.passing("outage", 3).keys() == world.pods("outage").keys())
    world.says("outage", "Registered")
    eventually(lambda: agents_ready(mortal) == 3)


def test_agents_that_lost_their_disks_are_told_everything_anew(mortal: Cluster, world: World) -> None:
    checks = [{"name": "port", "tcp": {}, "interval": "1s", "timeout": "1s"}]
    world.apply(registration("amnesia", checks=checks), deployment("amnesia", 3))
    before = world.passing("amnesia", 3)
    with ThreadPoolExecutor() as pool:
        agents = mortal.consul.agents.values()
        list(pool.map(lambda agent: agent.restart(keep_data=False), agents))
    assert eventually(lambda: world.passing("amnesia", 3)).keys() == before.keys()
    # The catalog may still show what it held before: the agents themselves are asked, too.
    eventually(
        lambda: all(world.agent_checks(row)["port"]["Type"] == "tcp" for row in world.health("amnesia").values())
    )
    world.passing("amnesia", 3)


def test_a_registration_deleted_while_consul_is_gone_says_that_it_is_blocked_and_goes_on_request(
    mortal: Cluster, world: World
) -> None:
    world.apply(registration("stuck"), registration("patient"), deployment("stuck", 2), deployment("patient", 2))
    world.passing("stuck", 2)
    world.passing("patient", 2)
    kill_agents(mortal)
    eventually(lambda: agents_ready(mortal) == 0)
    world.kubectl("delete", "sreg", "stuck", "patient", "--wait=false")

    def blocked(name: str) -> None:
        condition = next(c for c in world.registration(name)["status"]["conditions"] if c["type"] == "Ready")
        assert condition["reason"] == "DeregistrationBlocked", condition
        assert "Consul 'default' can't be cleaned" in condition["message"]

    eventually(lambda: blocked("stuck"))
    eventually(lambda: blocked("patient"))
    eventually(lambda: world.kubectl("get", "events", "--field-selector=reason=DeregistrationBlocked", "-o", "name"))
    world.kubectl("annotate", "sreg", "stuck", "consul-registrar.dev/skip-deregistration=yes")
    eventually(lambda: not world.exists("stuck"))
    assert world.exists("patient")
    revive(mortal)
    # The patient one is cleaned and goes; what the other left behind is swept up too, as Consul is back.
    eventually(lambda: not world.exists("patient"))
    assert world.health("patient") == {}
    eventually(lambda: world.health("stuck") == {})


def test_a_change_while_the_servers_are_gone_arrives_once_they_are_back(mortal: Cluster, world: World) -> None:
    world.apply(registration("leaderless"), deployment("leaderless", 2))
    world.passing("leaderless", 2)
    mortal.consul.server.process.kill()
    world.kubectl("scale", "deployment/leaderless", "--replicas=4")
    eventually(lambda: len(world.pods("leaderless")) == 4)
    time.sleep(1)
    revive(mortal)
    eventually(lambda: world.passing("leaderless", 4))
    world.says("leaderless", "Registered")
