"""Proxies on loopback between a program and the servers that it talks to, and the faults that happen on the way.

    with Network() as network:
        url = network.proxy("consul", "http://127.0.0.1:8500")
        rule = network.inject(kind_is("PUT txn"), faults.lost_answer)      # the next one, once
        ...
        network.heal()

Each request that comes through becomes a `Call`; the first rule that takes it decides what happens to it, and without
one it is passed on. What can happen is in `faults.py`. Answers are passed on piece by piece, as they come. All proxies
run on one event loop in a thread of its own; tests drive them from theirs.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

from killpoints import wire
from killpoints.calls import Match, Request
from killpoints.wire import Head

T = TypeVar("T")

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of nothing: closing sends RST."""

_PASSED_ON = ("Connection", "Accept-Encoding", "Transfer-Encoding", "Content-Length", "Expect")
_BROKEN = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, wire.Malformed)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answers: the head is here, the body still comes."""

    head: Head
    body: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a proxy leads. `tls`: how the server is trusted, None for plain HTTP."""

    host: str
    port: int
    tls: ssl.SSLContext | None


class Hurt(Exception):
    """The connection to the client is over, by a fault."""


class Call:
    """One request and what becomes of it. `number`: it is the so-manieth of its kind, from 0."""

    def __init__(self, request: Request, number: int, head: Head, line: "_Line") -> None:
        self.request = request
        self.number = number
        self._head = head
        self._line = line

    async def forward(self) -> Answer:
        """Send the request to the server; returns when its answer begins, so that a write has been applied."""
        return await self._line.ask(self.request.method, self._onward(), self.request.body)

    def _onward(self) -> Head:
        head = self._head.without(*_PASSED_ON).having("Accept-Encoding", "identity")
        wants = self.request.body or self.request.is_write
        return head.having("Content-Length", str(len(self.request.body))) if wants else head

    async def forward_apart(self) -> None:
        """Send the request over a connection of its own, whether or not the client is still there."""
        await self._line.ask_apart(self.request.method, self._onward(), self.request.body)

    async def relay(self, answer: Answer) -> None:
        """Pass an answer on, piece by piece."""
        await self._line.write(answer.head.encode())
        async for piece in answer.body:
            if piece:
                await self._line.write(wire.framed(answer.head, piece))
        await self._line.write(wire.end_of(answer.head))
        self._line.keep(answer.head)

    async def reply(self, status: int, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()) -> None:
        """Answer in the server's place."""
        await self._line.write(wire.answer(status, body, headers))

    async def send(self, raw: bytes) -> None:
        """Send bytes to the client as they are."""
        await self._line.write(raw)

    def reset(self) -> Hurt:
        """Break the connection to the client (RST)."""
        self._line.reset()
        return Hurt()


Fault = Callable[[Call], Awaitable[None]]


async def pass_on(call: Call) -> None:
    """No fault at all."""
    await call.relay(await call.forward())


@dataclass(slots=True)
class Rule:
    """A fault for the requests that match: `times` of them (None: all), after `skip` others were let through."""

    matches: Match
    fault: Fault
    skip: int = 0
    times: int | None = 1
    seen: int = 0
    hits: int = 0

    def takes(self, request: Request) -> bool:
        """Whether this request gets the fault; counts it."""
        if (self.times is not None and self.hits >= self.times) or not self.matches(request):
            return False
        self.seen += 1
        if self.seen <= self.skip:
            return False
        self.hits += 1
        return True


@dataclass(frozen=True, slots=True)
class Entry:
    """A request in the journal. `at`: when it came, by the monotonic clock; `number` as in `Call`."""

    at: float
    request: Request
    number: int


@dataclass
class Journal:
    """Every request that came through, in order."""

    entries: list[Entry] = field(default_factory=list)
    _numbers: Counter[str] = field(default_factory=Counter)

    def note(self, request: Request) -> Entry:
        entry = Entry(time.monotonic(), request, self._numbers[request.kind])
        self._numbers[request.kind] += 1
        self.entries.append(entry)
        return entry

    def clear(self) -> None:
        """Forget all, and count from 0 again."""
        self._numbers.clear()
        self.entries.clear()

    def of(self, matches: Match) -> list[Entry]:
        """The requests that match."""
        return [entry for entry in tuple(self.entries) if matches(entry.request)]

    def count(self, matches: Match) -> int:
        return len(self.of(matches))


class Network:
    """The proxies of one program under test, and the rules that hold for all of them."""

    def __init__(self) -> None:
        self.journal = Journal()
        self._rules: list[Rule] = []
        self._lines: set[_Line] = set()
        self._servers: list[asyncio.Server] = []
        self._serving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="killpoints", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._in_loop(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def proxy(
        self, name: str, url: str, *, tls: ssl.SSLContext | None = None, listen: tuple[str, int] = ("127.0.0.1", 0)
    ) -> str:
        """Open a proxy that leads to `url`; returns its own URL, which is plain HTTP in any case."""
        at = urlsplit(url)
        upstream = Upstream(at.hostname or "", at.port or (443 if tls else 80), tls)
        port = self._in_loop(self._listen(name, upstream, listen))
        return f"http://{listen[0]}:{port}"

    def inject(self, matches: Match, fault: Fault, *, skip: int = 0, times: int | None = 1) -> Rule:
        """From now on a fault for the requests that match; earlier rules go before."""
        rule = Rule(matches, fault, skip, times)
        self._rules = [*self._rules, rule]
        return rule

    def remove(self, rule: Rule) -> None:
        """End a rule; what it holds back already stays held."""
        self._rules = [other for other in self._rules if other is not rule]

    def heal(self) -> None:
        """End all rules, and break the connections on which a fault is still at work: a stream that swallows, say."""
        self._rules = []

        async def do() -> None:
            for line in [line for line in self._lines if line.hurt]:
                line.reset()

        self._in_loop(do())

    def cut(self, matches: Match = lambda _: True) -> int:
        """Break the connections on which such a request is being answered; returns how many."""

        async def do() -> int:
            hurt = [line for line in self._lines if line.current is not None and matches(line.current)]
            for line in hurt:
                line.reset()
            return len(hurt)

        return self._in_loop(do())

    def _in_loop(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self, name: str, upstream: Upstream, listen: tuple[str, int]) -> int:
        def accept() -> asyncio.Protocol:
            reader = _Reader(self._loop)
            return asyncio.StreamReaderProtocol(reader, lambda _, writer: self._begin(name, upstream, reader, writer))

        server = await self._loop.create_server(accept, *listen)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def _begin(self, name: str, upstream: Upstream, reader: "_Reader", writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(_Line(name, upstream, reader, writer)))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, line: "_Line") -> None:
        self._lines.add(line)
        try:
            with contextlib.suppress(*_BROKEN, Hurt, asyncio.CancelledError):
                while await self._one(line):
                    pass
        finally:
            self._lines.discard(line)
            line.close()

    async def _one(self, line: "_Line") -> bool:
        """Take one request and see it through; says whether another one may follow."""
        head = await wire.read_head(line.reader)
        if head is None:
            return False
        method, target, _ = head.start.split(" ", 2)
        request = Request(line.name, method, target, await wire.request_body(line.reader, head))
        entry = self.journal.note(request)
        fault = next((rule.fault for rule in self._rules if rule.takes(request)), pass_on)
        line.current, line.hurt = request, fault is not pass_on
        try:
            return await line.unless_gone(fault(Call(request, entry.number, head, line))) and head.keeps_alive
        finally:
            line.current, line.hurt = None, False

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.sleep(0.01)  # transports that were closed get to say so


class _Reader(asyncio.StreamReader):
    """Tells when the client is gone, also while nobody reads: then nobody is left to get the answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=2**20, loop=loop)
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.gone.set()


class _Line:
    """A client's connection, and the one to the server that belongs to it."""

    def __init__(self, name: str, upstream: Upstream, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        self.name = name
        self.reader = reader
        self.current: Request | None = None
        self.hurt = False
        self._writer = writer
        self._upstream = upstream
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._clean = False

    async def ask(self, method: str, head: Head, body: bytes) -> Answer:
        reader, writer = await self._to_server()
        self._clean = False
        writer.write(head.encode() + body)
        await writer.drain()
        answer = await wire.read_head(reader)
        if answer is None:
            raise wire.Malformed("the server hung up")
        return Answer(answer, wire.answer_body(reader, answer, method))

    async def ask_apart(self, method: str, head: Head, body: bytes) -> None:
        apart = _Line(self.name, self._upstream, self.reader, self._writer)
        try:
            await apart.ask(method, head, body)
        finally:
            apart.hang_up()

    async def _to_server(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection that the last call left clean, else a new one."""
        if self._server is not None and self._clean and not self._server[0].at_eof():
            return self._server
        self.hang_up()
        at = self._upstream
        self._server = await asyncio.open_connection(at.host, at.port, ssl=at.tls, limit=2**20)
        return self._server

    def keep(self, head: Head) -> None:
        """The server's answer was read to its end."""
        self._clean = head.keeps_alive
        if not (head.chunked or head.get("Content-Length")):
            raise Hurt  # only the end of the connection ends such an answer

    async def write(self, raw: bytes) -> None:
        self._writer.write(raw)
        await self._writer.drain()

    async def unless_gone(self, work: Awaitable[None]) -> bool:
        """See it through, or give it up when the client is gone; says whether the client is still there."""
        doing, gone = asyncio.ensure_future(work), asyncio.ensure_future(self.reader.gone.wait())
        try:
            await asyncio.wait([doing, gone], return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                doing.result()
            return not gone.done()
        finally:
            for task in (doing, gone):
                task.cancel()
            await asyncio.gather(doing, gone, return_exceptions=True)

    def reset(self) -> None:
        sock = self._writer.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()
        self.hang_up()

    def hang_up(self) -> None:
        if self._server is not None:
            self._server[1].transport.abort()  # to close would wait for the server to say so too, where that is TLS
