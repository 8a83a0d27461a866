"""What the tests put between us and the API server, and what they look at it with.

The proxy speaks HTTP, so that a test can say which answer is lost or replaced; all other traffic is the real server's.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

import aiohttp
import kopf
from aiohttp import web

from consul_registrar.api import GROUP, VERSION
from consul_registrar.kube import CONNECTION, REGISTRATION, Kind
from consul_registrar.kube.codec import Versioned
from devcluster.cluster import Cluster

T = TypeVar("T", bound=Versioned)

Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class Shelf(Generic[T]):
    """A store that remembers what it was told."""

    def __init__(self) -> None:
        self.held: dict[str, T] = {}
        self.puts: list[T] = []
        self.removed: list[str] = []
        self.absent: list[str] = []

    def put(self, obj: T) -> None:
        self.held[obj.uid] = obj
        self.puts.append(obj)

    def remove(self, uid: str) -> None:
        self.held.pop(uid, None)
        self.removed.append(uid)

    def vanished(self, uid: str) -> None:
        del self.held[uid]
        self.absent.append(uid)

    def names(self) -> set[str]:
        return {obj.name for obj in self.held.values()}


class Proxy:
    """Passes requests on to the API server, unless a fault answers instead or the line is cut."""

    def __init__(self, target: kopf.ConnectionInfo, session: aiohttp.ClientSession, trust: ssl.SSLContext) -> None:
        self._target = target
        self._session = session
        self._trust = trust
        self._open: set[asyncio.Transport] = set()
        self.cut = False
        self.fault: Fault | None = None
        self.requests: list[web.Request] = []
        self.url = ""

    async def login(self) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=self.url, token=self._target.token)

    def watches(self) -> int:
        return sum("watch" in request.query for request in self.requests)

    def sever(self) -> None:
        """Break every connection and refuse new ones, until `cut` is False again."""
        self.cut = True
        self.break_connections()

    def break_connections(self) -> None:
        for transport in list(self._open):
            transport.abort()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        transport = request.transport
        if self.cut or transport is None:
            raise self._hang_up(transport)
        self._open.add(transport)
        try:
            answer = await self.fault(request) if self.fault else None
            return answer or await self._pass_on(request)
        finally:
            self._open.discard(transport)

    def _hang_up(self, transport: asyncio.Transport | None) -> web.HTTPException:
        if transport is not None:
            transport.abort()
        return web.HTTPServiceUnavailable()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        kept = {
            key: request.headers[key]
            for key in ("Authorization", "Content-Type", "Accept", "User-Agent")
            if key in request.headers
        }
        async with self._session.request(
            request.method,
            self._target.server + request.path_qs,
            data=await request.read() or None,
            headers=kept,
            ssl=self._trust,
            timeout=aiohttp.ClientTimeout(),
        ) as upstream:
            answer = web.StreamResponse(status=upstream.status, headers={"Content-Type": upstream.content_type})
            await answer.prepare(request)
            with contextlib.suppress(aiohttp.ClientError):
                async for chunk in upstream.content.iter_any():
                    await answer.write(chunk)
            return answer


@contextlib.asynccontextmanager
async def proxy_to(target: kopf.ConnectionInfo) -> AsyncIterator[Proxy]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        proxy = Proxy(target, session, target.as_ssl_context())
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield proxy
        finally:
            proxy.sever()
            await runner.cleanup()


@contextlib.asynccontextmanager
async def background(work: Awaitable[None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run something for the length of a block; its failure fails the block."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def eventually(holds: Callable[[], object], within: float = 60.0) -> None:
    """Wait until it holds, by a deadline that only a fault can miss."""
    async with asyncio.timeout(within):
        while not holds():  # noqa: ASYNC110 - what is looked at has no event to wait for
            await asyncio.sleep(0.02)


def definition(kind: Kind) -> dict:
    """A resource of any content: what our own schemas accept is the business of other tests."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": VERSION, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {"kind": kind.name, "plural": kind.plural},
            "versions": [version | {"subresources": {"status": {}}}],
        },
    }


def install(cluster: Cluster) -> None:
    for kind in (REGISTRATION, CONNECTION):
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(definition(kind)))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=180s")
