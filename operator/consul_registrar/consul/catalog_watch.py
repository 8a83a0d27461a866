"""Decides when a virtual node is read, and whether what is known of it can be relied upon.

Two blocking queries tell that something has changed, services or checks; their filters let nothing through, so that
such an answer costs next to nothing. What only our own writes can have caused is known, so the query just waits on
(`own_writes.py`): else the cost of a change would grow with its node. Otherwise the node is read, completely and
without waiting, and only after that the queries wait again, from the indexes of that read: so no change is missed, and
a node is read a few times a second at most, less often where our own writes go on. And what was taken for ours is read
all the same once the node has come to rest.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote

from consul_registrar.actual import Actual
from consul_registrar.backoff import Backoff
from consul_registrar.consul import catalog_wire
from consul_registrar.consul.answers import CONSISTENT, Answer
from consul_registrar.consul.catalog_book import CatalogBook
from consul_registrar.consul.catalog_servers import Servers
from consul_registrar.consul.catalog_wire import NodeRow
from consul_registrar.consul.errors import ConsulError, Denied, Misdirected, NotSent, asked
from consul_registrar.consul.in_flight import InFlight
from consul_registrar.consul.own_writes import Ring, Whose
from consul_registrar.consul.transport import RETRY
from consul_registrar.consul.wire import is_ours
from consul_registrar.model import Key, Reason
from consul_registrar.together import together

log = logging.getLogger(__name__)

WAIT = "60s"
"""How long a blocking query waits; also the time in which a connection that broke in silence is noticed."""

SPACING = 0.25
"""Seconds between two reads of one node at least; five times what a read takes, where that is more, up to `SLOWEST`."""

SLOWEST = 2.0

OWN = 0.7
OWN_MOST = 1.4
"""Seconds until a node is read again that only our own writes can have changed; the most while they go on and on."""

TRIES = 3
"""How often a node that was never read is tried, before the others do without."""

ACKNOWLEDGED = 1.0
"""Seconds for which what has rung waits for the answers to writes of ours that may have been it."""

RESTED = 5.0
"""Seconds since it was read last after which a node is read compressed. Nobody else is in a hurry then, and all of it
was sent for a change or two: what a change costs shall not grow with its node."""

REST = 10.0
REST_MOST = 600.0
"""Seconds after the last change that was taken for ours until the node is read all the same; the most while they go on.
Up to twice that, so that not all nodes are read at once."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What the watches of one registry share. `on_read` gets the keys that changed, after each complete read;
    `on_state` is called when a node becomes sound or stops being so.
    """

    cluster: str
    connection: str
    servers: Servers
    actual: Actual
    in_flight: InFlight
    on_read: Callable[[AbstractSet[Key]], None]
    on_state: Callable[[], None]


class NodeWatch:
    """Keeps what is known of one virtual node true. `passing`: it is not one of the current ones, and is let go when
    nothing of ours stands on it any more. `sound`: it can be relied upon, else `reason` says why not, once that is
    known; `denied`: for want of rights.
    """

    def __init__(self, book: CatalogBook, watched: Watched, *, passing: bool = False) -> None:
        self.book = book
        self.passing = passing
        self.sound = False
        self.reason: Reason | None = None
        self.denied = False
        self._seen = False
        self._hopes = TRIES
        self._watched = watched
        self._paths = paths_of(book.node)
        self._indexes = [0, 0]
        self._armed = (asyncio.Event(), asyncio.Event())
        self._rung = asyncio.Event()
        self._backoff = Backoff(*RETRY, random.random)
        self._hurry = asyncio.Event()
        self._since = [0.0, 0.0]
        self._heard = [time.monotonic()] * 2
        self._believed_at = 0.0
        self._rests: asyncio.TimerHandle | None = None
        self._read_at = 0.0
        self._spacing = SPACING
        self._patience = OWN

    def wake(self) -> None:
        """What is known may be wrong: read it soon."""
        self._hurry.set()
        self._rung.set()

    @property
    def heard(self) -> float:
        """When that of the two queries was answered last which wasn't for longer; a read answers both."""
        return min(self._heard)

    async def run(self) -> None:
        """Watch for ever, whatever Consul answers; a passing node until nothing of ours is left there."""
        while not self._is_over():
            try:
                await self._read()
                await self._watch()
            except ConsulError as error:
                self._lost(error.reason, denied=isinstance(error, Denied), hope=isinstance(error, NotSent))
                await asyncio.sleep(max(asked(error), self._backoff()))
            except Exception as error:
                log.exception("watching Consul node %s broke", self.book.node)
                self._lost(Reason("InternalError", f"watching Consul node {self.book.node} broke: {error!r}"))
                await asyncio.sleep(self._backoff())

    def _is_over(self) -> bool:
        return self.passing and self.sound and not self._watched.actual.on_node(self.book.node)

    async def _watch(self) -> None:
        """Until it is over, or something fails."""
        await together(*(self._bell(which) for which in range(len(self._paths))), self._refresh())

    async def _refresh(self) -> None:
        while not self._is_over():
            await self._pause()
            await self._read()

    # --- when ---

    async def _bell(self, which: int) -> None:
        """One blocking query after the other. After a change it waits for the read that takes the change in."""
        nothing = ("filter", 'ID == ""' if which == 0 else 'CheckID == ""')
        while True:
            await self._armed[which].wait()
            index, asked_at = self._indexes[which], time.monotonic()
            answer = await self._watched.servers.block(self._paths[which], [("index", index), ("wait", WAIT), nothing])
            self._backoff.reset()  # not before: a Consul with too many connections answers reads and refuses these
            told, now = max(answer.index, 1), time.monotonic()
            self._heard[which] = now
            if told == index:  # after `WAIT`, as a rule; but who answers at once isn't asked at once again
                await asyncio.sleep(asked_at + SPACING - now)
                self._since[which] = time.monotonic()
                continue
            ring = Ring(self.book.node, told, self._since[which], now, exact=which == 0)
            whose = await self._judge(ring)
            if whose is Whose.OURS and told > index and not self.passing:
                self._believe()
            else:
                self._armed[which].clear()
                self._rung.set()
            self._indexes[which], self._since[which] = told, now

    async def _judge(self, ring: Ring) -> Whose:
        """Whose change it is. What is on its way may be it, or stand before it in the log: then only answers tell."""
        in_flight = self._watched.in_flight
        whose = in_flight.own.whose(ring)
        if whose is not Whose.OURS:
            await in_flight.settled(ACKNOWLEDGED)
            whose = in_flight.own.whose(ring)
        if whose is Whose.FOREIGN:
            self._hurry.set()
        return whose

    def _believe(self) -> None:
        """What changed is known, as far as can be told: it is read once the node has come to rest."""
        self._believed_at = time.monotonic()
        if self._rests is None:
            self._rest()

    def _rest(self) -> None:
        now = time.monotonic()
        if self._rests is not None and (now - self._believed_at >= REST or now - self._read_at >= REST_MOST):
            self._rests = None
            self._rung.set()
        else:
            self._rests = asyncio.get_running_loop().call_later(REST * (1 + random.random()), self._rest)  # noqa: S311

    async def _pause(self) -> None:
        """Until the node is to be read again: soon after a change, later after one of our own."""
        await self._rung.wait()
        goes_on = time.monotonic() < self._read_at + OWN and not self._hurry.is_set()
        self._patience = min(self._patience * 1.5, OWN_MOST) if goes_on else OWN
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                await self._hurry.wait()
        await asyncio.sleep(self._read_at + self._spacing - time.monotonic())
        self._rung.clear()
        self._hurry.clear()

    # --- what ---

    async def _read(self) -> None:
        """Read the node completely. What is acknowledged meanwhile is known better than by this read."""
        book, servers = self.book, self._watched.servers
        began, at = self._watched.actual.begin(), time.monotonic()
        params = () if self.sound else CONSISTENT
        rested = self._seen and at - self._read_at > RESTED
        services, checks = [whole(path, await servers.get(path, params, compressed=rested)) for path in self._paths]
        row, service_rows = catalog_wire.decode_services(services)
        self._refuse_foreign(row)
        check_rows = catalog_wire.decode_checks(checks)
        self._read_at = time.monotonic()
        self._heard = [self._read_at] * 2
        changed = book.take(row, service_rows, check_rows, services.index, began, self._read_at)
        self._spacing = min(max(SPACING, 5 * (self._read_at - at)), SLOWEST)
        self._indexes, self._since = [max(services.index, 1), max(checks.index, 1)], [at, at]
        for armed in self._armed:
            armed.set()
        self._found_sound()
        self._watched.on_read(changed)

    def _refuse_foreign(self, row: NodeRow | None) -> None:
        """A node that somebody else made under this name is theirs: nothing is written there."""
        if row is None or is_ours(row.Meta, self._watched.cluster, self._watched.connection):
            return
        message = (
            f"Consul has a node {row.Node} that this connection did not make; another cluster or connection of such a "
            "name? Rename one, or remove that node. Nothing is written there"
        )
        raise Misdirected(Reason("NodeNameTaken", message))

    @property
    def tried(self) -> bool:
        """Whether it is known what it held when it was read last, or can't be hoped to be before long."""
        return self.sound or self._seen or not self._hopes

    def _found_sound(self) -> None:
        self.reason = None
        self.denied = False
        self._seen = True
        if not self.sound:
            self.sound = True
            self._watched.on_state()

    def _lost(self, reason: Reason, *, denied: bool = False, hope: bool = False) -> None:
        before = (self.sound, self.reason and self.reason.code, self.tried)
        self.sound, self.reason, self.denied = False, reason, denied
        self._hopes = max(self._hopes - 1, 0) if hope else 0
        self.book.interrupted()
        if before != (False, reason.code, self.tried):
            self._watched.on_state()


def paths_of(node: str) -> tuple[str, str]:
    """Where a node's services are read, and its checks."""
    name = quote(node, safe="")
    return f"/v1/catalog/node-services/{name}", f"/v1/health/node/{name}"


def whole(path: str, answer: Answer) -> Answer:
    """Nothing may be concluded from what a filtered list lacks."""
    if answer.filtered:
        message = (
            f'{path} was answered in part: ACLs hid the rest. Give the token\'s policy `read` on service_prefix "" and '
            'node_prefix "", and `write` on the node_prefix of this connection\'s nodes'
        )
        raise Denied(Reason("ReadIncomplete", message))
    return answer
