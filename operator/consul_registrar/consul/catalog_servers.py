"""Decides which of several addresses a request goes to, and over how many connections.

All requests go to one address until it fails; what was not applied there goes on to the next. A write whose outcome is
unknown is never repeated here: whoever sent it reads what became of it. Blocking queries have connections of their own,
and so have reads, so that they never keep a write waiting: two for each virtual node and one for the claim, 65 as a
rule. With `REQUESTS` for all other reads, and for writes, that stays below the 200 that Consul allows one client, also
with the highest number of nodes (129 and 16).
"""

from collections.abc import Awaitable, Callable, Sequence

from consul_registrar.consul.answers import TRANSACTION, Answer, Request, not_found
from consul_registrar.consul.errors import ConsulError, NotSent, OutcomeUnknown
from consul_registrar.consul.transport import Access, Endpoint, Params, Transport

REQUESTS = 8


class Servers:
    """The servers (or agents that ask servers) of one datacenter."""

    def __init__(self, addresses: Sequence[Endpoint], access: Access, datacenter: str, queries: int) -> None:
        self._datacenter: list[tuple[str, object]] = [("dc", datacenter)] if datacenter else []
        self._ask = [Transport(address, access, REQUESTS) for address in addresses]
        self._write = [Transport(address, access, REQUESTS) for address in addresses]
        self._watch = [Transport(address, access, queries) for address in addresses]
        self._at = 0

    async def get(self, path: str, params: Params = (), *, compressed: bool = False) -> Answer:
        """Read, at once."""
        query = [*self._datacenter, *params]
        return await self._try(self._ask, lambda to: to.get(_as_is, path, query, compressed=compressed), path)

    async def block(self, path: str, params: Params) -> Answer:
        """Read by a blocking query: `params` has an `index`."""
        return await self._try(self._watch, lambda to: to.get(_as_is, path, [*self._datacenter, *params]), path)

    async def transact(self, body: bytes) -> Answer:
        """Send a transaction; the answer may say that it was refused (409)."""
        return await self.put(TRANSACTION, (), body)

    async def put(self, path: str, params: Params, body: bytes) -> Answer:
        """Write."""
        return await self._try(
            self._write, lambda to: to.put(_as_is, path, [*self._datacenter, *params], data=body), path
        )

    async def close(self) -> None:
        """End every connection."""
        for transport in (*self._ask, *self._write, *self._watch):
            await transport.close()

    async def _try(
        self, pool: Sequence[Transport], send: Callable[[Transport], Awaitable[Answer]], path: str
    ) -> Answer:
        """One after the other, each once, beginning with the one that answered last. Raises what the last one said."""
        tries = len(pool)
        while True:
            at, tries = self._at, tries - 1
            try:
                answer = await send(pool[at])
            except NotSent:
                self._leave(at)
                if not tries:
                    raise
                continue
            except OutcomeUnknown:
                self._leave(at)
                raise
            if answer.code == 404 and not answer.index:
                raise not_found(Request("GET", path, str(pool[at].endpoint)), answer)
            return answer

    def _leave(self, at: int) -> None:
        """Go on with the next address, unless somebody else has gone on already."""
        if self._at == at:
            self._at = (at + 1) % len(self._ask)


def no_answer(error: ConsulError) -> bool:
    """Whether nobody answered at all."""
    return isinstance(error, NotSent) and error.reason.code == "ConsulUnreachable"


def _as_is(answer: Answer) -> Answer:
    return answer
