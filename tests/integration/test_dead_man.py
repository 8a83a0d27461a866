"""The dead man's switch, from a connection's field to what callers see when the operator is killed."""

from collections.abc import Iterator
from typing import Any

import pytest
from operator_world import (
    MERGE,
    RESOURCES,
    Operator,
    World,
    always,
    connection,
    deployment,
    eventually,
    registration,
    statuses,
)

from devcluster import Cluster

HEARTBEAT = "consul-registrar-heartbeat"
NAME = "hanging"


@pytest.fixture
def hanging(cluster: Cluster, world: World) -> Iterator[str]:
    """A connection of its own, with the switch; its name."""
    lax = {"removalGuard": {"atLeast": 100}}
    world.apply(connection(NAME, mode="Agent", nodeAgents={}, deadMan={"after": "20s"}, **lax))
    yield NAME
    world.kubectl("delete", "sreg", "--all", "--timeout=180s")
    world.kubectl("delete", "cconn", NAME, "--ignore-not-found", "--timeout=180s")
    eventually(lambda: heartbeats(world) == set())


def heartbeats(world: World) -> set[str]:
    """The Consul nodes that hold one."""
    return {row["Node"] for row in world.consul(f"/v1/catalog/service/{HEARTBEAT}")}


def switch(world: World, spec: dict[str, Any]) -> None:
    world.cluster.api.request("PATCH", f"{RESOURCES}/consulconnections/{NAME}", {"spec": spec}, MERGE)


def seen(world: World, service: str) -> list[dict[str, str]]:
    return [statuses(row) for row in world.health(service).values()]


BOTH = {"readiness": "passing", "dead-man": "passing"}


@pytest.mark.shows("cconn.spec.deadMan", mode="agent")
def test_what_the_operator_vouches_for_is_critical_while_it_is_dead_and_passing_when_it_is_back(
    world: World, operator: Operator, hanging: str
) -> None:
    refs = [{"name": hanging}]
    probed = registration("probed", consulRefs=refs, checks=[{"name": "port", "tcp": {}, "interval": "1s"}])
    world.apply(deployment("vouched", 3), registration("vouched", consulRefs=refs), deployment("probed", 2), probed)
    world.passing("vouched", 3)
    world.passing("probed", 2)
    assert seen(world, "vouched") == [BOTH] * 3
    assert seen(world, "probed") == [{"port": "passing"}] * 2
    nodes = {row["Node"]["Node"] for row in world.health("vouched").values()}
    assert heartbeats(world) == nodes
    world.says("vouched", "Registered")
    before = {row["ServiceID"]: row["ModifyIndex"] for row in world.consul("/v1/catalog/service/vouched")}
    operator.kill()
    eventually(lambda: seen(world, "vouched") == [BOTH | {"dead-man": "critical"}] * 3)
    assert seen(world, "probed") == [{"port": "passing"}] * 2
    operator.start()
    world.passing("vouched", 3)
    assert {row["ServiceID"]: row["ModifyIndex"] for row in world.consul("/v1/catalog/service/vouched")} == before


def test_it_goes_when_it_is_switched_off_and_nobody_sees_anything_of_it(world: World, hanging: str) -> None:
    world.apply(deployment("vouched", 3), registration("vouched", consulRefs=[{"name": hanging}]))
    world.passing("vouched", 3)
    switch(world, {"deadMan": None})
    eventually(lambda: seen(world, "vouched") == [{"readiness": "passing"}] * 3)
    eventually(lambda: heartbeats(world) == set())
    always(lambda: len(world.health("vouched", passing=True)) == 3, during=2)
    switch(world, {"deadMan": {}})
    eventually(lambda: seen(world, "vouched") == [BOTH] * 3)


def test_it_leaves_an_agent_with_the_last_instance_there_and_every_agent_with_the_connection(
    world: World, hanging: str
) -> None:
    world.apply(deployment("vouched", 3), registration("vouched", consulRefs=[{"name": hanging}]))
    world.passing("vouched", 3)
    world.kubectl("scale", "deployment", "vouched", "--replicas=1")
    (row,) = eventually(lambda: len(found := world.health("vouched")) == 1 and list(found.values()))
    eventually(lambda: heartbeats(world) == {row["Node"]["Node"]})
    world.kubectl("delete", "sreg", "vouched", "--timeout=180s")
    world.kubectl("delete", "cconn", NAME, "--timeout=180s")
    eventually(lambda: heartbeats(world) == set())


def test_what_is_orphaned_no_longer_hangs_on_it(world: World, hanging: str) -> None:
    orphaned = registration("kept", consulRefs=[{"name": hanging}], deletionPolicy="Orphan")
    world.apply(deployment("kept", 1), orphaned)
    world.passing("kept", 1)
    world.kubectl("delete", "sreg", "kept", "--timeout=180s")
    eventually(lambda: heartbeats(world) == set())
    (row,) = world.health("kept", passing=True).values()
    assert statuses(row) == {"readiness": "passing"}
    holder = world.cluster.consul.agents[row["Node"]["Node"]]
    holder.request("PUT", f"/v1/agent/service/deregister/{row['Service']['ID']}")
