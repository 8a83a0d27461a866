"""What can go wrong between us and Consul, by what follows from it.

    ConsulError
    ├── NotSent          nothing was applied; try again
    │   ├── Unavailable  … and so it is for everybody: nobody answers, or nobody leads (refused, DNS, no leader)
    │   └── Throttled    … not before `after` seconds (429, write limits)
    │       └── Paced    … by the connection's own limit: nothing is wrong
    ├── OutcomeUnknown   it may have been applied; read back, then repeat (time-out, reset, leadership lost)
    ├── Stale            the state differs from what we assumed; read again, then plan again
    │   └── Overtaken    … by the time of its turn, so it was not sent
    ├── Denied           the token may not; nothing changes until token or policy does
    ├── Invalid          the request is wrong as it stands; never repeat it unchanged
    └── Misdirected      the address isn't the agent that it was (load balancer, replaced agent); write nothing

Each carries the `Reason` that the condition, the Event and the log line share. `retry` says whether time alone may
help. Which answer of Consul's means what is decided in `transport.py`.
"""

from consul_registrar.model import Reason


class ConsulError(Exception):
    """Base of the tree; never raised itself."""

    retry = True

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.message)
        self.reason = reason


class NotSent(ConsulError):
    """Nothing was applied."""


class Unavailable(NotSent):
    """Nobody answers, or the servers have no leader: whatever else is sent now fares no better."""


class Throttled(NotSent):
    """Consul pushes back; `after` is the number of seconds it asked for, None where it didn't say."""

    def __init__(self, reason: Reason, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


def asked(error: ConsulError) -> float:
    """Seconds for which Consul wants to be left alone; 0 where it doesn't say."""
    return error.after or 0.0 if isinstance(error, Throttled) else 0.0


class Paced(Throttled):
    """It is not its turn yet."""


class OutcomeUnknown(ConsulError):
    """It may have been applied."""


class Stale(ConsulError):
    """What we assumed no longer holds."""


class Overtaken(Stale):
    """It is not wanted any more, so it was not sent."""


class Denied(ConsulError):
    """The token may not do this."""

    retry = False


class Invalid(ConsulError):
    """The request is wrong as it stands."""

    retry = False


class Misdirected(ConsulError):
    """The address does not lead to one agent, or no longer to the one it did."""

    retry = False
