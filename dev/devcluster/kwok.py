"""Decides how nodes and the life of Pods are simulated: Node objects, and kwok with the stages of `stages/`.

kwok stands in for the kubelets; what answers on the Pods' addresses is `pods.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devcluster.kube import Api
from devcluster.process import Home, Process, Program
from devcluster.tools import HYPERKUBE, KWOK

STAGES = Path(__file__).resolve().parent / "stages"

LEASE_SECONDS = 40
"""Without leases of its own a node goes NotReady after that time, and its Pods with it."""

CAPACITY = {"cpu": "1k", "memory": "1Ti", "pods": "100k"}


def kwok(home: Home, pod_network: str, api: Api) -> Process:
    """Lay out kwok for a cluster; nothing is started."""
    command = (
        str(KWOK.path()),
        f"--kubeconfig={api.kubeconfig}",
        f"--config={STAGES / 'nodes.yaml'}",
        f"--config={STAGES / 'pods.yaml'}",
        "--manage-all-nodes",
        f"--cidr={pod_network}",
        f"--node-lease-duration-seconds={LEASE_SECONDS}",
    )
    return Process(Program("kwok", command, ready=lambda: _all_nodes_ready(api)), home)


def create_nodes(api: Api, nodes: Mapping[str, str]) -> None:
    """Create the Node objects (name to address); kwok makes them Ready."""
    for name, address in nodes.items():
        api.request("POST", "/api/v1/nodes", _node(name, address))


def _node(name: str, address: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "nodeInfo": {"kubeletVersion": HYPERKUBE.version, "containerRuntimeVersion": f"kwok://{KWOK.version}"},
            "capacity": CAPACITY,
            "allocatable": CAPACITY,
        },
    }


def _all_nodes_ready(api: Api) -> bool:
    nodes = api.request("GET", "/api/v1/nodes")["items"]
    return all(_is_ready(node) for node in nodes)


def _is_ready(node: Mapping[str, Any]) -> bool:
    conditions = node["status"].get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
