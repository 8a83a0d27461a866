"""Mode Agent: a client agent on each node."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from bench import measures
from bench.clients import Consul
from bench.figures import Figure, Report, quantile
from bench.loaders import load_agents
from bench.measures import Churn
from bench.stage import BUSY, Stage, until

MODE = "agent"
RATE = 10.0
FILLING = 300.0
"""Seconds that the version before may take to register all: 10 agents take some hundred instances a second."""
Spoil = Callable[[dict[str, Any]], Awaitable[object]]


@dataclass(slots=True)
class Agents:
    """The measurements, in the order in which they disturb each other least. `agent` < `many` Pods."""

    stage: Stage
    report: Report
    sizes: dict[str, int]
    before: str
    mode: ClassVar = MODE
    steps: ClassVar = ("cold", "churn", "drift", "leaders", "upgrade", "restart")
    at_length: ClassVar[tuple[str, ...]] = ()

    async def _with(self, size: str) -> None:
        await self.stage.size(self.sizes[size])
        await self.stage.led()

    @property
    def agents(self) -> dict[str, Consul]:
        members = self.stage.cluster.consul.agents
        return {node: Consul(member.http_addr, self.stage.session) for node, member in members.items()}

    async def cold(self) -> None:
        """The operator first; then the bare loader registers the same with the same agents, emptied."""
        await self.stage.introduced()
        await self.stage.stop()
        await self.stage.size(self.sizes["agent"])
        began = await self.stage.start(self.stage.another("a"))
        took = await self.stage.registered() - began
        await asyncio.sleep(2)
        rows = await self.stage.held()
        ours = {key: row for key, row in rows.items() if row["Meta"].get("managed-by")}
        await self.stage.stop()
        await self._empty(ours)
        bare = await load_agents(self.agents, ours)
        bare += await self._arrived()
        self.report.bare[f"agent {len(ours)}"] = bare
        detail = f"1.3 × {bare:.2f} s of the bare loader; from the start of the process"
        name = f"{self.sizes['agent']} Pods over {len(self.agents)} agents, the same"
        self.report.add(Figure(name, MODE, took, "s", round(1.3 * bare, 2), detail))

    async def _arrived(self) -> float:
        """What agents acknowledge stands in the catalog a little later."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self.stage.registered()
        return loop.time() - began

    async def _empty(self, rows: Any) -> None:
        async def clear(node: str) -> None:
            for at, instance in rows:
                if at == node:
                    await self.agents[node].put(f"/v1/agent/service/deregister/{instance}")

        await asyncio.gather(*(clear(node) for node in self.agents))
        foreign = self.stage.foreign

        async def empty() -> bool:
            return await self.stage.consul.instances() == foreign

        await until(empty, "agents without services")

    async def churn(self) -> None:
        await self._with("agent")
        latencies = await Churn(self.stage, RATE).run(30)
        how = f"{RATE:g} changes/s over {len(self.agents)} agents"
        self.report.add(*latencies.figures(MODE, how, (40.0, 250.0)))

    async def drift(self) -> None:
        await self._with("agent")
        lasting = [place for place in self.stage.standing if place.app in BUSY]
        for what, spoil in self._ways().items():
            times = await measures.spoil_all(self.stage, lasting[:6], [spoil])
            detail = f"of {len(times)}, p50 {quantile(times, 0.5):.2f} s"
            self.report.add(Figure(f"{what} → right again, max", MODE, max(times), "s", 2.0, detail))

    def _ways(self) -> dict[str, Spoil]:
        catalog, agents = self.stage.consul, self.agents

        async def remove_at_agent(row: dict[str, Any]) -> None:
            await agents[_node(row)].put(f"/v1/agent/service/deregister/{row['Service']['ID']}")

        async def remove_from_catalog(row: dict[str, Any]) -> None:
            where = {"Node": _node(row), "ServiceID": row["Service"]["ID"]}
            await catalog.put("/v1/catalog/deregister", where)

        async def remove_check(row: dict[str, Any]) -> None:
            where = {"Node": _node(row), "CheckID": _check(row)["CheckID"]}
            await catalog.put("/v1/catalog/deregister", where)

        async def spoil_at_agent(row: dict[str, Any]) -> None:
            body = {"Status": "critical", "Output": "spoiled"}
            await agents[_node(row)].put(f"/v1/agent/check/update/{_check(row)['CheckID']}", body)

        async def spoil_in_catalog(row: dict[str, Any]) -> None:
            names = ("Node", "CheckID", "Name", "ServiceID", "ServiceName")
            check = {name: _check(row)[name] for name in names} | {"Status": "critical"}
            body = {"Node": _node(row), "Address": row["Node"]["Address"], "SkipNodeUpdate": True, "Check": check}
            await catalog.put("/v1/catalog/register", body)

        return {
            "service removed at the agent": remove_at_agent,
            "service removed from the catalog": remove_from_catalog,
            "check removed from the catalog": remove_check,
            "status spoiled at the agent": spoil_at_agent,
            "status spoiled in the catalog": spoil_in_catalog,
        }

    async def leaders(self) -> None:
        await self._with("agent")
        self.report.add(*await measures.leaders(self.stage, MODE))

    async def upgrade(self) -> None:
        """The version before registers what is lacking."""
        source, commit = await measures.version_before(self.stage, self.before)

        async def as_before() -> None:
            await self.stage.stop()
            await self.stage.size(self.sizes["many"])
            await self.stage.start(self.stage.another("before", source))
            await self.stage.registered(within=FILLING)
            await asyncio.sleep(5)

        self.report.add(*await measures.restarted(self.stage, as_before, f"upgraded from {commit}", MODE))

    async def restart(self) -> None:
        await self.stage.size(self.sizes["many"])

        async def as_now() -> None:
            await self.stage.led(within=FILLING)

        self.report.add(*await measures.restarted(self.stage, as_now, "operator restarted", MODE))


def _node(row: dict[str, Any]) -> str:
    return str(row["Node"]["Node"])


def _check(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in row["Checks"] if each["ServiceID"])
    return found
