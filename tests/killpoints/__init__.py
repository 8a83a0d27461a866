"""Faults for a controller between two APIs, Kubernetes' and Consul's: proxies, kill points, and an oracle.

It knows nothing of the program under test but how to start and kill it. See README.md; the modules:

    calls.py    what a request is: its class, whether it writes                                    pure
    wire.py     HTTP/1.1 as bytes
    network.py  proxies, and rules that say which requests a fault befalls
    faults.py   what can happen to a request
    plan.py     kills before and after each external write
    oracle.py   what is true of Consul and Kubernetes, event by event
    rest.py     how the oracle asks
"""

from killpoints.calls import Request, is_write, kind_is
from killpoints.network import Network, Rule
from killpoints.oracle import Claim, Oracle, World, explain, watching
from killpoints.plan import Point, Scenario, Stage, Subject, play, rehearse
from killpoints.rest import Site

__all__ = [
    "Claim", "Network", "Oracle", "Point", "Request", "Rule", "Scenario", "Site", "Stage", "Subject", "World",
    "explain", "is_write", "kind_is", "play", "rehearse", "watching",
]  # fmt: skip
