"""Service names that field paths make: each Pod under its own; what is wrong is its own problem, and none is taken."""

from typing import Any

import pytest

from consul_registrar.changes import Deregister, Register
from consul_registrar.desired import Kept, Present, desired
from unit.core.build import NOW, OLD, body, facts, instance, of_pods, pod
from unit.core.instant import instantly
from unit.core.shell import World
from unit.core.situations import HELD, passes

EACH = of_pods(service={"name": "$(metadata.labels['svc'])", "port": 8080})


def labelled(name: str, svc: str, **more: Any) -> Any:
    return pod(name, labels={"app": "web", "svc": svc}, ip=f"10.0.0.{len(name)}", **more)


def services(world: World) -> list[tuple[str, str]]:
    return sorted((i.service, i.meta_value("k8s-namespace")) for i in world.consul.held)


def problems(world: World) -> set[str]:
    return {p["reason"] for _, said in world.cluster.statuses for p in said.get("problems", {}).get("worst", ())}


def test_each_pod_is_published_under_the_name_that_its_label_makes() -> None:
    assert instance(EACH, pod=labelled("web-1", "shop")).service == "shop"


@pytest.mark.parametrize(
    ("made", "code"),
    [
        ("consul", "ValueInvalid"),
        ("CONSUL", "ValueInvalid"),
        ("-x", "ValueInvalid"),
        ("", "ValueInvalid"),
        ("a b", "ValueInvalid"),
        ('x","Token":"', "ValueInvalid"),
        ("é", "ValueInvalid"),
        ("a" * 129, "ValueInvalid"),
        ("a\n", "ValueInvalid"),
    ],
)
def test_a_name_that_can_not_be_is_a_problem_of_that_pod(made: str, code: str) -> None:
    want = desired(facts(EACH, pod=labelled("web-1", made)))
    assert isinstance(want, Kept)
    assert (want.reason.code, want.problem) == (code, True)
    assert "spec.service.name" in want.reason.message


def test_a_missing_label_is_a_problem_of_that_pod_and_others_stand() -> None:
    want = desired(facts(EACH, pod=pod()))
    assert isinstance(want, Kept)
    assert want.reason.code == "FieldPathNotFound"
    assert isinstance(desired(facts(EACH, pod=labelled("web-2", "ok"))), Present)


@instantly
async def test_a_pod_whose_label_changes_is_there_under_the_new_name_before_it_leaves_the_old() -> None:
    world = World()
    async with world.running():
        world.apply(body(EACH, **HELD))
        world.run_pod(labelled("web-1", "one"))
        world.run_pod(labelled("web-22", "two"))
        await passes()
        assert services(world) == [("one", "shop"), ("two", "shop")]
        world.run_pod(labelled("web-1", "three", version=2))
        await passes()
    assert services(world) == [("three", "shop"), ("two", "shop")]
    assert [type(c) for c in world.consul.written[-2:]] == [Register, Deregister]


@instantly
async def test_a_label_never_takes_a_name_that_another_namespace_has_written_out_whoever_is_older() -> None:
    world = World()
    async with world.running():
        world.apply(body(EACH, **HELD, creationTimestamp=OLD))
        world.apply(body(of_pods(service={"name": "pay"}), namespace="bank", **HELD, creationTimestamp=NOW))
        world.run_pod(pod("theirs", namespace="bank", uid="uid-theirs"))
        world.run_pod(labelled("web-1", "pay"))
        world.run_pod(labelled("web-22", "fine"))
        await passes(3)
    assert services(world) == [("fine", "shop"), ("pay", "bank")]
    assert "ServiceNameTaken" in problems(world)


@pytest.mark.parametrize("sharing", ["Refuse", "Allow"])
@instantly
async def test_a_name_that_two_namespaces_make_is_that_of_the_older_registration(sharing: str) -> None:
    world = World(default={"sharedNames": sharing})
    async with world.running():
        world.apply(body(EACH, **HELD, creationTimestamp=NOW))
        world.apply(body(EACH, namespace="bank", **HELD, creationTimestamp=OLD))
        world.run_pod(labelled("theirs", "pay", namespace="bank"))
        world.run_pod(labelled("web-1", "pay"))
        await passes(3)
        assert services(world) == ([("pay", "bank"), ("pay", "shop")] if sharing == "Allow" else [("pay", "bank")])
        world.pods.remove("uid-theirs")
        await passes(40)  # nobody tells that a name is free again
    assert services(world) == [("pay", "shop")]


@instantly
async def test_a_made_name_and_a_written_one_over_the_same_pod_are_in_conflict() -> None:
    world = World()
    async with world.running():
        world.apply(body(EACH, **HELD, creationTimestamp=OLD))
        written = of_pods(service={"name": "pay", "port": 8080})
        world.apply(body(written, name="written", **HELD, creationTimestamp=NOW))
        world.run_pod(labelled("web-1", "pay"))
        world.run_pod(labelled("web-22", "other"))
        await passes(3)
    held = sorted((i.service, i.meta_value("k8s-registration")) for i in world.consul.held)
    assert held == [("other", "web"), ("pay", "web"), ("pay", "written")]
    assert "Conflict" in problems(world)
