"""Gives the instances at all agents anew, at a pace, once the token that they stand under was replaced.

Decides whose turn it is, and when. Whether there is anything to give anew is `rotation.py`'s decision, how it is done
without starting probes over for nothing `sender.py`'s.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sized

from consul_registrar.backoff import Backoff
from consul_registrar.consul.errors import ConsulError, Denied
from consul_registrar.consul.registry import TokenStatus
from consul_registrar.consul.rotation import Rotation
from consul_registrar.consul.session import AgentSession
from consul_registrar.consul.token import Token
from consul_registrar.model import Reason

PACE = 0.2
"""Seconds between two instances that one agent is given anew: each starts its probes over."""

AT_ONCE = 10
"""Agents that are given an instance anew at a time; so 50 instances a second at most."""

IDLE = 1.0
"""Seconds between two looks whether a rotation is to begin."""

HELD = 30.0
"""Seconds to wait at most while Consul denies the new token every write: the rest keep the token that they have."""


class Renewal:
    """The turns of one connection's instances. `sessions`: those with its agents, as they come and go.

    `unaddressed`: the Kubernetes nodes whose agents nobody can ask.
    """

    def __init__(
        self,
        token: Token,
        sessions: Mapping[str, AgentSession],
        unaddressed: Callable[[], Sized],
        may_write: Callable[[], bool],
    ) -> None:
        self._token = token
        self._rotation = Rotation(token)
        self._sessions = sessions
        self._unaddressed = unaddressed
        self._may_write = may_write
        self._denied: tuple[str, Reason] | None = None
        self._patience = Backoff(PACE, HELD, random.random)
        self._held_until = 0.0

    async def run(self) -> None:
        """Let the turn of all instances come that stand under a token that was replaced; for ever, at a pace."""
        while True:
            target = self._rotation.target()
            if target and self._may_write() and time.monotonic() >= self._held_until:
                self._renew_some(target)
            await asyncio.sleep(PACE if target else IDLE)

    def _renew_some(self, target: str) -> None:
        """One instance at each of some agents; it ends when nothing is left anywhere, where nobody sees it either."""
        agents = 0
        for session in self._sessions.values():
            agents += session.renew(target)
            if agents == AT_ONCE:
                return
        if not self._left(target) and not self._unseen():
            self._rotation.ended()

    def note(self, error: ConsulError | None) -> None:
        """One instance was written anew, or was not.

        A token that may not write one instance may not write any: while none succeeds, the others' turn is late.
        """
        if error is None:
            self._patience.reset()
        if isinstance(error, Denied):
            self._denied = (self._rotation.target(), error.reason)
            self._held_until = time.monotonic() + self._patience()

    def _left(self, target: str) -> int:
        return sum(session.left(target) for session in self._sessions.values())

    def _unseen(self) -> int:
        return sum(not session.ready for session in self._sessions.values()) + len(self._unaddressed())

    def status(self) -> TokenStatus | None:
        """How far it is; None where Consul knows no tokens."""
        target, token = self._rotation.target(), self._token
        if not token.accessor and token.refused is None:
            return None
        if not target:
            return TokenStatus(token.accessor, token.refused)
        denied = self._denied[1] if self._denied and self._denied[0] == target else None
        return TokenStatus(token.accessor, token.refused, True, self._left(target), self._unseen(), denied)
