"""The catalog-mode registry: one Consul, written through its servers, on virtual nodes of our own. No agents.

Decides where an instance stands, and how all of it looks together. Which nodes are read, and when they can be relied
upon, is `catalog_nodes.py`'s concern, how changes are written `catalog_writer.py`'s.
Readiness is a status that we write; tcp and http checks are run by consul-esm, for which their definitions are written:
the status is its own from then on.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from urllib.parse import quote

from consul_registrar.actual import Actual
from consul_registrar.changes import Cause, Change
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.book import Subject
from consul_registrar.consul.catalog_nodes import CatalogNodes
from consul_registrar.consul.catalog_ported import Audited
from consul_registrar.consul.catalog_servers import Servers
from consul_registrar.consul.catalog_wire import decode_places
from consul_registrar.consul.catalog_writer import CatalogWriter
from consul_registrar.consul.errors import ConsulError, NotSent
from consul_registrar.consul.holders import holders
from consul_registrar.consul.leader import ABOUT, Leader
from consul_registrar.consul.placement import choose
from consul_registrar.consul.registry import OnChange, OnVisible, RegistryStatus, TokenStatus, ignore
from consul_registrar.consul.strangers import foreign, remove, strangers
from consul_registrar.consul.token import Token, introduction
from consul_registrar.consul.transport import Access, Endpoint, Params, Transport
from consul_registrar.consul.wire import decode_self
from consul_registrar.model import CONNECTING, Instance, Key, Node, Reason, RegistrationKey
from consul_registrar.together import together

log = logging.getLogger(__name__)

VIRTUAL_NODES = 32

TOGETHER = 0.2
"""Seconds for which nodes that come back are waited for, to be told of together."""

REREAD = 0.05
"""Seconds between two looks whether what is read anew was taken in."""


@dataclass(frozen=True, slots=True)
class CatalogSettings:
    """Where the servers are (or agents that ask them). `addresses`: (host, port, scheme), tried in this order.

    `datacenter`: the one to write to; "": that of whoever answers. `esm`: the service name under which consul-esm
    registers itself.
    """

    addresses: tuple[tuple[str, int, str], ...]
    datacenter: str = ""
    virtual_nodes: int = VIRTUAL_NODES
    access: Access = field(default_factory=Access)
    esm: str = "consul-esm"


def _unheard(_operation: str, _cause: str, _node: str, _error: ConsulError | None) -> None:
    return None


def _unaudited(_change: Change, _error: ConsulError | None) -> None:
    return None


def _always() -> bool:
    return True


class CatalogRegistry:
    """One Consul, written through its servers. Implements `registry.Registry`.

    `on_change` is called for what reads find, not for our own acknowledged writes. `on_agent` is called with ""
    whenever `place` may answer otherwise. `may_write` is asked before each request that writes, `wrote`
    called with what is written of virtual nodes: operation, cause, node, error; `audited` with each change of an
    instance that `apply` made beside those it was given. `on_visible` gets the Pod's version of
    each change that is acknowledged: the catalog holds it from then on.
    """

    batch = 64  # with a check each that is a full transaction
    room = 8 * batch  # what is more would wait for a connection

    def __init__(
        self,
        name: str,
        cluster: str,
        settings: CatalogSettings,
        on_change: OnChange,
        *,
        on_agent: Callable[[str], None] = ignore,
        may_write: Callable[[], bool] = _always,
        token: Token | None = None,
        wrote: Callable[[str, str, str, ConsulError | None], None] = _unheard,
        audited: Audited = _unaudited,
        on_visible: OnVisible = ignore,
    ) -> None:
        self.name = name
        self._token = token or Token("")
        self._cluster = cluster
        self._settings = settings
        self._may_write = may_write
        self._on_change = on_change
        self._on_agent = on_agent
        self._on_visible = on_visible
        self._actual = Actual(cluster, name)
        self._reaped: dict[Subject, None] = {}
        self._servers = self._connect()
        self._nodes = CatalogNodes(
            (cluster, name),
            settings.virtual_nodes,
            self._servers,
            self._actual,
            self._reaped,
            self._read,
            self._judge,
            may_write,
            partial(wrote, "remove-node", "emptied"),
        )
        watches = self._nodes.watches
        in_flight = self._nodes.in_flight
        self._writer = CatalogWriter(
            (cluster, name),
            settings.datacenter,
            self._servers,
            watches,
            in_flight,
            may_write,
            lambda: self._version,
            partial(wrote, "put-node", "needed"),
            audited,
        )
        self._ready = False
        self._told: frozenset[str] = frozenset()
        self._news = asyncio.Event()
        self._version = ""
        self._leader = Leader(self)
        self._datacenter = settings.datacenter
        self._has_esm = True

    def _connect(self) -> Servers:
        settings = self._settings
        endpoints = [Endpoint(*address) for address in settings.addresses]
        return Servers(endpoints, settings.access, settings.datacenter, 2 * settings.virtual_nodes + 1)

    def set_nodes(self, nodes: Mapping[str, Node]) -> None:
        """The cluster's nodes are none of this mode's concern."""

    def lane(self, node: str) -> str:
        """All changes go through one lane: a transaction holds those of many nodes.

        What is adopted from a node of somebody else's is asked for one by one, and so keeps nobody else waiting.
        """
        return "" if node in self._nodes.watches else node

    async def run(self) -> None:
        """Read and watch for ever; returns only when cancelled. Ends every task and connection of its own."""
        try:
            token = self._token.run(self._introduce)
            await together(self._inform(), self._leader.run(), token, self._nodes.run(), self._tell_news())
        finally:
            await self._servers.close()

    # --- what is told ---

    def _read(self, changed: AbstractSet[Key]) -> None:
        """A node was read. Before all are, nothing is told: nobody could decide anything."""
        if changed and self._ready:
            self._on_change(changed)

    def _judge(self) -> None:
        """There are nodes to work with, or none any more; or one of several has come back."""
        was, self._ready = self._ready, self._nodes.ready
        if was != self._ready:
            self._tell()
        elif self._ready and self._told != self._nodes.sound():
            self._news.set()

    def _tell(self) -> None:
        """Whoever is, or wants to be, on a node that can be relied upon now; or that nobody can be any more."""
        before, self._told = self._told, self._nodes.sound() if self._ready else frozenset()
        level = logging.WARNING if before - self._told or not self._ready else logging.INFO
        log.log(level, "connection %s: %s", self.name, self.status().reason.message)
        if not self._ready:
            self._nodes.search()
        if not self._ready or self._told - before:
            self._on_agent("")
        if self._ready and self._told - before:
            self._on_change({Key(registration) for registration in self._actual.registrations()})

    async def _tell_news(self) -> None:
        """Nodes come and go together, so they are told of together."""
        while True:
            await self._news.wait()
            await asyncio.sleep(TOGETHER)
            self._news.clear()
            if self._ready and self._told != self._nodes.sound():
                self._tell()

    async def _inform(self) -> None:
        """What is shown, and decides nothing. A token that may not ask an agent who it is leaves the version out."""
        while True:
            with suppress(ConsulError):
                identity = decode_self(await self._servers.get("/v1/agent/self"))
                self._version = identity.version
                self._datacenter = self._datacenter or identity.datacenter
            with suppress(ConsulError):
                path = f"/v1/catalog/service/{quote(self._settings.esm, safe='')}"
                self._has_esm = bool(decode_places(await self._servers.get(path)))
            await asyncio.sleep(ABOUT)

    # --- where an instance stands ---

    def place(self, node: Node | None, identity: str, standing: Sequence[Instance]) -> str | Reason:  # noqa: ARG002
        """The virtual node for an instance; the Pod's node says nothing here."""
        if not self._ready:
            return self.status().reason
        chosen = choose(self._nodes.names, identity, standing)
        watch = self._nodes.watches[chosen]
        return chosen if watch.sound else watch.reason or Reason(CONNECTING, f"the node {chosen} is being read")

    async def out_of_reach(self, registration: RegistrationKey) -> Sequence[str]:
        """Those of the nodes that can't be relied upon that by the catalog hold something of it."""
        if not self._ready:
            raise NotSent(self.status().reason)
        trouble = self._nodes.trouble().keys()
        return sorted(trouble & await holders(self, self._cluster, self.name, registration)) if trouble else ()

    async def reread(self) -> None:
        """Every node that can be relied upon."""
        if not self._ready:
            raise NotSent(self.status().reason)
        began, left = self._actual.begin(), {watch for watch in self._nodes.watches.values() if watch.sound}
        for watch in left:
            watch.wake()
        while left := {w for w in left if w.sound and self._actual.taken(w.book.node) < began}:  # noqa: ASYNC110
            await asyncio.sleep(REREAD)

    async def strangers(self, service: str) -> Sequence[Instance]:
        """Those on nodes without an agent: an agent would bring back what is removed from the catalog."""
        return await strangers(self, service, lambda _, by_agent: not by_agent)

    async def foreign(self, service: str) -> Sequence[tuple[str, str]]:
        return await foreign(self, service)

    async def dissolve(self) -> None:
        await self._nodes.dissolve()

    # --- whom to ask ---

    async def get(self, path: str, params: Params = ()) -> Answer:
        """Read; with an `index` among the parameters by a blocking query."""
        ask = self._servers.block if any(name == "index" for name, _ in params) else self._servers.get
        return await ask(path, params)

    async def put(self, path: str, params: Params, body: bytes) -> Answer:
        """Write what isn't the catalog's."""
        return await self._servers.put(path, params, body)

    # --- what stands there ---

    def instances(self, registration: RegistrationKey, subject: str) -> tuple[Instance, ...]:
        return self._actual.instances(registration, subject)

    def subjects(self, registration: RegistrationKey) -> AbstractSet[str]:
        return self._actual.subjects(registration)

    def registrations(self) -> AbstractSet[RegistrationKey]:
        return self._actual.registrations()

    def reaped(self, registration: RegistrationKey, subject: str) -> bool:
        return (registration, subject) in self._reaped

    async def apply(self, node: str, changes: Sequence[Change]) -> Sequence[ConsulError | None]:  # noqa: ARG002
        """Write changes, of any nodes. While not all is known nothing is written: it may stand elsewhere."""
        if not self._ready:
            return [NotSent(self.status().reason) for _ in changes]
        elsewhere = {at for at, change in enumerate(changes) if self._is_elsewhere(change)}
        here = iter(await self._writer.apply([c for at, c in enumerate(changes) if at not in elsewhere]))
        outcomes = [await self._adopt(c) if at in elsewhere else next(here) for at, c in enumerate(changes)]
        for change, error in zip(changes, outcomes, strict=True):
            if error is None:
                self._on_visible(change.evidence.pod)
        return outcomes

    def _is_elsewhere(self, change: Change) -> bool:
        """Only what is adopted can stand on a node that is none of ours."""
        return change.cause is Cause.ADOPTED and change.node not in self._nodes.watches

    async def _adopt(self, change: Change) -> ConsulError | None:
        try:
            if not self._may_write():
                raise NotSent(Reason("NotLeading", "this process doesn't lead, so it writes nothing"))
            await remove(self, change.instance)
        except ConsulError as error:
            return error
        return None

    async def _introduce(self, secret: str) -> str:
        """Show a token to the first server that answers; returns its accessor ID. Nothing stands under a token here."""
        access = replace(self._settings.access, token=lambda: secret)
        reads = (f"/v1/catalog/node-services/{quote(self._nodes.names[0], safe='')}",)
        *others, last = (Transport(Endpoint(*address), access) for address in self._settings.addresses)
        for transport in others:
            with suppress(NotSent):
                return await introduction(transport, reads)
        return await introduction(last, reads)

    # --- how it looks ---

    @property
    def ready(self) -> bool:
        return self._ready

    @property
    def esm_missing(self) -> bool:
        """Whether there are checks that consul-esm is to run, and no consul-esm."""
        return not self._has_esm and any(watch.book.probed for watch in self._nodes.watches.values())

    def standing(self) -> int:
        return len(self._actual)

    def heard(self) -> float | None:
        return min((watch.heard for watch in self._nodes.watches.values()), default=None)

    def status(self) -> RegistryStatus:
        return RegistryStatus(
            ready=self._ready,
            reason=self._reason(),
            version=self._version,
            datacenter=self._datacenter or self._told_datacenter(),
            leader=self._leader.address,
            agents=1,
            agents_ready=int(self._ready),
            instances=len(self._actual),
            token=TokenStatus(self._token.accessor, self._token.refused) if self._token.accessor else None,
        )

    def _told_datacenter(self) -> str:
        rows = (watch.book.row for watch in self._nodes.watches.values())
        return next((row.Datacenter for row in rows if row is not None), "")

    def _reason(self) -> Reason:
        trouble = self._nodes.trouble()
        if not self._ready:
            connecting = Reason(CONNECTING, "what Consul holds is being read")
            return next(iter(trouble.values()), self._nodes.broken or connecting)
        if trouble:
            return _unsound(trouble, len(self._nodes.watches))
        if self.esm_missing:
            message = (
                f"no service {self._settings.esm!r} is registered, so nobody runs the tcp and http checks of this "
                "connection: run consul-esm, or use readiness checks"
            )
            return Reason("EsmMissing", message)
        return Reason("CatalogReady", f"{len(self._nodes.watches)} nodes are read and watched")


def _unsound(trouble: Mapping[str, Reason], of: int) -> Reason:
    """Which nodes keep their instances waiting, and why the first of them does."""
    first, reason = min(trouble.items())
    named = ", ".join(sorted(trouble)[:3]) + (f" and {len(trouble) - 3} more" if len(trouble) > 3 else "")
    message = (
        f"{len(trouble)} of {of} virtual nodes can't be used, and what is placed there waits: {named}; {first}: "
        f"{reason.code}: {reason.message}"
    )
    return Reason("SomeNodesUnsound", message)
