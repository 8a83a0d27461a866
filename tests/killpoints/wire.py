"""HTTP/1.1 as bytes on a stream: heads, and bodies piece by piece as they come, so that nothing is buffered.

Decides how messages are framed (RFC 9112). What is done with them is decided in `network.py`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace

_LIMIT = 2**20
_PIECE = 2**16
_BODILESS = {204, 304}


class Malformed(Exception):
    """What came is no HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first line and the headers of a message."""

    start: str
    headers: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        """A header's value, "" where there is none; names are compared without case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    def without(self, *names: str) -> "Head":
        dropped = {name.lower() for name in names}
        return replace(self, headers=tuple(h for h in self.headers if h[0].lower() not in dropped))

    def having(self, name: str, value: str) -> "Head":
        """The same with one header set."""
        return replace(self, headers=(*self.without(name).headers, (name, value)))

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.start.split(" ", 2)[1])

    @property
    def chunked(self) -> bool:
        return "chunked" in self.get("Transfer-Encoding").lower()

    @property
    def keeps_alive(self) -> bool:
        return "close" not in self.get("Connection").lower()

    def encode(self) -> bytes:
        lines = (self.start, *(f"{name}: {value}" for name, value in self.headers), "", "")
        return "\r\n".join(lines).encode("latin-1")


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next message's head; None where the connection ended before one began."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    start, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    headers = tuple((name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
    return Head(start, headers)


def reader_for(loop: asyncio.AbstractEventLoop) -> asyncio.StreamReader:
    """A reader that takes heads as long as they come."""
    return asyncio.StreamReader(limit=_LIMIT, loop=loop)


async def request_body(reader: asyncio.StreamReader, head: Head) -> bytes:
    """The whole body of a request."""
    if head.chunked:
        return b"".join([piece async for piece in _chunks(reader)])
    return await reader.readexactly(int(head.get("Content-Length") or 0))


def answer_body(reader: asyncio.StreamReader, head: Head, method: str) -> AsyncIterator[bytes]:
    """The body of an answer, as it comes."""
    if method == "HEAD" or head.status in _BODILESS:
        return _counted(reader, 0)
    if head.chunked:
        return _chunks(reader)
    length = head.get("Content-Length")
    return _counted(reader, int(length)) if length else _rest(reader)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := await _chunk_size(reader):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    while (await reader.readline()).strip():
        pass


async def _chunk_size(reader: asyncio.StreamReader) -> int:
    line = await reader.readline()
    try:
        return int(line.split(b";")[0], 16)
    except ValueError:
        raise Malformed(f"no size of a chunk: {line!r}") from None


async def _counted(reader: asyncio.StreamReader, length: int) -> AsyncIterator[bytes]:
    while length:
        piece = await reader.read(min(length, _PIECE))
        if not piece:
            raise Malformed("the body ended early")
        length -= len(piece)
        yield piece


async def _rest(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while piece := await reader.read(_PIECE):
        yield piece


def framed(head: Head, piece: bytes) -> bytes:
    """A piece of a body as the head says that it is sent."""
    return b"%x\r\n%s\r\n" % (len(piece), piece) if head.chunked else piece


def end_of(head: Head) -> bytes:
    """What follows the last piece."""
    return b"0\r\n\r\n" if head.chunked else b""


def answer(status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """A whole answer."""
    fixed = (("Content-Length", str(len(body))), *headers)
    return Head(f"HTTP/1.1 {status} Injected", fixed).encode() + body
