"""The catalog-mode registry: one Consul, written through its servers, on virtual nodes of our own. No agents.

Decides which nodes are watched, where an instance stands, and how all of it looks together. How a node is read is
`catalog_watch.py`'s concern, how changes are written `catalog_writer.py`'s, which nodes there are `virtual.py`'s.
Readiness is a status that we write; tcp and http checks are run by consul-esm, for which their definitions are written:
the status is its own from then on.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from consul_registrar.actual import Actual
from consul_registrar.backoff import Backoff
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.book import Subject
from consul_registrar.consul.catalog_book import CatalogBook
from consul_registrar.consul.catalog_servers import Servers
from consul_registrar.consul.catalog_watch import NodeWatch, Watched
from consul_registrar.consul.catalog_wire import decode_names, decode_places
from consul_registrar.consul.catalog_writer import CatalogWriter
from consul_registrar.consul.errors import ConsulError, NotSent
from consul_registrar.consul.registry import OnChange, RegistryStatus, TokenStatus
from consul_registrar.consul.token import Token, introduction
from consul_registrar.consul.transport import RETRY, Access, Endpoint, Params, Transport
from consul_registrar.consul.virtual import choose, node_names
from consul_registrar.consul.wire import decode_self, is_ours
from consul_registrar.model import (
    CONNECTING,
    META_CLUSTER,
    META_CONNECTION,
    Change,
    Instance,
    Key,
    Node,
    Reason,
    RegistrationKey,
)

log = logging.getLogger(__name__)

VIRTUAL_NODES = 32

ABOUT = 30.0
"""Seconds between two looks at what only informs: the leader, whether there is a consul-esm."""


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


def _ignore(_label: str) -> None:
    return None


def _always() -> bool:
    return True


class CatalogRegistry:
    """One Consul, written through its servers. Implements `registry.Registry`.

    `on_change` is called for what reads find, not for our own acknowledged writes. `on_agent` is called with ""
    whenever `place` may answer otherwise. `may_write` is asked before each request that writes.
    """

    def __init__(
        self,
        name: str,
        cluster: str,
        settings: CatalogSettings,
        on_change: OnChange,
        *,
        on_agent: Callable[[str], None] = _ignore,
        may_write: Callable[[], bool] = _always,
        token: Token | None = None,
    ) -> None:
        self.name = name
        self._token = token or Token("")
        self._cluster = cluster
        self._settings = settings
        self._on_change = on_change
        self._on_agent = on_agent
        self._actual = Actual(cluster, name)
        self._reaped: dict[Subject, None] = {}
        self._nodes = node_names(cluster, name, settings.virtual_nodes)
        self._servers = self._connect()
        self._watches: dict[str, NodeWatch] = {}
        self._writer = CatalogWriter((cluster, name), settings.datacenter, self._servers, self._watches, may_write)
        for node in self._nodes:
            self._add(node, passing=False)
        self._ready = False
        self._searched = False
        self._search = asyncio.Event()
        self._version = self._leader = ""
        self._datacenter = settings.datacenter
        self._has_esm = True

    def _connect(self) -> Servers:
        settings = self._settings
        endpoints = [Endpoint(*address) for address in settings.addresses]
        return Servers(endpoints, settings.access, settings.datacenter, 2 * settings.virtual_nodes + 1)

    def set_nodes(self, nodes: Mapping[str, Node]) -> None:
        """The cluster's nodes are none of this mode's concern."""

    def lane(self, node: str) -> str:  # noqa: ARG002
        """All changes go through one lane: a transaction holds those of many nodes."""
        return ""

    # --- what is watched ---

    def _add(self, node: str, *, passing: bool) -> NodeWatch:
        watched = Watched(self._cluster, self.name, self._servers, self._actual, self._read, self._judge)
        book = CatalogBook(node, self._cluster, self.name, self._actual, self._reaped)
        watch = self._watches[node] = NodeWatch(book, watched, passing=passing)
        return watch

    async def run(self) -> None:
        """Read and watch for ever; returns only when cancelled. Ends every task and connection of its own."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._inform())
                group.create_task(self._token.run(self._introduce))
                group.create_task(self._find_others(group))
                for watch in tuple(self._watches.values()):
                    group.create_task(watch.run())
        finally:
            await self._servers.close()

    async def _find_others(self, group: asyncio.TaskGroup) -> None:
        """Look for nodes of ours that are none of the current ones: there were more once, or a snapshot was restored.

        At the start, and whenever Consul was out of sight.
        """
        backoff = Backoff(*RETRY, random.random)
        while True:
            self._search.clear()
            try:
                others = await self._others()
            except ConsulError:
                await asyncio.sleep(backoff())
                continue
            backoff.reset()
            for node in others - self._watches.keys():
                log.info("instances of connection %s stand on %s, which is none of its nodes now", self.name, node)
                group.create_task(self._watch_other(self._add(node, passing=True)))
            self._searched = True
            self._judge()
            await self._search.wait()

    async def _watch_other(self, watch: NodeWatch) -> None:
        await watch.run()
        del self._watches[watch.book.node]
        self._actual.forget(watch.book.node)
        self._judge()

    async def _others(self) -> set[str]:
        """The nodes that hold something of ours and were made by us. Where ACLs hide others, those aren't ours."""
        mine = {META_CLUSTER: self._cluster, META_CONNECTION: self.name}
        only = " and ".join(f'ServiceMeta["{key}"] == "{value}"' for key, value in mine.items())
        names = decode_names(await self._servers.get("/v1/catalog/services", [("filter", only)]))
        found: set[str] = set()
        for name in names:
            path = f"/v1/catalog/service/{quote(name, safe='')}"
            rows = decode_places(await self._servers.get(path, [("filter", only)]))
            found |= {node for node, meta in rows if is_ours(meta, self._cluster, self.name)}
        return found - set(self._nodes)

    # --- what is told ---

    def _read(self, changed: AbstractSet[Key]) -> None:
        """A node was read. Before all are, nothing is told: nobody could decide anything."""
        if changed and self._ready:
            self._on_change(changed)

    def _judge(self) -> None:
        """All nodes are sound, or not any more."""
        was, self._ready = self._ready, self._searched and all(watch.sound for watch in self._watches.values())
        if was == self._ready:
            return
        if not self._ready:
            self._search.set()
            log.warning("connection %s: %s", self.name, self.status().reason.message)
        self._on_agent("")
        if self._ready:
            log.info("connection %s: %s", self.name, self.status().reason.message)
            self._on_change({Key(registration) for registration in self._actual.registrations()})

    async def _inform(self) -> None:
        """What is shown, and decides nothing. A token that may not ask an agent who it is leaves the version out."""
        while True:
            with suppress(ConsulError):
                identity = decode_self(await self._servers.get("/v1/agent/self"))
                self._version = identity.version
                self._datacenter = self._datacenter or identity.datacenter
            with suppress(ConsulError):
                self._leader = (await self._servers.get("/v1/status/leader")).text.strip('"')
            with suppress(ConsulError):
                path = f"/v1/catalog/service/{quote(self._settings.esm, safe='')}"
                self._has_esm = bool(decode_places(await self._servers.get(path)))
            await asyncio.sleep(ABOUT)

    # --- where an instance stands ---

    def place(self, node: Node | None, identity: str, standing: Sequence[Instance]) -> str | Reason:  # noqa: ARG002
        """The virtual node for an instance; the Pod's node says nothing here."""
        return choose(self._nodes, identity, standing) if self._ready else self.status().reason

    async def out_of_reach(self, registration: RegistrationKey) -> Sequence[str]:  # noqa: ARG002
        """None: all nodes can be written to, or nothing is known of any."""
        if not self._ready:
            raise NotSent(self.status().reason)
        return ()

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
        return await self._writer.apply(changes)

    async def _introduce(self, secret: str) -> str:
        """Show a token to the first server that answers; returns its accessor ID. Nothing stands under a token here."""
        access = replace(self._settings.access, token=lambda: secret)
        reads = (f"/v1/catalog/node-services/{quote(self._nodes[0], safe='')}",)
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
        return not self._has_esm and any(watch.book.probed for watch in self._watches.values())

    def standing(self) -> int:
        return len(self._actual)

    def status(self) -> RegistryStatus:
        return RegistryStatus(
            ready=self._ready,
            reason=self._reason(),
            version=self._version,
            datacenter=self._datacenter or self._told_datacenter(),
            leader=self._leader,
            agents=1,
            agents_ready=int(self._ready),
            instances=len(self._actual),
            token=TokenStatus(self._token.accessor, self._token.refused) if self._token.accessor else None,
        )

    def _told_datacenter(self) -> str:
        rows = (watch.book.row for watch in self._watches.values())
        return next((row.Datacenter for row in rows if row is not None), "")

    def _reason(self) -> Reason:
        unsound = [watch for watch in self._watches.values() if not watch.sound]
        failed = next((watch.reason for watch in unsound if watch.reason is not None), None)
        if failed is not None:
            return failed
        if not self._ready:
            return Reason(CONNECTING, "what Consul holds is being read")
        if self.esm_missing:
            message = (
                f"no service {self._settings.esm!r} is registered, so nobody runs the tcp and http checks of this "
                "connection: run consul-esm, or use readiness checks"
            )
            return Reason("EsmMissing", message)
        return Reason("CatalogReady", f"{len(self._watches)} nodes are read and watched")
