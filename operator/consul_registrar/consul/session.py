"""Decides how one agent is talked to: whether it is met, read, written to, and what it is called when it isn't.

    Connecting ──asked who it is, read completely──> Ready ──a request found no agent──> Down ──backoff──> Connecting
        └──several agents, another datacenter, no rights, an incomplete list──> Refused ──backoff──> Connecting

A session writes in Ready alone. Its node is pinned: another node at the same address is another session's start. Who
answers is decided in `identity.py`, when it is read in `agent_watch.py`; what is known is kept in `book.py`, changes
are written by `sender.py`.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

from consul_registrar.actual import Actual
from consul_registrar.backoff import Backoff
from consul_registrar.changes import Change
from consul_registrar.consul.agent_watch import UNREACHABLE, AgentWatch
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.book import Book, Subject
from consul_registrar.consul.errors import ConsulError, Misdirected, NotSent, OutcomeUnknown, Stale
from consul_registrar.consul.heartbeat import Heartbeat, Wrote, unheard
from consul_registrar.consul.identity import identify, load_balanced, replaced
from consul_registrar.consul.registry import OnChange, OnVisible, ignore
from consul_registrar.consul.sender import Sender
from consul_registrar.consul.transport import RETRY, Access, Client, Endpoint, Params, Transport
from consul_registrar.consul.wire import Identity, Reader
from consul_registrar.model import CONNECTING, Key, Reason
from consul_registrar.together import results, together

log = logging.getLogger(__name__)

WRITES = 2
"""Writes in flight to one agent: it works on them one after the other, so it only must not wait for the next. More of
them take it longer, since they get into each other's way (measured: 163 registrations a second with 4 or 8, 124 with
16)."""


class Phase(StrEnum):
    CONNECTING = "connecting"
    READY = "ready"
    DOWN = "down"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Scope:
    """What the sessions of one registry share.

    `on_change` gets keys, `on_agent` the session's label when it becomes ready or stops being so. `may_write` is asked
    before each write, `may_beat` before each beat of a heartbeat that is there. `claim` says whether a Consul node is
    this label's alone. `on_visible` gets the Pod's version of a change that the catalog was seen to hold. `dead_man`:
    milliseconds after which the operator counts as gone, 0 for never; `wrote` is told of writes that are about no
    instance.
    """

    cluster: str
    connection: str
    datacenter: str
    access: Access
    actual: Actual
    on_change: OnChange
    on_agent: Callable[[str], None]
    may_write: Callable[[], bool]
    may_beat: Callable[[], bool]
    claim: Callable[[str, str], bool]
    on_visible: OnVisible = ignore
    reaped: dict[Subject, None] = field(default_factory=dict)
    dead_man: int = 0
    wrote: Wrote = unheard


class AgentSession:
    """The standing conversation with one agent."""

    def __init__(self, label: str, endpoint: Endpoint, scope: Scope) -> None:
        self.label = label
        self.endpoint = endpoint
        self.phase = Phase.CONNECTING
        self.reason = Reason(CONNECTING, f"asking the agent at {endpoint} who it is")
        self.identity: Identity | None = None
        self._scope = scope
        self._transport = Transport(endpoint, scope.access)
        self._client = Client(self._transport)
        self._book: Book | None = None
        self._watch: AgentWatch | None = None
        self._began = time.monotonic()
        self._heartbeat: Heartbeat | None = None
        self._slots = asyncio.Semaphore(WRITES)
        self._backoff = Backoff(*RETRY, random.random)

    @property
    def ready(self) -> bool:
        return self.phase is Phase.READY

    @property
    def node(self) -> str:
        """The Consul node that is pinned; "" before an agent was met."""
        return self._book.node if self._book else ""

    @property
    def heard(self) -> float:
        """When the agent's watch was last answered, also while it is down; from the start on where it never was."""
        return self._watch.heard if self._watch else self._began

    def not_pushed(self) -> int:
        """How many instances stay wrong in the catalog although the agent was given them anew."""
        return self._book.not_pushed() if self._book else 0

    def left(self, target: str) -> int:
        """How many instances don't stand under the token `target` yet; 0 while nothing is known of the agent."""
        return self._book.left(target) if self._book else 0

    def renew(self, target: str) -> bool:
        """Let the turn of one more instance come that doesn't stand under the token `target`; False: none waits."""
        changed = self._book.renew(target) if self.ready and self._book else None
        if changed:
            self._scope.on_change(changed)
        return bool(changed)

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

    async def get(self, path: str, params: Params) -> Answer:
        """Ask the servers behind the agent. Raises the tree of `errors.py`."""
        return await self._transport.get(_as_is, path, params)

    async def put(self, path: str, params: Params, body: bytes) -> Answer:
        """Write through it what isn't its own. Raises the tree of `errors.py`."""
        return await self._transport.put(_as_is, path, params, body)

    async def apply(self, changes: Sequence[Change]) -> list[ConsulError | None]:
        """Write; outcomes in the order of the changes. Changes of one instance are sent one after the other."""
        outcomes: list[ConsulError | None] = [None] * len(changes)
        lanes: dict[str, list[int]] = {}
        for at, change in enumerate(changes):
            lanes.setdefault(change.id, []).append(at)
        await results(self._lane(changes, lane, outcomes) for lane in lanes.values())
        return outcomes

    async def _lane(self, changes: Sequence[Change], lane: list[int], outcomes: list[ConsulError | None]) -> None:
        async with self._slots:
            for at in lane:
                outcomes[at] = await self._send(changes[at])

    async def _send(self, change: Change) -> ConsulError | None:
        book, heartbeat = self._book, self._heartbeat  # another agent's take their place when that answers
        if not self.ready or book is None or heartbeat is None or change.node != self.node:
            return NotSent(self.reason)
        if not self._scope.may_write():
            return NotSent(Reason("NotLeading", "this process doesn't lead, so it writes nothing"))
        try:
            version = self.identity.version if self.identity else ""
            async with heartbeat.under(change):
                await Sender(self._client, book, version).send(change)
            book.await_visible(change.id, change.evidence.pod, time.monotonic())
        except ConsulError as error:
            if self._watch is not None and isinstance(error, OutcomeUnknown | NotSent | Stale):
                self._watch.wake()
            return error
        finally:
            if self._watch is not None:
                self._watch.wrote()
        return None

    def read_afresh(self) -> None:
        """Read the agent and what the catalog has of it, whether or not there was news."""
        if self._watch is not None:
            self._watch.wake()

    async def _until_lost(self) -> Reason:
        """One round of the states above; returns why it ended."""
        try:
            scope = self._scope
            identity = await identify(self._transport, scope.datacenter)
            known = self._book
            book = await self._pin(identity)
            heartbeat = self._beating(book)
            watch = AgentWatch(
                identity, book, self._transport, scope.actual, scope.on_change, self._note, heartbeat.listed
            )
            self._watch, self._heartbeat = watch, heartbeat
            self._welcome(book, await watch.begin(), known=known)
            await together(watch.run(), heartbeat.run())
        except ConsulError as error:
            return error.reason
        except Exception as error:
            log.exception("the session with the agent at %s broke", self.endpoint)
            return Reason("InternalError", f"the session with the agent at {self.endpoint} broke: {error!r}")
        return self.reason

    def _beating(self, book: Book) -> Heartbeat:
        scope = self._scope
        whose = (scope.cluster, scope.connection)
        return Heartbeat(
            whose,
            scope.dead_man,
            self._transport,
            book,
            scope.access.token,
            scope.may_write,
            scope.may_beat,
            scope.wrote,
        )

    @property
    def holds(self) -> bool:
        """Whether the agent is known to hold anything of the connection, its heartbeat included."""
        beats = self._heartbeat is not None and self._heartbeat.stands
        return bool(self._scope.actual.on_node(self.node)) or beats

    async def dissolve(self) -> None:
        """Remove the heartbeat where nothing hangs on it. Never raises for what Consul answers."""
        if self.ready and self._heartbeat is not None:
            with suppress(ConsulError):
                await self._heartbeat.keep()

    def _welcome(self, book: Book, changed: AbstractSet[Key], *, known: Book | None) -> None:
        """All that stands there is looked at; that differs from what was `known` of it is news."""
        self._claim(book.node)
        self.phase = Phase.READY
        self.reason = Reason("AgentReady", f"the agent of {self.node} at {self.endpoint} answers")
        log.info("%s", self.reason.message)
        self._scope.on_agent(self.label)
        self._scope.on_change(book.keys(), routine=True)
        if book is known:
            self._scope.on_change(changed)

    def _lost(self, reason: Reason) -> None:
        was = self.ready
        if reason.code == UNREACHABLE:
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

    def _claim(self, node: str) -> None:
        """One session a node. Claimed again when ready, since another may have been on its way at the same time."""
        if not self._scope.claim(node, self.label):
            raise Misdirected(load_balanced(self.endpoint, f"answers as {node}, as another address does"))

    async def _pin(self, identity: Identity) -> Book:
        scope = self._scope
        self._claim(identity.node)
        if self._book is not None and self._book.node != identity.node:
            log.warning("%s", replaced(self.endpoint, self._book.node, identity.node).message)
            scope.on_change(scope.actual.forget(self._book.node))
            self._book = None
        if self._book is None:
            reader = Reader(identity.node, scope.cluster, scope.connection)
            self._book = Book(identity.node, reader, scope.actual, scope.reaped, scope.on_visible)
        self.identity = identity
        return self._book

    def _note(self, reason: Reason | None) -> None:
        """The agent answers, but the servers behind it may not. None: it can be watched, so all goes well."""
        if reason is None:
            self._backoff.reset()
        if reason is not None:
            self.reason = reason
        elif self.reason.code != "AgentReady":
            self.reason = Reason("AgentReady", f"the agent of {self.node} at {self.endpoint} answers")


def _as_is(answer: Answer) -> Answer:
    return answer
