"""Decides which token is shown to Consul: the one in use, until Consul has accepted the one that was read since.

A new token may not be known yet to a server that lags behind, it may be mistyped, or may not read all that ours must:
then the one before goes on. A token is spoken of by its accessor ID, which is public and may be logged. Where tokens
come from is `credentials.py`'s matter; what a new one means for instances that were registered with the one before is
decided in `rotation.py`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from consul_registrar.consul.answers import Answer, whole
from consul_registrar.consul.errors import ConsulError, Denied, Misdirected
from consul_registrar.consul.transport import Transport
from consul_registrar.model import Reason

log = logging.getLogger(__name__)

RETRY = 5.0
"""Seconds between two introductions of a token that Consul refused, or that nobody could be asked about."""

_NO_ACLS = "ACL support disabled"
_EMPTY = Reason("TokenEmpty", "there is no token any more where it was read from")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a connection's status says: the token that instances stand under; `complete`: all of them."""

    accessor: str
    complete: bool


def _nothing() -> Recorded | None:
    return None


class Token:
    """The token of one connection; called for each request. `recorded` is what its status says now."""

    def __init__(self, secret: str, recorded: Callable[[], Recorded | None] = _nothing) -> None:
        self.recorded = recorded
        self.accessor = ""
        self.refused: Reason | None = None
        self._used = self._offered = secret
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        return f"Token({self.accessor})"

    def __call__(self) -> str:
        return self._used

    def offer(self, secret: str) -> None:
        """This is the token as it was read last; it is used once Consul has accepted it."""
        if secret != self._offered:
            self._offered, self.refused = secret, None if secret else _EMPTY
            self._news.set()

    def miss(self, why: Reason) -> None:
        """There is no newer token to be had, though there should be."""
        self.refused = why

    async def run(self, introduce: Callable[[str], Awaitable[str]]) -> None:
        """Introduce each token that is offered; returns only when cancelled.

        `introduce` shows a token to Consul and returns its accessor ID, "" where Consul has no ACLs; it raises the
        tree of `errors.py`.
        """
        while True:
            self._news.clear()
            wait = RETRY if self._offered and not await self._accepted(introduce, self._offered) else None
            try:
                async with asyncio.timeout(wait):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _accepted(self, introduce: Callable[[str], Awaitable[str]], secret: str) -> bool:
        try:
            accessor = await introduce(secret)
        except ConsulError as error:
            self._refuse(secret, error)
            return False
        if secret != self._used:
            log.info("the token %s is used from now on, no longer %s", accessor, self.accessor or "the one before")
        self._used, self.accessor, self.refused = secret, accessor, None
        return True

    def _refuse(self, secret: str, error: ConsulError) -> None:
        """Only a new token's: what is wrong with the one in use is said by those who use it."""
        if secret == self._used or not (isinstance(error, Denied) or error.reason.code == "TokenUnknown"):
            return
        if self.refused is None:
            log.warning("the token that was read last isn't used: %s", error.reason.message)
        self.refused = error.reason


class _TokenSelf(msgspec.Struct, frozen=True):
    AccessorID: str


_self = msgspec.json.Decoder(_TokenSelf)


async def introduction(transport: Transport, reads: Sequence[str]) -> str:
    """The accessor ID of the transport's token, "" where Consul has no ACLs. Closes the transport.

    Raises `Denied` for a token that can't read all of what `reads` (paths) name, else the tree of `errors.py`.
    """
    try:
        accessor = await transport.get(_accessor, "/v1/acl/token/self")
        for path in reads:
            whole(path, await transport.get(_as_is, path))
    except Denied as error:
        if _NO_ACLS not in error.reason.message:
            raise
        return ""
    finally:
        await transport.close()
    return accessor


def _accessor(answer: Answer) -> str:
    try:
        return _self.decode(answer.body).AccessorID
    except msgspec.DecodeError as error:
        reason = Reason("NotConsul", f"/v1/acl/token/self was answered with something else than a token: {error}")
        raise Misdirected(reason) from error


def _as_is(answer: Answer) -> Answer:
    return answer
