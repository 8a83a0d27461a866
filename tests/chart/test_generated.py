"""What is made of the chart, and what the chart is made of, agree."""

import shutil
import subprocess
from pathlib import Path

import yaml

from chartgen import __main__ as chartgen
from chartgen import values
from chartgen.render import CHART, PLACEHOLDER, documents, kustomize_base
from consul_registrar import __version__
from devcluster.tools import HYPERKUBE

KUSTOMIZE = chartgen.KUSTOMIZE
CRDS = chartgen.REPOSITORY / "crds"


def test_the_charts_version_is_the_operators() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
    assert chart["version"] == __version__


def test_the_definitions_are_those_of_the_repository() -> None:
    assert {file.name: file.read_text() for file in (CHART / "crds").iterdir()} == {
        file.name: file.read_text() for file in CRDS.iterdir()
    }


def test_every_value_says_what_it_is_for() -> None:
    found = values.described((CHART / "values.yaml").read_text())
    assert [value.key for value in found if not value.about and value.default is not None] == []


def test_the_base_of_kustomize_is_what_the_chart_renders() -> None:
    assert (KUSTOMIZE / "base.yaml").read_text() == kustomize_base(), "run `make kustomize` and commit"


def test_the_base_of_kustomize_starts_no_operator_before_its_cluster_has_a_name() -> None:
    base = documents((KUSTOMIZE / "base.yaml").read_text())
    deployment = next(one for one in base if one["kind"] == "Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["args"][1] == f"--cluster-name={PLACEHOLDER}"


def test_kubectl_builds_the_overlay_of_the_readme(tmp_path: Path) -> None:
    readme = (KUSTOMIZE / "README.md").read_text()
    overlay = readme.split("```yaml\n")[1].split("```")[0]
    assert "path/to/manifests/kustomize" in overlay
    shutil.copytree(KUSTOMIZE, tmp_path / "base")
    (tmp_path / "kustomization.yaml").write_text(overlay.replace("path/to/manifests/kustomize", "base"))
    command = [str(HYPERKUBE.path("kubectl")), "kustomize", str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (deployment,) = [one for one in documents(built) if one["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert "--cluster-name=my-cluster" in container["args"]
    assert container["image"] == "registry.example.com/consul-registrar:0.1.0"
    assert sum(one["kind"] == "CustomResourceDefinition" for one in documents(built)) == 2
