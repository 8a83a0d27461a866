"""The custom resource definitions of an older version become those of this one: by the chart's Job, or by hand."""

import json
import re
from pathlib import Path

from chart_world import NAMESPACE, RELEASE, Installation, helm, running_scripts

from chartgen.render import CHART
from devcluster import Cluster

DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/serviceregistrations.consul-registrar.dev"
SPEC = "/spec/versions/0/schema/openAPIV3Schema/properties/spec"
OLDER = [
    {"op": "replace", "path": "/spec/names/shortNames", "value": ["older"]},
    {"op": "add", "path": f"{SPEC}/properties/older", "value": {"type": "string"}},
    {"op": "add", "path": f"{SPEC}/x-kubernetes-validations/-", "value": {"rule": "!has(self.older)", "message": "no"}},
]
"""What makes another definition of it, as a version before could have installed it."""


def test_an_upgrade_brings_the_definitions_up_to_date_and_twice_changes_nothing(
    installed: Installation, tmp_path: Path
) -> None:
    """Also what the older one had and this one hasn't: a field, and a rule, which might refuse what is right now."""
    cluster = installed.cluster
    ours = cluster.api.request("GET", DEFINITION)["spec"]
    cluster.api.request("PATCH", DEFINITION, OLDER, "application/json-patch+json")
    arguments = ("upgrade", RELEASE, str(CHART), f"--namespace={NAMESPACE}")
    with running_scripts(cluster, NAMESPACE, "crds", tmp_path) as said:
        helm(cluster, *arguments, values=installed.values)
        once = _versions(cluster)
        helm(cluster, *arguments, values=installed.values)
    assert [one.split(":")[0] for one in said] == ["Succeeded", "Succeeded"]
    assert cluster.api.request("GET", DEFINITION)["spec"] == ours
    assert _versions(cluster) == once
    jobs = cluster.api.request("GET", f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs")
    assert not jobs["items"]


def test_the_command_of_the_readme_brings_the_definitions_up_to_date(installed: Installation) -> None:
    cluster = installed.cluster
    ours = cluster.api.request("GET", DEFINITION)["spec"]
    cluster.api.request("PATCH", DEFINITION, OLDER, "application/json-patch+json")
    shown, _, piped = _command_for_definitions().partition(" | kubectl ")
    definitions = helm(
        cluster, *shown.removeprefix("helm ").replace("manifests/helm/consul-registrar", str(CHART)).split()
    )
    cluster.kubectl(*piped.split(), stdin=definitions)
    assert cluster.api.request("GET", DEFINITION)["spec"] == ours


def _command_for_definitions() -> str:
    """What the README says to those who have no Job do it."""
    (command,) = re.findall(r"^helm show crds .*$", (CHART / "README.md").read_text(), re.MULTILINE)
    return str(command)


def _versions(cluster: Cluster) -> dict[str, int]:
    """How often the spec of each object of the release has changed."""
    manifest = helm(cluster, "get", "manifest", RELEASE, f"--namespace={NAMESPACE}")
    found = cluster.kubectl("get", "-f", "-", "-n", NAMESPACE, "-o", "json", stdin=manifest)
    return {
        f"{one['kind']}/{one['metadata']['name']}": one["metadata"].get("generation", 0)
        for one in json.loads(found)["items"]
    }
