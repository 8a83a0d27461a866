"""What can happen to a request and its answer. A fault is an async function of a `Call`; most are two lines.

"before" the write takes effect: `refused`, `answered`, `held`. "after" it: `lost_answer`, `answered_after`,
`torn_answer`, `cut_short`, `withheld_answer`, `Cut`. A `Gate` is either, for as long as the test wants. The rest
concerns time, streams and old news.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Literal

from killpoints.network import Answer, Call, Fault, Hurt, pass_on
from killpoints.wire import Head, end_of, framed

Headers = Iterable[tuple[str, str]]
JSON = (("Content-Type", "application/json"),)


async def refused(call: Call) -> None:
    """Reset; nothing reached the server."""
    raise call.reset()


async def held(call: Call) -> None:
    """Never forwarded and never answered: the client's time-out ends it."""
    await _for_ever()


def answered(status: int, text: str = "", headers: Headers = ()) -> Fault:
    """Answered by somebody on the way; nothing reached the server."""

    async def fault(call: Call) -> None:
        await call.reply(status, text.encode(), headers)

    return fault


async def lost_answer(call: Call) -> None:
    """Applied; then reset instead of an answer."""
    await call.forward()
    raise call.reset()


async def cut_short(call: Call) -> None:
    """Applied; half of the answer, as if that were all of it: a proxy whose buffer is too small."""
    answer = await call.forward()
    body = b"".join([piece async for piece in answer.body])
    half = body[: len(body) // 2]
    await call.relay(Answer(_whole(answer.head, half), _once(half)))


async def withheld_answer(call: Call) -> None:
    """Applied; the answer never comes."""
    await call.forward()
    await _for_ever()


async def torn_answer(call: Call) -> None:
    """Applied; reset in the middle of the answer."""
    answer = await call.forward()
    await call.send(answer.head.encode()[:-3])
    raise call.reset()


class Cut:
    """Applied; the connection ends in order (no reset) in the midst of the answer, after so many bytes: each time
    `step` more, until a whole answer has passed; then it begins anew. `cuts`: how often that was.
    """

    def __init__(self, step: int = 1) -> None:
        self.cuts = 0
        self._step = step
        self._after = 0

    async def __call__(self, call: Call) -> None:
        after, self._after = self._after, self._after + self._step
        answer = await call.forward()
        head = answer.head.encode()
        pieces = [framed(answer.head, piece) async for piece in answer.body if piece]
        raw = b"".join([head, *pieces, end_of(answer.head)])
        await call.send(raw[:after])
        if after >= len(raw):
            self._after = 0
        else:
            self.cuts += 1
        raise Hurt


def answered_after(status: int, text: str = "", headers: Headers = ()) -> Fault:
    """Applied, and then answered as if it were not, or nobody knew."""

    async def fault(call: Call) -> None:
        await call.forward()
        await call.reply(status, text.encode(), headers)

    return fault


def delayed(seconds: float) -> Fault:
    """Forwarded late."""

    async def fault(call: Call) -> None:
        await asyncio.sleep(seconds)
        await pass_on(call)

    return fault


def slow(seconds: float) -> Fault:
    """Applied at once, answered late."""

    async def fault(call: Call) -> None:
        answer = await call.forward()
        await asyncio.sleep(seconds)
        await call.relay(answer)

    return fault


def delayed_effect(seconds: float, status: int = 200, text: str = "") -> Fault:
    """Answered at once, applied late: a server that only promises."""

    async def fault(call: Call) -> None:
        await call.reply(status, text.encode())
        _promise(_apply(call, asyncio.sleep(seconds)))

    return fault


def repeated(seconds: float) -> Fault:
    """Applied, and applied once more after a while: a proxy that tries again what it takes for lost."""

    async def fault(call: Call) -> None:
        _promise(_apply(call, asyncio.sleep(seconds)))
        await pass_on(call)

    return fault


class Gate:
    """Requests hang here until it is opened, from the test's thread; afterwards all pass.

    "before": they haven't reached the server; "after": they took effect, the answer hangs; "late": reset at once, and
    they take effect when it is opened, whatever has happened since. `hanging`: how many have come so far; `passed`:
    how many of those that are late have taken effect.
    """

    def __init__(self, where: Literal["before", "after", "late"]) -> None:
        self.hanging = 0
        self.passed = 0
        self._where = where
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    async def __call__(self, call: Call) -> None:
        if self._opened.is_set():
            return await pass_on(call)
        if self._where == "late":
            self.hanging += 1
            _promise(self._let_through(call))
            raise call.reset()
        answer = await call.forward() if self._where == "after" else None
        self.hanging += 1
        await self._opening()
        return await call.relay(answer or await call.forward())

    async def _let_through(self, call: Call) -> None:
        await _apply(call, self._opening())
        self.passed += 1

    async def _opening(self) -> None:
        while not self._opened.is_set():  # noqa: ASYNC110 - another thread opens it
            await asyncio.sleep(0.005)


def _promise(work: Coroutine[object, object, None]) -> None:
    task = asyncio.create_task(work)
    _promised.add(task)
    task.add_done_callback(_promised.discard)


_promised: set[asyncio.Task[None]] = set()


async def _apply(call: Call, waiting: Awaitable[None]) -> None:
    await waiting
    await call.forward_apart()


Event = dict[str, object]


def swallowing(lost: Callable[[Event], bool]) -> Fault:
    """A Kubernetes watch of which some events never arrive."""

    async def fault(call: Call) -> None:
        answer = await call.forward()
        await call.relay(Answer(answer.head, _without(answer.body, lost)))

    return fault


async def silent_watch(call: Call) -> None:
    """A watch that opens and then says nothing: a server that is frozen."""
    answer = await call.forward()
    await call.send(answer.head.encode())
    await _for_ever()


def ended_by(*events: Event) -> Fault:
    """A watch that says these events and ends."""

    async def fault(call: Call) -> None:
        await call.reply(200, b"".join(json.dumps(event).encode() + b"\n" for event in events), JSON)

    return fault


class Replay:
    """Old answers by path: records while `recording`, else answers what was recorded, whatever has happened since."""

    def __init__(self) -> None:
        self.recording = True
        self._answers: dict[str, bytes] = {}

    async def __call__(self, call: Call) -> None:
        if not self.recording and call.request.target in self._answers:
            await call.send(self._answers[call.request.target])
            return
        answer = await call.forward()
        body = b"".join([piece async for piece in answer.body])
        head = _whole(answer.head, body)
        if self.recording and head.status == 200:
            self._answers[call.request.target] = head.encode() + body
        await call.relay(Answer(head, _once(body)))


def edited(change: Callable[[Event], Event]) -> Fault:
    """The server's JSON answer, changed on the way."""

    async def fault(call: Call) -> None:
        answer = await call.forward()
        body = json.dumps(change(json.loads(b"".join([piece async for piece in answer.body])))).encode()
        await call.relay(Answer(_whole(answer.head, body), _once(body)))

    return fault


def _whole(head: Head, body: bytes) -> Head:
    return head.without("Transfer-Encoding").having("Content-Length", str(len(body)))


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _without(body: AsyncIterator[bytes], lost: Callable[[Event], bool]) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in body:
        *lines, rest = (rest + piece).split(b"\n")
        kept = [line for line in lines if line.strip() and not lost(json.loads(line))]
        yield b"".join(line + b"\n" for line in kept)


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()
