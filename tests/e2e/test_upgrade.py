"""From an earlier version of chart and image to this one, under traffic: nothing is registered anew, nothing fails."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from e2e.conftest import Place
from e2e.e2e_world import CHART, NAMESPACE, RELEASE, REPOSITORY, Traffic, World, app_manifests, eventually

IMAGE = "localhost/consul-registrar:before"
EARLIER = "aa9ed5decf0dd2f91ea52792cd94247a062a2bef"
"""Where to come from while nothing is tagged: the state of 2026-11-24, the last that others were given to run.

What it wrote to Consul, and the definitions that its chart installed, may stand somewhere, so this version must take
them over. The first tag takes its place.
"""


def earlier() -> str:
    """The commit to come from: BEFORE, else the last tag, else the one above."""
    tags = git("tag", "--sort=-creatordate").decode().split()
    return os.environ.get("BEFORE") or next(iter(tags), EARLIER)


def is_known(commit: str) -> bool:
    """Whether git can read it here: a shallow clone can't."""
    looked = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
    return subprocess.run(looked, cwd=REPOSITORY, capture_output=True, check=False).returncode == 0


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def before(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart of an earlier commit, whose image is loaded."""
    if place.add is None:
        pytest.skip("SKIPPED: no earlier image can be loaded into a cluster that isn't the test's own")
    commit = earlier()
    if commit == EARLIER and not is_known(commit):
        pytest.skip(f"SKIPPED: the upgrade is NOT TESTED: this clone lacks {commit} (`git fetch --unshallow`)")
    tree = tmp_path_factory.mktemp("before")
    subprocess.run(["tar", "-x", "-C", tree], input=git("archive", commit), check=True)
    place.add(tree, IMAGE)
    return tree / CHART.relative_to(REPOSITORY)


@pytest.fixture
def upgraded(bare: World, before: Path) -> World:
    """The earlier release, with the definitions that it came with and three Pods that it registered."""
    if "consul-registrar.dev" in bare.kubectl("get", "crd", "-o", "name"):
        bare.kubectl("replace", "-f", str(before / "crds"))  # Helm leaves alone what other tests have installed
    World(bare.kubeconfig, IMAGE).install(chart=before)
    bare.apply(*app_manifests("upgraded", gate=False))
    eventually(lambda: len(bare.found("upgraded")) == 3)
    return bare


def test_an_upgrade_from_an_earlier_version_registers_nothing_anew(upgraded: World) -> None:
    written = indexes(upgraded)
    traffic = Traffic(upgraded, "upgraded")
    traffic.start()
    try:
        upgraded.install()
        counted = traffic.goes_on()
        assert (counted["failed"], counted["empty"]) == (0, 0), counted
        assert indexes(upgraded) == written
        assert definitions_are_ours(upgraded)
    finally:
        traffic.stop()
        upgraded.kubectl("delete", "sreg,deployment", "upgraded", "--timeout=120s")
        upgraded.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")


def definitions_are_ours(world: World) -> bool:
    """The chart's Job has brought them up to date: to replace them would change nothing."""
    files = sorted((CHART / "crds").iterdir())
    ours = [json.loads(world.kubectl("replace", "--dry-run=server", "-o", "json", "-f", str(file))) for file in files]
    return all(one["spec"] == world.get("crd", one["metadata"]["name"])["spec"] for one in ours)


def indexes(world: World) -> dict[str, int]:
    """When each instance was written last, by Consul's own count."""
    rows = world.consul("/v1/health/service/upgraded")
    return {row["Service"]["ID"]: row["Service"]["ModifyIndex"] for row in rows}
