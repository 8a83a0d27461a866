"""The status page about something that was made up, at a loopback address."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from consul_registrar.status_page.serve import Look, application


@asynccontextmanager
async def served(look: Callable[[], Look], hosts: frozenset[str] = frozenset()) -> AsyncIterator[str]:
    """The page about a sample, under `hosts` too; its URL."""
    runner = web.AppRunner(application(look, hosts), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
