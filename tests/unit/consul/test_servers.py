"""Over which connections requests go: reads that take long keep no write waiting."""

import asyncio

from consul_registrar.consul.catalog_servers import REQUESTS, Servers
from consul_registrar.consul.transport import Access, Endpoint
from unit.holding import holding

TAKEN = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 1\r\nContent-Length: 2\r\n\r\n{}"


def takes_writes_alone(head: bytes) -> bytes:
    """What is written is taken at once; no read is answered."""
    return TAKEN if head.startswith(b"PUT") else b""


async def test_reads_that_take_long_keep_no_write_waiting() -> None:
    async with holding(takes_writes_alone) as port:
        servers = Servers([Endpoint("127.0.0.1", port)], Access(), "", 4)
        reads = [asyncio.create_task(servers.get(f"/v1/health/node/{number}")) for number in range(4 * REQUESTS)]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(5):
            answer = await servers.transact(b"[]")
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        await servers.close()
    assert answer.code == 200
