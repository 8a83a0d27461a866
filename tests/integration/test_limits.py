"""A connection's limit of writes, on real parts: everything is written in the end, and not at once."""

import json
from datetime import datetime

import pytest
from operator_world import MERGE, Operator, World, deployment, eventually, registration

from devcluster import Cluster

CONNECTIONS = "/apis/consul-registrar.dev/v1alpha1/consulconnections"


def written(operator: Operator, connection: str, operation: str = "") -> list[datetime]:
    """When each applied write to a connection was acknowledged, by the audit log; `operation`: of this kind alone."""
    lines = [json.loads(line) for line in operator.log.splitlines() if '"consul_registrar.audit"' in line]
    found = [e for e in lines if e["connection"] == connection and "instance" in e]
    return [datetime.fromisoformat(e["time"]) for e in found if operation in {"", e["operation"]}]


@pytest.mark.shows("cconn.spec.limits.writesPerSecond", mode="agent")
def test_writes_keep_to_the_limit_and_all_are_made(world: World, cluster: Cluster, operator: Operator) -> None:
    agent = cluster.consul.agents["node-1"].http_addr
    spec = {"mode": "Agent", "addresses": [agent], "limits": {"writesPerSecond": 2}}
    kind = {"apiVersion": "consul-registrar.dev/v1alpha1", "kind": "ConsulConnection", "metadata": {"name": "limited"}}
    cluster.api.request("POST", CONNECTIONS, kind | {"spec": spec})
    world.apply(deployment("paced", 12), registration("paced", consulRefs=[{"name": "limited"}]))
    world.passing("paced", 12)
    world.registered("paced", 12)  # by then each write has its line
    times = written(operator, "limited")
    assert len(times) == 12
    assert (times[-1] - times[0]).total_seconds() >= 3.0, "two at once, two a second"
    cluster.api.request("PATCH", f"{CONNECTIONS}/limited", {"spec": {"limits": None}}, MERGE)
    world.kubectl("delete", "sreg", "paced")
    eventually(lambda: world.health("paced") == {})
    cluster.api.request("DELETE", f"{CONNECTIONS}/limited")
