"""Decides on which of several Consul nodes an instance stands that could stand on any; pure."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

from consul_registrar.model import Instance

_WORD = 2**64 - 1


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
