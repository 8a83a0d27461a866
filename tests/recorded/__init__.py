"""What an operator of each release left in Consul, with the Pods and registrations that it was told of, as test data.

`make record` writes `<version>.json` out of a run of the operator as it is, over `world.yaml`. Each release adds its
file, and none is written again once its version is out. An operator of today must find nothing to rewrite in any:
`tests/unit/test_recorded.py` asks the core, `tests/integration/test_releases_before.py` a whole operator.

    agents     by node: /v1/agent/services and /v1/agent/checks
    catalog    by node: /v1/catalog/node-services/<node> and /v1/health/node/<node>
    the rest   objects, listed as the API server gives them
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
NAMESPACE = "recorded"
AGENTS, CATALOG, SWITCH = "recorded-agents", "recorded-catalog", "recorded-switch"
KINDS = {
    "pods": f"/api/v1/namespaces/{NAMESPACE}/pods",
    "services": f"/api/v1/namespaces/{NAMESPACE}/services",
    "slices": f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices",
    "nodes": "/api/v1/nodes",
    "secrets": f"/api/v1/namespaces/{NAMESPACE}/secrets",
    "registrations": f"/apis/consul-registrar.dev/v1alpha1/namespaces/{NAMESPACE}/serviceregistrations",
}
Recording = dict[str, Any]


def recordings() -> dict[str, Recording]:
    """What was recorded, by version."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def connections(consul: str) -> list[dict[str, Any]]:
    """One of each mode, and one with a dead man's switch.

    What the catalog holds stands on one node, whose choice is no matter of a release.
    """
    specs: dict[str, dict[str, Any]] = {
        AGENTS: {"mode": "Agent", "nodeAgents": {}},
        CATALOG: {"mode": "Catalog", "addresses": [consul], "virtualNodes": 1},
        SWITCH: {"mode": "Agent", "nodeAgents": {}, "deadMan": {"after": "24h"}},
    }
    head = {"apiVersion": "consul-registrar.dev/v1alpha1", "kind": "ConsulConnection"}
    return [head | {"metadata": {"name": name}, "spec": spec} for name, spec in specs.items()]
