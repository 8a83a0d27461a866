"""Requests to the Kubernetes API over one pooled session, watches over another: raw bytes out, typed errors,
credentials kept fresh.

Decided here: time-outs, keepalive, when to log in again, which answer is which error (`errors.py` draws the tree).
Left to the callers: decoding, and whether to try again; nothing is repeated here but a request that got a 401, once.
"""

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import aiohttp
import kopf
import msgspec

from consul_registrar import tracing
from consul_registrar.kube.errors import LoginFailed, Silent, Unavailable, error_of, message_of, seconds_of
from consul_registrar.kube.lines import LineSplitter

Login = Callable[[], Awaitable[kopf.ConnectionInfo]]

#: Seconds for a whole request that isn't a watch: a page of 500 large Pods from a busy server included.
REQUEST_TIMEOUT = 60.0
CONNECT_TIMEOUT = 10.0
#: Seconds without a byte after which a watch is given up. The server sends a bookmark at least every 62 s or so.
INACTIVITY = 75.0
#: Seconds after which the server is asked to end a watch in order, as client-go does, so that load spreads again.
WATCH_SECONDS = (300, 600)
#: Connections at once, beside one for each watch: reads and writes in parallel; far under what an API server's fair
#: queueing allows.
CONNECTIONS = 50

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


@dataclass(frozen=True, slots=True)
class _Access:
    """A login, ready to use."""

    info: kopf.ConnectionInfo
    headers: Mapping[str, str]
    ssl: ssl.SSLContext | bool
    until: datetime | None


class KubeClient:
    """One session to one API server. Use it as an async context manager, inside the loop that it shall serve."""

    def __init__(self, login: Login, *, inactivity: float = INACTIVITY) -> None:
        self._login = login
        self._inactivity = inactivity
        self._access: _Access | None = None
        self._logging_in = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._session = _session(CONNECTIONS)
        self._watching = _session(0)  # without a limit: there are as many watches as namespaces, and more
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._watching.close()
        await self._session.close()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> bytes:
        """The object at the path, by a quorum read (no resourceVersion is sent)."""
        return await self._read("GET", path, params=params)

    async def list_page(self, path: str, *, limit: int = 500, token: str = "", selector: str = "") -> bytes:
        """One page of a list, by a quorum read. Pages joined by `token` show one snapshot; `Gone`: start again."""
        wanted = {"limit": str(limit), "continue": token, "labelSelector": selector}
        return await self._read("GET", path, params={key: value for key, value in wanted.items() if value})

    async def create(self, path: str, body: Mapping[str, object]) -> bytes:
        """Post an object to a collection; `Conflict` where the name is taken."""
        return await self._read("POST", path, data=msgspec.json.encode(body), content="application/json")

    async def replace(self, path: str, body: Mapping[str, object]) -> bytes:
        """Put an object; `Conflict` where it has another resourceVersion than the body says."""
        return await self._read("PUT", path, data=msgspec.json.encode(body), content="application/json")

    async def merge_patch(self, path: str, body: Mapping[str, object], subresource: str = "") -> bytes:
        """Merge (RFC 7386): nulls delete, lists are replaced whole. Unconditional unless the body has a version."""
        where = f"{path}/{subresource}" if subresource else path
        return await self._read("PATCH", where, data=msgspec.json.encode(body), content=MERGE_PATCH)

    async def strategic_patch(self, path: str, body: Mapping[str, object], subresource: str = "") -> bytes:
        """Merge by the keys that Kubernetes' own kinds have for their lists: what isn't named is left alone.

        A `metadata.uid` in it must be the object's; `Invalid` where another one has the name by now.
        """
        where = f"{path}/{subresource}" if subresource else path
        return await self._read("PATCH", where, data=msgspec.json.encode(body), content=STRATEGIC_PATCH)

    async def apply(self, path: str, body: Mapping[str, object], manager: str, *, force: bool) -> bytes:
        """Server-side apply: what `manager` applied before and `body` lacks goes, what others own stays.

        `force`: take over fields of others that say otherwise, else `Conflict`. A `metadata.uid` in it means an update
        of that very object, never a creation.
        """
        params = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self._read("PATCH", path, params=params, data=msgspec.json.encode(body), content=APPLY_PATCH)

    async def json_patch(self, path: str, operations: Sequence[Mapping[str, object]]) -> bytes:
        """Apply operations (RFC 6902), all or none; a `test` that fails is `Invalid`."""
        return await self._read("PATCH", path, data=msgspec.json.encode(operations), content=JSON_PATCH)

    async def delete(self, path: str, body: Mapping[str, object] | None = None) -> bytes:
        """Delete an object; the body may hold preconditions (uid, resourceVersion)."""
        data = msgspec.json.encode(body) if body else None
        return await self._read("DELETE", path, data=data, content="application/json")

    @contextlib.asynccontextmanager
    async def watch(self, path: str, version: str, *, selector: str = "") -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch from a resource version, with bookmarks; iterate over its lines, one raw event each.

        The iteration ends when the server closes the stream in order. Raises `Gone` where the version has expired,
        `Unavailable` when the connection breaks, `Silent` when nothing comes for `inactivity` seconds.
        """
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),  # noqa: S311 - spreads load, guards nothing
        }
        if selector:
            params["labelSelector"] = selector
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT, sock_read=self._inactivity)
        async with self._request("GET", path, params=params, timeout=timeout, over=self._watching) as response:
            yield _lines(response)

    async def _read(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: bytes | None = None,
        content: str = "",
    ) -> bytes:
        async with self._request(method, path, params=params, data=data, content=content) as response:
            return await response.read()

    @contextlib.asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: bytes | None = None,
        content: str = "",
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109 - aiohttp's own, per socket operation
        over: aiohttp.ClientSession | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        access = await self._fresh_access()
        with _as_unavailable(method, path):
            for attempt in (1, 2):
                async with (over or self._session).request(
                    method,
                    access.info.server.rstrip("/") + path,
                    params=params,
                    data=data,
                    headers={**access.headers, **({"Content-Type": content} if content else {})},
                    ssl=access.ssl,
                    proxy=access.info.proxy_url,
                    timeout=timeout or self._session.timeout,
                ) as response:
                    if response.status < 400:
                        yield response
                        return
                    body = await response.read()
                    if response.status == 401 and attempt == 1:
                        access = await self._log_in_again(access)
                        continue
                    after = seconds_of(response.headers.get("Retry-After"))
                    raise error_of(response.status, f"{method} {path}: {message_of(body)}", after)

    async def _fresh_access(self) -> _Access:
        access = self._access
        if access is None or (access.until is not None and datetime.now(UTC) >= access.until):
            return await self._log_in_again(access)
        return access

    async def _log_in_again(self, old: _Access | None) -> _Access:
        """Log in, once for however many requests found `old` expired or refused."""
        async with self._logging_in:
            if self._access is None or self._access is old:
                self._access = _prepare(await self._login(), old)
            return self._access


def _session(connections: int) -> aiohttp.ClientSession:
    """A session with so many connections at most; 0: however many."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, socket_factory=_socket),
        # In-cluster bandwidth is cheap; the server's gzip and our gunzip of every page are not.
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "consul-registrar"},
        timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=CONNECT_TIMEOUT),
        read_bufsize=2**18,
        trace_configs=tracing.requests(),
    )


def _prepare(info: kopf.ConnectionInfo, old: _Access | None) -> _Access:
    """A new SSL context would open new connections, so the old one serves on while the certificates are the same."""
    headers = info.as_http_headers()
    if not info.server.startswith("https:"):
        return _Access(info, headers, ssl=True, until=info.expiration)
    if old is not None and _certificates(old.info) == _certificates(info):
        return _Access(info, headers, old.ssl, info.expiration)
    try:
        return _Access(info, headers, info.as_ssl_context(), info.expiration)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise LoginFailed(f"the certificates of the Kubernetes login can't be read: {error}") from error


def _certificates(info: kopf.ConnectionInfo) -> tuple[object, ...]:
    files = (info.certificate_path, info.private_key_path, info.ca_path)
    inline = (info.certificate_data, info.private_key_data, info.ca_data)
    return (*files, *inline, info.insecure)


@contextlib.contextmanager
def _as_unavailable(method: str, path: str) -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unavailable(f"{method} {path}: {error or type(error).__name__}") from error


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    splitter = LineSplitter()
    try:
        async for chunk in response.content.iter_any():
            for line in splitter.feed(chunk):
                yield line
    except aiohttp.SocketTimeoutError as error:
        raise Silent(f"nothing came on the watch of {response.url.path} for too long") from error


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices a dead peer within half a minute, also on a silent watch."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000)):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
