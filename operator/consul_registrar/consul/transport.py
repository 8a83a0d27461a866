"""Decides how a request reaches Consul: connections, time-outs, TLS, the token, and what a broken connection means.

py-consul speaks through it (`Client`), but is never given a token: it would put it into URLs and bodies. The token
leaves in the `X-Consul-Token` header alone, and only over TLS with a verified name, unless the connection says
otherwise. What an HTTP answer means is `answers.py`'s decision; no environment variable is read here.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote, urlencode

import aiohttp
from consul.base import Consul, HTTPClient
from yarl import URL

from consul_registrar import tracing
from consul_registrar.consul.answers import Answer, Request, failure
from consul_registrar.consul.errors import ConsulError, Denied, NotSent, OutcomeUnknown, Unavailable
from consul_registrar.model import Reason
from consul_registrar.together import is_cancelled

T = TypeVar("T")
Params = Sequence[tuple[str, object]]

SHORT_TIMEOUT = 10.0
"""Seconds for everything that doesn't block on purpose. Above the checks' time-outs, since an agent that removes an
HTTP check waits for its probe in flight while it holds the lock that every write needs."""

RPC_HOLD = 7.0
"""Seconds that Consul holds a request while it looks for a leader (rpc_hold_timeout)."""

CONNECT_TIMEOUT = 3.0
CONNECTIONS = 10
"""Per address: eight requests and two blocking queries. Consul allows a client's address 200."""

KEEPALIVE = 60.0
"""Seconds; below the 120 s after which Consul closes an idle connection itself."""

PLAIN = {"Accept-Encoding": "identity"}
"""Consul would compress every long answer; for it and us that costs more than sending it within a datacenter."""

COMPRESSED = {"Accept-Encoding": "gzip"}
"""For what is long and seldom read."""

RETRY = (0.5, 5.0)
"""Seconds between two tries to reach Consul: at first, and at most."""

FRESH_TOKEN = 30.0
"""Seconds for which an unknown token may just not have reached the server that was asked."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an agent or a server answers."""

    host: str
    port: int
    scheme: str = "http"

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def __str__(self) -> str:
        return self.url


def _no_token() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Access:
    """How one is let in. `token` is called for every request, so that a rotated file or Secret is noticed."""

    token: Callable[[], str] = field(default=_no_token, repr=False)
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    allow_plaintext_token: bool = False


class Transport(HTTPClient):  # type: ignore[misc]  # py-consul is untyped
    """A bounded pool of connections to one address, in the shape that py-consul calls.

    Every method raises the tree of `errors.py` and nothing else; a 404 is handed to the callback.
    """

    def __init__(self, endpoint: Endpoint, access: Access, connections: int = CONNECTIONS) -> None:
        super().__init__(endpoint.host, endpoint.port, endpoint.scheme)
        self.endpoint = endpoint
        self._access = access
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._token = ""
        self._token_since = 0.0

    def __repr__(self) -> str:
        return f"Transport({self.endpoint})"

    def fresh(self) -> "Transport":
        """Another transport to the same address that shares no connection with this one."""
        return Transport(self.endpoint, self._access)

    async def get(
        self, callback: Callable[[Answer], T], path: str, params: Params | None = None, headers: object = None,
        raw: bool = False, *, compressed: bool = False,
    ) -> T:  # fmt: skip
        """Read. With an `index` among the parameters it is a blocking query, and waits as long as it may take."""
        del headers, raw  # the token is this class's alone, and bodies are bytes
        return callback(await self._ask("GET", path, params or (), encoding=COMPRESSED if compressed else PLAIN))

    async def put(
        self, callback: Callable[[Answer], T], path: str, params: Params | None = None, data: str | bytes = b"",
        headers: object = None,
    ) -> T:  # fmt: skip
        """Write. `OutcomeUnknown` where it may have been applied without an answer that says so."""
        del headers
        return callback(await self._ask("PUT", path, params or (), data))

    async def post(
        self, callback: Callable[[Answer], T], path: str, params: Params | None = None, data: str | bytes = b"",
        headers: object = None,
    ) -> T:  # fmt: skip
        del headers
        return callback(await self._ask("POST", path, params or (), data))

    async def delete(
        self, callback: Callable[[Answer], T], path: str, params: Params | None = None, data: str | bytes = b"",
        headers: object = None,
    ) -> T:  # fmt: skip
        del headers
        return callback(await self._ask("DELETE", path, params or (), data))

    async def close(self) -> None:
        """End every connection; what is asked afterwards is `NotSent`."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(
        self, method: str, path: str, params: Params, data: str | bytes = b"", *, encoding: Mapping[str, str] = PLAIN
    ) -> Answer:
        request = Request(method, path, str(self.endpoint))
        if self._closed:
            raise _given_up(request)
        headers = self._headers(encoding)
        body = data.encode() if isinstance(data, str) else data
        try:
            answer = await self._send(request, params, body, headers)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _broken(request, error) from error
        except asyncio.CancelledError:
            if is_cancelled() or not self._closed:
                raise
            raise _given_up(request) from None  # while it waited for a connection: aiohttp cancels who does
        failed = failure(request, answer)
        if failed is not None:
            raise self._judge(failed)
        return answer

    async def _send(self, request: Request, params: Params, body: bytes, headers: dict[str, str]) -> Answer:
        async with self._pool().request(
            request.method,
            _url(self.endpoint, request.path, params),
            data=body or None,
            headers=headers,
            timeout=_timeout(params),
            allow_redirects=False,
            server_hostname=self._access.server_name or None,
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:
            tls = self._access.tls if self._access.tls is not None else True
            connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=KEEPALIVE, ssl=tls)
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trace_configs=tracing.requests()
            )
        return self._session

    def _headers(self, encoding: Mapping[str, str]) -> dict[str, str]:
        token = read_token(self._access, self.endpoint)
        if token != self._token:
            self._token, self._token_since = token, time.monotonic()
        return {**encoding, **({"X-Consul-Token": token} if token else {})}

    def _judge(self, failed: ConsulError) -> ConsulError:
        """An unknown token may be one that is too new for a lagging server: for a while only time is needed."""
        young = time.monotonic() - self._token_since < FRESH_TOKEN
        return NotSent(failed.reason) if failed.reason.code == "TokenUnknown" and young else failed


def _given_up(request: Request) -> NotSent:
    return NotSent(Reason("ConsulUnreachable", f"{request}: the connection was given up"))


def read_token(access: Access, endpoint: Endpoint) -> str:
    """The token for a request to `endpoint`, "" for none.

    Raises `Denied` where it can't be read, can't stand in a header, or would leave in plain text without leave.
    """
    try:
        token = access.token().strip()
    except OSError as error:
        raise Denied(Reason("TokenUnreadable", f"the Consul token can't be read: {error.strerror}")) from error
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise Denied(Reason("TokenMalformed", "the Consul token holds characters that can't stand in a header"))
    if token and endpoint.scheme != "https" and not access.allow_plaintext_token:
        message = f"the token is not sent to {endpoint} in plain text: use TLS, or set allowPlaintextToken"
        raise Denied(Reason("PlaintextTokenRefused", message))
    return token


def _url(endpoint: Endpoint, path: str, params: Params) -> URL:
    """Callers quote what they put into a path: quoting leaves their "%" alone."""
    query = urlencode([(name, str(value)) for name, value in params])
    return URL(endpoint.url + quote(path, safe="/:%") + (f"?{query}" if query else ""), encoded=True)


def _timeout(params: Params) -> aiohttp.ClientTimeout:
    """A blocking query takes its wait, up to a sixteenth more, and what Consul holds it without a leader."""
    asked = {name: str(value) for name, value in params}
    total = SHORT_TIMEOUT
    if "index" in asked:
        wait = float(asked.get("wait", "300s").removesuffix("s"))
        total += wait + wait / 16 + RPC_HOLD
    return aiohttp.ClientTimeout(total=total, sock_connect=CONNECT_TIMEOUT)


def _broken(request: Request, error: Exception) -> ConsulError:
    """What a connection that failed means: was the request sent, and can time alone help?"""
    if _is_tls(error):
        advice = "check the CA, the server's name and the client certificate"
        return Denied(Reason("TlsFailed", f"{request} failed in the TLS handshake ({_words(error)}): {advice}"))
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        message = f"{request}: no connection ({_words(error)}): is an agent listening there?"
        return Unavailable(Reason("ConsulUnreachable", message))
    if isinstance(error, aiohttp.InvalidURL):
        return Denied(Reason("InvalidAddress", f"{request}: that is no address"))
    if request.is_write:
        message = f"{request} broke off ({_words(error)}) and may have been applied: it is read back"
        return OutcomeUnknown(Reason("OutcomeUnknown", message))
    return NotSent(Reason("ConsulUnreachable", f"{request} broke off ({_words(error)}): it is tried again"))


def _is_tls(error: BaseException) -> bool:
    """With TLS 1.3 a server refuses a client certificate only after the handshake: the alert comes as a read error."""
    seen = (error, error.__cause__, error.__context__)
    return any(isinstance(e, ssl.SSLError | ssl.CertificateError | aiohttp.ClientSSLError) for e in seen)


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return str(error) or type(error).__name__


class Client(Consul):  # type: ignore[misc]  # py-consul is untyped
    """py-consul over our transport. It holds no token, whatever the environment says."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        at = transport.endpoint
        super().__init__(at.host, at.port, scheme=at.scheme, verify=True)
        self.token = None

    def http_connect(self, *_args: object) -> Transport:
        return self._transport
