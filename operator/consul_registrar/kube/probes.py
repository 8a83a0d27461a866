"""Readiness probes of containers from the API server's JSON; what repeats from Pod to Pod is kept once."""

from collections.abc import Mapping
from functools import lru_cache

import msgspec

from consul_registrar.model import ReadinessProbe

_Key = tuple[str, str, str, int | str, str, bool, tuple[tuple[str, str], ...], int, int, int, int]


class _Wire(msgspec.Struct, gc=False, rename="camel"):
    """As in `records.py`."""


class _Header(_Wire):
    name: str | None = None
    value: str | None = None


class _HttpGet(_Wire):
    host: str | None = None
    path: str | None = None
    port: int | str | None = None
    scheme: str | None = None
    http_headers: list[_Header] | None = None


class _TcpSocket(_Wire):
    host: str | None = None
    port: int | str | None = None


class _Grpc(_Wire):
    port: int | None = None
    service: str | None = None


class ProbeWire(_Wire):
    """A probe as it stands in a container's spec."""

    http_get: _HttpGet | None = None
    tcp_socket: _TcpSocket | None = None
    grpc: _Grpc | None = None
    period_seconds: int | None = None
    timeout_seconds: int | None = None
    success_threshold: int | None = None
    failure_threshold: int | None = None


def readiness_probe(container: str, wire: ProbeWire, ports: Mapping[str, int]) -> ReadinessProbe:
    """The readiness probe of a container, with Kubernetes' defaults. `ports`: the container's own, by name."""
    kind, host, port, text, https, headers = _what(wire)
    if isinstance(port, str):
        port = ports.get(port, port)
    counts = (wire.period_seconds or 10, wire.timeout_seconds or 1, wire.success_threshold or 1)
    return _kept_once((container, kind, host, port, text, https, headers, *counts, wire.failure_threshold or 3))


def _what(wire: ProbeWire) -> tuple[str, str, int | str, str, bool, tuple[tuple[str, str], ...]]:
    """Kind, host, port, path or service, whether over TLS, headers."""
    if wire.http_get is not None:
        get = wire.http_get
        headers = tuple((header.name or "", header.value or "") for header in get.http_headers or ())
        return "http", get.host or "", get.port or 0, get.path or "/", get.scheme == "HTTPS", headers
    if wire.tcp_socket is not None:
        return "tcp", wire.tcp_socket.host or "", wire.tcp_socket.port or 0, "", False, ()
    if wire.grpc is not None:
        return "grpc", "", wire.grpc.port or 0, wire.grpc.service or "", False, ()
    return "exec", "", 0, "", False, ()


@lru_cache(maxsize=4096)
def _kept_once(key: _Key) -> ReadinessProbe:
    return ReadinessProbe(*key)
