"""What GitOps tools do, done: they wait by kstatus, apply by server-side apply, apply again, prune and re-create."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from kstatus import CURRENT, IN_PROGRESS, TERMINATING, kstatus
from operator_world import World, deployment, eventually, registration

from devcluster import Cluster


def apply(world: World, manager: str, *manifests: dict[str, Any], force: bool = False) -> None:
    """Server-side apply by one of several managers."""
    forced = ("--force-conflicts",) if force else ()
    text = yaml.safe_dump_all(manifests)
    world.kubectl("apply", "--server-side", f"--field-manager={manager}", *forced, "-f", "-", stdin=text)


def checks(name: str, *own: dict[str, Any]) -> dict[str, Any]:
    return {**registration(name), "spec": {"checks": list(own)}}


# kstatus


def test_an_object_that_nobody_has_looked_at_is_in_progress_and_one_that_stands_is_current(world: World) -> None:
    """Flux waits for what it has just applied; without a status kstatus would take it for ready."""
    path = world.registrations
    body = registration("web")
    made = world.cluster.api.request("POST", path, body)
    assert kstatus(made) == IN_PROGRESS
    world.apply(deployment("web", 2))
    world.passing("web", 2)
    eventually(lambda: kstatus(world.registration("web")) == CURRENT)


def test_an_edit_is_in_progress_until_it_is_in_consul(world: World) -> None:
    world.apply(deployment("web", 1), registration("web"))
    world.passing("web", 1)
    world.says("web", "Registered")
    edit = {"spec": {"service": {"tags": ["edited"]}}}
    merge = "application/merge-patch+json"
    edited = world.cluster.api.request("PATCH", f"{world.registrations}/web", edit, merge)
    assert kstatus(edited) == IN_PROGRESS
    eventually(lambda: kstatus(world.registration("web")) == CURRENT)
    (row,) = world.catalog("web").values()
    assert row["ServiceTags"] == ["edited"]


def test_what_cannot_be_registered_never_becomes_current(world: World) -> None:
    world.apply(deployment("web", 1), registration("web", service={"port": "none-such"}))
    world.says("web", "PortNotFound")
    assert kstatus(world.registration("web")) == IN_PROGRESS


def test_what_is_being_deleted_is_terminating(world: World) -> None:
    world.apply(deployment("web", 1), registration("web"))
    world.passing("web", 1)
    world.kubectl("patch", "sreg", "web", "--type=merge", "-p", '{"metadata": {"finalizers": ["test.example/hold"]}}')
    deleted = world.cluster.api.request("DELETE", f"{world.registrations}/web")
    assert kstatus(deleted) == TERMINATING
    eventually(lambda: not world.catalog("web"))
    world.kubectl("patch", "sreg", "web", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    eventually(lambda: not world.exists("web"))


# server-side apply


def test_two_managers_own_different_checks_of_one_registration(world: World) -> None:
    team = {"name": "port", "tcp": {}, "interval": "5s"}
    platform = {"name": "health", "http": {"path": "/health"}, "interval": "5s"}
    apply(world, "team", deployment("web", 1), registration("web", checks=[team]))
    apply(world, "platform", checks("web", platform))
    names = eventually(lambda: set(world.agent_checks(world.passing("web", 1).popitem()[1])) >= {"port", "health"})
    assert names
    apply(world, "team", registration("web", checks=[{**team, "interval": "7s"}]))
    found = {one["name"]: one for one in world.registration("web")["spec"]["checks"]}
    assert (found["port"]["interval"], found["health"]["interval"]) == ("7s", "5s")
    apply(world, "platform", {**registration("web"), "spec": {}})
    assert [one["name"] for one in world.registration("web")["spec"]["checks"]] == ["port"]

    def is_gone() -> None:
        (row,) = world.passing("web", 1).values()
        assert "health" not in world.agent_checks(row)

    eventually(is_gone)


def test_the_operator_takes_no_field_of_those_who_apply(world: World) -> None:
    apply(world, "flux", deployment("web", 1), registration("web"))
    world.passing("web", 1)
    world.says("web", "Registered")
    apply(world, "flux", registration("web", service={"tags": ["v2"]}))  # a conflict would be an error


@pytest.mark.parametrize("server_side", [False, True])
def test_the_same_manifest_applied_twice_changes_nothing(world: World, server_side: bool) -> None:
    manifest = registration("web", checks=[{"name": "port", "tcp": {}, "interval": "5s"}], service={"tags": ["v1"]})

    def again() -> None:
        if server_side:
            apply(world, "flux", manifest)
        else:
            world.apply(manifest)

    world.apply(deployment("web", 1))
    again()
    world.passing("web", 1)
    eventually(lambda: world.registration("web")["status"]["instances"]["passing"] == 1)  # all is said
    before, row = world.registration("web"), world.catalog("web").popitem()[1]
    again()
    again()
    assert world.registration("web") == before
    assert world.catalog("web").popitem()[1]["ModifyIndex"] == row["ModifyIndex"]


# pruning


@pytest.fixture
def pruned(cluster: Cluster) -> Iterator[str]:
    name = f"pruned-{secrets.token_hex(3)}"
    yield name
    cluster.kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=120s")


def test_a_namespace_that_is_pruned_and_made_anew_has_what_it_had_and_nobody_else_is_disturbed(
    world: World, pruned: str
) -> None:
    """All of it goes, since the Pods go: that is never held. What comes back is another object, and is registered."""
    world.apply(deployment("bystander", 4), registration("bystander"))
    standing = {name: row["Service"]["ModifyIndex"] for name, row in world.passing("bystander", 4).items()}
    other = World(world.cluster, pruned)
    name = f"{pruned}-web"

    def build() -> set[str]:
        world.cluster.kubectl("create", "namespace", pruned)
        other.apply(deployment(name, 4), registration(name))
        return set(other.passing(name, 4))

    before = build()
    world.cluster.kubectl("delete", "namespace", pruned, "--timeout=120s")
    eventually(lambda: not world.catalog(name))
    after = build()
    assert not before & after
    assert world.passing("bystander", 4).keys() == standing.keys()
    assert {n: row["Service"]["ModifyIndex"] for n, row in world.health("bystander").items()} == standing
