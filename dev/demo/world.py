"""What the demo sees: Consul by its HTTP API, and the moment at which a Pod begins to terminate, by the API server.

Plain HTTP, so that every answer is one that anybody gets with curl.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

import yaml

PATIENCE = 60.0
"""Seconds until a step counts as failed; generous, as machines that build at the same time are slow."""

T = TypeVar("T")


class NotTrueError(Exception):
    """Something that the demo wanted to show is not true."""


def eventually(claim: str, look: Callable[[], T | None], within: float = PATIENCE) -> T:
    """What `look` returns once that is not None; raises NotTrueError with the claim."""
    deadline = time.monotonic() + within
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise NotTrueError(f"{claim} (waited {within:.0f} s)")
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Instance:
    """One line of /v1/health/service/<name>."""

    node: str
    id: str
    name: str
    address: str
    port: int
    tags: tuple[str, ...]
    meta: dict[str, str]
    checks: dict[str, str]

    @property
    def passing(self) -> bool:
        """Whether all checks are."""
        return all(status == "passing" for status in self.checks.values())


class Consul:
    """Consul's HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, within: float = 10.0) -> tuple[Any, int]:
        """The decoded answer and Consul's index of it."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=within) as answer:
            return json.load(answer), int(answer.headers.get("X-Consul-Index") or 0)

    def instances(self, service: str) -> list[Instance]:
        """All instances of a service, healthy or not, sorted by their Pods."""
        return self.instances_after(service, 0)[0]

    def instances_after(self, service: str, index: int) -> tuple[list[Instance], int]:
        """A blocking query: returns as soon as something is newer than the index, or after a while."""
        wait = {"index": index, "wait": "10s"} if index else {}
        rows, now = self.get(f"/v1/health/service/{service}?{urlencode(wait)}", within=30.0)
        return sorted(map(_instance, rows), key=lambda i: i.name), now


def _instance(row: dict[str, Any]) -> Instance:
    service = row["Service"]
    meta = service["Meta"] or {}
    return Instance(
        node=row["Node"]["Node"],
        id=service["ID"],
        name=meta.get("k8s-pod") or meta.get("k8s-endpoint") or service["ID"],
        address=service["Address"],
        port=service["Port"],
        tags=tuple(service["Tags"] or ()),
        meta=meta,
        checks={check["Name"]: check["Status"] for check in row["Checks"] if check["ServiceID"]},
    )


class Absence:
    """Notes the moment at which a Pod is no longer among the instances of a service, by blocking queries."""

    def __init__(self, consul: Consul, service: str, pod: str) -> None:
        self._consul = consul
        self._service = service
        self._pod = pod
        self._since: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    @property
    def since(self) -> float | None:
        """When it was first seen to be absent, in `time.monotonic` seconds."""
        return self._since

    def _watch(self) -> None:
        index = 0
        while not self._over.is_set() and self._since is None:
            instances, index = self._consul.instances_after(self._service, index)
            if all(instance.name != self._pod for instance in instances):
                self._since = time.monotonic()


class Termination:
    """Notes the moment at which the API server tells that a Pod terminates, by a watch."""

    def __init__(self, kubeconfig: Path, namespace: str, pod: str) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        query = urlencode({"watch": "1", "fieldSelector": f"metadata.name={pod}", "timeoutSeconds": "60"})
        self._request = urllib.request.Request(
            f"{cluster['server']}/api/v1/namespaces/{namespace}/pods?{query}",
            headers={"Authorization": f"Bearer {config['users'][0]['user']['token']}"},
        )
        self._context = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self._since: float | None = None
        self._watches = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, daemon=True).start()
        if not self._watches.wait(PATIENCE):
            raise NotTrueError("the API server lets Pods be watched")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @property
    def since(self) -> float | None:
        """When it was told, in `time.monotonic` seconds."""
        return self._since

    def _watch(self) -> None:
        with urllib.request.urlopen(self._request, context=self._context, timeout=70) as events:
            for line in events:
                self._watches.set()  # the first event is the Pod as it is
                event = json.loads(line)
                if event["type"] == "DELETED" or "deletionTimestamp" in event["object"].get("metadata", {}):
                    self._since = time.monotonic()
                    return
