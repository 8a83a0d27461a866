"""From an earlier version of chart and image to this one, under traffic: nothing is registered anew, nothing fails."""

import os
import subprocess
from pathlib import Path

import pytest

from e2e.e2e_world import NAMESPACE, RELEASE, REPOSITORY, Traffic, World, app_manifests, eventually
from realnode.node import Node

IMAGE = "localhost/consul-registrar:before"


def earlier() -> str:
    """The commit to come from: BEFORE, else the last tag."""
    named = os.environ.get("BEFORE")
    if named:
        return named
    tags = ["git", "tag", "--sort=-creatordate"]
    found = subprocess.run(tags, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return next(iter(found.split()), "")


@pytest.fixture(scope="module")
def before(bare: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart of an earlier commit, whose image is loaded."""
    commit = earlier()
    if not commit:
        pytest.skip("SKIPPED: there is no tag yet to upgrade from; BEFORE=<commit> names one")
    if os.environ.get("KUBECONFIG") or os.environ.get("CLUSTER"):
        pytest.skip("SKIPPED: the earlier image is built for the project's own node only")
    tree = tmp_path_factory.mktemp("before")
    packed = subprocess.run(["git", "archive", commit], cwd=REPOSITORY, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", tree], input=packed, check=True)
    subprocess.run([tree / "dev" / "image" / "build.sh"], env={**os.environ, "NAME": IMAGE}, check=True)
    Node(REPOSITORY / "build" / "realnode").load(tree / "build" / "image" / "consul-registrar.tar")
    return tree / "manifests" / "helm" / "consul-registrar"


def test_an_upgrade_from_an_earlier_version_registers_nothing_anew(bare: World, before: Path) -> None:
    World(bare.kubeconfig, IMAGE).install(chart=before)
    bare.apply(*app_manifests("upgraded", gate=False))
    eventually(lambda: len(bare.found("upgraded")) == 3)
    created = indexes(bare)
    traffic = Traffic(bare, "upgraded")
    traffic.start()
    try:
        bare.install()
        counted = traffic.goes_on()
        assert (counted["failed"], counted["empty"]) == (0, 0), counted
        assert indexes(bare) == created
    finally:
        traffic.stop()
        bare.kubectl("delete", "sreg,deployment", "upgraded", "--timeout=120s")
        bare.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")


def indexes(world: World) -> dict[str, int]:
    """When each instance was written last, by Consul's own count."""
    rows = world.consul("/v1/health/service/upgraded")
    return {row["Service"]["ID"]: row["Service"]["ModifyIndex"] for row in rows}
