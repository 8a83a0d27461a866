"""What the release workflow does to the chart, and what it refuses: its own scripts, with nobody to push to."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from chartgen.__main__ import REPOSITORY
from chartgen.render import documents
from consul_registrar import __version__
from devcluster.tools import HELM

DIGEST = f"sha256:{'7' * 64}"
IMAGE = "registry.example/consul-registrar"
VERSIONED = ("operator/consul_registrar/__init__.py", "manifests/helm/consul-registrar/Chart.yaml")


def script(job: str, step: str) -> str:
    """The commands of one step of the workflow."""
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "release.yaml").read_text())
    (found,) = [each["run"] for each in workflow["jobs"][job]["steps"] if each.get("name", "").startswith(step)]
    return str(found)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The chart and the package's version, and programs that only note what would be pushed and signed."""
    shutil.copytree(REPOSITORY / "manifests" / "helm", tmp_path / "manifests" / "helm")
    for file in VERSIONED:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / file, tmp_path / file)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "cosign").write_text('#!/bin/sh\necho "$@" >signed\n')
    (programs / "helm").write_text(
        f'#!/bin/sh\n[ "$1" = push ] || exec {HELM.path()} "$@"\necho "Pushed: $3/$2"\necho "Digest: {DIGEST}"\n'
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    return tmp_path


def run(checkout: Path, commands: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {**os.environ, "PATH": f"{checkout / 'bin'}:{os.environ['PATH']}", **environment}
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", commands]  # as GitHub runs it
    return subprocess.run(shell, cwd=checkout, env=known, capture_output=True, text=True, check=False)


def test_the_chart_is_packed_with_its_image_pinned_and_signed_by_its_digest(checkout: Path) -> None:
    said = run(
        checkout, script("chart", "Push the chart"), IMAGE=IMAGE, CHARTS="registry.example/charts", DIGEST=DIGEST
    )
    assert said.returncode == 0, said.stderr
    assert (checkout / "signed").read_text().split()[-1] == f"registry.example/charts/consul-registrar@{DIGEST}"
    packed = checkout / f"consul-registrar-{__version__}.tgz"
    given = ["--set", "clusterName=x,connection.create=false"]
    rendered = subprocess.run([HELM.path(), "template", packed, *given], capture_output=True, text=True, check=True)
    (deployment,) = [each for each in documents(rendered.stdout) if each["kind"] == "Deployment"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == f"{IMAGE}@{DIGEST}"


@pytest.mark.parametrize(("tag", "fits"), [(f"v{__version__}", True), ("v99.0.0", False)])
def test_a_tag_that_is_not_the_version_releases_nothing(checkout: Path, tag: str, fits: bool) -> None:
    said = run(checkout, script("image", "The tag is the version"), GITHUB_REF_NAME=tag)
    assert (said.returncode == 0) is fits, said.stderr
