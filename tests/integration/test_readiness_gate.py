"""The readiness gate `consul-registrar.dev/registered`: rollouts wait until callers can find the new Pods in Consul."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from operator_world import (
    GROUP,
    MERGE,
    REPOSITORY,
    Operator,
    World,
    always,
    call,
    connection,
    deployment,
    eventually,
    pod,
    registration,
    statuses,
)

from devcluster import Cluster
from devcluster.kube import ApiError

GATE = f"{GROUP}/registered"


@pytest.fixture(params=["Agent", "Catalog"])
def consul(request: pytest.FixtureRequest, cluster: Cluster, world: World) -> Iterator[str]:
    """A connection in each mode; registrations of it must name it."""
    name = f"{world.namespace}-{request.param.lower()}"
    where = {"addresses": [cluster.consul.http_addr], "virtualNodes": 2} if request.param == "Catalog" else {}
    world.apply(connection(name, mode=request.param, **(where or {"nodeAgents": {}})))
    yield name
    world.kubectl("delete", "sreg", "--all", "--timeout=180s")
    world.kubectl("delete", "cconn", name, "--timeout=180s")


def gated(manifest: dict[str, Any], *others: str) -> dict[str, Any]:
    """The manifest of a Pod or a Deployment, with the gate."""
    template = manifest["spec"].get("template", manifest)
    template["spec"]["readinessGates"] = [{"conditionType": kind} for kind in (GATE, *others)]
    return manifest


def condition(world: World, name: str, kind: str = GATE) -> dict[str, Any]:
    found = world.cluster.api.request("GET", f"/api/v1/namespaces/{world.namespace}/pods/{name}")
    return next((c for c in found["status"].get("conditions", ()) if c["type"] == kind), {})


def told(world: World, name: str, *expected: str) -> None:
    """Wait until the gate's condition has this status and reason."""

    def look() -> None:
        found = condition(world, name)
        assert (found.get("status"), found.get("reason")) == expected

    eventually(look)


def ready(world: World, name: str) -> None:
    eventually(lambda: condition(world, name, "Ready").get("status") == "True")


def test_a_pod_is_ready_once_it_is_registered_and_passing(world: World, consul: str) -> None:
    world.apply(gated(pod("one", "one")), registration("one", consulRefs=[{"name": consul}]))
    told(world, "one", "True", "Registered")
    ready(world, "one")
    assert statuses(world.health("one")["one"]) == {"readiness": "passing"}


def test_the_example_rolls_out(world: World) -> None:
    world.example("10-readiness-gate.yaml")
    world.passing("gated", 3)
    available(world, "gated", 3)
    roll(world, "gated")
    available(world, "gated", 3)
    world.passing("gated", 3)


def test_a_pod_that_enters_when_ready_does_not_wait_for_itself(world: World, consul: str) -> None:
    pods = {"selector": {"matchLabels": {"app": "late"}}, "register": "Ready"}
    world.apply(gated(pod("late", "late", ready="false")))
    world.apply(registration("late", consulRefs=[{"name": consul}], pods=pods))
    told(world, "late", "False", "PodNotReady")
    assert not world.health("late")
    world.annotate("late", ready=None)
    told(world, "late", "True", "Registered")
    ready(world, "late")


def test_readiness_means_the_containers_and_every_other_gate(world: World) -> None:
    other = "example.com/other"
    world.apply(gated(pod("two", "two"), other), registration("two"))
    told(world, "two", "False", "NotPassing")
    assert statuses(world.health("two")["two"]) == {"readiness": "critical"}
    opened = {"status": {"conditions": [{"type": other, "status": "True"}]}}
    path = f"/api/v1/namespaces/{world.namespace}/pods/two/status"
    world.cluster.api.request("PATCH", path, opened, "application/strategic-merge-patch+json")
    told(world, "two", "True", "Registered")
    ready(world, "two")
    assert condition(world, "two", other)["status"] == "True"


def test_the_gate_waits_for_every_kind_of_check(world: World) -> None:
    checks = [{"name": "ready", "readiness": {}}, {"name": "web", "http": {"path": "/health"}, "interval": "1s"}]
    world.apply(gated(pod("ill", "ill", health="503")), registration("ill", checks=checks))
    told(world, "ill", "False", "NotPassing")
    world.annotate("ill", health=None)
    told(world, "ill", "True", "Registered")
    world.annotate("ill", health="503")
    eventually(lambda: statuses(world.health("ill")["ill"])["web"] == "critical")
    always(lambda: condition(world, "ill")["status"] == "True", during=2)


def test_a_warning_is_not_enough(world: World) -> None:
    checks = [{"name": "web", "http": {"path": "/health"}, "interval": "1s"}]
    world.apply(gated(pod("busy", "busy", health="429")), registration("busy", checks=checks))
    eventually(lambda: statuses(world.health("busy")["busy"]) == {"web": "warning"})
    told(world, "busy", "False", "NotPassing")
    always(lambda: condition(world, "busy")["status"] == "False", during=2)
    world.annotate("busy", health=None)
    told(world, "busy", "True", "Registered")


def test_who_was_set_true_by_the_command_of_the_documentation_is_left_alone(world: World) -> None:
    """Taken back only where nothing of it stands, as everybody else."""
    text = (REPOSITORY / "docs" / "how-to" / "readiness-gate.md").read_text()
    (patch,) = re.findall(r"kubectl patch pod \S+ --subresource=status --type=strategic -p \\\n\s+'(.*)'", text)
    world.apply(gated(pod("forced", "forced")), registration("forced", checks=[{"name": "odd", "tcp": {"port": 1}}]))
    told(world, "forced", "False", "NotPassing")
    world.kubectl("patch", "pod", "forced", "--subresource=status", "--type=strategic", "-p", patch)
    ready(world, "forced")
    always(lambda: condition(world, "forced")["reason"] == "ByHand", during=3)
    assert world.health("forced", passing=True) == {}


def test_what_no_registration_selects_is_told_so_until_one_does(world: World, consul: str) -> None:
    world.apply(gated(pod("alone", "alone")))
    told(world, "alone", "False", "NotSelected")
    world.apply(registration("alone", consulRefs=[{"name": consul}]))
    told(world, "alone", "True", "Registered")


def test_several_registrations_must_all_hold(world: World, consul: str) -> None:
    there = {"pods": {"selector": {"matchLabels": {"app": "both"}}}, "consulRefs": [{"name": consul}]}
    world.apply(registration("a", **there), registration("b", **there, suspend=True))
    world.apply(gated(pod("both", "both")))
    told(world, "both", "False", "Suspended")
    assert "registration 'b'" in condition(world, "both")["message"]
    world.patch("b", {"suspend": False})
    told(world, "both", "True", "Registered")


def test_a_registration_that_never_held_takes_no_running_pod_back(world: World) -> None:
    selecting = {"selector": {"matchLabels": {"app": "spoiled"}}}
    world.apply(gated(pod("spoiled", "spoiled")), registration("good", pods=selecting))
    told(world, "spoiled", "True", "Registered")
    world.apply(registration("bad", pods=selecting, service={"port": "none"}))
    world.says("bad", "PortNotFound")
    always(lambda: condition(world, "spoiled")["status"] == "True", during=12)
    world.apply(gated(pod("spoiled-2", "spoiled")))
    told(world, "spoiled-2", "False", "PortNotFound")


def test_a_suspended_registration_keeps_who_is_through_and_lets_nobody_else(world: World) -> None:
    world.apply(gated(pod("in", "sus")), registration("sus"))
    told(world, "in", "True", "Registered")
    world.patch("sus", {"suspend": True})
    world.apply(gated(pod("out", "sus")))
    told(world, "out", "False", "Suspended")
    assert condition(world, "in")["status"] == "True"
    world.patch("sus", {"suspend": False})
    told(world, "out", "True", "Registered")


@pytest.mark.parametrize("policy", ["Deregister", "Orphan"])
def test_once_its_registration_is_deleted_a_pod_is_taken_back_after_a_while(world: World, policy: str) -> None:
    world.apply(gated(pod("left", "left")), registration("left", deletionPolicy=policy))
    told(world, "left", "True", "Registered")
    world.kubectl("delete", "sreg", "left", "--timeout=180s")
    assert condition(world, "left")["status"] == "True"
    told(world, "left", "False", "NotSelected")


def test_a_registration_that_takes_the_place_of_another_in_time_is_not_noticed(world: World) -> None:
    world.apply(gated(pod("kept", "kept")), registration("kept"))
    told(world, "kept", "True", "Registered")
    since = condition(world, "kept")["lastTransitionTime"]
    world.kubectl("delete", "sreg", "kept", "--timeout=180s")
    world.apply(registration("kept"))
    world.passing("kept", 1)
    always(lambda: condition(world, "kept")["lastTransitionTime"] == since, during=12)


def test_a_pod_without_the_gate_is_never_written(world: World) -> None:
    world.apply(pod("plain", "plain"), gated(pod("other", "plain"), "example.com/unanswered"), registration("plain"))
    told(world, "other", "False", "NotPassing")
    eventually(lambda: "plain" in world.health("plain", passing=True))
    found = world.pods("plain")["plain"]
    assert condition(world, "plain") == {}
    assert "consul-registrar" not in {entry["manager"] for entry in found["metadata"]["managedFields"]}


def test_while_the_operator_is_down_rollouts_wait_and_nobody_is_taken_back(
    world: World, operator: Operator, consul: str
) -> None:
    world.apply(gated(rolling("down", 2)), registration("down", consulRefs=[{"name": consul}]))
    world.passing("down", 2)
    available(world, "down", 2)
    before = world.pods("down")
    operator.kill()
    roll(world, "down")
    eventually(lambda: len(world.pods("down")) == 3)
    always(lambda: before.keys() <= world.pods("down").keys(), during=2)
    versions = {name: world.pods("down")[name]["metadata"]["resourceVersion"] for name in before}
    operator.start()
    assert versions.items() >= {n: p["metadata"]["resourceVersion"] for n, p in world.pods("down").items()
                                if n in before}.items()  # fmt: skip
    eventually(lambda: not before.keys() & world.pods("down").keys())
    world.passing("down", 2)


def test_a_restart_writes_nothing_to_pods_that_are_through(world: World, operator: Operator) -> None:
    world.apply(gated(deployment("again", 3)), registration("again"))
    available(world, "again", 3)
    before = {name: found["metadata"]["resourceVersion"] for name, found in world.pods("again").items()}
    operator.kill()
    operator.start()
    world.says("again", "Registered")
    time.sleep(2)
    assert before == {name: found["metadata"]["resourceVersion"] for name, found in world.pods("again").items()}


# --- rolling updates ------------------------------------------------------------------------------------------------


def rolling(name: str, replicas: int, surge: int | str = 1) -> dict[str, Any]:
    """A Deployment that never has fewer Pods available than it wants; they take a moment to end."""
    made = deployment(name, replicas)
    made["spec"]["strategy"] = {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": 0}}
    made["spec"]["template"]["metadata"]["annotations"] = {"dev.consul-registrar.dev/terminate-after": "3s"}
    return made


def roll(world: World, name: str) -> None:
    template = {"spec": {"template": {"metadata": {"annotations": {"rolled": str(time.time())}}}}}
    world.cluster.api.request(
        "PATCH", f"/apis/apps/v1/namespaces/{world.namespace}/deployments/{name}", template, MERGE
    )


def available(world: World, name: str, count: int) -> None:
    def look() -> None:
        found = world.cluster.api.request("GET", f"/apis/apps/v1/namespaces/{world.namespace}/deployments/{name}")
        assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
        status = found["status"]
        assert (status.get("updatedReplicas"), status.get("availableReplicas")) == (count, count)
        assert status.get("replicas") == count

    eventually(look)


@dataclass
class Caller:
    """Asks Consul for passing instances again and again, and calls one at a time as a client would."""

    world: World
    service: str
    counts: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    calls: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.ended.wait(0.01):
            rows = sorted(self.world.health(self.service, passing=True).items())
            self.counts.append(len(rows))
            if rows:
                self._call(*rows[self.calls % len(rows)])

    def _call(self, name: str, row: dict[str, Any]) -> None:
        self.calls += 1
        try:
            status, _ = call(row)
        except OSError as error:
            self.failed.append(f"{name}: {error}")
        else:
            if status != 200:
                self.failed.append(f"{name}: {status}")


def listening(world: World, service: str, count: int) -> None:
    """Wait until so many pass and answer; a simulated Pod may be ready a moment before somebody listens for it."""
    for row in world.passing(service, count).values():
        eventually(lambda row=row: call(row))


@contextmanager
def calling(world: World, service: str) -> Iterator[Caller]:
    caller = Caller(world, service)
    thread = threading.Thread(target=caller.run)
    thread.start()
    try:
        yield caller
    finally:
        caller.ended.set()
        thread.join()


def test_under_a_rolling_update_nobody_is_sent_to_a_pod_that_is_gone_and_there_are_never_too_few(
    world: World, operator: Operator, consul: str
) -> None:
    """Kubernetes is ready to go on at once; the operator is paused, so that it is late."""
    world.apply(registration("roll", consulRefs=[{"name": consul}]), gated(rolling("roll", 4, surge="100%")))
    available(world, "roll", 4)
    before = world.pods("roll")
    listening(world, "roll", 4)
    with calling(world, "roll") as caller:
        operator.process.pause()
        roll(world, "roll")
        eventually(lambda: len(world.pods("roll")) == 8)
        time.sleep(2)
        operator.process.resume()
        available(world, "roll", 4)
        world.passing("roll", 4)
    assert not before.keys() & world.pods("roll").keys()
    assert (min(caller.counts), caller.failed) == (4, [])
    assert caller.calls


def test_without_the_gate_a_rolling_update_does_not_wait_for_consul(
    world: World, operator: Operator, consul: str
) -> None:
    """What the test before would miss if it couldn't fail."""
    world.apply(registration("blind", consulRefs=[{"name": consul}]), rolling("blind", 4, surge="100%"))
    listening(world, "blind", 4)
    before = world.pods("blind")
    with calling(world, "blind") as caller:
        operator.process.pause()
        roll(world, "blind")
        eventually(lambda: not before.keys() & world.pods("blind").keys())
        eventually(lambda: caller.failed)
        operator.process.resume()
        world.passing("blind", 4)
    assert caller.failed


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_refused_registration_says_why_its_pods_are_not_let_through(world: World, neighbour: World) -> None:
    neighbour.apply(registration("taken"))
    neighbour.says("taken", "NoPodsMatched")
    time.sleep(1.1)  # who was first is told by whole seconds
    world.apply(registration("taken"), gated(pod("mine", "taken")))
    told(world, "mine", "False", "ServiceNameTaken")
    neighbour.kubectl("delete", "sreg", "taken", "--timeout=180s")
    told(world, "mine", "True", "Registered")


def test_a_pod_that_goes_is_not_written_any_more(world: World, operator: Operator) -> None:
    said = len(operator.log)
    world.apply(gated(pod("going", "going")))
    told(world, "going", "False", "NotSelected")
    world.kubectl("delete", "pod", "going", "--timeout=180s")
    world.apply(registration("going"))
    world.says("going", "NoPodsMatched")
    with pytest.raises(ApiError):
        condition(world, "going")
    assert "readiness gate of Pod" not in operator.log[said:]
