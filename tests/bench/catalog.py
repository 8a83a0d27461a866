"""Mode Catalog: one after the other, from few Pods to many."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from bench import measures
from bench.figures import Figure, Report, quantile
from bench.loaders import load_catalog
from bench.measures import Churn
from bench.proxy import Counting
from bench.soak import soak
from bench.stage import BUSY, Stage

MODE = "catalog"
RATE = 50.0


@dataclass(slots=True)
class Catalog:
    """The measurements, in the order in which they disturb each other least. `few` < `some` < `many` < `most` Pods."""

    stage: Stage
    report: Report
    sizes: dict[str, int]
    before: str
    mode: ClassVar = MODE
    steps: ClassVar = (
        "cost_few", "churn_some", "cold", "restart", "idle", "churn_many", "drift", "cost_many", "upgrade", "memory",
        "leaders",
    )  # fmt: skip
    at_length: ClassVar[tuple[str, ...]] = ("soak",)
    _cost_of_few: dict[str, float] | None = None

    async def _with(self, size: str) -> None:
        await self.stage.size(self.sizes[size])
        await self.stage.led()

    # what one change costs

    async def cost_few(self) -> None:
        await self._with("few")
        self._cost_of_few = await self._cost()

    async def cost_many(self) -> None:
        if self._cost_of_few is None:
            await self.cost_few()
        assert self._cost_of_few is not None
        few = self._cost_of_few
        await self._with("many")
        many = await self._cost()
        for what, unit in (("CPU", "ms"), ("requests", ""), ("bytes", "B")):
            detail = f"{few[what]:.4g} → {many[what]:.4g} {unit} at {self.sizes['few']} and {self.sizes['many']}"
            name = f"cost of one changed Pod, {what}: many to few"
            self.report.add(Figure(name, MODE, many[what] / few[what], "times", 1.3, detail))

    async def _cost(self) -> dict[str, float]:
        """Per change, at 20 changes a second, beyond what it costs at rest."""
        operator = await self.stage.led()
        async with Counting(self.stage.cluster.consul.http_addr) as proxy:
            await self.stage.led_by_way_of(proxy.url)
            rest = await _spent(operator, proxy, asyncio.sleep(10))
            churn = Churn(self.stage, 20)
            changes = 0

            async def change() -> None:
                nonlocal changes
                changes = await churn.unwatched(20)
                await asyncio.sleep(2)

            busy = await _spent(operator, proxy, change())
            await churn.leave()
            await self.stage.led_by_way_of(self.stage.cluster.consul.http_addr)
        spent = {what: busy[what] - rest[what] * busy["seconds"] / rest["seconds"] for what in rest}
        return {what: value / changes * (1000 if what == "CPU" else 1) for what, value in spent.items()}

    # latency

    async def churn_some(self) -> None:
        await self._churn("some")

    async def churn_many(self) -> None:
        await self._churn("many")

    async def _churn(self, size: str) -> None:
        await self._with(size)
        latencies = await Churn(self.stage, RATE).run(20)
        how = f"{RATE:g} changes/s at {self.sizes[size]}"
        self.report.add(*latencies.figures(MODE, how, (25.0, 150.0)))

    # from nothing

    async def cold(self) -> None:
        """The operator first; then the bare loader writes the same rows into the same emptiness."""
        await self.stage.introduced()
        await self.stage.size(self.sizes["many"])
        await self.stage.stop()
        await self.stage.wipe()
        await asyncio.sleep(2)
        used = self.stage.cpu()
        began = await self.stage.start(self.stage.another("a"))
        took = await self.stage.registered() - began
        spent = {name: round(cpu - used.get(name, 0.0), 1) for name, cpu in self.stage.cpu().items()}
        await asyncio.sleep(3)
        nodes, rows = await self._nodes(), await self.stage.held()
        self.report.add(self._most_memory())
        await self.stage.stop()
        await self.stage.wipe()
        await asyncio.sleep(2)
        used = self.stage.cpu()
        bare = await load_catalog(self.stage.consul, nodes, rows)
        consul = self.stage.cpu()["Consul"] - used["Consul"]
        self.report.bare[f"catalog {len(rows)}"] = bare
        cpu = ", ".join(f"{name} {seconds}" for name, seconds in spent.items())
        detail = f"1.5 × {bare:.2f} s of the bare loader, and 2 s; CPU s: {cpu}; Consul for the loader {consul:.1f}"
        name = f"{self.sizes['many']} Pods, nothing registered, operator starts: all in Consul"
        self.report.add(Figure(name, MODE, took, "s", round(1.5 * bare + 2, 2), detail))

    def _most_memory(self) -> Figure:
        assert self.stage.operator is not None
        most = self.stage.operator.most_memory()
        return Figure("memory, most ever while all were registered", MODE, most, "MiB", None, "stated only")

    async def _nodes(self) -> dict[str, dict[str, Any]]:
        rows = await self.stage.consul.get("/v1/catalog/nodes")
        names = set(await self.stage.consul_nodes())
        return {row["Node"]: row["Meta"] for row in rows if row["Node"] in names}

    async def restart(self) -> None:
        await self.stage.size(self.sizes["many"])
        self.report.add(*await measures.restarted(self.stage, self.stage.led, "operator restarted", MODE))

    async def upgrade(self) -> None:
        await self.stage.size(self.sizes["many"])
        source, commit = await measures.version_before(self.stage, self.before)

        async def as_before() -> None:
            await self.stage.stop()
            await self.stage.wipe()
            await self.stage.start(self.stage.another("before", source))
            await self.stage.registered()
            await asyncio.sleep(2)

        self.report.add(*await measures.restarted(self.stage, as_before, f"upgraded from {commit}", MODE))

    # at rest

    async def idle(self) -> None:
        await self._with("many")
        operator = await self.stage.led()
        async with Counting(self.stage.cluster.consul.http_addr) as proxy:
            await self.stage.led_by_way_of(proxy.url)
            await asyncio.sleep(5)
            spent = await _spent(operator, proxy, asyncio.sleep(60))
            kinds = dict(proxy.requests)
            await self.stage.led_by_way_of(self.stage.cluster.consul.http_addr)
        size = f"{self.sizes['many']} instances, 60 s, {kinds}"
        self.report.add(
            Figure("idle: writes", MODE, kinds.get("write", 0), "requests", 0, size),
            Figure("idle: CPU", MODE, 100 * spent["CPU"] / spent["seconds"], "% of a core", 1.0, size),
            Figure("idle: requests beside blocking queries", MODE, kinds.get("read", 0) / 60, "1/s", 1.0, size),
        )

    async def memory(self) -> None:
        """Fresh processes that find all registered; and one under which the Pods become more."""
        many = await self._fresh("many")
        await self._with("most")
        await asyncio.sleep(8)
        assert self.stage.operator is not None
        grown = self.stage.operator.memory()
        most = await self._fresh("most")
        count = self.sizes["most"] - self.sizes["many"]
        slope = 1024 * (most - many) / count
        detail = f"{many:.1f} → {most:.1f} MiB over {count} Pods more; {grown:.1f} in the process that saw them come"
        self.report.add(
            Figure(
                f"memory at {self.sizes['many']} instances", MODE, many, "MiB", 130.0, "RSS, registered and at rest"
            ),
            Figure("memory for each further instance", MODE, slope, "KiB", 5.0, detail),
        )
        await self.stage.size(self.sizes["many"])
        await self.stage.registered()

    async def _fresh(self, size: str) -> float:
        await self._with(size)
        await self.stage.stop()
        operator = await self.stage.led()
        await asyncio.sleep(8)
        return operator.memory()

    # behind our back

    async def drift(self) -> None:
        await self._with("many")
        quiet = await measures.spoil_all(self.stage, self._victims(24), self._ways())
        churn = asyncio.create_task(Churn(self.stage, RATE).run(30))
        await asyncio.sleep(2)
        busy = await measures.spoil_all(self.stage, self._victims(24), self._ways())
        await churn
        what, how = (
            "removed or edited behind our back → right again",
            f"of {len(quiet)}, {self.sizes['many']} instances",
        )
        self.report.add(
            Figure(f"{what}, quiet, p50", MODE, quantile(quiet, 0.5), "s", 0.3, how),
            Figure(f"{what}, quiet, max", MODE, max(quiet), "s", 1.0, how),
            Figure(f"{what}, {RATE:g} changes/s, p50", MODE, quantile(busy, 0.5), "s", None, how),
            Figure(f"{what}, {RATE:g} changes/s, max", MODE, max(busy), "s", 2.0, how),
        )

    def _victims(self, count: int) -> list[Any]:
        lasting = [place for place in self.stage.standing if place.app in BUSY]
        return [lasting[number % len(lasting)] for number in range(count)]

    def _ways(self) -> list[Callable[[dict[str, Any]], Awaitable[object]]]:
        consul = self.stage.consul

        async def remove(row: dict[str, Any]) -> None:
            where = {"Node": row["Node"]["Node"], "ServiceID": row["Service"]["ID"]}
            await consul.put("/v1/catalog/deregister", where)

        async def edit(row: dict[str, Any]) -> None:
            service = {name: row["Service"][name] for name in ("ID", "Service", "Address", "Meta")} | {"Port": 1}
            body = {"Node": row["Node"]["Node"], "Address": "127.0.0.1", "SkipNodeUpdate": True, "Service": service}
            await consul.put("/v1/catalog/register", body)

        async def spoil(row: dict[str, Any]) -> None:
            check = next(each for each in row["Checks"] if each["ServiceID"]) | {"Status": "critical"}
            kept = {name: check[name] for name in ("Node", "CheckID", "Name", "Status", "ServiceID", "ServiceName")}
            body = {"Node": row["Node"]["Node"], "Address": "127.0.0.1", "SkipNodeUpdate": True, "Check": kept}
            await consul.put("/v1/catalog/register", body)

        return [remove, edit, spoil]

    async def soak(self) -> None:
        await self._with("some")
        self.report.add(*await soak(self.stage, MODE))

    async def leaders(self) -> None:
        await self._with("many")
        self.report.add(*await measures.leaders(self.stage, MODE))


async def _spent(operator: Any, proxy: Counting, during: Awaitable[object]) -> dict[str, float]:
    """What was spent during something: seconds of CPU, requests, bytes; and the seconds that it took."""
    proxy.reset()
    began, cpu = time.monotonic(), operator.cpu()
    await during
    return {
        "CPU": operator.cpu() - cpu,
        "requests": float(sum(proxy.requests.values())),
        "bytes": float(proxy.bytes),
        "seconds": time.monotonic() - began,
    }
