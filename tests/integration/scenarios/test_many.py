"""Many registrations at once, scaled at random, while the operator is killed and started again."""

import random
import threading
import time

import pytest
from operator_world import MERGE, Operator, World, deployment, eventually, registration

REGISTRATIONS = 50
PODS = 500
SEED = 4  # of the random scaling


def running(world: World) -> dict[str, str]:
    """The running Pods that don't terminate: UID to address."""
    found = world.cluster.api.request("GET", f"/api/v1/namespaces/{world.namespace}/pods")["items"]
    alive = [p for p in found if p["status"].get("phase") == "Running" and "deletionTimestamp" not in p["metadata"]]
    return {pod["metadata"]["uid"]: pod["status"]["podIP"] for pod in alive}


def registered(world: World, *, passing: bool = True) -> dict[str, str]:
    """What Consul has of this namespace, as its nodes tell: UID to address; only what passes all its checks."""
    found: dict[str, str] = {}
    for node in world.cluster.consul.agents:
        services = world.consul(f"/v1/catalog/node-services/{node}")["Services"]
        sick = {c["ServiceID"] for c in world.consul(f"/v1/health/node/{node}") if c["Status"] != "passing"}
        for service in services:
            meta = service["Meta"]
            if meta.get("k8s-namespace") == world.namespace and not (passing and service["ID"] in sick):
                found[meta["k8s-pod-uid"]] = service["Address"]
    return found


def scale(world: World, name: str, replicas: int) -> None:
    path = f"/apis/apps/v1/namespaces/{world.namespace}/deployments/{name}"
    world.cluster.api.request("PATCH", path, {"spec": {"replicas": replicas}}, MERGE)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_of_500_pods_none_is_missing_and_none_left_over_though_the_operator_is_killed_in_the_middle(
    world: World, operator: Operator
) -> None:
    dice = random.Random(SEED)
    names = [f"many-{number}" for number in range(REGISTRATIONS)]
    checks = [{"name": "health", "http": {"path": "/health"}, "interval": "5s", "timeout": "2s"}]
    world.apply(*[registration(name, checks=checks) for name in names])
    world.apply(*[deployment(name, PODS // REGISTRATIONS) for name in names])

    def all_there() -> bool:
        alive = running(world)
        assert len(alive) == wanted, f"{len(alive)} Pods run"
        in_consul, healthy = registered(world, passing=False), registered(world)
        assert in_consul == alive, f"{len(alive.keys() - in_consul.keys())} missing, {len(in_consul)} there"
        assert healthy == alive, f"{len(alive) - len(healthy)} don't pass"
        return True

    wanted = PODS
    eventually(all_there, within=180)
    steady = [name for name in names if dice.random() < 0.5]  # these are left alone: they must never leave
    kept = {row["Service"]["Meta"]["k8s-pod-uid"] for name in steady for row in world.health(name).values()}
    over, left = threading.Event(), set[str]()

    def watch() -> None:
        while not over.is_set():
            left.update(kept - registered(world, passing=False).keys())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        sizes = dict.fromkeys(names, PODS // REGISTRATIONS)
        for turn in range(4):
            for name in set(names) - set(steady):
                sizes[name] = dice.randrange(20)
                scale(world, name, sizes[name])
            time.sleep(dice.uniform(0.2, 1.5))
            if turn in {1, 2}:
                operator.kill()
                time.sleep(dice.uniform(0.5, 3.0))
                operator.start()
        wanted = sum(sizes.values())
        eventually(all_there, within=180)
    finally:
        over.set()
        watcher.join()
    assert left == set()
    for name in names:
        if sizes[name]:
            world.says(name, "Registered")
