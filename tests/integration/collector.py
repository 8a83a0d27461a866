"""A collector of traces: a listener that takes OTLP over HTTP, as any does, and keeps what it took."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

PATH = "/v1/traces"


@dataclass(frozen=True)
class Span:
    """One span as it came. IDs are bytes; `links` are the spans that it leads to, with the attributes of each link."""

    name: str
    id: tuple[bytes, bytes]
    parent: bytes
    attributes: dict[str, Any]
    links: dict[tuple[bytes, bytes], dict[str, Any]]
    failed: bool
    resource: dict[str, Any]


class Collector:
    """Listens where it is told; after `stop` nobody does, until it is started again."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._requests: list[tuple[dict[str, str], bytes]] = []
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        host, port = self._address
        return f"http://{host}:{port}"

    def start(self) -> None:
        self._server = ThreadingHTTPServer(self._address, self._handler())
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def bytes(self) -> bytes:
        """All bodies that came."""
        return b"".join(body for _, body in self._requests)

    @property
    def headers(self) -> list[dict[str, str]]:
        """Those of each request; names in small letters."""
        return [headers for headers, _ in self._requests]

    def spans(self, name: str, **attributes: Any) -> list[Span]:
        """Spans of a name with these attributes; `__` stands for `.`."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        every = (span for _, body in list(self._requests) for span in _decoded(body))
        return [span for span in every if span.name == name and wanted.items() <= span.attributes.items()]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        requests = self._requests

        class Handler(BaseHTTPRequestHandler):
            """Closes each connection after its answer, so that nothing is taken once nobody listens."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fits = self.path == PATH and self.headers["Content-Type"] == "application/x-protobuf"
                if fits:
                    requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200 if fits else 400)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Tests have logs enough."""

        return Handler


@contextmanager
def collecting(host: str, port: int) -> Iterator[Collector]:
    one = Collector(host, port)
    one.start()
    try:
        yield one
    finally:
        one.stop()


def _decoded(body: bytes) -> Iterator[Span]:
    for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for span in (span for of_scope in of_resource.scope_spans for span in of_scope.spans):
            yield Span(
                span.name,
                (span.trace_id, span.span_id),
                span.parent_span_id,
                _attributes(span.attributes),
                {(link.trace_id, link.span_id): _attributes(link.attributes) for link in span.links},
                failed=span.status.code == span.status.STATUS_CODE_ERROR,
                resource=resource,
            )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    return getattr(value, str(value.WhichOneof("value")))
