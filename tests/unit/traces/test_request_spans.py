"""What spans say of HTTP requests; recorded by OpenTelemetry's own SDK, asked of a real listener."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.trace import SpanKind, StatusCode

from consul_registrar import tracing
from consul_registrar.model import Key
from consul_registrar.queue import Ended
from unit.core.build import KEY
from unit.traces.recorded import about, id_of, parent_of, recording


@asynccontextmanager
async def answering(status: int) -> AsyncIterator[str]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text="an answer")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"{host}:{port}"
    finally:
        await runner.cleanup()


async def _in_a_span(act: Callable[[], Awaitable[Any]]) -> None:
    async def work(_: Key) -> Ended:
        await act()
        return Ended.SUCCESS

    await tracing.reconciling(work, lambda _: None)(Key(KEY))


async def test_a_request_is_a_span_beneath_what_asked_for_it_and_tells_no_query_user_or_header() -> None:
    secret = "planted-5ecret"
    with recording() as recorded:
        async with answering(200) as address, aiohttp.ClientSession(trace_configs=tracing.requests()) as session:

            async def ask() -> None:
                url = f"http://me:{secret}@{address}/v1/txn?token={secret}"
                await session.put(url, data=secret, headers={"X-Consul-Token": secret})

            await _in_a_span(ask)
        request, above = recorded.one("PUT"), recorded.one("reconcile")
    host, _, port = address.partition(":")
    assert about(request) == {
        "http.request.method": "PUT",
        "http.response.status_code": 200,
        "server.address": host,
        "server.port": int(port),
        "url.full": f"http://{address}/v1/txn",
    }
    assert (request.kind, request.status.status_code) == (SpanKind.CLIENT, StatusCode.UNSET)
    assert parent_of(request) == id_of(above)
    assert secret not in request.to_json() + above.to_json()


async def test_an_answer_that_is_an_error_and_a_connection_that_fails_are_errors() -> None:
    with recording() as recorded:
        async with aiohttp.ClientSession(trace_configs=tracing.requests()) as session:
            async with answering(409) as address:
                await _in_a_span(lambda: session.get(f"http://{address}/"))

            async def refused() -> None:
                with pytest.raises(aiohttp.ClientConnectorError):
                    await session.get(f"http://{address}/")

            await _in_a_span(refused)
        answered, broken = recorded.named("GET")
    assert (about(answered)["http.response.status_code"], about(answered)["error.type"]) == (409, "409")
    assert about(broken)["error.type"] == "ClientConnectorError"
    assert {span.status.status_code for span in (answered, broken)} == {StatusCode.ERROR}


async def test_a_request_in_no_span_and_one_of_a_task_that_outlives_its_span_are_none() -> None:
    with recording() as recorded:
        async with answering(200) as address, aiohttp.ClientSession(trace_configs=tracing.requests()) as session:
            goes_on, tasks = asyncio.Event(), []

            async def later() -> None:
                await goes_on.wait()
                await session.get(f"http://{address}/")

            async def begin() -> None:
                tasks.append(asyncio.create_task(later()))

            await session.get(f"http://{address}/")
            await _in_a_span(begin)
            goes_on.set()
            await asyncio.gather(*tasks)
    assert recorded.names == ["reconcile"]
