"""A tiny HTTP server on loopback for what no real agent does on demand, and a record of what it was asked."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import aiohttp
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Server:
    """Answers with `handler`; keeps the head and body of each request."""

    handler: Handler
    port: int = 0
    requests: list[tuple[str, dict[str, str], str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((f"{request.method} {request.raw_path}", dict(request.headers), await request.text()))
        return await self.handler(request)


@asynccontextmanager
async def serving(handler: Handler, ssl_context: Any = None) -> AsyncIterator[Server]:
    server = Server(handler)
    runner = web.ServerRunner(web.Server(server.answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context)
    await site.start()
    server.port = site._server.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        await runner.cleanup()


def identity(node: str, datacenter: str = "dc1") -> web.Response:
    """An agent's answer to who it is."""
    return web.json_response({"Config": {"NodeName": node, "Datacenter": datacenter, "Version": "1.22.7"}})


@dataclass
class Agent:
    """A scripted agent: `faults` maps a path's beginning to what is answered instead."""

    names: tuple[str, ...] = ("scripted",)
    services: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)
    faults: dict[str, Handler] = field(default_factory=dict)
    indexes: list[int] = field(default_factory=lambda: [5])
    asked: Any = field(default_factory=count)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        for path, fault in self.faults.items():
            if request.path.startswith(path):
                return await fault(request)
        match request.path:
            case "/v1/agent/self":
                return identity(self.names[next(self.asked) % len(self.names)])
            case "/v1/agent/services":
                return web.json_response(self.services)
            case "/v1/agent/checks":
                return web.json_response(self.checks)
            case "/v1/status/leader":
                return web.json_response("127.0.0.1:8300")
        return web.Response(status=200)


async def passed_on(request: web.Request, to: str) -> web.Response:
    """The request, answered by a real agent."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            request.method, f"{to}{request.raw_path}", data=await request.read(), headers={"Connection": "close"}
        ) as answer,
    ):
        kept = {k: v for k, v in answer.headers.items() if k.startswith("X-Consul-")}
        return web.Response(status=answer.status, body=await answer.read(), headers=kept)
