"""What callers who find instances in Consul notice of rollouts, drains and the operator's own trouble: nothing."""

from e2e.e2e_world import NAMESPACE, Traffic, World, eventually


def nothing_failed(traffic: Traffic) -> None:
    counted = traffic.goes_on()
    assert (counted["failed"], counted["empty"]) == (0, 0), counted


def test_a_rollout_fails_no_request(world: World, app: str, traffic: Traffic) -> None:
    before = world.found(app)
    world.kubectl("rollout", "restart", f"deployment/{app}")
    world.kubectl("rollout", "status", f"deployment/{app}", "--timeout=180s")
    eventually(lambda: world.found(app) == world.pods(f"app={app}"))
    assert not world.found(app) & before
    nothing_failed(traffic)


def test_a_drained_node_is_empty_in_consul_and_fills_again(world: World, app: str) -> None:
    """There is one node, so the Pods have nowhere to go until it is uncordoned."""
    node = world.get("nodes")["items"][0]["metadata"]["name"]
    world.kubectl("drain", node, f"--pod-selector=app={app}", "--ignore-daemonsets", "--timeout=120s")
    try:
        eventually(lambda: not world.found(app, passing=False))
    finally:
        world.kubectl("uncordon", node)
    eventually(lambda: len(world.found(app)) == 3)


def test_callers_do_not_notice_that_the_leader_is_killed(world: World, app: str, traffic: Traffic) -> None:
    leader = eventually(world.leader)
    world.kubectl("delete", "pod", "-n", NAMESPACE, leader, "--grace-period=0", "--force")
    world.kubectl("scale", f"deployment/{app}", "--replicas=4")
    eventually(lambda: len(world.found(app)) == 4)
    assert eventually(lambda: now if (now := world.leader()) != leader else "")
    nothing_failed(traffic)


def test_a_consul_that_comes_back_empty_is_filled_again(world: World, app: str) -> None:
    pods = world.found(app)
    world.kubectl("rollout", "restart", "-n", "consul", "deployment/consul")
    world.kubectl("rollout", "status", "-n", "consul", "deployment/consul", "--timeout=180s")
    eventually(lambda: world.found(app) == pods)


def test_an_upgrade_of_the_release_fails_no_request(world: World, app: str, traffic: Traffic) -> None:
    indexes = {row["Service"]["ID"]: row["Service"]["CreateIndex"] for row in world.consul(f"/v1/health/service/{app}")}
    world.install("readinessGate.enabled=true", "podAnnotations.again=yes")
    nothing_failed(traffic)
    rows = world.consul(f"/v1/health/service/{app}")
    assert {row["Service"]["ID"]: row["Service"]["CreateIndex"] for row in rows} == indexes
