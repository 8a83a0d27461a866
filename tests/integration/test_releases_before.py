"""An operator that starts where one of an earlier release has left off writes nothing to Consul (law 9)."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from operator_world import MERGE, Operator, World, always, eventually

from devcluster import Cluster
from recorded import FOLDER, KINDS, NAMESPACE, Recording, connections, recordings
from recorded.record import INGRESS

CONNECTIONS = "/apis/consul-registrar.dev/v1alpha1/consulconnections"
RECORDINGS = recordings()
OF, SECRETLY = "k8s-registration", "secretly"
SERVICE = (
    *("ID", "Service", "Tags", "Meta", "Port", "Ports", "Address", "Weights"),
    *("EnableTagOverride", "TaggedAddresses"),
)
CHECK = ("CheckID", "Name", "Status", "Notes", "Output", "ServiceID", "Type", "Definition")


@pytest.fixture
def before(cluster: Cluster, operator: Operator) -> Iterator[World]:
    """The objects of the recording, while no operator runs; nothing is left behind."""
    operator.kill()
    world = World(cluster, NAMESPACE)
    cluster.kubectl("create", "namespace", NAMESPACE)
    made = connections(cluster.consul.http_addr)
    for each in made:
        cluster.api.request("POST", CONNECTIONS, each)
    world.kubectl("apply", "-f", str(FOLDER / "world.yaml"))
    yield world
    if not operator.process.is_alive():
        operator.start()
    cluster.api.request("DELETE", KINDS["registrations"])
    eventually(lambda: not cluster.api.request("GET", KINDS["registrations"])["items"])
    for each in made:
        cluster.kubectl("delete", "cconn", each["metadata"]["name"], "--timeout=180s")
    cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")


@pytest.mark.parametrize("version", RECORDINGS)
def test_what_a_release_left_is_not_written_again(before: World, operator: Operator, version: str) -> None:
    recording = _restorable(RECORDINGS[version])
    _restore(before.cluster, _as_here(before, recording))
    stood = eventually(lambda: _indexes(before, recording))
    operator.start()
    for one in recording["registrations"]["items"]:
        before.says(one["metadata"]["name"], "Registered")
    always(lambda: _indexes(before, recording) == stood, during=3)


def _as_here(world: World, recording: Recording) -> Recording:
    """The recording with the UIDs and addresses of what stands for its own; its Pods' addresses are theirs now."""
    text = json.dumps(recording)
    cluster = world.cluster
    cluster.api.request("PATCH", f"{KINDS['services']}/lb/status", INGRESS, MERGE)
    eventually(lambda: len(world.pods("web")) == 2)
    for kind in ("pods", "services"):
        for one in recording[kind]["items"]:
            path = f"{KINDS[kind]}/{one['metadata']['name']}"
            text = text.replace(one["metadata"]["uid"], cluster.api.request("GET", path)["metadata"]["uid"])
            if kind == "pods":
                status = {key: one["status"][key] for key in ("podIP", "podIPs")}
                cluster.api.request("PATCH", f"{path}/status", {"status": status}, MERGE)
    for one in recording["nodes"]["items"]:
        text = text.replace(json.dumps(_internal(one)), json.dumps(cluster.nodes[one["metadata"]["name"]]))
    (service,) = recording["services"]["items"]
    now = cluster.api.request("GET", f"{KINDS['services']}/{service['metadata']['name']}")["spec"]
    text = text.replace(json.dumps(service["spec"]["clusterIP"]), json.dumps(now["clusterIP"]))
    found: Recording = json.loads(text)
    return found


def _internal(node: dict[str, Any]) -> str:
    return next(str(at["address"]) for at in node["status"]["addresses"] if at["type"] == "InternalIP")


def _restorable(recording: Recording) -> Recording:
    """Without heartbeats, which are no instances, and without what has a header from a Secret: that is another one."""
    made = copy.deepcopy(recording)
    for told in made["agents"].values():
        services = told["services"].items()
        told["services"] = {key: one for key, one in services if one["Meta"].get(OF, SECRETLY) != SECRETLY}
    return made


def _restore(cluster: Cluster, recording: Recording) -> None:
    for node, told in recording["agents"].items():
        for service in told["services"].values():
            checks = [check for check in told["checks"].values() if check["ServiceID"] == service["ID"]]
            cluster.consul.agents[node].request("PUT", "/v1/agent/service/register", _at_agent(service, checks))
    for told in recording["catalog"].values():
        node = told["services"]["Node"]
        for service in told["services"]["Services"]:
            checks = [_only(CHECK, check) for check in told["checks"] if check["ServiceID"] == service["ID"]]
            entry = {"Node": node["Node"], "Address": node["Address"], "NodeMeta": node["Meta"]}
            entry |= {"Service": _service(service), "Checks": checks}
            cluster.consul.server.request("PUT", "/v1/catalog/register", entry)


def _at_agent(service: dict[str, Any], checks: list[dict[str, Any]]) -> dict[str, Any]:
    """Agents don't tell definitions, so that none can be compared: each check is one that keeps its status."""
    given = [_only(("CheckID", "Name", "Status", "Notes"), check) | {"TTL": "876000h"} for check in checks]
    known = _service(service)
    return known | {"Name": known.pop("Service"), "Checks": given}


def _service(row: dict[str, Any]) -> dict[str, Any]:
    """Consul tells the port beside named ports, and takes one of the two."""
    other = "Port" if row.get("Ports") else "Ports"
    return _only(tuple(name for name in SERVICE if name != other), row)


def _only(names: tuple[str, ...], row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in names if name in row}


def _indexes(world: World, recording: Recording) -> dict[str, int]:
    """When each instance and each of its checks was written last; all that was recorded is there."""
    wanted = [service["ID"] for told in recording["agents"].values() for service in told["services"].values()]
    wanted += [service["ID"] for told in recording["catalog"].values() for service in told["services"]["Services"]]
    nodes = world.consul("/v1/internal/ui/nodes")
    rows = [row for node in nodes for row in node.get("Services") or () if row["ID"] in wanted]
    checks = [row for node in nodes for row in node.get("Checks") or () if row["ServiceID"] in wanted]
    assert len(rows) == len(wanted)
    return {row["ID"]: row["ModifyIndex"] for row in rows} | {row["CheckID"]: row["ModifyIndex"] for row in checks}
