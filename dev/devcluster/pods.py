"""Decides what answers on the addresses of running Pods: one process that stands in for all of their containers.

For each running Pod it listens on the Pod's address, on every TCP port that a container declares, and answers HTTP:
`/` names the Pod, `/health` gives 200. Annotations change that at any time:

    dev.consul-registrar.dev/health: "503"    the status code of /health
    dev.consul-registrar.dev/listen: "false"  nothing listens: connections are refused

A terminating Pod answers until it is gone. Which Pods run is said by the API server (`podwatch.py`); run this with
`python -m devcluster.pods KUBECONFIG READY_FILE`, and the file appears when the first Pods have been seen.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from devcluster.podwatch import watch_running_pods

logger = logging.getLogger("devcluster.pods")

PREFIX = "dev.consul-registrar.dev/"
REQUEST_LIMIT = 65536
RETRY_FIRST = 0.02
RETRY_MOST = 2.0


@dataclass(frozen=True, slots=True)
class PodView:
    """What matters of a running Pod."""

    uid: str
    name: str
    address: str
    ports: frozenset[int]
    health: int

    @classmethod
    def of(cls, pod: Mapping[str, Any]) -> PodView:
        """Read a Pod as the API server gives it; lists may be null."""
        metadata, spec, status = pod["metadata"], pod["spec"], pod["status"]
        annotations = metadata.get("annotations") or {}
        listens = annotations.get(PREFIX + "listen") != "false"
        health = annotations.get(PREFIX + "health", "")
        return cls(
            uid=metadata["uid"],
            name=f"{metadata['namespace']}/{metadata['name']}",
            address=status.get("podIP") or "",
            ports=frozenset(_tcp_ports(spec)) if listens else frozenset(),
            health=int(health) if health.isdigit() else HTTPStatus.OK,
        )


def _tcp_ports(spec: Mapping[str, Any]) -> Iterable[int]:
    sidecars = (one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always")
    for container in (*(spec.get("containers") or ()), *sidecars):
        for port in container.get("ports") or ():
            if port.get("protocol", "TCP") == "TCP":
                yield port["containerPort"]


class PodServer:
    """The listeners of one Pod."""

    def __init__(self, view: PodView) -> None:
        self.view = view
        self.connections: set[asyncio.Transport] = set()
        self._listeners: dict[int, asyncio.Task[asyncio.Server]] = {}

    def update(self, view: PodView) -> None:
        """Follow a change: open and close what differs, keep the rest."""
        if view.address != self.view.address:
            self.close()
        self.view = view
        for port in self._listeners.keys() - view.ports:
            self._close_port(port)
        if not view.ports:
            self._drop_connections()
        if view.address:
            for port in view.ports - self._listeners.keys():
                self._listeners[port] = asyncio.create_task(self._listen(view.address, port))

    def close(self) -> None:
        """Close all listeners and connections, at once: the next owner of the address may be waiting."""
        for port in tuple(self._listeners):
            self._close_port(port)
        self._drop_connections()

    def _close_port(self, port: int) -> None:
        opening = self._listeners.pop(port)
        if opening.done() and not opening.cancelled() and opening.exception() is None:
            opening.result().close()
        opening.cancel()

    def _drop_connections(self) -> None:
        for connection in tuple(self.connections):
            connection.abort()

    async def _listen(self, address: str, port: int) -> asyncio.Server:
        """Open a listener, trying until it works: the address may still be held by the Pod that had it before."""
        delay = RETRY_FIRST
        while True:
            try:
                listener = _bound(address, port)
            except OSError as error:
                logger.warning("%s cannot listen on %s:%d yet: %s", self.view.name, address, port, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_MOST)
            else:
                return await self._serve(listener)

    async def _serve(self, listener: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self), sock=listener, start_serving=False)
        try:
            await server.start_serving()
        except asyncio.CancelledError:
            server.close()
            raise
        return server


def _bound(address: str, port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
    except OSError:
        listener.close()
        raise
    return listener


class Connection(asyncio.Protocol):
    """One client of a Pod: a minimal HTTP/1.1 server, or just an open TCP connection to one that says nothing."""

    def __init__(self, server: PodServer) -> None:
        self._server = server
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the connection, so that it ends with its Pod."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections.add(transport)

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the connection."""
        if self._transport is not None:
            self._server.connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        """Answer every complete request; requests are taken to have no body."""
        assert self._transport is not None
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            keep = self._answer(self._transport, head.decode("latin-1"))
            if not keep:
                self._transport.close()
                return
        if len(self._received) > REQUEST_LIMIT:
            self._transport.abort()

    def _answer(self, transport: asyncio.Transport, head: str) -> bool:
        request, _, headers = head.partition("\r\n")
        method, _, target = request.rpartition(" ")[0].partition(" ")
        status, text = self._respond(method, target.partition("?")[0])
        reason = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
        keep = request.endswith("HTTP/1.1") and "connection: close" not in headers.lower()
        body = text.encode()
        transport.write(
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n".encode()
            + (b"" if method == "HEAD" else body)
        )
        return keep

    def _respond(self, method: str, path: str) -> tuple[int, str]:
        if method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD\n"
        if path == "/":
            return HTTPStatus.OK, f"{self._server.view.name} at {self._server.view.address}\n"
        if path == "/health":
            return self._server.view.health, f"{self._server.view.name} says {self._server.view.health}\n"
        return HTTPStatus.NOT_FOUND, "nothing here\n"


class Runtime:
    """All Pods that run, each with its listeners."""

    def __init__(self, ready_file: Path) -> None:
        self._servers: dict[str, PodServer] = {}
        self._ready_file = ready_file

    def replace(self, pods: Iterable[Mapping[str, Any]]) -> None:
        """Take a complete list. Who is gone goes first, as its address may have a new owner."""
        views = {view.uid: view for view in map(PodView.of, pods)}
        for uid in self._servers.keys() - views.keys():
            self.remove(uid)
        for view in views.values():
            self._put(view)
        self._ready_file.write_text(str(os.getpid()))

    def put(self, pod: Mapping[str, Any]) -> None:
        """Take one new or changed Pod."""
        self._put(PodView.of(pod))

    def remove(self, uid: str) -> None:
        """Close the listeners of a Pod that is gone or has finished."""
        server = self._servers.pop(uid, None)
        if server is not None:
            server.close()

    def _put(self, view: PodView) -> None:
        server = self._servers.get(view.uid)
        if server is None:
            server = self._servers[view.uid] = PodServer(view)
        server.update(view)


def main() -> None:
    """Run until stopped."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    kubeconfig, ready_file = Path(sys.argv[1]), Path(sys.argv[2])
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(watch_running_pods(kubeconfig, Runtime(ready_file)))


if __name__ == "__main__":
    main()
