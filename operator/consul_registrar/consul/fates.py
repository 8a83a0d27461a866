"""Decides what becomes of a Consul node that holds something of ours and is no agent's of this connection; pure.

A Kubernetes node was deleted, an agent was replaced by one of another name, a connection was led to another agent. Who
is right depends on the agent: what is removed from the catalog under a living one comes back, and what a dead one held
can be removed nowhere else.

    an agent of ours that was never met may be it              wait
    its Kubernetes node is there, but has no address for us    wait
    its agent lives (it is a member, alive)                    meet it: it is written to until nothing of ours is left
    it is leaving, or the servers take it for healthy          wait
    else                                                       gone: what is to go is removed through the catalog
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent of this connection. `node`: the Consul node that it is, "" while it wasn't met. `label`: the Kubernetes
    node that it stands on, "" where its address is fixed.
    """

    label: str
    host: str
    node: str


@dataclass(frozen=True, slots=True)
class Member:
    """What the agents' gossip says of a node. `status` as in Consul: 1 alive, 2 leaving, 3 left, 4 failed."""

    address: str
    status: int


ALIVE, LEAVING = 1, 2


@dataclass(frozen=True, slots=True)
class Leftover:
    """A Consul node with something of ours. `addresses`: what the catalog says of it. `stood_on`: the Kubernetes nodes
    of the Pods that were registered there. `healthy`: whether the servers take its agent for alive.
    """

    node: str
    addresses: frozenset[str]
    stood_on: frozenset[str]
    healthy: bool


class Fate(Enum):
    WAIT = "wait"
    MEET = "meet"
    GONE = "gone"


def fate(leftover: Leftover, member: Member | None, agents: Collection[Agent], unaddressed: Collection[str]) -> Fate:
    """The table above. `unaddressed`: Kubernetes nodes on which there is no address to look for an agent at."""
    addresses = leftover.addresses | ({member.address} if member else frozenset())
    unmet = [agent for agent in agents if not agent.node]
    labels = leftover.stood_on | {leftover.node}
    if any(agent.label in labels or agent.host in addresses for agent in unmet):
        return Fate.WAIT
    if leftover.stood_on & set(unaddressed):
        return Fate.WAIT
    if member is not None and member.status == ALIVE:
        return Fate.MEET
    leaving = member is not None and member.status == LEAVING
    return Fate.WAIT if leaving or leftover.healthy else Fate.GONE
