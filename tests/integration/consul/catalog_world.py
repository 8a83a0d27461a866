"""What the tests of the catalog registry share: a registry that runs, and the catalog asked directly.

Whether something stands in Consul is asked of Consul over plain HTTP, never of the code under test.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from consul_faults import Server, passed_on, serving
from consul_world import CLUSTER, CONNECTION, WEB, eventually, web

from consul_registrar.changes import Change
from consul_registrar.consul.catalog import CatalogRegistry, CatalogSettings
from consul_registrar.desired import Present
from consul_registrar.model import Instance, Key
from consul_registrar.plan import plan
from devcluster.consul import Consul

NODES = 3


@dataclass
class Running:
    """A registry that runs, and what it told."""

    registry: CatalogRegistry
    changed: list[Key] = field(default_factory=list)
    states: list[str] = field(default_factory=list)

    def web(self, subject: str, **changes: Any) -> Instance:
        """An instance of shop/web, on the node that the registry chooses."""
        node = self.registry.place(None, f"{WEB}/{subject}", self.registry.instances(WEB, subject))
        assert isinstance(node, str), node
        return web(node, subject, **changes)

    async def is_ready(self) -> None:
        await eventually(lambda: self.registry.status().ready)

    async def looks(self, code: str) -> str:
        """Wait for the status to have this reason; returns the message."""
        await eventually(lambda: self.registry.status().reason.code == code)
        return self.registry.status().reason.message

    async def write(self, *changes: Change) -> None:
        """Apply changes that must be acknowledged."""
        outcomes = await self.registry.apply("", changes)
        assert [o and o.reason for o in outcomes] == [None] * len(changes)

    async def told(self, subject: str) -> None:
        await eventually(lambda: Key(WEB, subject) in self.changed)

    def actual(self, subject: str) -> Instance | None:
        return next(iter(self.registry.instances(WEB, subject)), None)

    def planned(self, wanted: Instance) -> Sequence[Change]:
        """What a plan does about the difference."""
        return plan(Present(wanted), self.registry.instances(WEB, wanted.subject))

    async def converges(self, wanted: Instance) -> None:
        """Plan and write, as the operator does, until the plan is empty; refusals are tried again."""
        for _ in range(200):
            changes = self.planned(wanted)
            if not changes:
                return
            await self.registry.apply("", changes[:1])
            await asyncio.sleep(0.05)
        raise AssertionError(f"still to do: {self.planned(wanted)}")


@asynccontextmanager
async def running(
    settings: CatalogSettings, *, cluster: str = CLUSTER, name: str = CONNECTION, **more: Any
) -> AsyncIterator[Running]:
    """A registry for the length of a block."""
    changed: list[Key] = []
    states: list[str] = []

    def on_change(keys: AbstractSet[Key], *, routine: bool = False) -> None:
        changed.extend(keys)

    registry = CatalogRegistry(name, cluster, settings, on_change, on_agent=states.append, **more)
    task = asyncio.create_task(registry.run())
    try:
        yield Running(registry, changed, states)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def to(url: str, **more: Any) -> CatalogSettings:
    """Settings for servers at one address."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    settings = CatalogSettings(((parts.hostname, parts.port, "http"),), virtual_nodes=NODES)
    return replace(settings, **more)


@dataclass(frozen=True)
class Catalog:
    """The catalog, asked directly."""

    consul: Consul

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return self.consul.server.request(method, path, body)

    def service(self, instance: Instance) -> dict[str, Any] | None:
        return self.services(instance.node).get(instance.id)

    def services(self, node: str) -> dict[str, Any]:
        """What stands on a node, by ID."""
        found = self.ask("GET", f"/v1/catalog/node-services/{node}") or {}
        return {row["ID"]: row for row in found.get("Services") or ()}

    def checks(self, instance: Instance) -> dict[str, Any]:
        found = self.ask("GET", f"/v1/health/node/{instance.node}")
        return {row["CheckID"]: row for row in found if row["ServiceID"] == instance.id}

    def status(self, instance: Instance) -> str:
        """The status of its one check."""
        (row,) = self.checks(instance).values()
        return str(row["Status"])

    def node(self, name: str) -> dict[str, Any] | None:
        found = self.ask("GET", f"/v1/catalog/node/{name}")
        return found and found["Node"]

    def nodes(self) -> list[str]:
        """All nodes that nobody runs on."""
        rows = self.ask("GET", "/v1/catalog/nodes")
        return sorted(row["Node"] for row in rows if not row["ID"])

    def transact(self, *operations: dict[str, Any]) -> None:
        self.ask("PUT", "/v1/txn", list(operations))

    def remove(self, node: str, **what: str) -> None:
        self.ask("PUT", "/v1/catalog/deregister", {"Node": node, **what})

    def register(self, node: str, service: dict[str, Any], **more: Any) -> None:
        """Write a service the way that somebody else would."""
        self.ask(
            "PUT",
            "/v1/catalog/register",
            {"Node": node, "Address": "127.0.0.1", "SkipNodeUpdate": True, "Service": service, **more},
        )

    def wipe(self) -> None:
        for node in self.nodes():
            self.remove(node)


@asynccontextmanager
async def recorded(consul: Consul, fault: Any = None) -> AsyncIterator[Server]:
    """A way to Consul that keeps what is asked; `fault` may answer instead, or returns None."""

    async def handler(request: Any) -> Any:
        answer = await fault(request) if fault else None
        return answer or await passed_on(request, consul.http_addr)

    async with serving(handler) as server:
        yield server


def transactions(server: Server) -> list[list[dict[str, Any]]]:
    """The transactions that went through."""
    return [json.loads(body) for what, _, body in server.requests if what.startswith("PUT /v1/txn")]
