"""Decides how the chart is rendered, and what of it makes the kustomize base."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from devcluster.tools import HELM

CHART = Path(__file__).resolve().parents[2] / "manifests" / "helm" / "consul-registrar"

#: The base refuses to start until this is replaced: a cluster's name is in small letters.
PLACEHOLDER = "NAME-OF-YOUR-CLUSTER"
NAMESPACE = "consul-registrar"


class RenderError(Exception):
    """Helm refused to render; the message is what it said."""


def template(values: dict[str, Any], *arguments: str, release: str = "consul-registrar") -> str:
    """What `helm template` prints for these values. Raises RenderError."""
    command = [str(HELM.path()), "template", release, str(CHART), "--values=-", *arguments]
    done = subprocess.run(command, input=yaml.safe_dump(values), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RenderError(done.stderr.strip())
    return done.stdout


def documents(rendered: str) -> list[dict[str, Any]]:
    """The objects of what was rendered."""
    return [document for document in yaml.safe_load_all(rendered) if document]


def kustomize_base() -> str:
    """The base: the chart's objects under its defaults, without the connection, hooks, and Helm's own labels."""
    values = {"clusterName": "placeholder", "connection": {"create": False}, "fullnameOverride": "consul-registrar"}
    objects = documents(template(values, f"--namespace={NAMESPACE}", "--no-hooks"))
    head = f"# Made by `make kustomize` from manifests/helm/consul-registrar. Don't edit.\n{_NAMESPACE}"
    return head + "".join(f"---\n{yaml.safe_dump(_plain(one), sort_keys=False)}" for one in objects)


_NAMESPACE = f"""\
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""


def _plain(node: Any) -> Any:
    """An object without what only Helm needs, and with the placeholder."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if isinstance(node, str):
        return node.replace("--cluster-name=placeholder", f"--cluster-name={PLACEHOLDER}")
    if not isinstance(node, dict):
        return node
    kept = {key: _plain(value) for key, value in node.items() if key != "helm.sh/chart"}
    if kept.get("app.kubernetes.io/managed-by") == "Helm":
        del kept["app.kubernetes.io/managed-by"]
    return kept
