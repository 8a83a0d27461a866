"""The dead man's switch: what the operator vouches for turns critical once the operator was gone for too long.

Decides which instances hang on it: those with a check whose status the operator says (readiness, draining). Each has
an alias check of one service at its own agent, the heartbeat. How that is kept beating is `consul/heartbeat.py`'s
concern.
"""

import hashlib

from consul_registrar.model import Check, Health
from consul_registrar.probes import AliasProbe, Readiness

KIND = "dead-man"
"""The check's name, and how its ID ends in place of a type."""

_NOTES = "critical once the operator was gone for too long"


def heartbeat_id(cluster: str, connection: str) -> str:
    """The ID of the heartbeat of one connection of one cluster, the same at each agent; no instance has such an ID."""
    identity = f"{len(cluster)}:{cluster}{len(connection)}:{connection}"
    return f"consul-registrar-heartbeat-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def hung_on(heartbeat: str, instance_id: str, checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """The checks of an instance, and the one that follows the heartbeat; "": there is none to follow."""
    if not heartbeat or not any(isinstance(check.probe, Readiness) for check in checks):
        return checks
    probe = AliasProbe(heartbeat, "")
    return (*checks, Check(f"{instance_id}::{KIND}", KIND, probe, Health.PASSING, _NOTES))


def follows(check_id: str) -> bool:
    """Whether it is the ID of a check that follows a heartbeat: definitions can't be read back."""
    return check_id.endswith(f"::{KIND}")
