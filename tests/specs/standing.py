"""What stands in Consul of a namespace's registrations: in the catalog and at each agent, as of one moment each.

Decides what of it can be compared between two registrations of one spec: all but what must differ (IDs, the hash of
definitions, which holds them, and the registration's own name) and what a probe finds out by itself.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.request import Request, urlopen

from operator_world import eventually

from devcluster import Cluster

Row = dict[str, Any]
Subject = tuple[str, tuple[str, str]]
"""A registration, and a connection and what it publishes there."""
_OWN = ("k8s-registration", "k8s-checks-hash", "k8s-nonce")
_CONSULS_OWN = ("lan_ipv4", "wan_ipv4", "lan_ipv6", "wan_ipv6")
_SAID = ("readiness", "draining")
"""The kinds of checks of which the operator says how they are."""


@dataclass(frozen=True)
class Standing:
    """One instance, on a node of the catalog or at the agent there."""

    where: str
    service: Row
    checks: tuple[Row, ...]

    @property
    def meta(self) -> dict[str, str]:
        return self.service["Meta"] or {}

    @property
    def registration(self) -> str:
        return self.meta["k8s-registration"]

    @property
    def subject(self) -> Subject:
        """What it stands for."""
        what = self.meta.get("k8s-pod-uid") or self.meta["k8s-endpoint"]
        return self.registration, (self.meta["k8s-connection"], what)

    @property
    def gist(self) -> tuple[str, frozenset[tuple[str, str]]]:
        """What tells two states of one instance apart that follow each other within a moment."""
        said = {check["CheckID"]: check["Status"] if _is_said(check) else "" for check in self.checks}
        return self.service["ID"], frozenset(said.items())

    @property
    def place(self) -> str:
        """Where it must be; what may be anywhere is placed by its identity, which differs."""
        fixed = "k8s-node" in self.meta and self.meta["k8s-connection"] != "catalog"
        return self.where if fixed else "an agent" if self.where.startswith("agent of ") else "the catalog"

    def told(self) -> str:
        """All that can be compared, in words of which each registration's name is the same."""
        service = self.service
        tagged = {k: v for k, v in (service.get("TaggedAddresses") or {}).items() if k not in _CONSULS_OWN}
        told = {
            "where": self.place,
            "name": service["Service"],
            "at": [service["Address"], service.get("Port")],
            "ports": sorted(service.get("Ports") or (), key=json.dumps),
            "tags": sorted(service["Tags"] or ()),
            "meta": {k: v for k, v in self.meta.items() if k not in _OWN},
            "weights": service["Weights"],
            "tagged": tagged,
            "override": bool(service.get("EnableTagOverride")),
            "checks": sorted((self._check(check) for check in self.checks), key=json.dumps),
        }
        return json.dumps(told, sort_keys=True).replace(self.registration, "<registration>")

    def _check(self, check: Row) -> Row:
        """Times are asked of whom runs it: of a probe that hasn't answered yet an agent pushes no other ones."""
        shown = {key: check.get(key) for key in ("Name", "Type", "Notes", "Definition", *self._times)}
        status = check["Status"] if _is_said(check) else None
        return shown | {"id": check["CheckID"].removeprefix(self.service["ID"]), "status": status}

    @property
    def _times(self) -> tuple[str, ...]:
        pushed = self.meta["k8s-connection"] == "agents" and not self.where.startswith("agent of ")
        return () if pushed else ("Interval", "Timeout")


def _is_said(check: Row) -> bool:
    """Whether it is the operator that says how the check is."""
    return check["CheckID"].rpartition(":")[2] in _SAID


def in_catalog(cluster: Cluster, namespace: str) -> list[Standing]:
    """All that the catalog holds of a namespace."""
    return as_of(cluster, namespace)[1]


def as_of(cluster: Cluster, namespace: str) -> tuple[int, list[Standing]]:
    """All that the catalog holds of a namespace, and as of which index of Consul's."""
    nodes, index = _nodes(cluster, 0)
    return index, _of(namespace, nodes)


def at_agents(cluster: Cluster, namespace: str) -> list[Standing]:
    """All that the agents hold of a namespace."""
    found = []
    for node, agent in cluster.consul.agents.items():
        checks = [*agent.request("GET", "/v1/agent/checks").values()]
        services = agent.request("GET", "/v1/agent/services").values()
        found += [s for s in _instances(f"agent of {node}", [*services], checks) if _is_of(s, namespace)]
    return found


def leftovers(cluster: Cluster, namespace: str) -> list[str]:
    """What there is of a namespace, be it a check alone; what was orphaned as asked for apart."""
    nodes = _nodes(cluster, 0)[0]
    agents = [agent for agent in cluster.consul.agents.values() if agent.process.is_alive()]
    services = [each for node in nodes for each in node.get("Services") or ()]
    services += [each for agent in agents for each in agent.request("GET", "/v1/agent/services").values()]
    checks = [each for node in nodes for each in node.get("Checks") or ()]
    checks += [each for agent in agents for each in agent.request("GET", "/v1/agent/checks").values()]
    orphans = {each["ID"] for each in services if "orphaned-from" in (each["Meta"] or {})}
    known = {each["ID"] for each in services} | {each["ServiceID"] for each in checks}
    return sorted(name for name in known - orphans if name.startswith(f"{namespace}-"))


def _nodes(cluster: Cluster, index: int) -> tuple[list[Row], int]:
    """Every node with all that it holds, as of one index; waits a second for one that is newer than `index`."""
    url = f"{cluster.consul.http_addr}/v1/internal/ui/nodes?index={index}&wait=1s"
    request = Request(url, headers={"X-Consul-Token": cluster.consul.token} if cluster.consul.token else {})
    with urlopen(request, timeout=30) as answer:
        return json.load(answer), int(answer.headers["X-Consul-Index"])


def _of(namespace: str, nodes: list[Row]) -> list[Standing]:
    found = (each for n in nodes for each in _instances(n["Node"], n.get("Services") or [], n.get("Checks") or []))
    return [each for each in found if _is_of(each, namespace)]


def _is_of(each: Standing, namespace: str) -> bool:
    return each.meta.get("managed-by") == "consul-registrar" and each.meta.get("k8s-namespace") == namespace


def _instances(where: str, services: list[Row], checks: list[Row]) -> Iterator[Standing]:
    for service in services:
        yield Standing(where, service, tuple(check for check in checks if check["ServiceID"] == service["ID"]))


@dataclass
class Seen:
    """Which subjects stood in the catalog at each moment of which was heard, by Consul's index."""

    moments: dict[int, set[Subject]] = field(default_factory=dict)

    def missed(self, since: int, until: int, wanted: set[Subject]) -> list[set[Subject]]:
        """Those of `wanted` that didn't stand, at each moment between two indexes at which some didn't."""
        eventually(lambda: max(self.moments) >= until)
        between = [moment for index, moment in sorted(self.moments.items()) if since <= index <= until]
        return [wanted - moment for moment in between if wanted - moment]


@contextmanager
def seeing(cluster: Cluster, namespace: str) -> Iterator[Seen]:
    """Hear of every change of the catalog that Consul tells of, while the block runs."""
    seen, over = Seen(), threading.Event()

    def watch() -> None:
        index = 0
        while not over.is_set():
            nodes, index = _nodes(cluster, index)
            seen.moments = seen.moments | {index: {each.subject for each in _of(namespace, nodes)}}

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join(30)
