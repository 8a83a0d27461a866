"""The status page over HTTP: what is answered where, with which headers, and how often it is made anew.

    /                                  the overview; ?q= only registrations that match
    /registrations/<namespace>/<name>  one registration
    /api/…                             the same as JSON: overview, registrations/<namespace>/<name>
    /assets/…                          style, script, icon

There is no login: who reaches it by a name that is its own (`hosts.py`) reads it. Nothing that is sent changes
anything.
"""

import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Protocol

import msgspec
from aiohttp import web

from consul_registrar.model import RegistrationKey
from consul_registrar.overview import Detail, Overview, Replica
from consul_registrar.status_page.hosts import is_ours
from consul_registrar.status_page.overview_page import overview
from consul_registrar.status_page.registration_page import detail, missing

#: Seconds for which an answer is given again.
FRESH = 1.0
#: Different answers that are made in that time beside the plain overview, which everybody gets; whoever asks for one
#: more is told to ask again.
ANSWERS = 10
_ASKED = 100  # characters of a filter

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_NOT_OURS = "The status page isn't served under this name. --status-page-hosts says under which it is.\n"
_HTML, _JSON = "text/html", "application/json"
_ASSETS = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}


class Look(Protocol):
    """What was seen at one moment."""

    @property
    def replica(self) -> Replica: ...
    def overview(self, asked: str) -> Overview: ...
    def detail(self, key: RegistrationKey) -> Detail | None: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for: a registration, or all that match a filter ("" does all); as HTML or JSON."""

    kind: str
    key: RegistrationKey | None
    filter: str

    @property
    def plain(self) -> bool:
        """Whether it is what everybody sees first."""
        return self.key is None and not self.filter


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent; `tag` names its content."""

    body: bytes
    kind: str
    tag: str
    status: int = 200


class Answers:
    """The answers of one second, all made out of one look. `clock`: monotonic seconds."""

    def __init__(self, look: Callable[[], Look], clock: Callable[[], float]) -> None:
        self._look = look
        self._clock = clock
        self._until = float("-inf")
        self._seen: Look | None = None
        self._made: dict[Asked, Answer] = {}
        self._left = ANSWERS

    def get(self, asked: Asked) -> Answer | None:
        """The answer; None: too many others were made in this second. What isn't there costs next to nothing: it isn't
        counted, nor kept.
        """
        now = self._clock()
        if self._seen is None or now >= self._until:
            self._seen, self._made, self._until, self._left = self._look(), {}, now + FRESH, ANSWERS
        if asked in self._made or not (asked.plain or self._left):
            return self._made.get(asked)
        made = _answer_to(asked, self._seen)
        if made.status == 200:
            self._made[asked] = made
            self._left -= not asked.plain
        return made


def application(
    look: Callable[[], Look], hosts: frozenset[str] = frozenset(), clock: Callable[[], float] = time.monotonic
) -> web.Application:
    """The page and its data. `hosts`: further names by which it may be asked for, in lower case."""
    answers = Answers(look, clock)
    assets = {name: _asset(name, kind) for name, kind in _ASSETS.items()}

    async def answer(request: web.Request) -> web.Response:
        made = answers.get(_asked(request))
        return _sent(request, made) if made else web.Response(status=503, headers={**_HEADERS, "Retry-After": "1"})

    async def asset(request: web.Request) -> web.Response:
        return _sent(request, assets[request.path.rpartition("/")[2]])

    @web.middleware
    async def ours(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if is_ours(request.headers.get("Host", ""), hosts):
            return await handler(request)
        return web.Response(status=403, text=_NOT_OURS, headers=_HEADERS)

    app = web.Application(middlewares=[ours])
    named = "registrations/{namespace}/{name}"
    app.add_routes([web.get(path, answer) for path in ("/", f"/{named}", "/api/overview", f"/api/{named}")])
    app.add_routes([web.get(f"/assets/{name}", asset) for name in assets])
    return app


@asynccontextmanager
async def serving(host: str, port: int, look: Callable[[], Look], hosts: frozenset[str]) -> AsyncIterator[None]:
    """Serve the page. Raises OSError where the address can't be bound."""
    runner = web.AppRunner(application(look, hosts), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()


def _asked(request: web.Request) -> Asked:
    kind = _JSON if request.path.startswith("/api/") else _HTML
    if "name" in request.match_info:
        return Asked(kind, RegistrationKey(request.match_info["namespace"], request.match_info["name"]), "")
    return Asked(kind, None, request.query.get("q", "").strip()[:_ASKED])


def _answer_to(asked: Asked, seen: Look) -> Answer:
    if asked.key is None:
        brief = seen.overview(asked.filter)
        return _json(brief) if asked.kind == _JSON else _html(overview(brief, asked.filter))
    found = seen.detail(asked.key)
    if found is None:
        error = {"error": "there is no such registration"}
        return _json(error, 404) if asked.kind == _JSON else _html(missing(seen.replica), 404)
    return _json(found) if asked.kind == _JSON else _html(detail(found))


def _json(value: object, status: int = 200) -> Answer:
    return _answer(msgspec.json.encode(value) + b"\n", _JSON, status)


def _html(text: str, status: int = 200) -> Answer:
    return _answer(text.encode(), _HTML, status)


def _asset(name: str, kind: str) -> Answer:
    return _answer((files("consul_registrar.status_page") / "assets" / name).read_bytes(), kind)


def _answer(body: bytes, kind: str, status: int = 200) -> Answer:
    return Answer(body, kind, hashlib.sha256(body).hexdigest()[:24], status)


def _sent(request: web.Request, made: Answer) -> web.Response:
    """With its tag; whoever has it already is only told so."""
    headers = {**_HEADERS, "ETag": f'"{made.tag}"'}
    if made.status == 200 and any(made.tag == known.value for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=made.body, status=made.status, content_type=made.kind, charset="utf-8", headers=headers)
