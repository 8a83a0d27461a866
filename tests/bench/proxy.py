"""Stands between the operator and Consul and counts: requests by kind, bytes. Passes everything on as it comes."""

import asyncio
from collections import Counter
from typing import Self
from urllib.parse import urlsplit


class Counting:
    """A proxy for HTTP/1.1 on a port of its own. `requests`: by "write", "blocking" and "read"."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._to = (parts.hostname or "", parts.port or 80)
        self._server: asyncio.Server | None = None
        self.requests: Counter[str] = Counter()
        self.bytes = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._to[0], 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def url(self) -> str:
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    def reset(self) -> None:
        self.requests.clear()
        self.bytes = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._to)
        except OSError:
            writer.close()
            return
        requests = _Requests(self.requests)
        there = asyncio.ensure_future(self._pass_on(reader, far_writer, requests))
        back = asyncio.ensure_future(self._pass_on(far_reader, writer, None))
        await asyncio.gather(there, back, return_exceptions=True)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: "_Requests | None"
    ) -> None:
        try:
            while data := await reader.read(65536):
                self.bytes += len(data)
                if requests is not None:
                    requests.feed(data)
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


class _Requests:
    """Finds the heads of requests in what a client sends over one connection."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._rest = b""
        self._body = 0

    def feed(self, data: bytes) -> None:
        self._rest += data
        while self._rest:
            skipped = min(self._body, len(self._rest))
            self._rest, self._body = self._rest[skipped:], self._body - skipped
            head, end, rest = self._rest.partition(b"\r\n\r\n")
            if self._body or not end:
                return
            self._count(head)
            self._rest = rest

    def _count(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in lines if b": " in line)
        self._body = int(fields.get(b"content-length", b"0"))
        blocking = b"index=" in first
        kind = "blocking" if blocking else "read" if first.startswith(b"GET") else "write"
        self._counts[kind] += 1
