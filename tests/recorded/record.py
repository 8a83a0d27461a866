"""Records what the operator, as it is now, leaves in Consul: `make record`."""

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from operator_world import MERGE, Operator, World, defined, eventually, without_consul_variables

from consul_registrar import __version__
from devcluster import Cluster, Options
from recorded import FOLDER, KINDS, NAMESPACE, Recording, connections

INGRESS = {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}, {"hostname": "lb.example.com"}]}}}


def main() -> None:
    without_consul_variables()
    with tempfile.TemporaryDirectory() as folder, defined(Options(nodes=3), Path(folder)) as cluster:
        cluster.kubectl("create", "namespace", NAMESPACE)
        (Path(folder) / "operator").mkdir()
        operator = Operator(cluster, Path(folder) / "operator")
        operator.start()
        found = _recorded(World(cluster, NAMESPACE))
        operator.kill()
    path = FOLDER / f"{__version__}.json"
    path.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    print(f"{path}: {len(found['registrations']['items'])} registrations")  # noqa: T201 - what it is run for


def _recorded(world: World) -> Recording:
    cluster = world.cluster
    world.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(connections(cluster.consul.http_addr)))
    world.kubectl("apply", "-f", str(FOLDER / "world.yaml"))
    cluster.api.request("PATCH", f"{KINDS['services']}/lb/status", INGRESS, MERGE)
    names = [one["metadata"]["name"] for one in cluster.api.request("GET", KINDS["registrations"])["items"]]
    for name in names:
        world.says(name, "Registered")
    for name in ("plain", "balanced"):
        eventually(lambda name=name: len(world.health(name)) == len(world.health(name, passing=True)) > 0)
    objects = {kind: _trimmed(cluster.api.request("GET", path)) for kind, path in KINDS.items()}
    return {"version": __version__, **objects, **held(cluster)}


def held(cluster: Cluster) -> Recording:
    """What the agents and the virtual nodes hold."""
    ask = cluster.consul.server.request
    virtual = [node["Node"] for node in ask("GET", "/v1/catalog/nodes") if node["Node"].startswith("test-")]
    return {
        "agents": {
            node: {what: agent.request("GET", f"/v1/agent/{what}") for what in ("services", "checks")}
            for node, agent in cluster.consul.agents.items()
        },
        "catalog": {
            node: {
                "services": ask("GET", f"/v1/catalog/node-services/{node}"),
                "checks": ask("GET", f"/v1/health/node/{node}"),
            }
            for node in virtual
        },
    }


def _trimmed(listed: dict[str, Any]) -> dict[str, Any]:
    for one in listed["items"]:
        one["metadata"].pop("managedFields", None)
        one["metadata"].pop("annotations", None)
    return listed


if __name__ == "__main__":
    main()
