"""`checksFromProbes` with the kinds of probes that agents run beside http: against real listeners, up and down."""

import selectors
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from operator_world import World, deployment, eventually, registration, statuses

from devcluster import Cluster

PROBES = {"tcpSocket": {"tcpSocket": {"port": 9000}}, "grpc": {"grpc": {"port": 9000}}}


@contextmanager
def forwarding(address: str, port: int, to: tuple[str, int]) -> Iterator[None]:
    """What listens at `to` answers here, too."""

    class Both(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(to) as other, selectors.DefaultSelector() as waiting:
                waiting.register(self.request, selectors.EVENT_READ, other)
                waiting.register(other, selectors.EVENT_READ, self.request)
                while True:
                    for key, _ in waiting.select():
                        if not (some := key.fileobj.recv(65536)):  # type: ignore[union-attr]
                            return
                        key.data.sendall(some)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server((address, port), Both) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize("kind", PROBES)
@pytest.mark.shows("sreg.spec.checksFromProbes", mode="agent")
def test_what_the_kubelet_asks_the_agent_asks_too(world: World, cluster: Cluster, kind: str) -> None:
    """Of etcd, which answers gRPC's health protocol."""
    name = f"asked-{kind}".lower()
    etcd = urlsplit(cluster.control_plane.etcd_url)
    probe: dict[str, Any] = {**PROBES[kind], "periodSeconds": 1, "failureThreshold": 1}
    world.apply(deployment(name, 1, readinessProbe=probe), registration(name, checksFromProbes=True))
    (pod,) = eventually(lambda: world.pods(name)).values()
    health = {"probe:main": "critical"}
    eventually(lambda: statuses(next(iter(world.health(name).values()))) == health)
    with forwarding(pod["status"]["podIP"], 9000, (str(etcd.hostname), int(etcd.port or 0))):
        (row,) = world.passing(name, 1).values()
        asked = {"tcpSocket": "tcp", "grpc": "grpc"}[kind]
        assert [check["Type"] for check in world.agent_checks(row).values()] == [asked]
    eventually(lambda: statuses(next(iter(world.health(name).values()))) == health)
