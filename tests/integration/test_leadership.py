"""Two replicas: one writes, the other stands by and takes over when the first is killed or leaves."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from operator_world import Operator, World, always, connection, deployment, eventually, pod, registration, truth

from devcluster import Cluster
from killpoints import watching


@pytest.fixture
def second(cluster: Cluster, operator: Operator, tmp_path: pytest.TempPathFactory) -> Iterator[Operator]:
    """Another replica, which comes when the first one leads."""
    one = Operator(cluster, tmp_path)
    eventually(lambda: leads(operator))
    with one.running():
        yield one


def leads(operator: Operator) -> bool:
    return 'leader_election_master_status{name="consul-registrar"} 1.0' in operator.get("/metrics")


def test_a_standby_takes_over_from_a_killed_leader_without_touching_what_lives(
    cluster: Cluster, world: World, operator: Operator, second: Operator
) -> None:
    eventually(lambda: leads(operator) and not leads(second))
    world.apply(deployment("web", 3), registration("web"))
    world.passing("web", 3)
    world.registered("web", 3)
    with watching(truth(cluster)) as oracle:
        operator.kill()
        world.kubectl("scale", "deployment", "web", "--replicas=5")
        eventually(lambda: leads(second))
        world.passing("web", 5)
        oracle.catch_up()
        assert oracle.left == []
    operator.start()
    assert not leads(operator)


def test_a_leader_that_is_told_to_stop_hands_over(world: World, operator: Operator, second: Operator) -> None:
    eventually(lambda: leads(operator))
    operator.stop()
    assert "the lease is released" in operator.log
    eventually(lambda: leads(second))
    operator.start()


def applied(operator: Operator) -> list[dict[str, Any]]:
    """The audit lines of what a replica has written; what it was kept from, or broke off, has lines too."""
    told = [json.loads(line) for line in operator.log.splitlines() if line.startswith('{"time"')]
    return [line for line in told if line["outcome"] == "applied"]


def wakes(operator: Operator) -> None:
    """Let a paused leader go on, and wait until it has noticed that its term is over."""
    lost = operator.log.count("no longer leading")
    operator.process.resume()
    eventually(lambda: operator.log.count("no longer leading") > lost)


def at_rest(cluster: Cluster) -> int:
    """Consul's counter of writes, once what was acknowledged has arrived there."""

    def look() -> int:
        before = cluster.consul.writes()
        time.sleep(0.5)
        assert cluster.consul.writes() == before
        return before

    return eventually(look)


@pytest.fixture(params=["Agent", "Catalog"])
def connected(request: pytest.FixtureRequest, cluster: Cluster, world: World) -> Iterator[str]:
    """A connection of each mode."""
    name = f"{world.namespace}-led"
    addresses = {"addresses": [cluster.consul.http_addr], "virtualNodes": 2}
    where = addresses if request.param == "Catalog" else {"nodeAgents": {}}
    world.apply(connection(name, mode=request.param, **where))
    yield name
    world.kubectl("delete", "sreg", "--all", "--timeout=180s")
    world.kubectl("delete", "cconn", name, "--timeout=180s")


def test_a_leader_that_wakes_after_its_term_writes_nothing_and_stands_by(
    cluster: Cluster, world: World, operator: Operator, second: Operator, connected: str
) -> None:
    """Whoever leads meanwhile is paused too when the first one wakes: each write would be the woken one's."""
    eventually(lambda: leads(operator))
    refs = [{"name": connected}]
    world.apply(deployment("web", 3), pod("goes", "web"), registration("web", consulRefs=refs))
    world.passing("web", 4)
    world.registered("web", 4)  # it has heard of all that it wrote
    operator.process.pause()
    world.patch("web", {"service": {"tags": ["meanwhile"]}})
    eventually(lambda: leads(second))
    eventually(lambda: {tuple(row["Service"]["Tags"]) for row in world.health("web").values()} == {("meanwhile",)})
    second.process.pause()
    world.patch("web", {"service": {"tags": ["news"]}})
    world.kubectl("delete", "pod", "goes", "--wait=false")
    before, said = at_rest(cluster), applied(operator)
    wakes(operator)
    always(lambda: not leads(operator), during=3)  # the other one's term lasts longer
    assert applied(operator) == said
    assert cluster.consul.writes() == before
    second.process.resume()
    eventually(lambda: {tuple(row["Service"]["Tags"]) for row in world.health("web").values()} == {("news",)})
    eventually(lambda: "goes" not in world.health("web"))
    second.stop()
    eventually(lambda: leads(operator))
    world.kubectl("scale", "deployment", "web", "--replicas=4")
    world.passing("web", 4)


def test_a_write_that_was_in_flight_when_its_sender_slept_is_finished_and_nothing_after_it(
    cluster: Cluster, world: World, operator: Operator, second: Operator
) -> None:
    """Its agent hangs while the leader is paused, so the write arrives after its term; it is one that always may."""
    eventually(lambda: leads(operator))
    nodes = [pod(name, "late") for name in ("one", "two")]
    on_one_node = [each | {"spec": each["spec"] | {"nodeName": "node-1"}} for each in nodes]
    world.apply(*on_one_node, registration("late"))
    world.passing("late", 2)
    world.registered("late", 2)  # it has heard of all that it wrote
    agent = cluster.consul.agents["node-1"]
    said = applied(operator)
    agent.process.pause()
    try:
        world.kubectl("delete", "pod", "one", "--wait=false")
        eventually(lambda: not world.kubectl("get", "pod", "one", "--ignore-not-found", "-o", "name"))
        operator.process.pause()
        eventually(lambda: leads(second))
    finally:
        agent.process.resume()
    eventually(lambda: world.health("late").keys() == {"two"})
    wakes(operator)
    always(lambda: not leads(operator), during=3)
    news = applied(operator)[len(said) :]
    assert [line for line in news if (line["operation"], line["cause"]) != ("deregister", "gone")] == []
    assert world.health("late").keys() == {"two"}
    second.stop()
    eventually(lambda: leads(operator))
