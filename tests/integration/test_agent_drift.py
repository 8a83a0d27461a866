"""Mode Agent: whatever is removed or spoiled behind our back, at the agent or in the catalog, is right again.

A service, a check and a status are three repairs in either place, since an agent repairs none of them when it is told
again what it has already.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from operator_world import World, eventually, pod, registration

from devcluster import Cluster
from devcluster.consul import Member

PASSED_ON = {"Node", "CheckID", "Name", "ServiceID", "ServiceName"}


@dataclass(frozen=True)
class Site:
    """One instance, the agent that has it and the servers; `row` is what the health API said before anything."""

    world: World
    agent: Member
    row: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.row["Service"]["ID"])

    @property
    def place(self) -> dict[str, str]:
        return {"Node": self.row["Node"]["Node"]}

    def check(self, name: str) -> dict[str, Any]:
        return next(check for check in self.row["Checks"] if check["Name"] == name)

    def at_agent(self, path: str, body: Any = None) -> None:
        self.agent.request("PUT", f"/v1/agent/{path}", body)

    def in_catalog(self, verb: str, body: Mapping[str, Any]) -> None:
        node = {"Address": self.row["Node"]["Address"], "SkipNodeUpdate": True} if verb == "register" else {}
        self.world.cluster.consul.server.request("PUT", f"/v1/catalog/{verb}", {**self.place, **node, **body})

    def looks(self) -> dict[str, Any]:
        """The instance as callers see it, and as its agent has it; without what only counts writes."""
        row = self.world.health("drift")["one"]
        held = self.agent.request("GET", f"/v1/agent/service/{self.id}")
        checks = self.agent.request("GET", "/v1/agent/checks").values()
        return {
            "catalog": _service(row["Service"]),
            "agent": _service(held),
            "checks": _statuses(row["Checks"]),
            "agent's checks": _statuses(check for check in checks if check["ServiceID"] == self.id),
        }


def _service(row: Mapping[str, Any]) -> dict[str, Any]:
    meta = {name: value for name, value in row["Meta"].items() if name != "k8s-nonce"}
    return {name: row[name] for name in ("ID", "Service", "Address", "Port", "Tags")} | {"Meta": meta}


def _statuses(checks: Any) -> dict[str, str]:
    return {check["Name"]: check["Status"] for check in checks if check["ServiceID"]}


def _edited(site: Site) -> dict[str, Any]:
    service = site.row["Service"]
    return {"ID": site.id, "Address": "127.0.0.9", "Port": 1, "Tags": ["spoiled"], "Meta": service["Meta"]}


def _spoiled(site: Site, name: str) -> dict[str, Any]:
    check = {key: value for key, value in site.check(name).items() if key in PASSED_ON}
    return {"Check": check | {"Status": "critical", "Output": "spoiled"}}


Spoil = Callable[[Site], None]
AT_AGENT: dict[str, Spoil] = {
    "service removed": lambda site: site.at_agent(f"service/deregister/{site.id}"),
    "service edited": lambda site: site.at_agent("service/register", {"Name": "drift", **_edited(site)}),
    "readiness removed": lambda site: site.at_agent(f"check/deregister/{site.check('ready')['CheckID']}"),
    "probe removed": lambda site: site.at_agent(f"check/deregister/{site.check('port')['CheckID']}"),
    "readiness spoiled": lambda site: site.at_agent(f"check/fail/{site.check('ready')['CheckID']}"),
}
IN_CATALOG: dict[str, Spoil] = {
    "service removed": lambda site: site.in_catalog("deregister", {"ServiceID": site.id}),
    "service edited": lambda site: site.in_catalog("register", {"Service": {"Service": "drift", **_edited(site)}}),
    "readiness removed": lambda site: site.in_catalog("deregister", {"CheckID": site.check("ready")["CheckID"]}),
    "probe removed": lambda site: site.in_catalog("deregister", {"CheckID": site.check("port")["CheckID"]}),
    "readiness spoiled": lambda site: site.in_catalog("register", _spoiled(site, "ready")),
    "probe spoiled": lambda site: site.in_catalog("register", _spoiled(site, "port")),
}
WAYS = {f"{what} at the agent": spoil for what, spoil in AT_AGENT.items()} | {
    f"{what} in the catalog": spoil for what, spoil in IN_CATALOG.items()
}


@pytest.fixture
def site(world: World, cluster: Cluster) -> Site:
    probe = {"name": "port", "tcp": {}, "interval": "1s", "timeout": "500ms"}
    checks = [{"name": "ready", "readiness": {}}, probe]
    world.apply(registration("drift", checks=checks, service={"tags": ["v1"]}), pod("one", "drift"))
    row = world.passing("drift", 1)["one"]
    return Site(world, cluster.consul.agents[row["Node"]["Node"]], row)


@pytest.mark.parametrize("way", WAYS)
def test_what_went_wrong_is_right_again_and_then_nothing_is_written(site: Site, cluster: Cluster, way: str) -> None:
    before = site.looks()
    WAYS[way](site)
    eventually(lambda: site.looks() != before or _written_since(site))
    eventually(lambda: site.looks() == before)

    def nothing_is_written() -> None:
        writes = cluster.consul.writes()
        time.sleep(4)
        assert site.looks() == before
        assert cluster.consul.writes() == writes

    eventually(nothing_is_written)


def _written_since(site: Site) -> bool:
    """Whether it was repaired before anybody could look."""
    return bool(_indexes(site.world.health("drift")["one"]) != _indexes(site.row))


def _indexes(row: Mapping[str, Any]) -> list[int]:
    return [row["Service"]["ModifyIndex"], *sorted(check["ModifyIndex"] for check in row["Checks"])]
