"""Decides what is said of a connection's agents as a whole, from what each of them says."""

from collections.abc import Sequence

from consul_registrar.consul.session import AgentSession
from consul_registrar.model import Reason


def reason_of(sessions: Sequence[AgentSession], left: str, *, fixed: bool) -> Reason:
    """How the agents look; where they are well, what is `left` elsewhere. `fixed`: there is one, at a fixed address."""
    reason = _single(sessions[0]) if fixed else _of_all(sessions)
    if left and reason.code in {"AgentReady", "AgentsReady"}:
        return Reason("LeftBehind", f"{reason.message}; left behind: {left}")
    return reason


def _of_all(sessions: Sequence[AgentSession]) -> Reason:
    """That of all of them with the first that isn't well."""
    if not sessions:
        return Reason("NoAgents", "no Kubernetes node with an address for a Consul agent is known")
    unwell = next((_single(s) for s in sessions if _single(s).code != "AgentReady"), None)
    ready = sum(session.ready for session in sessions)
    counted = f"{ready} of {len(sessions)} Consul agents are ready"
    if unwell is None:
        return Reason("AgentsReady", counted)
    return Reason(unwell.code if not ready else "SomeAgentsUnwell", f"{counted}; {unwell.message}")


def _single(session: AgentSession) -> Reason:
    stubborn = session.not_pushed() if session.ready else 0
    if not stubborn:
        return session.reason
    message = (
        f"{stubborn} instances were given to the agent of {session.node} anew and still aren't right in the "
        "catalog: check the token's policy and the agent's log"
    )
    return Reason("NotPushed", message)
