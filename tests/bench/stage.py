"""The world that is measured: an API server with thousands of Pods, Consul, and the operator beside them.

Decides how it is brought into a state; each step names the state that it needs and finds much of it there already.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import click

from bench import dataset
from bench.clients import MERGE, Api, Consul
from bench.dataset import Etcd, Place
from bench.process import CLUSTER_NAME, REPOSITORY, Operator, cpu_of
from devcluster import Cluster, Options
from devcluster.build import ensure_tools
from devcluster.tools import CONSUL, ETCD, HYPERKUBE

RESOURCES = f"/apis/{dataset.GROUP}/v1alpha1"
NAMESPACES = tuple(f"shop-{number}" for number in range(10))
APPS = tuple(f"app-{number:03d}" for number in range(100))
"""The registrations that the mass of Pods is spread over; and one Pod more of each that isn't running yet."""
BUSY = tuple(f"busy-{number:02d}" for number in range(10))
"""The registrations whose Pods come and go: they are few in each, so that watching them costs Consul little."""
LASTING = 5
"""Pods of each of those that stay."""
PATIENCE = 90.0
CATALOG = "catalog"
AGENT = "agent"


class TooSlow(Exception):
    """Something did not become true in time."""


async def until(look: Callable[[], Awaitable[bool]], what: str, within: float = PATIENCE, every: float = 0.02) -> float:
    """Wait until it is true; the time at which it was."""
    deadline = time.monotonic() + within
    while not await look():
        if time.monotonic() > deadline:
            raise TooSlow(f"{what}: not within {within:.0f} s")
        await asyncio.sleep(every)
    return time.monotonic()


@dataclass(slots=True)
class Stage:
    """One cluster. `standing`: the Pods that run for good, `spare`: those that wait to be run."""

    cluster: Cluster
    folder: Path
    session: aiohttp.ClientSession
    api: Api
    consul: Consul
    etcd: Etcd
    connection: str
    nodes: tuple[str, ...]
    standing: list[Place] = field(default_factory=list)
    spare: dict[str, list[Place]] = field(default_factory=dict)
    operator: Operator | None = None
    foreign: int = 0
    _numbers: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random(7))

    # the cluster

    async def furnish(self, mode: str) -> None:
        """Everything but Pods: kinds, namespaces, the connection, registrations."""
        await asyncio.to_thread(self.cluster.kubectl, "apply", "-f", str(REPOSITORY / "crds"))
        await asyncio.to_thread(self.cluster.kubectl, "wait", "--for=condition=Established", "crd", "--all")
        for name in NAMESPACES:
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            await self.api.ask("POST", "/api/v1/namespaces", namespace)
        kind = {"apiVersion": f"{dataset.GROUP}/v1alpha1", "kind": "ConsulConnection"}
        spec: dict[str, Any] = {"addresses": [self.cluster.consul.http_addr]} if mode == CATALOG else {"nodeAgents": {}}
        body = kind | {"metadata": {"name": self.connection}, "spec": {"mode": mode.capitalize(), **spec}}
        await self.api.ask("POST", f"{RESOURCES}/consulconnections", body)
        for app in (*APPS, *BUSY):
            await self._register(app)
        self.foreign = await self.consul.instances()

    async def _register(self, app: str) -> None:
        namespace = namespace_of(app)
        body = dataset.registration(namespace, app, self.connection)
        await self.api.ask("POST", f"{RESOURCES}/namespaces/{namespace}/serviceregistrations", body)

    async def size(self, pods: int) -> None:
        """So many running Pods, and a spare one in each registration of the mass."""
        if not self.standing:
            await self._add([app for app in BUSY for _ in range(LASTING)])
            await self.more_spare(APPS)
        lacking = pods - len(self.standing)
        await self._add([APPS[number % len(APPS)] for number in range(max(lacking, 0))])
        if lacking < 0:
            surplus = [place for place in self.standing if place.app in APPS][lacking:]
            await self.etcd.remove(place.key for place in surplus)
            left = set(surplus)
            self.standing = [place for place in self.standing if place not in left]

    async def _add(self, apps: Sequence[str]) -> None:
        places = [self._place(app) for app in apps]
        await self.etcd.put((place.key, dataset.pod(place, running=True)) for place in places)
        self.standing += places

    async def more_spare(self, apps: Iterable[str]) -> None:
        places = [self._place(app) for app in apps]
        await self.etcd.put((place.key, dataset.pod(place, running=False)) for place in places)
        for place in places:
            self.spare.setdefault(place.app, []).append(place)

    def _place(self, app: str) -> Place:
        self._numbers += 1
        return Place(namespace_of(app), app, self._numbers, self.nodes[self._numbers % len(self.nodes)])

    async def runs(self, place: Place) -> None:
        """A spare Pod becomes running and ready."""
        await self.api.ask("PATCH", f"{place.path}/status", {"status": dataset.running_status(place)}, MERGE)

    async def terminates(self, place: Place) -> None:
        """A Pod is deleted; it stays there, terminating."""
        await self.api.ask("DELETE", place.path, {"gracePeriodSeconds": 30})

    async def forget(self, places: Iterable[Place]) -> None:
        """Pods are no more."""
        await self.etcd.remove(place.key for place in places)

    # the operator

    def another(self, name: str, source: Path = REPOSITORY) -> Operator:
        """One more operator, not started."""
        return Operator(self.cluster, self.folder, name, source)

    async def led(self, within: float = PATIENCE) -> Operator:
        """An operator that runs and has nothing left to do."""
        if self.operator is None or not self.operator.process.is_alive():
            self.operator = self.another("a")
            await asyncio.to_thread(self.operator.process.start)
        await self.registered(within=within)
        return self.operator

    async def introduced(self) -> None:
        """An operator has run here before: the custom resources have its finalizers, and its statuses."""
        await self.led()

        async def said() -> bool:
            found = await self.api.ask("GET", f"{RESOURCES}/serviceregistrations")
            return all(each["status"].get("observedGeneration", -1) > 0 for each in found["items"])

        await until(said, "the operator's own status of each registration", every=0.2)

    async def start(self, operator: Operator) -> float:
        """Start it as the one that leads; the time at which it was started."""
        self.operator = operator
        began = time.monotonic()
        await asyncio.to_thread(operator.process.start, wait=False)
        return began

    async def stop(self) -> None:
        """No operator runs."""
        if self.operator is not None:
            await asyncio.to_thread(self.operator.process.stop)
            self.operator = None

    async def registered(self, more: int = 0, within: float = PATIENCE) -> float:
        """Wait until as many instances stand in Consul as Pods run, and `more`; the time at which they did."""
        wanted = self.foreign + len(self.standing) + more
        found = 0

        async def there() -> bool:
            nonlocal found
            found = await self.consul.instances()
            return found == wanted

        try:
            return await until(there, f"{wanted} instances in Consul", within, every=0.05)
        except TooSlow as error:
            raise TooSlow(f"{error}, but {found}") from error

    async def led_by_way_of(self, url: str) -> None:
        """Let the connection use another address of Consul's, and wait until it does."""
        path = f"{RESOURCES}/consulconnections/{self.connection}"
        await self.api.ask("PATCH", path, {"spec": {"addresses": [url]}}, MERGE)
        await asyncio.sleep(1.0)

        async def ready() -> bool:
            found = await self.api.ask("GET", path)
            conditions = found.get("status", {}).get("conditions", ())
            return any(
                each["type"] == "Ready"
                and each["status"] == "True"
                and each.get("observedGeneration") == found["metadata"]["generation"]
                for each in conditions
            )

        await until(ready, f"the connection over {url}", every=0.1)
        await asyncio.sleep(3.0)

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU that everybody has used."""
        plane = self.cluster.control_plane
        processes = {
            "Consul": self.cluster.consul.servers[0].process,
            "API server": plane.apiserver,
            "etcd": plane.etcd,
        }
        if self.operator is not None:
            processes["operator"] = self.operator.process
        return {name: cpu_of(process) for name, process in processes.items()}

    # Consul

    async def consul_nodes(self) -> list[str]:
        """The Consul nodes that the operator registers on."""
        rows = await self.consul.get("/v1/catalog/nodes")
        virtual = f"{CLUSTER_NAME}-{self.connection}-"
        return [row["Node"] for row in rows if row["Node"].startswith(virtual) or row["Node"] in self.nodes]

    async def held(self) -> dict[tuple[str, str], dict[str, Any]]:
        """All that stands there."""
        return await self.consul.on_nodes(await self.consul_nodes())

    async def rouse(self) -> None:
        """Let the blocking queries of operators that are no more end: Consul counts their connections until then.

        It notices that a client is gone only when it answers, and takes 200 connections of one address.
        """
        for node in await self.consul_nodes():
            row = {"Node": node, "Address": "127.0.0.1", "SkipNodeUpdate": True}
            rouser = {"ID": "rouser", "Service": "rouser"}
            check = {"Node": node, "CheckID": "rouser", "Name": "rouser", "ServiceID": "rouser", "Status": "passing"}
            await self.consul.put("/v1/catalog/register", row | {"Service": rouser, "Check": check})
            await self.consul.put("/v1/catalog/deregister", {"Node": node, "ServiceID": "rouser"})

    async def wipe(self) -> None:
        """Nothing of ours stands in the catalog; for mode Catalog alone."""
        for node in await self.consul_nodes():
            await self.consul.put("/v1/catalog/deregister", {"Node": node})


def namespace_of(app: str) -> str:
    return NAMESPACES[int(app.rpartition("-")[2]) % len(NAMESPACES)] if app in APPS else NAMESPACES[0]


@asynccontextmanager
async def staged(mode: str, folder: Path, agents: int) -> AsyncIterator[Stage]:
    """A cluster with nothing in it that runs by itself: no controller, no scheduler, no kubelets."""
    for name in [name for name in os.environ if name.startswith("CONSUL_")]:
        del os.environ[name]
    ensure_tools(lambda text: click.echo(text, err=True), (ETCD, HYPERKUBE, CONSUL))
    cluster = Cluster.lay_out(Options(nodes=max(agents, 1), agents=agents), folder)
    try:
        await asyncio.to_thread(_start, cluster)
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            stage = _stage(cluster, folder, session, mode)
            await _make_nodes(stage, agents)
            await stage.furnish(mode)
            yield stage
            await stage.stop()
    finally:
        cluster.stop()


def _stage(cluster: Cluster, folder: Path, session: aiohttp.ClientSession, mode: str) -> Stage:
    flags = dict(each.split("=", 1) for each in cluster.control_plane.etcd.program.command if "=" in each)
    return Stage(
        cluster=cluster,
        folder=folder,
        session=session,
        api=Api(cluster.api, session),
        consul=Consul(cluster.consul.http_addr, session),
        etcd=Etcd(flags["--listen-client-urls"], session),
        connection=mode,
        nodes=tuple(cluster.nodes) if mode == AGENT else tuple(f"node-{number}" for number in range(1, 51)),
    )


async def _make_nodes(stage: Stage, agents: int) -> None:
    for name in stage.nodes:
        address = stage.cluster.nodes[name] if agents else "192.0.2.1"
        await stage.api.ask("POST", "/api/v1/nodes", dataset.node(name, address))


def _start(cluster: Cluster) -> None:
    cluster.consul.start()
    cluster.control_plane.etcd.start()
    cluster.control_plane.apiserver.start()
