"""Over which connections the API server is asked: watches, however many namespaces there are, keep nothing waiting."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import kopf

from consul_registrar.kube.client import CONNECTIONS, KubeClient

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@asynccontextmanager
async def api_server() -> AsyncIterator[str]:
    """One whose watches bring nothing and go on, and that answers everything else at once."""
    ends = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(
            HEAD + (b"Transfer-Encoding: chunked\r\n\r\n" if b"watch=" in head else b"Content-Length: 2\r\n\r\n{}")
        )
        await ends.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ends.set()


async def test_a_hundred_watches_keep_no_request_waiting() -> None:
    async with api_server() as url, AsyncExitStack() as open_ones:

        async def login() -> kopf.ConnectionInfo:
            return kopf.ConnectionInfo(server=url)

        client = await open_ones.enter_async_context(KubeClient(login))
        async with asyncio.timeout(20):
            for number in range(2 * CONNECTIONS):
                await open_ones.enter_async_context(client.watch(f"/api/v1/namespaces/n{number}/pods", "1"))
            assert await client.get("/api/v1/namespaces/n1/pods/web-1") == b"{}"
