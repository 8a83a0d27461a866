"""What is done to Consul, and why: the four changes, each of one instance.

Which changes are made is decided in `plan.py`; how they are sent, in `consul/`.
"""

from dataclasses import field
from enum import StrEnum

from consul_registrar.model import Check, Instance
from consul_registrar.values import record


class Cause(StrEnum):
    """Why a change is made; it stands in the audit line of the write.

    GONE is monotone: always right. VANISHED and UNSELECTED are absences: true only while they hold, so they go through
    the quarantine and are confirmed by a fresh read before anything is removed (design chapter 2, laws 4 and 6).
    """

    DESIRED = "desired"
    EDITED = "edited"
    DRIFT = "drift"
    REAPED = "reaped"
    ROTATED = "token-rotated"
    READINESS = "readiness"
    GONE = "gone"
    VANISHED = "vanished"
    UNSELECTED = "unselected"
    REPLACED = "replaced"
    REGISTRATION_DELETED = "registration-deleted"
    ORPHANED = "orphaned"
    ADOPTED = "adopted"
    PORTS_LOST = "ports-lost"

    @property
    def final(self) -> bool:
        """Whether a removal for this cause is right whoever sends it, however late.

        That of a deleted registration is not: one that was let go uncleaned, and is created again, goes on with it.
        """
        return self is Cause.GONE

    @property
    def urgent(self) -> bool:
        """Whether a removal for this cause goes before other changes where they must wait for their turn."""
        return self in {Cause.GONE, Cause.REGISTRATION_DELETED}


@record(frozen=True, slots=True)
class Evidence:
    """What a change was decided on: the resourceVersions of Pod, Service, registration; None where there is none.

    `confirmed`: what a fresh read of the API server found that confirmed an absence; "" where none was asked for.
    """

    pod: int | None = None
    registration: int | None = None
    service: int | None = None
    confirmed: str = ""


NO_EVIDENCE = Evidence()


@record(frozen=True, slots=True)
class _OfInstance:
    """What every change is about."""

    instance: Instance

    @property
    def node(self) -> str:
        return self.instance.node

    @property
    def id(self) -> str:
        return self.instance.id


@record(frozen=True, slots=True)
class Register(_OfInstance):
    """Write the instance. `define`: the checks to (re)define with it; the others are left alone, running."""

    define: tuple[Check, ...]
    cause: Cause
    evidence: Evidence = field(default=NO_EVIDENCE, compare=False)


@record(frozen=True, slots=True)
class Feed(_OfInstance):
    """Set the status of a check that the operator vouches for."""

    check: Check
    cause: Cause = Cause.READINESS
    evidence: Evidence = field(default=NO_EVIDENCE, compare=False)


@record(frozen=True, slots=True)
class DropCheck(_OfInstance):
    """Remove one check of ours that the instance no longer has."""

    check_id: str
    cause: Cause = Cause.EDITED
    evidence: Evidence = field(default=NO_EVIDENCE, compare=False)


@record(frozen=True, slots=True)
class Deregister(_OfInstance):
    """Remove the instance and its checks. `instance` is the actual one, as it was read."""

    cause: Cause
    evidence: Evidence = field(default=NO_EVIDENCE, compare=False)


Change = Register | Feed | DropCheck | Deregister


def operation_of(change: Change) -> str:
    """What is done, in a word: it stands in the audit line of the write."""
    match change:
        case Register():
            return "register"
        case Feed():
            return "feed"
        case DropCheck():
            return "drop-check"
        case Deregister():
            return "deregister"
