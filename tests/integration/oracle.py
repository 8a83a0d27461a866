"""An oracle: watches Consul and the API server event by event, and tells which instance left while its Pod lived.

It knows nothing of the operator. What it reports is true or false of the world, whatever the operator thinks.
"""

import http.client
import json
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from devcluster import Cluster


@dataclass
class Oracle:
    """What was seen. `left`: when the instance of a Pod UID left Consul; `ended`: when that Pod began to end."""

    cluster: Cluster
    left: list[tuple[float, str, str]] = field(default_factory=list)
    ended: dict[str, float] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _ready: list[threading.Event] = field(default_factory=list)

    def wrongly_removed(self, grace: float = 1.0) -> list[str]:
        """The instances that left while their Pods lived. `grace`: seconds by which two watches may disagree."""
        return [name for at, uid, name in self.left if self.ended.get(uid, float("inf")) > at + grace]

    def _watch_node(self, node: str, ready: threading.Event) -> None:
        address = urllib.parse.urlsplit(self.cluster.consul.http_addr)
        index, before = "0", {}
        while not self._over.is_set():
            connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
            try:
                token = {"X-Consul-Token": self.cluster.consul.token} if self.cluster.consul.token else {}
                connection.request("GET", f"/v1/catalog/node-services/{node}?index={index}&wait=2s", headers=token)
                answer = connection.getresponse()
                body = json.loads(answer.read()) or {}
                index = answer.getheader("X-Consul-Index") or "0"
            except (OSError, ValueError):
                index = "0"
                continue
            finally:
                connection.close()
            now = {s["ID"]: s["Meta"].get("k8s-pod-uid", "") for s in body.get("Services") or ()}
            gone = [(time.monotonic(), uid, name) for name, uid in before.items() if name not in now and uid]
            self.left.extend(gone)
            before = now
            ready.set()

    def _watch_pods(self, ready: threading.Event) -> None:
        listed = self.cluster.api.request("GET", "/api/v1/pods")
        version = listed["metadata"]["resourceVersion"]
        url = f"{self.cluster.api_url}/api/v1/pods?watch=1&resourceVersion={version}&timeoutSeconds=600"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.cluster.token}"})
        trusting = ssl._create_unverified_context()
        with urllib.request.urlopen(request, context=trusting, timeout=600) as stream:
            ready.set()
            for line in stream:
                event = json.loads(line)
                self._take(event["type"], event["object"])
                if self._over.is_set():
                    return

    def _take(self, kind: str, pod: dict) -> None:
        finished = pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}
        if kind == "DELETED" or finished or pod["metadata"].get("deletionTimestamp"):
            self.ended.setdefault(pod["metadata"]["uid"], time.monotonic())


@contextmanager
def watching(cluster: Cluster) -> Iterator[Oracle]:
    """An oracle that has begun to see."""
    oracle = Oracle(cluster)
    watchers = [(oracle._watch_pods, ())] + [(oracle._watch_node, (node,)) for node in cluster.nodes]
    ready = [threading.Event() for _ in watchers]
    for (watch, arguments), seen in zip(watchers, ready, strict=True):
        threading.Thread(target=watch, args=(*arguments, seen), daemon=True).start()
    for seen in ready:
        assert seen.wait(30), "the oracle can't see"
    try:
        yield oracle
    finally:
        oracle._over.set()
