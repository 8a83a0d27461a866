"""Decides whether the instances at agents must be given anew, since the token that they stand under was replaced.

An agent syncs an instance, and each change of its checks, with the token of its registration; once that has ended, what
the catalog shows of it is frozen. No agent tells which token that is, so it is kept for all of them at once in the
connection's status: there a rotation is begun before its first write and ended after its last, so that an operator
that finds one begun does it again from the start. Pure; when the next instance's turn comes is `renewal.py`'s decision.
"""

from consul_registrar.consul.token import Token


class Rotation:
    """Which token the instances of one connection stand under, and which they should."""

    def __init__(self, token: Token) -> None:
        self._token = token
        self._stand_under: str | None = None
        self._seen = ""

    def target(self) -> str:
        """The accessor ID of the token that instances must be given anew under, "" where all stand under it."""
        now = self._token.accessor
        if not now:
            return ""
        recorded = self._token.recorded()
        if recorded is not None and recorded.complete and recorded.accessor == now:
            self._stand_under = now  # as ended by this process, or by the one that leads
        elif self._stand_under is None:
            self._stand_under = now if recorded is None else recorded.accessor if recorded.complete else ""
        elif now != self._seen != self._stand_under:
            self._stand_under = ""  # replaced again before the end: some stand under each
        self._seen = now
        return now if now != self._stand_under else ""

    def ended(self) -> None:
        """Every instance stands under the token in use."""
        self._stand_under = self._token.accessor
