"""What is measured the same way in both modes: changes at a rate, restarts, leaders that go."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.clients import Consul
from bench.dataset import Place
from bench.figures import Figure, quantile
from bench.process import REPOSITORY, Operator
from bench.stage import APPS, BUSY, NAMESPACES, Stage, TooSlow, until
from bench.watchers import Times, watching

STAYS = 3.0
"""Seconds for which a Pod that has come stays before it terminates."""
GRACE = 10.0
"""Seconds after the last change in which what it brings about may still be seen."""
ROUNDS = 3
"""How often a leader is killed, and released."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds, of the changes that were seen through; `lost`: how many were not."""

    arrivals: list[float]
    departures: list[float]
    lost: int

    def figures(self, mode: str, how: str, most: tuple[float, float]) -> list[Figure]:
        """Milliseconds against budgets for the median and the 99th of a hundred."""
        detail = f"of %d, worst {{:.0f}} ms, {self.lost} lost"
        found = []
        for what, values in (("Pod running → in Consul", self.arrivals), ("Pod terminating → gone", self.departures)):
            told = (detail % len(values)).format(1000 * max(values, default=float("nan")))
            for name, share, budget in (("p50", 0.5, most[0]), ("p99", 0.99, most[1])):
                value = 1000 * quantile(values, share) if not self.lost else float("inf")
                found.append(Figure(f"{what}, {how}, {name}", mode, value, "ms", budget, told))
        return found


class Churn:
    """Pods that come and go at a rate: each change is one Pod that becomes running, or one that begins to terminate."""

    def __init__(self, stage: Stage, rate: float) -> None:
        self._stage = stage
        self._pause = 1 / rate
        self._came: list[Place] = []
        self._went: list[Place] = []

    async def run(self, seconds: float) -> Latencies:
        """Make changes for so long and see them through; the Pods are no more afterwards."""
        await self._provide(seconds)
        try:
            async with watching(self._stage.api, self._stage.consul, NAMESPACES[0], BUSY) as times:
                await self._change(seconds)
                await self._seen_through(times)
                return self._judge(times)
        finally:
            await self.leave()

    async def unwatched(self, seconds: float) -> int:
        """Make changes for so long; how many."""
        await self._provide(seconds)
        await self._change(seconds)
        return len(self._came) + len(self._went)

    async def leave(self) -> None:
        """All that came goes."""
        await self._stage.forget({*self._came, *self._went})
        self._came, self._went = [], []
        await self._stage.registered()

    async def _provide(self, seconds: float) -> None:
        count = int(seconds / self._pause) + 2
        await self._stage.more_spare(BUSY[number % len(BUSY)] for number in range(count))
        await asyncio.sleep(1.0)

    async def _change(self, seconds: float) -> None:
        """Changes leave at their times, however long the ones before them take."""
        began, number = time.monotonic(), 0
        leaving: list[tuple[float, Place]] = []
        async with asyncio.TaskGroup() as group:
            while number * self._pause < seconds:
                await asyncio.sleep(began + number * self._pause - time.monotonic())
                now = time.monotonic()
                if leaving and leaving[0][0] <= now and number % 2:
                    place = leaving.pop(0)[1]
                    self._went.append(place)
                    group.create_task(self._stage.terminates(place))
                else:
                    place = self._stage.spare[BUSY[number % len(BUSY)]].pop()
                    self._came.append(place)
                    leaving.append((now + STAYS, place))
                    group.create_task(self._stage.runs(place))
                number += 1

    async def _seen_through(self, times: Times) -> None:
        async def all_seen() -> bool:
            came = all(place.name in times.visible for place in self._came)
            return came and all(place.name in times.gone for place in self._went)

        try:
            await until(all_seen, "all changes in Consul", within=GRACE)
        except TooSlow:  # what was lost is counted
            return

    def _judge(self, times: Times) -> Latencies:
        arrivals = times.arrivals([place.name for place in self._came])
        departures = times.departures([place.name for place in self._went])
        return Latencies(arrivals, departures, len(self._came) + len(self._went) - len(arrivals) - len(departures))


# --- restarts -------------------------------------------------------------------------------------------------------


async def restarted(stage: Stage, after: Callable[[], Awaitable[object]], name: str, mode: str) -> list[Figure]:
    """Start an operator where another has ended, after one Pod of each registration began to run meanwhile.

    In sync: those are in Consul. Whatever stood there before must not have been written.
    """
    await after()
    await stage.stop()
    before = await stage.held()
    started = [stage.spare[app].pop() for app in APPS]
    await asyncio.gather(*(stage.runs(place) for place in started))
    await asyncio.sleep(1.0)
    began = await stage.start(stage.another("a"))
    took = await stage.registered(len(started)) - began
    await asyncio.sleep(3.0)
    after_ = await stage.held()
    stage.standing += started
    await stage.more_spare(APPS)
    removed = sum(key not in after_ for key in before)
    written = sum(_versions(after_[key]) != _versions(row) for key, row in before.items() if key in after_)
    sizes = f"{len(before)} instances"
    return [
        Figure(f"{name}: in sync after", mode, took, "s", 5.0, f"{sizes}, from the start of the process"),
        Figure(f"{name}: deregistered", mode, removed, "instances", 0, sizes),
        Figure(f"{name}: written again", mode, written, "instances", 0, f"{sizes}, by their ModifyIndexes"),
    ]


def _versions(row: dict[str, Any]) -> tuple[object, ...]:
    return (row["CreateIndex"], row["ModifyIndex"], sorted((c["CheckID"], c["ModifyIndex"]) for c in row["checks"]))


async def version_before(stage: Stage, wanted: str) -> tuple[Path, str]:
    """A checkout of an earlier version: of `wanted`, else of the last release, else of twenty commits ago."""
    found = wanted or await _git("describe", "--tags", "--abbrev=0") or await _git("rev-parse", "HEAD~20")
    if not found:
        raise RuntimeError("there is no earlier version: this is no git checkout with a history")
    commit = await _git("rev-parse", "--short", f"{found}^{{commit}}")
    where = stage.folder / f"before-{commit}"
    if not where.exists():
        where.mkdir(parents=True)
        archive = f"git -C {REPOSITORY} archive {commit} operator | tar -x -C {where}"
        if await (await asyncio.create_subprocess_shell(archive)).wait():
            raise RuntimeError(f"{commit} can't be checked out")
    return where, commit


async def _git(*arguments: str) -> str:
    null, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
    git = await asyncio.create_subprocess_exec("git", "-C", str(REPOSITORY), *arguments, stdout=pipe, stderr=null)
    said, _ = await git.communicate()
    return said.decode().strip() if git.returncode == 0 else ""


# --- leaders that go ------------------------------------------------------------------------------------------------


async def leaders(stage: Stage, mode: str) -> list[Figure]:
    """A leader is killed, or told to end, while another stands by that has seen all: when that one writes a change."""
    leading = await stage.led()
    killed: list[float] = []
    released: list[float] = []
    for number in range(2 * ROUNDS):
        standby = stage.another(f"standby-{number}")
        await stage.rouse()
        await asyncio.to_thread(standby.process.start)
        await asyncio.sleep(5.0)
        ended = _kill if number < ROUNDS else _release
        (killed if number < ROUNDS else released).append(await _takes_over(stage, leading, ended))
        stage.operator = leading = standby
    return [
        Figure("leader killed: another writes after", mode, max(killed), "s", 8.0, f"worst of {ROUNDS}"),
        Figure("leader told to end: another writes after", mode, max(released), "s", 1.0, f"worst of {ROUNDS}"),
    ]


async def _takes_over(stage: Stage, leading: Operator, end: Callable[[Operator], Awaitable[None]]) -> float:
    """Seconds from the leader's end until a Pod that began to run just then is in Consul."""
    await stage.more_spare(BUSY[:1])
    await asyncio.sleep(0.5)
    place = stage.spare[BUSY[0]].pop()
    async with watching(stage.api, stage.consul, NAMESPACES[0], BUSY[:1]) as times:
        began = time.monotonic()
        await end(leading)
        await stage.runs(place)

        async def there() -> bool:
            return place.name in times.visible

        await until(there, "the write of another leader", every=0.005)
        took = times.visible[place.name] - began
    await stage.forget([place])
    await stage.registered()
    return took


async def _kill(operator: Operator) -> None:
    await asyncio.to_thread(operator.process.kill)


async def _release(operator: Operator) -> None:
    await asyncio.to_thread(operator.process.stop)


# --- drift ----------------------------------------------------------------------------------------------------------


async def repaired(
    consul: Consul, service: str, pod: str, spoil: Callable[[dict[str, Any]], Awaitable[object]]
) -> float:
    """Seconds from the acknowledgement of somebody's write until the instance is again as it was."""
    rows, index = await consul.block(f"/v1/health/service/{service}", 0)
    before = next(row for row in rows if row["Service"]["Meta"].get("k8s-pod") == pod)
    await spoil(before)
    began = time.monotonic()
    async with asyncio.timeout(60):
        while True:
            rows, index = await consul.block(f"/v1/health/service/{service}", index)
            now = time.monotonic()
            found = [row for row in rows if row["Service"]["ID"] == before["Service"]["ID"]]
            if found and content(found[0]) == content(before):
                return max(now - began, 0.0)


def content(row: dict[str, Any]) -> object:
    """What a caller sees of an instance."""
    service = row["Service"]
    fields = tuple(service[name] for name in ("Service", "Address", "Port", "Tags"))
    meta = {name: value for name, value in service["Meta"].items() if "nonce" not in name}
    checks = sorted((c["CheckID"], c["Status"]) for c in row["Checks"] if c["ServiceID"] == service["ID"])
    return fields, meta, checks


async def spoil_all(
    stage: Stage, pods: Sequence[Place], ways: Sequence[Callable[[dict[str, Any]], Awaitable[object]]]
) -> list[float]:
    """One after the other, each in its turn in one of the ways; seconds until each was right again."""
    times = []
    for number, place in enumerate(pods):
        times.append(await repaired(stage.consul, place.app, place.name, ways[number % len(ways)]))
        await asyncio.sleep(0.3 + 0.1 * (number % 7))
    return times
