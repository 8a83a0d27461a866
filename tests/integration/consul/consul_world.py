"""What the tests of the agent registry share: instances to write, a registry that runs, and Consul asked directly.

Whether something stands in Consul is asked of Consul over plain HTTP, never of the code under test.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from consul_registrar.changes import Cause, Change, Deregister, Register
from consul_registrar.consul import AgentRegistry, AgentSettings
from consul_registrar.model import (
    MANAGED_BY,
    META_CLUSTER,
    META_CONNECTION,
    META_HASH,
    META_MANAGED_BY,
    META_NAMESPACE,
    META_POD_UID,
    META_REGISTRATION,
    Check,
    Health,
    Instance,
    Key,
    Node,
    RegistrationKey,
)
from consul_registrar.probes import Readiness, TcpProbe, Timing
from devcluster.consul import Consul, ConsulError, Member

CLUSTER = "tests"
CONNECTION = "default"
WEB = RegistrationKey("shop", "web")
PATIENCE = 180.0
"""Seconds, as in `operator_world.py`."""


async def eventually(look: Callable[[], Any], within: float = PATIENCE) -> Any:
    """What `look` returns once it is true; looks that fail on the way count as not yet."""
    deadline = time.monotonic() + within
    while True:
        seen = None
        with suppress(ConsulError, OSError):
            seen = await asyncio.to_thread(look)
        if seen:
            return seen
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {seen!r}"
        await asyncio.sleep(0.05)


def meta(subject: str, **more: str) -> tuple[tuple[str, str], ...]:
    own = {
        META_MANAGED_BY: MANAGED_BY,
        META_CLUSTER: CLUSTER,
        META_CONNECTION: CONNECTION,
        META_NAMESPACE: WEB.namespace,
        META_REGISTRATION: WEB.name,
        META_POD_UID: subject,
        META_HASH: "1-abc",
    }
    return tuple(sorted((own | {name.replace("_", "-"): value for name, value in more.items()}).items()))


def readiness(instance_id: str, status: Health = Health.PASSING) -> Check:
    return Check(f"{instance_id}:readiness", "readiness", Readiness(), status)


def tcp(instance_id: str, port: int = 9, **timing: Any) -> Check:
    probe = TcpProbe("127.0.0.1", port, Timing(interval=1000, timeout=500, **timing))
    return Check(f"{instance_id}:port:tcp", "port", probe)


def web(node: str, subject: str, **changes: Any) -> Instance:
    """An instance of the registration shop/web with a readiness check."""
    instance_id = f"shop-web-{subject}"
    base = Instance(
        node=node,
        id=instance_id,
        service="web",
        address="127.0.0.1",
        port=9,
        tags=("blue", "v1"),
        meta=meta(subject),
        checks=(readiness(instance_id),),
    )
    return replace(base, **changes)


def register(instance: Instance) -> Register:
    return Register(instance, instance.checks, Cause.DESIRED)


def deregister(instance: Instance) -> Deregister:
    return Deregister(instance, Cause.GONE)


@dataclass
class Running:
    """A registry that runs, and what it told."""

    registry: AgentRegistry
    changed: list[Key] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)

    async def is_ready(self) -> None:
        await eventually(lambda: self.registry.status().ready)

    async def looks(self, code: str) -> str:
        """Wait for the status to have this reason; returns the message."""
        await eventually(lambda: self.registry.status().reason.code == code)
        return self.registry.status().reason.message

    async def write(self, *changes: Change) -> None:
        """Apply changes that must be acknowledged."""
        outcomes = await self.registry.apply(changes[0].node, changes)
        assert list(outcomes) == [None] * len(changes)

    async def told(self, subject: str) -> None:
        """Wait until the subject's key was reported."""
        await eventually(lambda: Key(WEB, subject) in self.changed)

    def actual(self, subject: str) -> Instance | None:
        return next(iter(self.registry.instances(WEB, subject)), None)


@asynccontextmanager
async def running(settings: AgentSettings, nodes: dict[str, Any] | None = None) -> AsyncIterator[Running]:
    """A registry for the length of a block; no task of it is left behind."""
    changed: list[Key] = []
    agents: list[str] = []

    def on_change(keys: AbstractSet[Key], *, routine: bool = False) -> None:
        changed.extend(keys)

    registry = AgentRegistry(CONNECTION, CLUSTER, settings, on_change, on_agent=agents.append)
    if nodes is not None:
        registry.set_nodes(nodes)
    task = asyncio.create_task(registry.run())
    try:
        yield Running(registry, changed, agents)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert not [task for task in asyncio.all_tasks() if "AgentSession" in repr(task.get_coro())]


def to(member: Member, **more: Any) -> AgentSettings:
    """Settings for one fixed agent."""
    return AgentSettings(host=member.address, port=int(member.http_addr.rpartition(":")[2]), **more)


@dataclass(frozen=True)
class Truth:
    """Consul, asked directly."""

    consul: Consul
    node: str

    @property
    def agent(self) -> Member:
        return self.consul.agents[self.node]

    def at_agent(self, instance: Instance | str) -> dict[str, Any] | None:
        """A service in the agent's own list."""
        found: dict[str, Any] = self.agent.request("GET", "/v1/agent/services")
        return found.get(instance if isinstance(instance, str) else instance.id)

    def agent_checks(self, instance: Instance) -> dict[str, Any]:
        found = self.agent.request("GET", "/v1/agent/checks")
        return {check_id: row for check_id, row in found.items() if row["ServiceID"] == instance.id}

    def in_catalog(self, instance: Instance | str) -> dict[str, Any] | None:
        """A service in the catalog, as the server has it."""
        wanted = instance if isinstance(instance, str) else instance.id
        found = self.consul.server.request("GET", f"/v1/catalog/node-services/{self.node}") or {}
        return next((row for row in found.get("Services") or () if row["ID"] == wanted), None)

    def catalog_checks(self, instance: Instance) -> dict[str, Any]:
        found = self.consul.server.request("GET", f"/v1/health/node/{self.node}")
        return {row["CheckID"]: row for row in found if row["ServiceID"] == instance.id}

    def status(self, check_id: str) -> str:
        """A check's status in the catalog, "" where there is no such check."""
        found = self.consul.server.request("GET", f"/v1/health/node/{self.node}")
        return next((row["Status"] for row in found if row["CheckID"] == check_id), "")

    def wipe(self) -> None:
        """Remove every service from the agent."""
        for service_id in self.agent.request("GET", "/v1/agent/services"):
            self.agent.request("PUT", f"/v1/agent/service/deregister/{service_id}")


def node(name: str, address: str, kind: str = "InternalIP") -> Node:
    """A Kubernetes node with one address, or with none."""
    return Node(uid=name, name=name, version=1, labels={}, addresses={kind: address} if address else {})
