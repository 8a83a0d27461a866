"""What is made of the chart, and what the chart is made of, agree."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml
from rendering import rendered

from chartgen import __main__ as chartgen
from chartgen import values
from chartgen.render import CHART, PLACEHOLDER, documents, kustomize_base
from consul_registrar import __version__
from devcluster.tools import HELM, HYPERKUBE

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


def test_the_definitions_stay_apart_where_helm_shows_them_one_after_the_other() -> None:
    """As the README has them applied before an upgrade: Helm puts nothing between the files."""
    shown = subprocess.run([HELM.path(), "show", "crds", CHART], capture_output=True, text=True, check=True).stdout
    found = [document["metadata"]["name"] for document in yaml.safe_load_all(shown)]
    assert found == ["consulconnections.consul-registrar.dev", "serviceregistrations.consul-registrar.dev"]


def test_every_value_says_what_it_is_for() -> None:
    found = values.described((CHART / "values.yaml").read_text())
    assert [value.key for value in found if not value.about and value.default is not None] == []


def test_the_schema_tells_editors_of_every_value() -> None:
    untold: list[str] = []

    def look(node: dict[str, Any], above: str) -> None:
        for name, child in node.get("properties", {}).items():
            if "description" not in child and "properties" not in child:
                untold.append(f"{above}{name}")
            look(child, f"{above}{name}.")

    look(json.loads((CHART / "values.schema.json").read_text()), "")
    assert untold == []


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


def test_the_rules_that_are_written_out_for_those_without_the_chart_are_its_own() -> None:
    """But for names: a Secret's and the Lease's are known to the chart alone."""
    page = (chartgen.REPOSITORY / "docs" / "how-to" / "access.md").read_text()
    (written,) = [
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "ClusterRole" in block
    ]
    objects = rendered("--no-hooks", annotatedWorkloads__enabled=True, rbac__secrets=[{"namespace": "consul"}])
    roles = [one for one in objects if one["kind"].endswith("Role")]
    operators = [one for one in roles if not one["metadata"]["name"].endswith(("-view", "-edit"))]
    assert allowed([written]) == allowed(operators)


def allowed(roles: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """API group, resource and verb."""
    rules = [rule for role in roles for rule in role["rules"]]
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}
