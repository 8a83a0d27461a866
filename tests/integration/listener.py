"""An HTTP server that checks are led to: it notes what it was asked, and answers as a test tells it."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Listener:
    """What a server was asked, and by which name. `codes`: its next answers, the last for ever. `elsewhere`: where it
    leads to by a redirect.
    """

    port: int = 0
    seen: list[tuple[str, str, str, str]] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    codes: list[int] = field(default_factory=lambda: [200])
    elsewhere: str = ""

    @property
    def shown(self) -> list[str]:
        """The header X-Probe of each request."""
        return [probe for _, _, probe, _ in self.seen]

    def answer(self, asked: BaseHTTPRequestHandler) -> None:
        body = asked.rfile.read(int(asked.headers.get("Content-Length") or 0)).decode()
        self.seen.append((asked.command, asked.path, asked.headers.get("X-Probe", ""), body))
        asked.send_response(self.codes.pop(0) if len(self.codes) > 1 else self.codes[0])
        if self.elsewhere:
            asked.send_header("Location", self.elsewhere)
        asked.end_headers()


@contextmanager
def listening(one: Listener, context: ssl.SSLContext | None = None) -> Iterator[Listener]:
    """It runs as long as the block; by TLS where a context is given."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            one.answer(self)

        do_POST = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A probe that gives up breaks off."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        one.port = server.server_port
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield one
        finally:
            server.shutdown()
            serving.join()
