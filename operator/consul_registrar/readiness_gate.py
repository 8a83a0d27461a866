"""What a Pod that declares our readiness gate is told, from how its instances stand; pure.

Decides the status and reason of the condition, and how patiently a change of it waits. How instances stand is gathered
and the answer written in `gates.py`.

    the Pod's instances                                             was not True        was True
    -------------------------------------------------------------   -----------------   --------------------------
    each registration that selects it, in each of its Consuls:
        all stand, and their checks pass                            True / Registered   stays True
        one stands, and its checks don't pass                       False / NotPassing  stays True
        one doesn't stand (yet)                                     False / its reason  stays True
        a Consul can't be asked                                     False / its reason  stays True
    a Consul wasn't asked yet, shortly after the start              left as it is       stays True
    none is to stand, and nothing stands or may come                False / its reason  False / that reason
    no registration selects it, something of one that did stands    False / NotSelected stays True
    no registration selects it, nothing stands                      False / NotSelected False / NotSelected

So a Pod gets through the gate once callers can find it, and is taken back only once nothing of it is left in Consul on
purpose: neither health, nor an outage, nor a restart, nor a registration that never held takes a running Pod from its
Kubernetes Services (docs/decisions/0024).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from consul_registrar import model
from consul_registrar.model import Gate, Reason

#: Seconds until "False" is said for the first time, or another reason of it: what is on its way is soon there.
_SETTLES = 1.0
#: Seconds for which nothing must have been left before a Pod is taken back: a registration may be replaced by another.
_TAKES_BACK = 10.0

_REGISTERED = Gate("True", "Registered", "registered and passing in each Consul of each registration that selects it")
_NOT_SELECTED = Reason("NotSelected", "no ServiceRegistration of this namespace selects the Pod")


class Stand(Enum):
    """How one registration's instance of a Pod stands in one Consul."""

    PASSING = auto()
    FAILING = auto()  # it stands, its checks don't pass
    COMING = auto()  # it doesn't stand, and is to be registered
    UNSEEN = auto()  # that Consul, or its part where it would stand, can't be asked
    MISSING = auto()  # it doesn't stand, and won't as things are


@dataclass(frozen=True, slots=True)
class Vote:
    """How a registration's instance stands, and why; the message names registration and Consul."""

    stand: Stand
    reason: Reason


def answer(gate: Gate, votes: Sequence[Vote], *, remains: bool) -> Gate | None:
    """What the condition is to say; None: leave it as it is.

    `votes`: of all registrations that select the Pod. `remains`: something of others, which did, stands or may stand.
    """
    if any(vote.stand is Stand.UNSEEN and vote.reason.code == model.CONNECTING for vote in votes):
        return None
    if votes and all(vote.stand is Stand.PASSING for vote in votes):
        wanted = _REGISTERED
    elif gate.status == "True" and (remains or any(vote.stand is not Stand.MISSING for vote in votes)):
        return None
    else:
        wanted = _refused(votes)
    return None if _says(gate, wanted) else wanted


def patience(gate: Gate, wanted: Gate) -> float:
    """Seconds for which the answer must hold before it is written: a Pod is let through at once, and taken back late.

    What changes meanwhile isn't written at all.
    """
    if wanted.status == "True":
        return 0.0
    return _TAKES_BACK if gate.status == "True" else _SETTLES


def _refused(votes: Sequence[Vote]) -> Gate:
    reason = next((vote.reason for vote in votes if vote.stand is not Stand.PASSING), _NOT_SELECTED)
    return Gate("False", reason.code, reason.message)


def _says(gate: Gate, wanted: Gate) -> bool:
    """Whether the condition says so already; who has set it True, and in what words, makes no difference."""
    return gate == wanted or gate.status == wanted.status == "True"
