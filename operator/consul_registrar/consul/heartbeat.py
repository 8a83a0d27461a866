"""Keeps a heartbeat at one agent: a service of the operator's own, with a TTL check that it feeds while it leads.

Decides when it is there: exactly as long as an instance at that agent hangs on it (`dead_man.py`), whatever the
connection says by now; and before the first one does, which would be critical without it. Where nothing may be written
(policy Observe), one that is there is fed all the same, but none is made or removed. It is fed four times in the time
after which it counts as gone: one may be lost, and the next leader has time to come. The agent keeps what doesn't
change to itself, so a beat costs the servers nothing. Its meta marks it as the operator's, but as no instance: it is
never compared, counted or shown.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, contextmanager, suppress
from urllib.parse import quote

from consul_registrar.changes import Change, Deregister, DropCheck, Register
from consul_registrar.consul import bodies
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.book import Book
from consul_registrar.consul.errors import ConsulError
from consul_registrar.consul.transport import Transport
from consul_registrar.dead_man import follows, heartbeat_id
from consul_registrar.model import MANAGED_BY, META_MANAGED_BY, Health

log = logging.getLogger(__name__)

SERVICE = "consul-registrar-heartbeat"
META_OF = "heartbeat-of"

BEATS = 4
"""How often it is fed in the time after which it counts as gone."""

LEAST = 20_000
"""Milliseconds after which one counts as gone that the connection no longer asks for."""

STANDBY = 2.0
"""Seconds between two looks of one who doesn't lead, whether it does."""

Wrote = Callable[[str, str, str, ConsulError | None], None]
"""Told of each write that is about no instance, beats apart: operation, cause, node, error."""


def unheard(_operation: str, _cause: str, _node: str, _error: ConsulError | None) -> None:
    """For who doesn't want to be told."""


class Heartbeat:
    """The heartbeat at one agent. `whose`: cluster and connection; `after`: milliseconds after which it counts as gone,
    0: nothing new hangs on it; `may_beat`: asked before it is fed, `may_write` before it is made or removed; `stands`:
    whether the agent has it, as far as is known.
    """

    def __init__(
        self,
        whose: tuple[str, str],
        after: int,
        transport: Transport,
        book: Book,
        token: Callable[[], str],
        may_write: Callable[[], bool],
        may_beat: Callable[[], bool],
        wrote: Wrote,
    ) -> None:
        self._whose = whose
        self._id = heartbeat_id(*whose)
        self._wanted = after > 0
        self._after = after or LEAST
        self._period = self._after / 1000 / BEATS
        self._due = 0.0
        self._transport = transport
        self._book = book
        self._token = token
        self._may_write = may_write
        self._may_beat = may_beat
        self._wrote = wrote
        self.stands = False
        self._under: str | None = None
        self._coming = 0
        self._one_at_a_time = asyncio.Lock()
        self._stirred = asyncio.Event()

    def listed(self, services: AbstractSet[str]) -> None:
        """The agent was read: these it has. What we have registered meanwhile is registered once more."""
        before, self.stands = self.stands, self._id in services
        if before != self.stands:
            self._stirred.set()

    async def run(self) -> None:
        """Keep it, for ever. What Consul answers never ends it."""
        trouble = ""
        while True:
            try:
                await self.keep()
                trouble = ""
            except ConsulError as error:
                if error.reason.code != trouble:
                    log.warning("the heartbeat at %s can't be kept: %s", self._book.node, error.reason.message)
                trouble = error.reason.code
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._stirred.wait()
            self._stirred.clear()

    def _pause(self) -> float | None:
        """Seconds until it is looked at again; None: there is none, and nobody asks for one."""
        if not (self._wanted or self.stands):
            return None
        return self._period if self._may_beat() else min(self._period, STANDBY)

    async def keep(self) -> None:
        """Feed it if something hangs on it, else see to it that it isn't there. Raises the tree of `errors.py`."""
        async with self._one_at_a_time:
            if not self._may_beat():
                return
            if self._coming or self._book.hangs():
                if time.monotonic() >= self._due or not self._good:
                    await self._beat()
            elif self._may_write() and (self._under is not None or self.stands):
                await self._end()

    @asynccontextmanager
    async def under(self, change: Change) -> AsyncIterator[None]:
        """It beats before an instance hangs on it, and goes soon after the last one. Raises the tree of `errors.py`."""
        hangs = isinstance(change, Register) and any(follows(check.id) for check in change.instance.checks)
        self._coming += hangs
        try:
            if hangs:
                await self._begun()
            yield
        finally:
            self._coming -= hangs
            if self.stands and isinstance(change, Deregister | DropCheck):
                self._stirred.set()

    async def _begun(self) -> None:
        if self._under is None:
            async with self._one_at_a_time:
                if self._under is None:
                    await self._begin()

    async def _beat(self) -> None:
        self._due = time.monotonic() + self._period
        if not self._may_write():
            await self._feed()
        elif not self._good or not await self._feed():
            await self._begin()

    @property
    def _good(self) -> bool:
        """Whether it stands as it should. What was registered under another token would end with that."""
        return self.stands and self._under == self._token()

    async def _begin(self) -> None:
        """Register it; an agent that has it keeps its status, so it is fed as well."""
        token = self._token()
        with self._noted("put-heartbeat", "needed"):
            await self._put("/v1/agent/service/register", self._body())
            await self._feed()
        self._under = token
        self.stands = True

    async def _feed(self) -> bool:
        """One beat; False where the agent has no such check."""
        body = bodies.update(Health.PASSING, "The operator is alive.")
        return (await self._put(f"/v1/agent/check/update/{quote(self._check, safe='')}", body)).code != 404

    async def _end(self) -> None:
        """Remove it; an agent that has it no more (404) is what was wanted."""
        assert self._id, "an empty ID is never sent to Consul"
        with self._noted("remove-heartbeat", "needless"):
            await self._put(f"/v1/agent/service/deregister/{quote(self._id, safe='')}", b"")
        self._under = None
        self.stands = False

    @contextmanager
    def _noted(self, operation: str, cause: str) -> Iterator[None]:
        try:
            yield
        except ConsulError as error:
            self._wrote(operation, cause, self._book.node, error)
            raise
        self._wrote(operation, cause, self._book.node, None)

    @property
    def _check(self) -> str:
        return f"{self._id}:beat"

    def _body(self) -> bytes:
        check = {
            "CheckID": self._check,
            "Name": "operator",
            "TTL": bodies.duration(self._after),
            "Status": Health.PASSING.value,
        }
        meta = {META_MANAGED_BY: MANAGED_BY, META_OF: "/".join(self._whose)}
        return json.dumps({"ID": self._id, "Name": SERVICE, "Meta": meta, "Check": check}).encode()

    async def _put(self, path: str, body: bytes) -> Answer:
        return await self._transport.put(_as_is, path, (), body)


def _as_is(answer: Answer) -> Answer:
    return answer
