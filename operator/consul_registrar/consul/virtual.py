"""Decides which Consul nodes a connection in catalog mode has, and on which of them an instance stands; pure.

The nodes are virtual: nobody runs there. Their number is fixed, so that the number of blocking queries is, and each
read is small. Each instance carries its own address, so the node's is never used: it is the loopback's, which answers
when something pings it all the same (with an address that doesn't, consul-esm would turn all of the node critical).
None has a node ID, since Consul takes two nodes with one ID for one node that was renamed; and none has a `serfHealth`
check, since Consul removes nodes whose `serfHealth` it can't confirm.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

from consul_registrar.model import (
    MANAGED_BY,
    META_CLUSTER,
    META_CONNECTION,
    META_MANAGED_BY,
    META_SOURCE,
    Instance,
)

ADDRESS = "127.0.0.1"
EXTERNAL_NODE = "external-node"
EXTERNAL_PROBE = "external-probe"
_WORD = 2**64 - 1


def node_names(cluster: str, connection: str, count: int) -> tuple[str, ...]:
    """The virtual nodes of one connection."""
    return tuple(f"{cluster}-{connection}-{number:02d}" for number in range(count))


def node_meta(cluster: str, connection: str, *, probed: bool) -> dict[str, str]:
    """What a virtual node says of itself. `probed`: consul-esm is to run the checks of its services.

    The node itself is not to be probed, since there is none.
    """
    own = {
        META_SOURCE: "kubernetes",
        META_MANAGED_BY: MANAGED_BY,
        META_CLUSTER: cluster,
        META_CONNECTION: connection,
    }
    return own | ({EXTERNAL_NODE: "true", EXTERNAL_PROBE: "false"} if probed else {})


def is_probed(meta: Mapping[str, str]) -> bool:
    """Whether a node says that consul-esm is to run its checks, and not to ping it."""
    return (meta.get(EXTERNAL_NODE), meta.get(EXTERNAL_PROBE)) == ("true", "false")


def choose(nodes: Sequence[str], identity: str, standing: Sequence[Instance]) -> str:
    """The node for an instance. It stays where it stands while that is one of the nodes.

    Else by rendezvous hash: each identity prefers the nodes in an order of its own, that others' coming and going
    keeps. So with another number of nodes only those move whose node went.
    """
    stands = next((instance.node for instance in standing if instance.node in nodes), None)
    if stands is not None:
        return stands
    weights = _weights(_number(f"{len(identity)}:{identity}"), nodes)
    return nodes[weights.index(max(weights))]


def _weights(seed: int, nodes: Sequence[str]) -> list[int]:
    """How much an identity prefers each node. Two rounds of splitmix64: a real hash for each costs ten times that."""
    mixed = [(seed ^ number) * 0x9E3779B97F4A7C15 & _WORD for number in _numbers_of_nodes(tuple(nodes))]
    return [(each ^ each >> 29) * 0xBF58476D1CE4E5B9 & _WORD for each in mixed]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@lru_cache(maxsize=64)
def _numbers_of_nodes(nodes: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(_number(node) for node in nodes)
