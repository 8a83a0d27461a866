"""Decides which loopback addresses and ports a cluster uses; what listens there is decided elsewhere.

Every cluster owns one block: the Pod network 127.(64+k).0.0/16 and the host network 127.(128+k).0.0/16. With addresses
of its own a cluster can use the usual ports (6443, 8500, ...), so nothing races for free ones, and a part that
restarts finds its port free again.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address

BLOCKS = 64
POD_OCTET = 64
HOST_OCTET = 128


class NoAddressesError(Exception):
    """No block is left: as many clusters are running as the loopback network has room for."""


@dataclass(frozen=True, slots=True)
class Block:
    """The addresses of one cluster, held for as long as any process has `claim` open."""

    index: int
    claim: socket.socket

    @property
    def pod_network(self) -> str:
        """The network that Pods get their addresses from, in CIDR notation."""
        return f"127.{POD_OCTET + self.index}.0.0/16"

    @property
    def routable_pod_network(self) -> str:
        """The same with addresses that Kubernetes takes for ordinary ones, and that are nowhere on this machine."""
        return f"10.{POD_OCTET + self.index}.0.0/16"

    @property
    def control_plane(self) -> str:
        """The address of etcd and the API server."""
        return self._host(1)

    def consul_server(self, number: int) -> str:
        """The address of a Consul server, counted from 1."""
        return self._host(1 + number)

    def proxy(self, number: int) -> str:
        """The address of a TLS-terminating proxy, counted from 1."""
        return self._host(128 + number)

    def node(self, number: int) -> str:
        """The address of a node, counted from 1."""
        return self._host(256 + number)

    def release(self) -> None:
        """Let go of the block; processes that inherited the claim keep it until they end."""
        self.claim.close()

    def _host(self, offset: int) -> str:
        return str(IPv4Address(f"127.{HOST_OCTET + self.index}.0.0") + offset)


def claim_block() -> Block:
    """Take the first block that no other cluster on this machine holds.

    The claim is a socket with an abstract name: taken atomically, valid exactly where the loopback addresses are
    (the network namespace), inherited by the cluster's processes, and free again when the last of them has ended.
    """
    for index in range(BLOCKS):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0consul-registrar/dev/block-{index}")
        except OSError as error:
            claim.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return Block(index, claim)
    raise NoAddressesError(f"all {BLOCKS} address blocks are taken by running clusters")


def is_free(address: str, port: int) -> bool:
    """Whether a listener could be opened; another program on 0.0.0.0 may hold the port on every address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def choose_port(address: str, preferred: int) -> int:
    """The preferred port, or any free one where another program holds it."""
    if is_free(address, preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
