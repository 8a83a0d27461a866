"""Five hundred Pods over fifty registrations: all there, none left over, and no crash takes a living one."""

import random
from collections.abc import Callable

import pytest
from operator_world import Operator, World, deployment, eventually, truth

from devcluster import Cluster
from killpoints import explain, watching

SERVICES = 50
PODS = 10


def registration(name: str) -> dict:
    return {
        "apiVersion": "consul-registrar.dev/v1alpha1",
        "kind": "ServiceRegistration",
        "metadata": {"name": name},
        "spec": {
            "pods": {"selector": {"matchLabels": {"app": name}}},
            "checks": [{"name": "ready", "readiness": {}}, {"name": "port", "tcp": {}, "interval": "5s"}],
        },
    }


@pytest.fixture
def crowd(world: World) -> list[str]:
    names = [f"svc-{i:02}" for i in range(SERVICES)]
    world.apply(*(deployment(name, PODS) for name in names), *map(registration, names))
    return names


def pods_and_instances(cluster: Cluster, namespace: str) -> tuple[set[str], list[str], int]:
    """UIDs of the running Pods, the Pod UIDs of the instances in the catalog, and how many checks aren't passing."""
    found = cluster.api.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
    alive = {p["metadata"]["uid"] for p in found if "deletionTimestamp" not in p["metadata"]}
    assert all(p["status"].get("phase") == "Running" for p in found)
    instances, unwell = [], 0
    for node in cluster.nodes:
        rows = cluster.consul.server.request("GET", f"/v1/catalog/node-services/{node}")["Services"]
        mine = {r["ID"]: r["Meta"]["k8s-pod-uid"] for r in rows if of(r, namespace)}
        instances += mine.values()
        checks = cluster.consul.server.request("GET", f"/v1/health/node/{node}")
        unwell += sum(c["Status"] != "passing" for c in checks if c["ServiceID"] in mine)
    return alive, instances, unwell


def of(service: dict, namespace: str) -> bool:
    """Whether a service is an instance of this namespace; what is registered by hand may have no metadata at all."""
    return (service["Meta"] or {}).get("k8s-namespace") == namespace


def settled(cluster: Cluster, namespace: str, expected: Callable[[], int]) -> Callable[[], bool]:
    def look() -> bool:
        alive, instances, unwell = pods_and_instances(cluster, namespace)
        assert len(alive) == expected(), f"{len(alive)} Pods, not {expected()}"
        missing, ghosts = alive - set(instances), set(instances) - alive
        assert not missing, f"{len(missing)} missing"
        assert not ghosts, f"{len(ghosts)} ghosts"
        assert len(instances) == len(alive), "an instance stands twice"
        assert not unwell, f"{unwell} checks are not passing"
        return True

    return look


def test_five_hundred_pods_scale_at_random_through_crashes_and_no_living_one_ever_leaves(
    cluster: Cluster, world: World, operator: Operator, crowd: list[str]
) -> None:
    sizes = dict.fromkeys(crowd, PODS)
    eventually(settled(cluster, world.namespace, lambda: sum(sizes.values())), within=180)
    chance = random.Random(20261122)
    with watching(truth(cluster)) as oracle:
        for crash in range(4):
            for name in chance.sample(crowd, 12):
                sizes[name] = chance.randint(3, 16)
                world.kubectl("scale", "deployment", name, f"--replicas={sizes[name]}")
            if crash % 2:
                operator.kill()
                world.kubectl(
                    "delete",
                    "pod",
                    "--wait=false",
                    "--ignore-not-found",
                    *chance.sample(sorted(world.pods(crowd[0])), 2),
                )
                operator.start()
            else:
                operator.restart()
        eventually(settled(cluster, world.namespace, lambda: sum(sizes.values())), within=180)
        assert oracle.left, "nothing ever left: the oracle saw nothing"
        assert not oracle.wrong, explain(oracle.wrong)
