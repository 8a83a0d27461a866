"""/healthz, /readyz and /metrics over HTTP.

Alive: the loop turns. Ready: everything that is watched was listed completely and is not stale. An unreachable Consul
makes nobody unready: restarting wouldn't help it, and status says so already.
"""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from consul_registrar.metrics import REGISTRY

#: Returns why the operator isn't ready, "" where it is.
Unready = Callable[[], str]


async def serve(host: str, port: int, unready: Unready, refresh: Callable[[], None]) -> web.AppRunner:
    """Start to answer; the caller cleans the runner up. `refresh` brings gauges up to date before each scrape.

    Raises OSError where the address can't be bound.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        reason = unready()
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
