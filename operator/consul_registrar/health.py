"""/healthz, /readyz and /metrics over HTTP.

Alive: the loop turns. Ready: everything that is watched was listed completely and is not stale. An unreachable Consul
makes nobody unready: restarting wouldn't help it, and status says so already.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from consul_registrar.metrics import REGISTRY

#: Returns why the operator isn't ready, "" where it is.
Unready = Callable[[], str]


#: Seconds without a word from the API server after which what we know counts as stale (bookmarks come every minute).
_STALE = 120.0
#: The same for custom resources, which kopf watches: it tells of no bookmarks, so silence is normal between two lists.
_STALE_RESOURCES = 900.0


class Watched(Protocol):
    """Something that is listed and watched."""

    @property
    def synced(self) -> asyncio.Event: ...
    def staleness(self) -> float: ...


def unready(watched: Mapping[str, Watched]) -> str:
    """Why this process can't be trusted to know the cluster, "" where it can."""
    for name, source in watched.items():
        if not source.synced.is_set():
            return f"{name} were not listed completely yet"
        limit = _STALE_RESOURCES if name == "customresources" else _STALE
        if source.staleness() > limit:
            return f"nothing was heard of {name} for {source.staleness():.0f} s"
    return ""


async def serve(host: str, port: int, why_unready: Unready, refresh: Callable[[], None]) -> web.AppRunner:
    """Start to answer; the caller cleans the runner up. `refresh` brings gauges up to date before each scrape.

    Raises OSError where the address can't be bound.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        reason = why_unready()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    async def metrics(_: web.Request) -> web.Response:
        refresh()
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
