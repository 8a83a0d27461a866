"""A server that holds on to its connections: it reads a request, says what a test wants it to say, and goes on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def holding(answer: Callable[[bytes], bytes]) -> AsyncIterator[int]:
    """Its port. `answer` makes of a request's head what is sent, be it nothing; connections end with the block."""
    ends = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(await reader.readuntil(b"\r\n\r\n")))
        await ends.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        ends.set()
