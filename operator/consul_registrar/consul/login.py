"""Decides how a token is got by logging in with an auth method, when it is got anew, and when one is given back.

A token of a login ends by itself after the auth method's MaxTokenTTL. A new one is got when two thirds of that are
over, or once Consul doesn't know it any more; the one before is given back when no request shows it any longer. Which
of them is shown to Consul is `token.py`'s decision.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

import msgspec

from consul_registrar.consul.answers import Answer
from consul_registrar.consul.errors import ConsulError, Denied, NotSent
from consul_registrar.consul.transport import Access, Endpoint, Transport, read_token
from consul_registrar.model import Reason

log = logging.getLogger(__name__)

RENEWED_AFTER = 2 / 3
"""The part of a token's life after which it is replaced: so a third of it is left for a Consul that doesn't answer."""

OVERLAP = 80.0
"""Seconds for which a token that was replaced is kept: longer than a blocking query that was begun with it waits."""


@dataclass(frozen=True, slots=True)
class Method:
    """Where to log in, and what the token is to be marked with."""

    name: str
    meta: Mapping[str, str] = field(default_factory=dict)


class _Made(msgspec.Struct, frozen=True):
    SecretID: str
    AccessorID: str
    CreateTime: datetime
    ExpirationTime: datetime | None = None

    def renewed_after(self) -> float | None:
        """Seconds; by Consul's clock alone. None where it never ends."""
        if self.ExpirationTime is None:
            return None
        return (self.ExpirationTime - self.CreateTime).total_seconds() * RENEWED_AFTER


_made = msgspec.json.Decoder(_Made)


class Login:
    """The tokens of one connection that logs in. `bearer` reads what is shown for a token: a service account's JWT."""

    def __init__(
        self, servers: Sequence[Endpoint], access: Access, method: Method, bearer: Callable[[], Awaitable[str]]
    ) -> None:
        self._servers = servers
        self._access = access
        self._method = method
        self._bearer = bearer
        self._secret = ""
        self._due: float | None = None
        self._replaced: dict[str, float] = {}

    async def token(self) -> str:
        """The token to show from now on. Raises ConsulError, among them `Denied` (LoginRefused)."""
        if self._secret and not self._is_due() and await self._is_known():
            return self._secret
        made = await self._log_in(await self._bearer())
        after = made.renewed_after()
        self._due = None if after is None else time.monotonic() + after
        if self._secret:
            self._replaced[self._secret] = time.monotonic()
        self._secret = made.SecretID
        log.info("logged in to Consul with the auth method %s: the token %s", self._method.name, made.AccessorID)
        return self._secret

    async def give_back(self, shown: str) -> None:
        """End the tokens that were replaced long enough ago; not the one that is shown still."""
        now = time.monotonic()
        for secret in [s for s, since in self._replaced.items() if s != shown and now - since > OVERLAP]:
            del self._replaced[secret]
            await self._log_out(secret)

    async def close(self) -> None:
        """End every token; those that can't be ended now end by themselves."""
        for secret in (*self._replaced, *filter(None, [self._secret])):
            await self._log_out(secret)
        self._replaced, self._secret = {}, ""

    def _is_due(self) -> bool:
        return self._due is not None and time.monotonic() >= self._due

    async def _is_known(self) -> bool:
        """False only where Consul says that it isn't. Another token costs little, so nothing is made of a young one."""
        try:
            await self._ask(self._secret, lambda to: to.get(_as_is, "/v1/acl/token/self"))
        except ConsulError as error:
            return error.reason.code != "TokenUnknown"
        return True

    async def _log_in(self, bearer: str) -> _Made:
        body = {"AuthMethod": self._method.name, "BearerToken": bearer.strip(), "Meta": dict(self._method.meta)}
        for server in self._servers:
            read_token(replace(self._access, token=lambda: bearer), server)  # no more in plain text than a token
        try:
            answer = await self._ask("", lambda to: to.post(_as_is, "/v1/acl/login", data=msgspec.json.encode(body)))
            return _made.decode(answer.body)
        except NotSent:
            raise
        except (ConsulError, msgspec.DecodeError) as error:
            raise Denied(self._refused(error)) from error

    def _refused(self, error: Exception) -> Reason:
        message = f"the login with the auth method {self._method.name!r} was refused: {error}"
        return Reason(
            "LoginRefused", message.replace("check the token that the connection names", "is there such a method?")
        )

    async def _log_out(self, secret: str) -> None:
        with suppress(ConsulError):
            await self._ask(secret, lambda to: to.post(_as_is, "/v1/acl/logout"))

    async def _ask(self, secret: str, send: Callable[[Transport], Awaitable[Answer]]) -> Answer:
        """One server after the other, until one answers."""
        access = replace(self._access, token=lambda: secret)
        *others, last = self._servers
        for server in others:
            with suppress(NotSent):
                return await _send(Transport(server, access, 1), send)
        return await _send(Transport(last, access, 1), send)


async def _send(to: Transport, send: Callable[[Transport], Awaitable[Answer]]) -> Answer:
    try:
        return await send(to)
    finally:
        await to.close()


def _as_is(answer: Answer) -> Answer:
    return answer
