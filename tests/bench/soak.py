"""An operator started again and again while Pods come and go, then left alone: what an oracle sees of it."""

import asyncio
import time
from collections import Counter

from bench.figures import Figure
from bench.measures import Churn
from bench.proxy import Counting
from bench.stage import APPS, BUSY, Stage, namespace_of
from integration.operator_world import truth
from killpoints import Claim, Oracle, explain, watching

RATE = 50.0
RESTARTS = 10
BETWEEN = 12.0
"""Seconds between two restarts."""
QUIET = 600.0
"""Seconds in which nothing changes."""


async def soak(stage: Stage, mode: str) -> list[Figure]:
    """Wrong deregistrations and leftovers after restarts, half of them by `kill -9`; then writes while all is calm."""
    await stage.led()
    with watching(truth(stage.cluster)) as oracle:
        changes = await _restarted_under(stage, Churn(stage, RATE))
        wrong = await asyncio.to_thread(lambda: oracle.wrong)
        left = await _differences(oracle)
    size = f"{len(stage.standing)} instances, {changes} changes at {RATE:g}/s, {RESTARTS} restarts"
    writes = await _writes_while_calm(stage)
    return [
        Figure("restarts under changes: instances that left though their Pod lived", mode, len(wrong), "", 0,
               f"{size}; {explain(wrong[:5]) if wrong else 'by the oracle'}"),
        Figure("restarts under changes: differences left", mode, len(left), "", 0, "; ".join([size, *left[:5]])),
        Figure(f"nothing changes for {QUIET:.0f} s: writes", mode, writes["write"], "requests", 0, str(dict(writes))),
    ]  # fmt: skip


async def _restarted_under(stage: Stage, churn: Churn) -> int:
    changing = asyncio.create_task(churn.unwatched(BETWEEN * (RESTARTS + 1)))
    for number in range(RESTARTS):
        await asyncio.sleep(BETWEEN)
        assert stage.operator is not None
        process = stage.operator.process
        await asyncio.to_thread(process.kill if number % 2 else process.stop)
        await stage.start(stage.another("a"))
    changes = await changing
    await churn.leave()
    return changes


async def _differences(oracle: Oracle, within: float = 60.0) -> list[str]:
    """What still isn't as claimed some time after the last change."""
    claims = [Claim(app, namespace_of(app), {"app": app}) for app in (*APPS, *BUSY)]
    deadline = time.monotonic() + within
    while left := await asyncio.to_thread(oracle.differences, claims):
        if time.monotonic() > deadline:
            break
    return left


async def _writes_while_calm(stage: Stage) -> Counter[str]:
    straight = stage.cluster.consul.http_addr
    async with Counting(straight) as proxy:
        await stage.led_by_way_of(proxy.url)
        proxy.reset()
        await asyncio.sleep(QUIET)
        seen = proxy.requests.copy()
        await stage.led_by_way_of(straight)
    return seen
