"""Over which connections requests go: reads that take long keep no write waiting."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from consul_registrar.consul.catalog_servers import REQUESTS, Servers
from consul_registrar.consul.transport import Access, Endpoint

TAKEN = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 1\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def reads_nothing() -> AsyncIterator[Endpoint]:
    """A server that takes what is written at once, and answers no read."""
    ends = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"PUT"):
            writer.write(TAKEN)
        await ends.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
        ends.set()


async def test_reads_that_take_long_keep_no_write_waiting() -> None:
    async with reads_nothing() as endpoint:
        servers = Servers([endpoint], Access(), "", 4)
        reads = [asyncio.create_task(servers.get(f"/v1/health/node/{number}")) for number in range(4 * REQUESTS)]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(5):
            answer = await servers.transact(b"[]")
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        await servers.close()
    assert answer.code == 200
