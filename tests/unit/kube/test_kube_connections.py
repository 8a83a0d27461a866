"""Over which connections the API server is asked: watches, however many namespaces there are, keep nothing waiting."""

import asyncio
from contextlib import AsyncExitStack

import kopf

from consul_registrar.kube.client import CONNECTIONS, KubeClient
from unit.holding import holding

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def nothing_new(head: bytes) -> bytes:
    """Watches bring nothing and go on; everything else is answered at once."""
    return HEAD + (b"Transfer-Encoding: chunked\r\n\r\n" if b"watch=" in head else b"Content-Length: 2\r\n\r\n{}")


async def test_a_hundred_watches_keep_no_request_waiting() -> None:
    async with holding(nothing_new) as port, AsyncExitStack() as open_ones:

        async def login() -> kopf.ConnectionInfo:
            return kopf.ConnectionInfo(server=f"http://127.0.0.1:{port}")

        client = await open_ones.enter_async_context(KubeClient(login))
        async with asyncio.timeout(20):
            for number in range(2 * CONNECTIONS):
                await open_ones.enter_async_context(client.watch(f"/api/v1/namespaces/n{number}/pods", "1"))
            assert await client.get("/api/v1/namespaces/n1/pods/web-1") == b"{}"
