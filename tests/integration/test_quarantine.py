"""Law 6 where it matters: too much is absent at once, and Consul is asked whether anything of the living left it.

A cluster of its own: its etcd is set back to a backup, its definitions are deleted.
"""

import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from operator_world import (
    MERGE,
    RESOURCES,
    Operator,
    World,
    always,
    connection,
    define,
    defined,
    deployment,
    eventually,
    operating,
    registration,
)

from devcluster import Cluster, Options

APPROVE = "consul-registrar.dev/approve-removals"
CONNECTION = f"{RESOURCES}/consulconnections/default"


@pytest.fixture(scope="module")
def shaky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with defined(Options(nodes=2), tmp_path_factory.mktemp("shaky")) as one:
        yield one


@pytest.fixture(scope="module")
def operator(shaky: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with operating(shaky, tmp_path_factory.mktemp("operator")) as one:
        yield one


@pytest.fixture
def world(shaky: Cluster, operator: Operator) -> Iterator[World]:
    made = World(shaky, f"test-{secrets.token_hex(3)}")
    shaky.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": made.namespace}})
    shaky.kubectl("apply", "-f", "-", stdin=json.dumps(connection("default", mode="Agent", nodeAgents={})))
    _guard(shaky, {})
    yield made
    _guard(shaky, {"atLeast": 1_000_000})  # what a test leaves behind needn't be held
    shaky.kubectl("-n", made.namespace, "delete", "sreg,deployments", "--all", "--timeout=180s")
    shaky.api.request("DELETE", f"/api/v1/namespaces/{made.namespace}")
    eventually(lambda: made.consul("/v1/catalog/service/web") == [])
    eventually(lambda: not _held(shaky))


def _guard(cluster: Cluster, guard: dict[str, Any]) -> None:
    """Exchange the terms on which removals are held."""
    whole = {"share": 20, "atLeast": 3, "release": "After", "after": "5m", "rate": 10} | guard
    cluster.api.request("PATCH", CONNECTION, {"spec": {"removalGuard": whole}}, MERGE)


def _held(cluster: Cluster) -> dict[str, Any]:
    """What the connection says of held removals."""
    found = cluster.api.request("GET", CONNECTION)
    condition = next(c for c in found["status"]["conditions"] if c["type"] == "RemovalsHeld")
    removals: dict[str, Any] = found["status"].get("removals") or {}
    assert (condition["status"] == "True") is bool(removals)
    return removals


def _registration(label: str = "web") -> dict[str, Any]:
    return registration("web", pods={"selector": {"matchLabels": {"app": label}}})


def _stands(world: World) -> dict[str, int]:
    """What stands in Consul, and when it was written last."""
    return {row["ServiceID"]: row["ModifyIndex"] for row in world.consul("/v1/catalog/service/web")}


def _of(world: World, count: int) -> dict[str, int]:
    world.apply(deployment("web", count), _registration())
    world.passing("web", count)
    world.says("web", "Registered")
    return _stands(world)


def test_a_typo_in_the_selector_takes_nothing_and_its_correction_writes_nothing(world: World) -> None:
    before = _of(world, 4)
    world.apply(_registration("wbe"))
    world.says("web", "RemovalHeld")
    eventually(lambda: _held(world.cluster)["held"] == 4)
    always(lambda: _stands(world) == before, during=3)
    world.apply(_registration())
    world.says("web", "Registered")
    eventually(lambda: not _held(world.cluster))
    assert _stands(world) == before


def test_what_is_held_goes_by_an_approval_that_names_it_and_works_once(world: World) -> None:
    _of(world, 4)
    _guard(world.cluster, {"release": "Manual"})
    world.apply(_registration("wbe"))
    digest = eventually(lambda: (found := _held(world.cluster))["held"] == 4 and found["hash"])
    world.cluster.kubectl("annotate", "cconn", "default", f"{APPROVE}=0123456789ab")
    always(lambda: len(_stands(world)) == 4, during=3)
    world.cluster.kubectl("annotate", "cconn", "default", f"{APPROVE}={digest}", "--overwrite")
    eventually(lambda: _stands(world) == {})
    eventually(
        lambda: APPROVE not in (world.cluster.api.request("GET", CONNECTION)["metadata"].get("annotations") or {})
    )
    reasons = world.cluster.kubectl("get", "events", "-A", "-o", "jsonpath={.items[*].reason}").split()
    assert {"RemovalsHeld", "RemovalsApproved"} <= set(reasons)
    world.apply(_registration())
    world.passing("web", 4)
    world.apply(_registration("wbe"))
    eventually(lambda: _held(world.cluster)["held"] == 4)
    always(lambda: len(_stands(world)) == 4, during=3)


def test_what_is_still_absent_after_its_time_is_removed(world: World) -> None:
    _of(world, 4)
    _guard(world.cluster, {"after": "10s", "rate": 1})
    world.apply(_registration("wbe"))
    eventually(lambda: _held(world.cluster)["held"] == 4)
    eventually(lambda: _stands(world) == {})
    world.says("web", "NoPodsMatched")


def test_labels_taken_off_many_pods_are_held(world: World, operator: Operator) -> None:
    before = _of(world, 4)
    world.kubectl("label", "pods", "--all", "app-")
    eventually(lambda: _held(world.cluster)["held"] == 4)
    assert 'consul_registrar_removals_held{connection="default"} 4.0' in operator.get("/metrics")
    assert before.keys() <= _stands(world).keys()


@pytest.mark.shows("cconn.spec.allowedNamespaces.selector.matchLabels", mode="agent")
def test_a_namespace_that_loses_the_label_that_allows_it_loses_nothing_but_what_is_gone(world: World) -> None:
    namespace = f"/api/v1/namespaces/{world.namespace}"
    world.cluster.api.request("PATCH", namespace, {"metadata": {"labels": {"consul": "allowed"}}}, MERGE)
    allowed = {"allowedNamespaces": {"selector": {"matchLabels": {"consul": "allowed"}}}}
    world.cluster.api.request("PATCH", CONNECTION, {"spec": allowed}, MERGE)
    before = _of(world, 4)
    world.cluster.api.request("PATCH", namespace, {"metadata": {"labels": {"consul": None}}}, MERGE)
    world.says("web", "NamespaceNotAllowed")
    always(lambda: _stands(world) == before, during=3)
    world.kubectl("scale", "deployment/web", "--replicas=2")
    eventually(lambda: len(_stands(world)) == 2)
    world.cluster.api.request("PATCH", namespace, {"metadata": {"labels": {"consul": "allowed"}}}, MERGE)
    world.says("web", "Registered")
    left = _stands(world)
    assert left == {name: before[name] for name in left}
    world.cluster.api.request("PATCH", CONNECTION, {"spec": {"allowedNamespaces": None}}, MERGE)


def test_a_definition_that_is_deleted_and_made_again_takes_nothing(shaky: Cluster, world: World) -> None:
    before = _of(world, 4)
    shaky.kubectl("delete", "crd", "serviceregistrations.consul-registrar.dev", "--timeout=180s")
    eventually(lambda: _held(shaky)["held"] == 4)
    always(lambda: _stands(world) == before, during=3)
    define(shaky)
    world.apply(_registration())
    world.says("web", "Registered")
    eventually(lambda: not _held(shaky))
    assert _stands(world) == before


def test_an_api_server_restored_from_an_older_backup_takes_nothing(
    shaky: Cluster, world: World, tmp_path: Path
) -> None:
    _of(world, 3)
    _backup(shaky, tmp_path / "backup")
    world.kubectl("scale", "deployment/web", "--replicas=8")
    before = world.passing("web", 8)
    _restore(shaky, tmp_path / "backup")
    eventually(lambda: _held(shaky)["held"] == 5)
    assert before.keys() <= world.health("web").keys()
    world.says("web", "RemovalHeld")


def _data(cluster: Cluster) -> Path:
    command = cluster.control_plane.etcd.program.command
    return Path(next(part.partition("=")[2] for part in command if part.startswith("--data-dir=")))


def _halt(cluster: Cluster) -> None:
    parts = cluster.control_plane
    for part in (parts.scheduler, parts.controller_manager, parts.apiserver, parts.etcd):
        part.kill()


def _backup(cluster: Cluster, into: Path) -> None:
    _halt(cluster)
    shutil.copytree(_data(cluster), into)
    cluster.control_plane.start()


def _restore(cluster: Cluster, backup: Path) -> None:
    _halt(cluster)
    shutil.rmtree(_data(cluster))
    shutil.copytree(backup, _data(cluster))
    cluster.control_plane.start()
