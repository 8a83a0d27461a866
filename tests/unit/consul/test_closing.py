"""What becomes of requests whose connections are given up under them: whoever waits is told, and goes on."""

import asyncio

import pytest

from consul_registrar.consul.errors import NotSent
from consul_registrar.consul.transport import Access, Endpoint, Transport
from unit.holding import holding


def nothing(_: bytes) -> bytes:
    return b""


async def test_who_waits_for_a_free_connection_is_told_when_none_comes_any_more() -> None:
    async with holding(nothing) as port:
        transport = Transport(Endpoint("127.0.0.1", port), Access(), connections=1)
        asking = [asyncio.create_task(transport.get(str, "/v1/status/leader")) for _ in range(3)]
        await asyncio.sleep(0.1)
        await transport.close()
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [NotSent] * 3


async def test_who_is_cancelled_while_waiting_for_a_connection_is_cancelled() -> None:
    async with holding(nothing) as port:
        transport = Transport(Endpoint("127.0.0.1", port), Access(), connections=1)
        asking = [asyncio.create_task(transport.get(str, "/v1/status/leader")) for _ in range(2)]
        await asyncio.sleep(0.1)
        asking[1].cancel()
        closing = asyncio.create_task(transport.close())
        with pytest.raises(asyncio.CancelledError):
            await asking[1]
        await closing
        await asyncio.gather(*asking, return_exceptions=True)
