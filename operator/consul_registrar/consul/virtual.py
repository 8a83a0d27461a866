"""Decides which Consul nodes a connection in catalog mode has; on which an instance stands says `placement.py`. Pure.

The nodes are virtual: nobody runs there. Their number is fixed, so that the number of blocking queries is, and each
read is small. Each instance carries its own address, so the node's is never used: it is the loopback's, which answers
when something pings it all the same (with an address that doesn't, consul-esm would turn all of the node critical).
None has a node ID, since Consul takes two nodes with one ID for one node that was renamed; and none has a `serfHealth`
check, since Consul removes nodes whose `serfHealth` it can't confirm.
"""

from collections.abc import Mapping

from consul_registrar.model import (
    MANAGED_BY,
    META_CLUSTER,
    META_CONNECTION,
    META_MANAGED_BY,
    META_SOURCE,
)

ADDRESS = "127.0.0.1"
EXTERNAL_NODE = "external-node"
EXTERNAL_PROBE = "external-probe"


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
