"""JSON over HTTP for who must not share a line of code with the program under test."""

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

BROKEN = (OSError, ValueError, http.client.HTTPException)
"""What a request may raise when nobody answers, or not in full."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    value: Any

    @property
    def index(self) -> int:
        """`X-Consul-Index`; 0 where there is none."""
        return int(self.headers.get("X-Consul-Index") or 0)


@dataclass(frozen=True, slots=True)
class Site:
    """A server, and how one is let in."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: ssl.SSLContext | None = None

    def get(self, path: str, timeout: float = 10.0) -> Reply:
        """Read once. Raises one of `BROKEN` where there is no complete answer."""
        connection = self._connect(timeout)
        try:
            connection.request("GET", path, headers=dict(self.headers))
            answer = connection.getresponse()
            body = answer.read()
            return Reply(answer.status, dict(answer.headers), json.loads(body) if answer.status == 200 else None)
        finally:
            connection.close()

    def lines(self, path: str, timeout: float) -> Iterator[dict[str, Any]]:
        """A stream of JSON lines, until it ends. Raises one of `BROKEN`; `timeout`: seconds of silence at most."""
        connection = self._connect(timeout)
        try:
            connection.request("GET", path, headers=dict(self.headers))
            yield from map(json.loads, connection.getresponse())
        finally:
            connection.close()

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        at = urlsplit(self.url)
        if self.tls is not None:
            return http.client.HTTPSConnection(at.hostname or "", at.port, timeout=timeout, context=self.tls)
        return http.client.HTTPConnection(at.hostname or "", at.port, timeout=timeout)
