"""When things became true, seen from outside: Pods as the API server tells of them, instances as Consul answers.

Times are of one clock, this process's: a figure is the time from the arrival of the Pod's event here to the arrival of
the answer to a blocking query that shows Consul's committed write.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from bench.clients import Api, Consul, Refused


class _Meta(msgspec.Struct):
    name: str = ""
    resourceVersion: str = ""  # noqa: N815
    deletionTimestamp: str | None = None  # noqa: N815 - the wire's name


class _Status(msgspec.Struct):
    phase: str = ""


class _Pod(msgspec.Struct):
    metadata: _Meta
    status: _Status = msgspec.field(default_factory=_Status)


class _Event(msgspec.Struct):
    type: str
    object: _Pod


_event = msgspec.json.Decoder(_Event)


@dataclass(slots=True)
class Times:
    """When each Pod's event arrived, and when Consul showed its instance or showed it no more; by the Pod's name."""

    running: dict[str, float] = field(default_factory=dict)
    terminating: dict[str, float] = field(default_factory=dict)
    visible: dict[str, float] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)

    def arrivals(self, names: Sequence[str]) -> list[float]:
        """Seconds from running to visible, of those that are."""
        return _between(self.running, self.visible, names)

    def departures(self, names: Sequence[str]) -> list[float]:
        """Seconds from terminating to gone, of those that are."""
        return _between(self.terminating, self.gone, names)


def _between(first: Mapping[str, float], then: Mapping[str, float], names: Sequence[str]) -> list[float]:
    return [then[name] - first[name] for name in names if name in first and name in then]


@asynccontextmanager
async def watching(api: Api, consul: Consul, namespace: str, apps: Sequence[str]) -> AsyncIterator[Times]:
    """Watch the Pods of these apps, and the services of the same names."""
    times = Times()
    began = [asyncio.Event() for _ in range(len(apps) + 1)]
    tasks = [asyncio.create_task(_pods(api, namespace, apps, times, began[0]))]
    tasks += [
        asyncio.create_task(_service(consul, app, times, event)) for app, event in zip(apps, began[1:], strict=True)
    ]
    try:
        await asyncio.gather(*(event.wait() for event in began))
        yield times
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


async def _pods(api: Api, namespace: str, apps: Sequence[str], times: Times, began: asyncio.Event) -> None:
    """Watch on where a watch has ended: the API server ends those that are slow to read."""
    path, selector, version = f"/api/v1/namespaces/{namespace}/pods", f"app in ({','.join(apps)})", ""
    while True:
        async for line in api.watch(path, selector, version):
            now = time.monotonic()
            began.set()
            if line.startswith(b'{"type":"ERROR"'):
                raise Refused(f"the watch of Pods ended: {line.decode()[:300]}")
            pod = _event.decode(line).object
            version = str(max(int(version or 0), int(pod.metadata.resourceVersion)))
            if pod.metadata.deletionTimestamp:
                times.terminating.setdefault(pod.metadata.name, now)
            elif pod.status.phase == "Running":
                times.running.setdefault(pod.metadata.name, now)


async def _service(consul: Consul, name: str, times: Times, began: asyncio.Event) -> None:
    known: set[str] = set()
    index = 0
    while True:
        rows, answered = await consul.block(f"/v1/catalog/service/{name}", index)
        now = time.monotonic()
        index = answered if answered >= index else 0
        found = {row["ServiceMeta"].get("k8s-pod", "") for row in rows}
        for pod in found - known:
            times.visible.setdefault(pod, now)
        for pod in known - found:
            times.gone.setdefault(pod, now)
        known = found
        began.set()
