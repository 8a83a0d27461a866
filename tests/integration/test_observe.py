"""`policy: Observe` writes nothing: Consul's own counter of what goes into its log stands still. `UpsertOnly` removes
nothing.
"""

import time
from collections.abc import Iterator

import pytest
from operator_world import GROUP, World, connection, deployment, eventually, registration

from devcluster import Cluster

CONNECTIONS = f"/apis/{GROUP}/v1alpha1/consulconnections"


@pytest.fixture(params=["Agent", "Catalog"])
def observed(request: pytest.FixtureRequest, cluster: Cluster, world: World) -> Iterator[str]:
    """A connection that observes."""
    name = f"{world.namespace}-observed"
    where = {"addresses": [cluster.consul.http_addr], "virtualNodes": 2} if request.param == "Catalog" else {}
    where = where or {"nodeAgents": {}}
    world.apply(connection(name, mode=request.param, policy="Observe", **where))
    yield name
    world.kubectl("delete", "sreg", "--all", "--timeout=180s")
    world.kubectl("delete", "cconn", name, "--timeout=180s")


def at_rest(cluster: Cluster) -> int:
    """Consul's counter, once nothing has been written for a while: what ran before may still be cleaned up."""

    def look() -> int:
        before = cluster.consul.writes()
        time.sleep(3)
        assert cluster.consul.writes() == before
        return before

    return eventually(look)


def waiting(world: World, name: str, count: int) -> None:
    """Wait until status counts so many changes that would be made."""

    def look() -> None:
        assert world.registration(name)["status"]["instances"]["waiting"] == count

    eventually(look)


@pytest.mark.shows("cconn.spec.policy")
def test_whatever_happens_nothing_is_written_and_what_would_be_is_said(
    cluster: Cluster, world: World, observed: str
) -> None:
    before = at_rest(cluster)
    world.apply(deployment("seen", 3), registration("seen", consulRefs=[{"name": observed}]))
    world.says("seen", "Observed")
    waiting(world, "seen", 3)
    world.kubectl("scale", "deployment", "seen", "--replicas=5")
    waiting(world, "seen", 5)
    world.annotate(min(world.pods("seen")), ready="false")
    world.patch("seen", {"service": {"name": "seen-renamed", "tags": ["edited"]}})
    world.says("seen", "Observed")
    world.kubectl("scale", "deployment", "seen", "--replicas=2")
    waiting(world, "seen", 2)
    world.kubectl("delete", "sreg", "seen", "--timeout=180s")
    assert at_rest(cluster) == before


def test_what_stands_is_left_as_it_is_until_the_policy_says_otherwise(
    cluster: Cluster, world: World, observed: str
) -> None:
    def policy(wanted: str) -> None:
        world.kubectl("patch", "cconn", observed, "--type=merge", "-p", f'{{"spec": {{"policy": "{wanted}"}}}}')

    world.apply(deployment("stands", 3), registration("stands", consulRefs=[{"name": observed}]))
    policy("Sync")
    world.passing("stands", 3)
    policy("Observe")
    world.says("stands", "Registered")
    before = at_rest(cluster)
    world.kubectl("scale", "deployment", "stands", "--replicas=1")
    eventually(lambda: len(world.pods("stands")) == 1)
    world.annotate(min(world.pods("stands")), ready="false")
    world.patch("stands", {"service": {"tags": ["edited"]}})
    waiting(world, "stands", 3)
    assert at_rest(cluster) == before
    assert len(world.health("stands")) == 3
    policy("Sync")
    eventually(lambda: [row["Service"]["Tags"] for row in world.health("stands").values()] == [["edited"]])


@pytest.mark.shows("cconn.spec.policy")
def test_what_may_only_be_registered_and_edited_is_not_removed_until_the_policy_says_otherwise(
    world: World, observed: str
) -> None:
    def policy(wanted: str) -> None:
        world.kubectl("patch", "cconn", observed, "--type=merge", "-p", f'{{"spec": {{"policy": "{wanted}"}}}}')

    policy("UpsertOnly")
    world.apply(deployment("kept", 3), registration("kept", consulRefs=[{"name": observed}]))
    before = world.passing("kept", 3)
    world.kubectl("scale", "deployment", "kept", "--replicas=1")
    eventually(lambda: len(world.pods("kept")) == 1)
    world.patch("kept", {"service": {"tags": ["edited"]}})
    (living,) = world.pods("kept")
    eventually(lambda: world.health("kept")[living]["Service"]["Tags"] == ["edited"])
    assert world.says("kept", "UpsertOnly")["status"] == "False"
    waiting(world, "kept", 2)
    assert world.health("kept").keys() == before.keys()
    policy("Sync")
    eventually(lambda: world.health("kept").keys() == {living})
    world.says("kept", "Registered")
