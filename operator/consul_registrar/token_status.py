"""What a connection's status says of its ACL token, and what it said: by the accessor ID, never the token itself.

Decides the condition `TokenCurrent`. While instances are given anew under another token, status names the one before
too: what was begun is found there after a restart. Which token is used is decided in `consul/token.py`.
"""

from collections.abc import Mapping
from typing import Any

from consul_registrar.conditions import Verdict
from consul_registrar.consul import Recorded, TokenStatus
from consul_registrar.model import Reason


def recorded(status: Mapping[str, Any]) -> Recorded | None:
    """The token that instances stand under by a connection's status, None where it doesn't say."""
    token = status.get("token")
    return Recorded(token["accessorID"], "rotation" not in token) if token else None


def entry(token: TokenStatus | None, before: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the status that `recorded` reads; `before`: the status as it was."""
    if token is None or not token.accessor:
        return {}
    if not token.rotating:
        return {"token": {"accessorID": token.accessor}}
    known = recorded(before)
    rotation = {"accessorID": token.accessor, "instancesLeft": token.left}
    return {"token": {"accessorID": known.accessor if known else "", "rotation": rotation}}


def verdict(token: TokenStatus | None) -> dict[str, Verdict]:
    """The condition; none where there is no token with a name."""
    if token is None or not token.accessor:
        return {}
    return {"TokenCurrent": Verdict(token.refused is None and not token.rotating, _reason(token))}


def _reason(token: TokenStatus) -> Reason:
    if token.refused is not None and token.refused.code == "LoginRefused":
        return Reason("LoginRefused", f"the token {token.accessor} isn't replaced: {token.refused.message}")
    if token.refused is not None:
        message = f"the token that was read last isn't used, {token.accessor} goes on: {token.refused.message}"
        return Reason("NewTokenRefused", message)
    if not token.rotating:
        return Reason("TokenInUse", f"everything is written with the token {token.accessor}")
    left = f"{token.left} instances still stand under another token than {token.accessor}"
    if token.denied is not None:
        return Reason("TokenWriteDenied", f"{left}, and keep it for now: {token.denied.message}")
    unseen = f"; {token.unseen} agents don't answer" if token.unseen else ""
    return Reason("TokenRotating", left + unseen)
