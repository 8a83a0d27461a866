"""How registrations and Pods come, change and go, and what stands in Consul all the while."""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from operator_world import MERGE, Operator, World, always, deployment, eventually, pod, registration, statuses

from devcluster.kube import ApiError


def indexes(world: World, service: str) -> dict[str, tuple[int, int]]:
    """When each instance was created and modified last, by Consul's own count, with its checks.

    Those of its node are gossip's: on a busy machine that takes an agent for failed for a moment.
    """
    return {
        name: (row["Service"]["CreateIndex"], max(each["ModifyIndex"] for each in (row["Service"], *_own_checks(row))))
        for name, row in world.health(service).items()
    }


def _own_checks(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [check for check in row["Checks"] if check["ServiceID"]]


@contextmanager
def watching(look: Callable[[], bool]) -> Iterator[list[float]]:
    """Look as fast as possible while the block runs; yields the times at which it was not true."""
    missed: list[float] = []
    over = threading.Event()
    looks = 0

    def watch() -> None:
        nonlocal looks
        while not over.is_set():
            looks += 1
            if not look():
                missed.append(time.monotonic())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        eventually(lambda: looks)
        before = looks
        yield missed
        eventually(lambda: looks > before + 1)  # one that has begun meanwhile has ended, too
    finally:
        over.set()
        watcher.join()


def test_a_pod_whose_labels_stop_matching_leaves_and_comes_back(world: World) -> None:
    world.apply(registration("labels"), pod("one", "labels"), pod("two", "labels"))
    world.passing("labels", 2)
    world.kubectl("label", "--overwrite", "pod", "one", "app=other")
    eventually(lambda: world.health("labels").keys() == {"two"})
    world.kubectl("label", "--overwrite", "pod", "one", "app=labels")
    world.passing("labels", 2)


def test_a_selector_that_is_edited_takes_other_pods(world: World) -> None:
    world.apply(registration("chosen"), pod("one", "chosen"), pod("two", "new"))
    world.passing("chosen", 1)
    world.patch("chosen", {"pods": {"selector": {"matchLabels": {"app": "new"}}}})
    eventually(lambda: world.health("chosen").keys() == {"two"})


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_finishes_leaves_consul_though_the_object_stays(world: World, phase: str) -> None:
    name = f"job-{phase.lower()}"
    world.apply(registration(name), pod("one", name), pod("two", name))
    world.passing(name, 2)
    world.annotate("one", phase=phase)
    eventually(lambda: world.health(name).keys() == {"two"})
    assert '"name": "one"' in world.kubectl("get", "pod", "one", "-o", "json")


def test_readiness_decides_the_health_of_an_instance_and_not_whether_it_is_there(world: World) -> None:
    world.apply(registration("moody"), pod("one", "moody"))
    world.passing("moody", 1)
    world.annotate("one", ready="false")
    eventually(lambda: statuses(world.health("moody")["one"]) == {"readiness": "critical"})
    world.annotate("one", ready=None)
    world.passing("moody", 1)


@pytest.mark.shows("sreg.spec.pods.register", mode="agent")
def test_a_pod_that_registers_when_ready_is_not_there_before(world: World) -> None:
    pods = {"selector": {"matchLabels": {"app": "shy"}}, "register": "Ready"}
    world.apply(registration("shy", pods=pods), pod("one", "shy", ready="false"))
    says = world.says("shy", "WaitingForPods")
    assert says["status"] == "True"
    assert world.health("shy") == {}
    world.annotate("one", ready=None)
    world.passing("shy", 1)


def test_under_a_new_service_name_all_are_there_before_the_old_name_goes(world: World) -> None:
    world.apply(registration("moving", service={"name": "old-name"}), deployment("moving", 3))
    names = world.passing("old-name", 3).keys()

    def nobody_is_missing() -> bool:
        return (world.health("old-name").keys() | world.health("new-name").keys()) >= names

    with watching(nobody_is_missing) as missed:
        time.sleep(0.2)
        world.patch("moving", {"service": {"name": "new-name"}})
        world.passing("new-name", 3)
        eventually(lambda: world.health("old-name") == {})
    assert missed == []


def test_an_edit_changes_the_instances_in_place(world: World) -> None:
    world.apply(registration("edited", service={"tags": ["v1"]}), deployment("edited", 2))
    before = world.passing("edited", 2)
    with watching(lambda: len(world.health("edited", passing=True)) == 2) as missed:
        world.patch("edited", {"service": {"tags": ["v2"], "meta": {"tier": "front"}}})
        eventually(lambda: all(row["ServiceTags"] == ["v2"] for row in world.catalog("edited").values()))
    after = world.health("edited")
    assert missed == []
    assert {row["Service"]["ID"] for row in after.values()} == {row["Service"]["ID"] for row in before.values()}
    assert all(row["Service"]["Meta"]["tier"] == "front" for row in after.values())


def test_pods_that_vanished_while_the_operator_was_dead_go_at_its_start_and_the_living_stay_untouched(
    world: World, operator: Operator
) -> None:
    """Two of six: more at once would be held, since nobody saw them go (`test_quarantine.py`)."""
    world.apply(registration("crash"), *(pod(f"crash-{number}", "crash") for number in range(6)))
    before = world.passing("crash", 6)
    untouched = indexes(world, "crash")
    operator.kill()
    for name in sorted(before)[:2]:
        world.kubectl("delete", "pod", name, "--grace-period=0", "--force", "--wait=false")
    eventually(lambda: len(world.pods("crash")) == 4)
    assert len(world.health("crash")) == 6
    stay = world.pods("crash").keys() & before.keys()
    with watching(lambda: world.health("crash", passing=True).keys() >= stay) as missed:
        operator.start()
        eventually(lambda: world.health("crash").keys() == world.pods("crash").keys())
        world.says("crash", "Registered")
    assert missed == []
    now = indexes(world, "crash")
    assert {name: now[name] for name in stay} == {name: untouched[name] for name in stay}


def test_a_restart_writes_nothing_to_consul_nor_to_the_registration(world: World, operator: Operator) -> None:
    checks = [{"name": "ready", "readiness": {}}, {"name": "port", "tcp": {}, "interval": "2s", "timeout": "1s"}]
    world.apply(registration("calm", checks=checks), deployment("calm", 3))
    world.passing("calm", 3)
    world.says("calm", "Registered")
    eventually(lambda: world.registration("calm")["status"]["instances"]["passing"] == 3)
    stood = indexes(world, "calm")
    version = world.registration("calm")["metadata"]["resourceVersion"]
    operator.restart()
    always(lambda: indexes(world, "calm") == stood, during=3)
    assert world.registration("calm")["metadata"]["resourceVersion"] == version


def test_a_registration_deleted_while_the_operator_was_dead_leaves_nothing_behind(
    world: World, operator: Operator
) -> None:
    world.apply(registration("bygone"), deployment("bygone", 2))
    world.passing("bygone", 2)
    operator.kill()
    world.kubectl("delete", "sreg", "bygone", "--wait=false")
    operator.start()
    eventually(lambda: not world.exists("bygone"))
    assert world.health("bygone") == {}


def test_a_registration_that_lost_its_finalizer_and_went_unseen_is_cleaned_all_the_same(
    world: World, operator: Operator
) -> None:
    world.apply(registration("forced"), deployment("forced", 2))
    world.passing("forced", 2)
    operator.kill()
    world.kubectl("patch", "sreg", "forced", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    world.kubectl("delete", "sreg", "forced")
    operator.start()
    eventually(lambda: world.health("forced") == {})


def test_a_namespace_that_is_deleted_waits_for_nothing_of_ours(world: World) -> None:
    space = World(world.cluster, f"{world.namespace}-whole")
    world.cluster.kubectl("create", "namespace", space.namespace)
    space.apply(registration("whole"), deployment("whole", 3))
    space.passing("whole", 3)
    world.cluster.kubectl("delete", "namespace", space.namespace, "--wait=false")
    # Once nothing of ours holds it the rest is the namespace controller's, which looks every 15 s or so.
    eventually(lambda: not space.exists("whole"))
    assert space.health("whole") == {}


@pytest.mark.shows("sreg.spec.suspend", mode="agent")
def test_what_is_suspended_writes_nothing_and_catches_up(world: World) -> None:
    world.apply(registration("paused"), deployment("paused", 2))
    world.passing("paused", 2)
    world.registered("paused", 2)
    world.patch("paused", {"suspend": True})
    assert world.says("paused", "Suspended")["status"] == "True"
    stood = indexes(world, "paused")
    world.kubectl("scale", "deployment/paused", "--replicas=4")
    eventually(lambda: world.registration("paused")["status"]["instances"]["waiting"] == 2)
    assert indexes(world, "paused") == stood
    assert "2 changes wait" in world.condition("paused")["message"]
    world.patch("paused", {"suspend": False})
    world.passing("paused", 4)
    world.says("paused", "Registered")


def test_with_the_policy_orphan_the_instances_outlive_the_registration_owned_by_nobody(world: World) -> None:
    world.example("08-orphan.yaml")
    (row,) = world.passing("legacy", 1).values()
    world.kubectl("delete", "sreg", "legacy", "--timeout=180s")
    (orphan,) = world.passing("legacy", 1).values()
    assert orphan["Service"]["ID"] == row["Service"]["ID"]
    meta = orphan["Service"]["Meta"]
    assert meta["orphaned-from"] == f"test/default/{world.namespace}/legacy"
    assert "managed-by" not in meta
    index = orphan["Service"]["ModifyIndex"]
    world.kubectl("delete", "deployment", "legacy")
    eventually(lambda: not world.pods("legacy"))
    always(lambda: world.health("legacy").popitem()[1]["Service"]["ModifyIndex"] == index, during=1)
    agent = world.cluster.consul.agents[row["Node"]["Node"]]
    agent.request("PUT", f"/v1/agent/service/deregister/{row['Service']['ID']}")


def test_a_pod_with_the_name_of_a_deleted_one_is_another_instance(world: World) -> None:
    world.apply(registration("again"), pod("one", "again"))
    before = world.passing("again", 1)["one"]["Service"]
    world.kubectl("delete", "pod", "one")
    world.apply(pod("one", "again"))

    def replaced() -> None:
        after = world.health("again", passing=True)["one"]["Service"]
        assert len(world.consul("/v1/health/service/again")) == 1
        assert after["ID"] != before["ID"]
        assert after["Meta"]["k8s-pod-uid"] != before["Meta"]["k8s-pod-uid"]

    eventually(replaced)


def test_applying_the_same_manifest_twice_changes_nothing_anywhere(world: World) -> None:
    world.example("03-service-with-everything.yaml")
    world.passing("shop-frontend", 2)
    world.says("frontend", "Registered")
    eventually(lambda: world.registration("frontend")["status"]["instances"]["passing"] == 2)
    stood, version = indexes(world, "shop-frontend"), world.registration("frontend")["metadata"]["resourceVersion"]
    assert "serviceregistration.consul-registrar.dev/frontend unchanged" in world.example(
        "03-service-with-everything.yaml"
    )
    always(lambda: indexes(world, "shop-frontend") == stood, during=2)
    assert world.registration("frontend")["metadata"]["resourceVersion"] == version


def test_objects_carry_our_finalizer_and_no_annotations_of_a_framework(world: World) -> None:
    world.apply(registration("clean"), deployment("clean", 1))
    world.passing("clean", 1)
    world.says("clean", "Registered")
    found = world.registration("clean")["metadata"]
    assert found["finalizers"] == ["consul-registrar.dev/deregister"]
    assert found["annotations"].keys() == {"kubectl.kubernetes.io/last-applied-configuration"}
    connection = json.loads(world.kubectl("get", "cconn", "default", "-o", "json"))
    assert connection["metadata"]["annotations"].keys() == {"kubectl.kubernetes.io/last-applied-configuration"}
    everything = world.kubectl("get", "sreg,cconn,pods,deployments", "-o", "json")
    assert "kopf" not in everything


def test_a_status_says_when_the_world_changed_and_not_when_it_was_written(world: World) -> None:
    world.apply(registration("steady"), deployment("steady", 1))
    world.passing("steady", 1)
    since = world.says("steady", "Registered")["lastTransitionTime"]
    time.sleep(1.1)
    world.kubectl("scale", "deployment/steady", "--replicas=2")
    eventually(lambda: world.condition("steady")["message"] == "2 of 2 instances registered, 2 passing")
    assert world.condition("steady")["lastTransitionTime"] == since


def test_a_status_written_by_somebody_else_is_corrected(world: World) -> None:
    world.apply(registration("meddled"), deployment("meddled", 1))
    world.says("meddled", "Registered")
    patch = {"status": {"consulService": "something-else"}}
    world.cluster.api.request("PATCH", f"{world.registrations}/meddled/status", patch, MERGE)
    world.kubectl("scale", "deployment/meddled", "--replicas=2")
    eventually(lambda: world.registration("meddled")["status"]["consulService"] == "meddled")


def test_deleting_all_registrations_at_once_leaves_nothing_behind(world: World) -> None:
    world.apply(*[registration(f"bulk-{n}", pods={"selector": {"matchLabels": {"app": "bulk"}}}) for n in range(5)])
    world.apply(deployment("bulk", 2))
    for n in range(5):
        world.passing(f"bulk-{n}", 2)
    world.kubectl("delete", "sreg", "--all", "--timeout=180s")
    with pytest.raises(ApiError, match="404"):
        world.registration("bulk-0")
    assert all(world.health(f"bulk-{n}") == {} for n in range(5))


def test_a_status_follows_on_after_the_operator_has_lost_its_lease_and_won_it_again(
    world: World, operator: Operator
) -> None:
    world.apply(registration("deposed"), pod("one", "deposed"))
    world.says("deposed", "Registered")
    terms = operator.log.count("leading as")
    lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/consul-registrar"
    world.cluster.api.request("PATCH", lease, {"spec": {"holderIdentity": "somebody-else"}}, MERGE)
    ready = itertools.cycle(["false", None])

    def lost() -> bool:
        world.annotate("one", ready=next(ready))  # so that its status is being written while the term ends
        return "no longer leading" in operator.log

    eventually(lost)
    world.annotate("one", ready=None)
    eventually(lambda: operator.log.count("leading as") > terms)
    world.kubectl("delete", "pod", "one", "--wait=false")
    eventually(lambda: world.health("deposed") == {})
    assert world.says("deposed", "NoPodsMatched")["status"] == "True"
