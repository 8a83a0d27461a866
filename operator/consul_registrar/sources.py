"""What is listed and watched in the cluster, and whether it can be relied upon.

Decides which collections there are, one of a kind for each namespace of the scope, and which of them must be complete
before anything is decided. What becomes of an object is its store's matter (`arrivals.py`), how a collection is listed
and watched `kube/`'s.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from consul_registrar import health, kube, metrics
from consul_registrar.annotated import Workload
from consul_registrar.model import Namespace, Node, Pod
from consul_registrar.services import EndpointSlice, KubernetesService
from consul_registrar.settings import Settings

_PODS = "pods"


class Source(health.Watched, Protocol):
    """Something that is listed and watched."""

    def doubt(self) -> None: ...
    async def run(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Stores:
    """Who takes what arrives. `workloads`: None where nobody is to look at workloads."""

    pods: kube.Store[Pod]
    namespaces: kube.Store[Namespace]
    nodes: kube.Store[Node]
    services: kube.Store[KubernetesService]
    slices: kube.Store[EndpointSlice]
    registrations: kube.Store[kube.CustomObject]
    connections: kube.Store[kube.CustomObject]
    workloads: kube.Store[Workload] | None = None


class Sources:
    """Everything that is watched."""

    def __init__(self, client: kube.KubeClient, login: kube.Login, settings: Settings, stores: Stores) -> None:
        self._needed = _needed(client, login, settings, stores)
        self._beside: dict[str, Source] = {}
        if stores.workloads is not None:
            found = kube.watch_workloads(client, stores.workloads, settings.namespaces, settings.resync)
            self._beside = _numbered("workloads", found)

    def start(self, group: asyncio.TaskGroup) -> None:
        """List and watch everything, for ever."""
        for source in (*self._needed.values(), *self._beside.values()):
            group.create_task(source.run())

    async def filled(self) -> None:
        """Wait until all was listed completely, but the workloads: nothing is decided by their absence."""
        for source in self._needed.values():
            await source.synced.wait()

    async def filled_but_for_pods(self) -> None:
        """Wait until all else was: Pods are the many, and which Consuls there are, and where, is known without them."""
        for name, source in self._needed.items():
            if not name.startswith(_PODS):
                await source.synced.wait()

    def doubt(self) -> None:
        """What was delivered is contradicted by a fresh read: read it all again."""
        for source in self._needed.values():
            source.doubt()

    def unready(self) -> str:
        """Why this process can't be trusted to know the cluster, "" where it can."""
        return health.unready(self._needed)

    def measure(self) -> None:
        """Bring the gauges of their staleness up to date."""
        for name, source in {**self._needed, **self._beside}.items():
            metrics.staleness.labels(name).set(source.staleness())


def _needed(client: kube.KubeClient, login: kube.Login, settings: Settings, stores: Stores) -> dict[str, Source]:
    scope, resync = settings.namespaces, settings.resync
    services, slices = kube.watch_services(client, stores.services, stores.slices, scope, resync)
    return {
        **_numbered(_PODS, _pods(client, settings, stores.pods)),
        **_numbered("namespaces", _namespaces(client, settings, stores.namespaces)),
        **_numbered("services", services),
        **_numbered("endpointslices", slices),
        "nodes": kube.Reflector(client, "/api/v1/nodes", kube.NODES, stores.nodes, resync=resync),
        "customresources": kube.CustomResources(
            client,
            login,
            registrations=stores.registrations,
            connections=stores.connections,
            namespaces=scope,
            resync=resync,
        ),
    }


def _pods(client: kube.KubeClient, settings: Settings, store: kube.Store[Pod]) -> list[kube.Reflector[Pod]]:
    paths = [f"/api/v1/namespaces/{name}/pods" for name in settings.namespaces] or ["/api/v1/pods"]
    selector, resync = settings.pod_selector, settings.resync
    return [kube.Reflector(client, path, kube.PODS, store, selector=selector, resync=resync) for path in paths]


def _namespaces(
    client: kube.KubeClient, settings: Settings, store: kube.Store[Namespace]
) -> list[kube.Reflector[Namespace]]:
    every = "/api/v1/namespaces"
    paths = [f"{every}?fieldSelector=metadata.name%3D{name}" for name in settings.namespaces] or [every]
    return [kube.Reflector(client, path, kube.NAMESPACES, store, resync=settings.resync) for path in paths]


def _numbered(name: str, sources: Sequence[Source]) -> dict[str, Source]:
    """Several of a kind, one for each namespace, by names of their own."""
    return {f"{name} {number}" if number else name: source for number, source in enumerate(sources)}
