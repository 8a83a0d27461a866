"""Decides how one agent is talked to: who it is, what it holds, when that must be read again, whether writes may go.

    Connecting ──asked who it is, read completely──> Ready ──a request found no agent──> Down ──backoff──> Connecting
        └──several agents, another datacenter, no rights, an incomplete list──> Refused ──backoff──> Connecting

A session writes in Ready alone. Its node is pinned: another node at the same address is another session's start.
Two blocking queries to the catalog, through the agent, tell when to read the agent's own lists again; these are the
truth, the catalog's rows are only compared with them (`drift.py`). What is known is kept in `book.py`, changes are
written by `sender.py`.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar
from urllib.parse import quote

from consul_registrar.actual import Actual
from consul_registrar.consul import wire
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.backoff import Backoff, next_index
from consul_registrar.consul.book import Book, Subject
from consul_registrar.consul.drift import Catalog
from consul_registrar.consul.errors import ConsulError, Denied, Misdirected, NotSent, OutcomeUnknown, Stale
from consul_registrar.consul.holders import holders
from consul_registrar.consul.sender import Sender
from consul_registrar.consul.transport import Access, Client, Endpoint, Transport
from consul_registrar.consul.wire import CheckRow, Identity, Reader, ServiceRow
from consul_registrar.model import CONNECTING, Change, Key, Reason, RegistrationKey

log = logging.getLogger(__name__)
T = TypeVar("T")

ASKED = 6
"""How often an address is asked who it is, each time over a connection of its own: two agents behind one address that
takes turns are always noticed, with one that chooses at random in 31 of 32 cases."""

SPACING = 0.2
"""Seconds between two reads of one agent at least."""

WAIT = "60s"
"""How long a blocking query waits; also the time in which a connection that broke in silence is noticed."""

WRITES = 4
"""Writes in flight to one agent: it works on them one after the other anyway."""

_UNREACHABLE = "ConsulUnreachable"


class Phase(StrEnum):
    CONNECTING = "connecting"
    READY = "ready"
    DOWN = "down"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Scope:
    """What the sessions of one registry share.

    `on_change` gets keys, `on_agent` the session's label when it becomes ready or stops being so. `may_write` is asked
    before each write. `claim` says whether a Consul node is this label's alone.
    """

    cluster: str
    connection: str
    datacenter: str
    access: Access
    actual: Actual
    on_change: Callable[[AbstractSet[Key]], None]
    on_agent: Callable[[str], None]
    may_write: Callable[[], bool]
    claim: Callable[[str, str], bool]
    reaped: dict[Subject, None] = field(default_factory=dict)


class AgentSession:
    """The standing conversation with one agent."""

    def __init__(self, label: str, endpoint: Endpoint, scope: Scope) -> None:
        self.label = label
        self.endpoint = endpoint
        self.phase = Phase.CONNECTING
        self.reason = Reason(CONNECTING, f"asking the agent at {endpoint} who it is")
        self.identity: Identity | None = None
        self.leader = ""
        self._scope = scope
        self._transport = Transport(endpoint, scope.access)
        self._client = Client(self._transport)
        self._book: Book | None = None
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(WRITES)
        self._services: Mapping[str, ServiceRow] | None = None
        self._checks: Mapping[str, CheckRow] | None = None
        self._backoff = Backoff()

    @property
    def ready(self) -> bool:
        return self.phase is Phase.READY

    @property
    def node(self) -> str:
        """The Consul node that is pinned; "" before an agent was met."""
        return self._book.node if self._book else ""

    def not_pushed(self) -> int:
        """How many instances stay wrong in the catalog although the agent was given them anew."""
        return self._book.not_pushed() if self._book else 0

    async def run(self) -> None:
        """Talk to the agent for ever, whatever it answers; returns only when cancelled."""
        self._transport = Transport(self.endpoint, self._scope.access)
        self._client = Client(self._transport)
        try:
            while True:
                self._lost(await self._until_lost())
                await asyncio.sleep(self._backoff())
        finally:
            self.phase = Phase.DOWN
            self.reason = Reason("Stopped", f"the agent at {self.endpoint} is not talked to any more")
            await self._transport.close()

    async def holders(self, registration: RegistrationKey) -> set[str]:
        """The Consul nodes with an instance of the registration, by the catalog. Raises the tree of `errors.py`."""
        return await holders(self._transport, self._scope.cluster, self._scope.connection, registration)

    async def apply(self, changes: Sequence[Change]) -> list[ConsulError | None]:
        """Write; outcomes in the order of the changes. Changes of one instance are sent one after the other."""
        outcomes: list[ConsulError | None] = [None] * len(changes)
        lanes: dict[str, list[int]] = {}
        for at, change in enumerate(changes):
            lanes.setdefault(change.id, []).append(at)
        async with asyncio.TaskGroup() as group:
            for lane in lanes.values():
                group.create_task(self._lane(changes, lane, outcomes))
        return outcomes

    async def _lane(self, changes: Sequence[Change], lane: list[int], outcomes: list[ConsulError | None]) -> None:
        async with self._slots:
            for at in lane:
                outcomes[at] = await self._send(changes[at])

    async def _send(self, change: Change) -> ConsulError | None:
        if not self.ready or self._book is None or change.node != self.node:
            return NotSent(self.reason)
        if not self._scope.may_write():
            return NotSent(Reason("NotLeading", "this process doesn't lead, so it writes nothing"))
        try:
            await Sender(self._client, self._book).send(change)
        except (OutcomeUnknown, NotSent, Stale) as error:
            self._wake.set()
            return error
        except ConsulError as error:
            return error
        return None

    async def _until_lost(self) -> Reason:
        """One round of the states above; returns why it ended."""
        try:
            await self._meet()
            self._services = self._checks = None
            self._welcome(await self._read())
            await self._watch()
        except ConsulError as error:
            return error.reason
        except Exception as error:
            log.exception("the session with the agent at %s broke", self.endpoint)
            return Reason("InternalError", f"the session with the agent at {self.endpoint} broke: {error!r}")
        return self.reason

    def _welcome(self, changed: AbstractSet[Key]) -> None:
        assert self._book is not None
        self._claim(self._book.node)
        self.phase = Phase.READY
        self.reason = Reason("AgentReady", f"the agent of {self.node} at {self.endpoint} answers")
        self._backoff.reset()
        log.info("%s", self.reason.message)
        self._scope.on_agent(self.label)
        self._scope.on_change(self._book.keys() | changed)

    def _lost(self, reason: Reason) -> None:
        was = self.ready
        if reason.code == _UNREACHABLE:
            message = f"the agent at {self.endpoint} does not answer: {reason.message}; nothing is written to it"
            reason = Reason("AgentDown", message)
        changed = reason.code != self.reason.code
        self.phase = Phase.DOWN if reason.code == "AgentDown" else Phase.REFUSED
        self.reason = reason
        if self._book is not None:
            self._book.interrupted()
        if changed:
            log.warning("%s", reason.message)
        if was or changed:
            self._scope.on_agent(self.label)

    # --- who it is ---

    async def _meet(self) -> None:
        identity = await self._ask(self._transport)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._ask_afresh()) for _ in range(ASKED - 1)]
        told = [task.result() for task in asked]
        for answer in told:
            if isinstance(answer, ConsulError):
                raise answer
        names = {answer.node for answer in told if isinstance(answer, Identity)} | {identity.node}
        if len(names) > 1:
            raise Misdirected(_load_balanced(self.endpoint, f"answers as {', '.join(sorted(names))}"))
        self._check_datacenter(identity)
        await self._pin(identity)

    async def _ask(self, transport: Transport) -> Identity:
        return await transport.get(wire.decode_self, "/v1/agent/self")

    async def _ask_afresh(self) -> Identity | ConsulError:
        transport = self._transport.fresh()
        try:
            return await self._ask(transport)
        except ConsulError as error:
            return error
        finally:
            await transport.close()

    def _check_datacenter(self, identity: Identity) -> None:
        wanted = self._scope.datacenter
        if wanted and identity.datacenter != wanted:
            message = (
                f"the agent at {self.endpoint} is of datacenter {identity.datacenter!r}, the connection names "
                f"{wanted!r}: nothing is written to it"
            )
            raise Misdirected(Reason("DatacenterMismatch", message))

    def _claim(self, node: str) -> None:
        """One session a node. Claimed again when ready, since another may have been on its way at the same time."""
        if not self._scope.claim(node, self.label):
            raise Misdirected(_load_balanced(self.endpoint, f"answers as {node}, as another address does"))

    async def _pin(self, identity: Identity) -> None:
        scope = self._scope
        self._claim(identity.node)
        if self._book is not None and self._book.node != identity.node:
            log.warning("%s", _replaced(self.endpoint, self._book.node, identity.node).message)
            scope.on_change(scope.actual.forget(self._book.node))
            self._book = None
        if self._book is None:
            self._book = Book(
                identity.node, Reader(identity.node, scope.cluster, scope.connection), scope.actual, scope.reaped
            )
        self.identity = identity
        with suppress(ConsulError):
            self.leader = await self._client.status.leader()

    async def _still_the_same(self) -> None:
        """An agent that lost its data has lost its ID too: what it lacks was not removed by anybody."""
        identity = await self._ask(self._transport)
        before = self.identity
        if before is not None and (identity.node, identity.node_id) != (before.node, before.node_id):
            raise Misdirected(
                _replaced(self.endpoint, f"{before.node} ({before.node_id})", f"{identity.node} ({identity.node_id})")
            )

    # --- what it holds ---

    async def _read(self) -> AbstractSet[Key]:
        """Read the agent's lists completely, and the catalog afresh where that is due; returns what changed."""
        assert self._book is not None
        book = self._book
        began = self._scope.actual.begin()
        services = await self._get("/v1/agent/services", wire.decode_services)
        checks = await self._get("/v1/agent/checks", wire.decode_checks)
        stranger = next((row.Node for row in checks.values() if row.Node != book.node), None)
        if stranger is not None:
            raise Misdirected(_replaced(self.endpoint, book.node, stranger))
        if book.misses(services.keys()):
            await self._still_the_same()
        fresh = book.look_again_at() <= time.monotonic() and await self._look_afresh()
        return book.take(book.reader.ours(services, checks), self._catalog(), began, time.monotonic(), fresh=fresh)

    async def _get(self, path: str, decode: Callable[[Answer], T]) -> T:
        return decode(_whole(path, await self._transport.get(_as_is, path)))

    def _catalog(self) -> Catalog | None:
        if self._services is None or self._checks is None:
            return None
        return Catalog(self._services, self._checks)

    async def _look_afresh(self) -> bool:
        """Read the catalog without waiting; False where it has no leader to answer."""
        try:
            self._services = await self._get(self._services_path(), wire.decode_node_services)
            self._checks = await self._get(self._checks_path(), wire.decode_node_checks)
        except NotSent as error:
            if error.reason.code == _UNREACHABLE:
                raise
            return False
        return True

    def _services_path(self) -> str:
        return f"/v1/catalog/node-services/{quote(self.node, safe='')}"

    def _checks_path(self) -> str:
        return f"/v1/health/node/{quote(self.node, safe='')}"

    # --- when it is read again ---

    async def _watch(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(self._services_path(), self._take_services))
                group.create_task(self._follow(self._checks_path(), self._take_checks))
                group.create_task(self._refresh())
        except ExceptionGroup as group_error:
            known, unknown = group_error.split(ConsulError)
            raise (unknown or known or group_error).exceptions[0] from group_error

    def _take_services(self, answer: Answer) -> None:
        self._services = wire.decode_node_services(answer)

    def _take_checks(self, answer: Answer) -> None:
        self._checks = wire.decode_node_checks(answer)

    async def _follow(self, path: str, take: Callable[[Answer], None]) -> None:
        """One blocking query after the other. Servers without a leader are waited for; an agent that is gone is not."""
        index, backoff = 0, Backoff()
        while True:
            try:
                params = [("index", index), ("wait", WAIT)] if index else []
                answer = await self._transport.get(_as_is, path, params)
            except NotSent as error:
                if error.reason.code == _UNREACHABLE:
                    raise
                self._note(error.reason)
                index = 0
                await asyncio.sleep(backoff())
                continue
            self._note(None)
            backoff.reset()
            if answer.index != index or not index:
                take(_whole(path, answer))
                self._wake.set()
            index = next_index(index, answer.index)
            await asyncio.sleep(SPACING)

    def _note(self, reason: Reason | None) -> None:
        """The agent answers, but the servers behind it may not."""
        if reason is not None:
            self.reason = reason
        elif self.reason.code != "AgentReady":
            self.reason = Reason("AgentReady", f"the agent of {self.node} at {self.endpoint} answers")

    async def _refresh(self) -> None:
        while True:
            await self._woken()
            began = time.monotonic()
            changed = await self._read()
            if changed:
                self._scope.on_change(changed)
            took = time.monotonic() - began
            await asyncio.sleep(min(max(SPACING, 5 * took), 2.0))

    async def _woken(self) -> None:
        """Until there is news, or until what looks wrong is due for a fresh look. News during a read are not lost."""
        assert self._book is not None
        due = self._book.look_again_at()
        wait = None if due == math.inf else max(0.0, due - time.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._wake.wait()
        self._wake.clear()


def _as_is(answer: Answer) -> Answer:
    return answer


def _whole(path: str, answer: Answer) -> Answer:
    """Nothing may be concluded from what a filtered list lacks."""
    if answer.filtered:
        message = (
            f"{path} was answered in part: ACLs hid the rest. Give the token's policy `read` on "
            'agent_prefix "", node_prefix "" and service_prefix ""'
        )
        raise Denied(Reason("ReadIncomplete", message))
    return answer


def _load_balanced(endpoint: Endpoint, what: str) -> Reason:
    message = f"{endpoint} {what}: behind it is a load balancer; name the address of one agent. Nothing is written"
    return Reason("AddressIsLoadBalanced", message)


def _replaced(endpoint: Endpoint, before: str, now: str) -> Reason:
    return Reason("AgentReplaced", f"the agent at {endpoint} was {before} and is {now} now: it is read from the start")
