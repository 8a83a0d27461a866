"""Reads what Consul changes on some nodes, event by event: the raft index of each change of an instance, and removals.

It knows nothing of the operator. A row tells the index of its creation and of its last change, so two changes between
two reads are both seen, unless one thing was changed twice: whoever drives the observer waits after each step.
"""

import http.client
import json
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from devcluster import Cluster

Rows = dict[tuple[str, str], dict[str, Any]]
"""What a node holds, by the instance's ID and the check's, "" for the service itself."""


@dataclass
class Observer:
    """What was seen, by the instance's ID. `services`, `checks`: indexes at which such a row was written."""

    services: dict[str, set[int]] = field(default_factory=dict)
    checks: dict[str, set[int]] = field(default_factory=dict)
    removed: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def changed(self, instance: str) -> set[int]:
        """The indexes of all changes of an instance, its removals apart."""
        with self._lock:
            return self.services.get(instance, set()) | self.checks.get(instance, set())

    def seen(self, before: Rows, now: Rows, since: int) -> None:
        """Take in two reads of one node, and the index at which the observer began."""
        with self._lock:
            for (instance, check), row in now.items():
                indexes = {row["CreateIndex"], row["ModifyIndex"]}
                rows = self.checks if check else self.services
                rows.setdefault(instance, set()).update(index for index in indexes if index > since)
            for instance, check in before.keys() - now.keys():
                if not check:
                    self.removed[instance] += 1
                elif (instance, "") in now:
                    self.dropped[instance] += 1


def _read(cluster: Cluster, node: str, index: int) -> tuple[Rows, int]:
    """All that a node holds, once something of it is newer than an index."""
    where = urllib.parse.urlsplit(cluster.consul.http_addr)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
    try:
        connection.request("GET", f"/v1/internal/ui/node/{node}?index={index}&wait=1s")
        answer = connection.getresponse()
        text = answer.read()
        told = int(answer.headers.get("X-Consul-Index") or 0)
    finally:
        connection.close()
    if answer.status == 404:  # there is no such node yet, which is not waited for
        time.sleep(0.02)
        return {}, 0
    body = json.loads(text)
    rows = {(row["ID"], ""): row for row in body.get("Services") or ()}
    rows |= {(row["ServiceID"], row["CheckID"]): row for row in body.get("Checks") or () if row["ServiceID"]}
    return rows, told


@contextmanager
def observing(cluster: Cluster, nodes: Sequence[str]) -> Iterator[Observer]:
    """An observer of these Consul nodes, which has begun to see."""
    observer, over = Observer(), threading.Event()

    def watch(node: str, rows: Rows, index: int) -> None:
        since = index
        while not over.is_set():
            before, (rows, index) = rows, _read(cluster, node, index)
            observer.seen(before, rows, since)

    beginnings = [(node, *_read(cluster, node, 0)) for node in nodes]
    threads = [threading.Thread(target=watch, args=beginning, daemon=True) for beginning in beginnings]
    for thread in threads:
        thread.start()
    try:
        yield observer
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
