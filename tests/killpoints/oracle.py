"""Says what is true of Consul and Kubernetes, event by event, whatever the program under test believes.

It counts for every instance how often it left Consul while its Pod lived. An instance is a row of Consul's catalog
that names a Pod's UID in its metadata. It left when it is missing from a node's services, or stands there anew: Consul
gives what is created again another `CreateIndex`, so that no gap is too short to be seen. It did not leave when it
stood elsewhere under the same service name before. Whether the Pod lived is asked of the API server right after, by a
fresh read: who has gone never comes back, so a Pod that lives then lived before. No clocks are compared.

`differences` compares what should stand, as the test claims it, with what does: missing, ghosts, doubles, health.
"""

import json
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from killpoints.rest import BROKEN, Reply, Site

T = TypeVar("T")

_FINISHED = {"Succeeded", "Failed"}
_WAIT = "1s"
"""How long a blocking query waits: after that time at most it is known that nothing has happened."""


@dataclass(frozen=True, slots=True)
class Row:
    """An instance in Consul's catalog. `created`: Consul's index of when it was."""

    node: str
    id: str
    service: str
    uid: str
    created: int


@dataclass(frozen=True, slots=True)
class Departure:
    """An instance that left. `pod`: namespace/name of the Pod that it stood for; `alive`: the Pod lived."""

    at: float
    row: Row
    pod: str
    alive: bool

    def __str__(self) -> str:
        return f"{self.row.id} left {self.row.node} while its Pod {self.pod} {'lived' if self.alive else 'was gone'}"


@dataclass(frozen=True, slots=True)
class Claim:
    """What should stand: one healthy or unhealthy instance, as its Pod is ready or not, for each running Pod with these
    labels; and with these tags and this port, unless they are None.
    """

    service: str
    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class World:
    """Where Consul and Kubernetes answer, past all faults. `consul`: its servers, tried in turn."""

    consul: Sequence[Site]
    kubernetes: Site
    uid_key: str = "pod-uid"


def departures(before: Mapping[str, Row], now: Mapping[str, Row]) -> list[Row]:
    """What left between two looks at one node, or left and came back."""
    return [row for key, row in before.items() if key not in now or now[key].created != row.created]


class Oracle:
    """Watches from `watching` on. `left`: every instance that left; `excuse` those that may."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.left: list[Departure] = []
        self._excused: set[str] = set()
        self._heirs: dict[str, str] = {}
        self._pods: dict[str, str] = {}
        self._nodes: dict[str, _NodeWatch] = {}
        self._lock = threading.Lock()
        self._era = 0
        self._over = threading.Event()
        self._sees_pods = threading.Event()

    def excuse(self, *names: str) -> None:
        """These services, or the instances of these Pod UIDs, may leave from now on: they are not wanted any more."""
        self._excused |= set(names)

    def renamed(self, service: str, to: str) -> None:
        """The instances of a service may leave for those of another one: each when its Pod stands there already."""
        self._heirs[service] = to

    def begin_anew(self) -> None:
        """Consul's data were lost, or come from a snapshot: indexes lower than before are no old news."""
        self._era += 1
        for watch in tuple(self._nodes.values()):
            watch.index = 0

    @property
    def wrong(self) -> list[Departure]:
        """The instances that left while their Pods lived, up to this moment."""
        self.catch_up()
        return [departure for departure in self.left if departure.alive]

    def catch_up(self, within: float = 30.0) -> None:
        """Return when all that has happened in Consul by now was seen."""
        deadline = time.monotonic() + within
        for node in self._node_names(self.consul("/v1/catalog/nodes")):
            index = self.consul(node_path(node)).index
            while self._nodes.get(node) is None or self._nodes[node].index < index:
                assert time.monotonic() < deadline, f"the oracle doesn't see Consul node {node}"
                time.sleep(0.02)

    # --- the end state ---

    def differences(self, claims: Collection[Claim]) -> list[str]:
        """What stands otherwise than claimed, in words; nothing is left to say when all is right."""
        found = [text for claim in claims for text in self._differs(claim)]
        return found + [f"ghost: {row.id} on {row.node}" for row in self._unclaimed({c.service for c in claims})]

    def _differs(self, claim: Claim) -> Iterator[str]:
        pods = self.pods(claim.namespace, claim.labels)
        rows = self.instances(claim.service)
        standing = [row["Service"]["Meta"][self.world.uid_key] for row in rows]
        yield from (f"missing: {pods[uid]['metadata']['name']} in {claim.service}" for uid in pods.keys() - standing)
        yield from (f"ghost: {uid} in {claim.service}" for uid in set(standing) - pods.keys())
        yield from (f"stands twice: {uid}" for uid in set(standing) if standing.count(uid) > 1)
        for uid, row in zip(standing, rows, strict=True):
            if uid in pods and _healthy(row) != _ready(pods[uid]):
                yield f"health: {pods[uid]['metadata']['name']} is ready: {_ready(pods[uid])}, not so in Consul"
            if claim.tags is not None and tuple(row["Service"]["Tags"] or ()) != claim.tags:
                yield f"tags: {uid} has {row['Service']['Tags']}"
            if claim.port is not None and row["Service"].get("Port") != claim.port:
                yield f"port: {uid} has {row['Service'].get('Port')}"

    def instances(self, service: str) -> list[dict[str, Any]]:
        """The rows of the health API that stand for Pods."""
        rows = self.consul(f"/v1/health/service/{quote(service)}").value
        return [row for row in rows if self.world.uid_key in (row["Service"]["Meta"] or {})]

    def pods(self, namespace: str, labels: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """The running Pods with these labels that don't terminate, by UID."""
        query = urlencode({"labelSelector": ",".join(f"{k}={v}" for k, v in labels.items())})
        found = self.kubernetes(f"/api/v1/namespaces/{namespace}/pods?{query}").value["items"]
        return {p["metadata"]["uid"]: p for p in found if _alive(p) and p["status"].get("phase") == "Running"}

    def _unclaimed(self, claimed: Collection[str]) -> list[Row]:
        with self._lock:
            rows = [row for watch in self._nodes.values() for row in watch.rows.values()]
        return [row for row in rows if row.service not in claimed]

    # --- asking ---

    def consul(self, path: str) -> Reply:
        """Read from whichever server answers."""
        return self._insist(self.world.consul, path)

    def kubernetes(self, path: str) -> Reply:
        return self._insist([self.world.kubernetes], path)

    def _insist(self, sites: Sequence[Site], path: str, within: float = 60.0) -> Reply:
        deadline = time.monotonic() + within
        while True:
            for site in sites:
                try:
                    reply = site.get(path)
                except BROKEN:
                    continue
                if reply.status in {200, 404}:
                    return reply
            assert time.monotonic() < deadline, f"nobody answers {path}"
            time.sleep(0.1)

    # --- watching ---

    def start(self) -> None:
        """Begin to see."""
        threading.Thread(target=self._watch_pods, daemon=True).start()
        threading.Thread(target=self._watch_nodes, daemon=True).start()
        assert self._sees_pods.wait(30), "the oracle can't see the Pods"
        self.catch_up()

    def stop(self) -> None:
        self._over.set()

    def follow(self, path: str) -> Iterator[Reply]:
        """Blocking queries, one after the other, each from the index of the one before. Older answers are left out."""
        index, turn, era = 0, 0, self._era
        while not self._over.is_set():
            if era != self._era:
                index, era = 0, self._era
            site = self.world.consul[turn % len(self.world.consul)]
            try:
                reply = site.get(f"{path}?index={index}&wait={_WAIT}", timeout=15)
            except BROKEN:
                reply = None
            if era != self._era:
                continue
            if reply is None or reply.status != 200 or not reply.index:
                turn += 1
                time.sleep(0.1)
            elif reply.index >= index:
                index = reply.index
                yield reply

    def _watch_nodes(self) -> None:
        for reply in self.follow("/v1/catalog/nodes"):
            for node in self._node_names(reply):
                if node not in self._nodes:
                    self._nodes[node] = watch = _NodeWatch(node)
                    threading.Thread(target=self._watch_node, args=(watch,), daemon=True).start()

    @staticmethod
    def _node_names(reply: Reply) -> list[str]:
        return [node["Node"] for node in reply.value]

    def _watch_node(self, watch: "_NodeWatch") -> None:
        for reply in self.follow(node_path(watch.node)):
            rows = self._rows(watch.node, reply.value)
            with self._lock:
                gone = departures(watch.rows, rows)
                watch.rows = rows
            for row in gone:
                self._note(row, reply.index)
            watch.index = reply.index

    def _rows(self, node: str, value: Any) -> dict[str, Row]:
        key = self.world.uid_key
        services = [s for s in (value or {}).get("Services") or () if key in (s["Meta"] or {})]
        return {s["ID"]: Row(node, s["ID"], s["Service"], s["Meta"][key], s["CreateIndex"]) for s in services}

    def _note(self, row: Row, index: int) -> None:
        excused = bool(self._excused & {row.service, row.uid})
        if self._stood_elsewhere(row, index):
            return
        alive = not excused and self._lives(row.uid)
        self.left.append(Departure(time.monotonic(), row, self._pods.get(row.uid, row.uid), alive))

    def _stood_elsewhere(self, row: Row, index: int) -> bool:
        """Whether the Pod has another instance of that service, or its heir, which was there when this one went."""
        names = {row.service, self._heirs.get(row.service, row.service)}
        found = [o for name in names for o in self.consul(f"/v1/catalog/service/{quote(name)}").value]
        others = [o for o in found if (o["ServiceMeta"] or {}).get(self.world.uid_key) == row.uid]
        return any((o["Node"], o["ServiceID"]) != (row.node, row.id) and o["CreateIndex"] <= index for o in others)

    def _lives(self, uid: str) -> bool:
        """By a fresh read. Of a Pod that the oracle has never seen nothing is known, so it counts as gone."""
        known = self._pods.get(uid)
        if known is None:
            return False
        namespace, name = known.split("/")
        reply = self.kubernetes(f"/api/v1/namespaces/{namespace}/pods/{name}")
        return reply.status == 200 and reply.value["metadata"]["uid"] == uid and _alive(reply.value)

    def _watch_pods(self) -> None:
        site = self.world.kubernetes
        while not self._over.is_set():
            try:
                listed = site.get("/api/v1/pods").value
                for pod in listed["items"]:
                    self._meet(pod)
                self._sees_pods.set()
                version = listed["metadata"]["resourceVersion"]
                for event in site.lines(f"/api/v1/pods?watch=1&resourceVersion={version}&timeoutSeconds=300", 310):
                    self._meet(event["object"])
                    if self._over.is_set():
                        return
            except (*BROKEN, TypeError, KeyError):
                time.sleep(0.1)

    def _meet(self, pod: dict[str, Any]) -> None:
        meta = pod["metadata"]
        self._pods[meta["uid"]] = f"{meta['namespace']}/{meta['name']}"


@dataclass
class _NodeWatch:
    node: str
    rows: dict[str, Row] = field(default_factory=dict)
    index: int = 0


def node_path(node: str) -> str:
    return f"/v1/catalog/node-services/{quote(node)}"


def _alive(pod: dict[str, Any]) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") not in _FINISHED


def _ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _healthy(row: dict[str, Any]) -> bool:
    return all(check["Status"] == "passing" for check in row["Checks"] if check["ServiceID"])


@contextmanager
def watching(world: World) -> Iterator[Oracle]:
    """An oracle that has begun to see, for the length of a block."""
    oracle = Oracle(world)
    oracle.start()
    try:
        yield oracle
    finally:
        oracle.stop()


def explain(departures: Sequence[Departure]) -> str:
    """For the message of an assertion."""
    return json.dumps([str(departure) for departure in departures], indent=1)
