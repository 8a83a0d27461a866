"""What a registration joins under its name in Consul: it is said once, and what is foreign stays as it is."""

import json
from typing import Any

from operator_world import Operator, World, always, deployment, eventually, registration

from devcluster import Cluster

RESYNC = "consul-registrar.dev/resync"


def by_hand(cluster: Cluster, connection: str, service: str, name: str, meta: dict[str, str] | None = None) -> None:
    """What somebody has registered: at an agent, or in the catalog on a node of their own, which no agent has."""
    one = {"ID": f"{service}-{name}", "Address": "192.0.2.7", "Port": 80, "Meta": meta or {}}
    if connection == "default":
        cluster.consul.agents["node-1"].request("PUT", "/v1/agent/service/register", one | {"Name": service})
    else:
        at = {"Node": "vm-1", "Address": "192.0.2.1", "Service": one | {"Service": service}}
        cluster.consul.server.request("PUT", "/v1/catalog/register", at)


def remove(cluster: Cluster, connection: str, service: str, *names: str) -> None:
    for each in (f"{service}-{name}" for name in names):
        if connection == "default":
            cluster.consul.agents["node-1"].request("PUT", f"/v1/agent/service/deregister/{each}")
        else:
            cluster.consul.server.request("PUT", "/v1/catalog/deregister", {"Node": "vm-1", "ServiceID": each})


def foreign(world: World, name: str) -> list[dict[str, Any]]:
    """The condition, where there is one."""
    conditions = world.registration(name)["status"]["consuls"][0]["conditions"]
    return [one for one in conditions if one["type"] == "ForeignInstances"]


def said(world: World, name: str) -> int:
    """How many Events say so; others may come before, such as that there are no Pods yet."""
    found = json.loads(world.kubectl("get", "events", f"--field-selector=involvedObject.name={name}", "-o", "json"))
    return sum((e["type"], e["reason"]) == ("Warning", "JoinsForeignInstances") for e in found["items"])


def test_joining_what_nobodys_operator_has_registered_is_told_once_and_not_again_after_a_restart(
    world: World, cluster: Cluster, operator: Operator, connection: str
) -> None:
    service = f"joined-{connection}"
    by_hand(cluster, connection, service, "one")
    by_hand(cluster, connection, service, "other", {"managed-by": "consul-registrar", "k8s-cluster": "elsewhere"})
    index = {row["ServiceID"]: row["ModifyIndex"] for row in world.consul(f"/v1/catalog/service/{service}")}
    refs = [{"name": connection}]
    world.apply(deployment("joins", 2), registration("joins", consulRefs=refs, service={"name": service}))
    (condition,) = eventually(lambda: foreign(world, "joins"))
    assert (condition["status"], condition["reason"]) == ("True", "JoinsForeignInstances")
    on = "node-1" if connection == "default" else "vm-1"
    assert f"holds 1 instance of {service!r} that no operator has registered (on {on})" in condition["message"]
    assert world.registered("joins", 2)["status"] == "True"
    eventually(lambda: said(world, "joins") == 1)
    stands = world.registration("joins")["metadata"]["resourceVersion"]
    operator.restart()
    always(lambda: world.registration("joins")["metadata"]["resourceVersion"] == stands, during=3)
    assert said(world, "joins") == 1
    rows = world.consul(f"/v1/catalog/service/{service}")
    assert {row["ServiceID"]: row["ModifyIndex"] for row in rows if row["ServiceID"] in index} == index
    remove(cluster, connection, service, "one", "other")
    world.kubectl("annotate", "sreg", "joins", f"{RESYNC}=looked")
    eventually(lambda: foreign(world, "joins") == [])


def test_what_was_adopted_is_not_joined_any_more(world: World, cluster: Cluster, connection: str) -> None:
    service = f"adopting-{connection}"
    by_hand(cluster, connection, service, "one")
    ends = [{"name": "one", "address": "192.0.2.7", "port": 80}]
    refs = [{"name": connection}]
    world.apply(registration("adopts", consulRefs=refs, service={"name": service}, endpoints=ends))
    eventually(lambda: foreign(world, "adopts"))
    world.kubectl("annotate", "sreg", "adopts", "consul-registrar.dev/adopt=true")
    eventually(lambda: foreign(world, "adopts") == [])
    assert len(world.consul(f"/v1/catalog/service/{service}")) == 1


def test_what_was_registered_by_hand_while_no_operator_ran_is_told_by_the_next(
    world: World, cluster: Cluster, operator: Operator, connection: str
) -> None:
    service = f"late-{connection}"
    refs = [{"name": connection}]
    world.apply(deployment("late", 1), registration("late", consulRefs=refs, service={"name": service}))
    world.registered("late", 1)
    operator.stop()
    by_hand(cluster, connection, service, "one")
    operator.start()
    eventually(lambda: foreign(world, "late"))
    eventually(lambda: said(world, "late") == 1)
    remove(cluster, connection, service, "one")
