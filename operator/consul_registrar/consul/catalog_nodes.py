"""Decides which virtual nodes a connection reads, when enough of them can be relied upon, and when an old one goes.

The current nodes are always read. Others are ours too while they carry our mark: there were more once, or a snapshot
was restored. What stands on them moves by the plan; what is empty then is removed, by its version, unless anybody else
has something there. A node that can't be read keeps only its own instances waiting; while none can be relied upon, or
nothing shows that the token may read at all, the whole connection waits. How a node is read is `catalog_watch.py`'s
concern.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress

from consul_registrar.actual import Actual
from consul_registrar.backoff import Backoff
from consul_registrar.consul import catalog_wire
from consul_registrar.consul.answers import CONSISTENT
from consul_registrar.consul.book import Subject
from consul_registrar.consul.catalog_book import CatalogBook
from consul_registrar.consul.catalog_servers import Servers
from consul_registrar.consul.catalog_watch import NodeWatch, Watched, paths_of, whole
from consul_registrar.consul.errors import ConsulError, Stale
from consul_registrar.consul.in_flight import InFlight
from consul_registrar.consul.transport import RETRY
from consul_registrar.consul.virtual import node_names
from consul_registrar.consul.wire import is_ours
from consul_registrar.model import MANAGED_BY, META_CLUSTER, META_CONNECTION, META_MANAGED_BY, Key, Reason

log = logging.getLogger(__name__)

SEARCH = 300.0
"""Seconds between two looks for nodes that are none of the current ones; also one whenever Consul was out of sight."""

LEFT = 10.0
"""The same while an empty one was left, since this process doesn't lead (yet)."""


class CatalogNodes:
    """The virtual nodes of one connection. `on_read` gets the keys that a read found changed, `on_state` is called when
    a node can be relied upon or can't any more; `removed` after each node that was removed, or wasn't. `broken`: why
    others can't be looked for, where that is a fault of our own.
    """

    def __init__(
        self,
        whose: tuple[str, str],
        count: int,
        servers: Servers,
        actual: Actual,
        reaped: dict[Subject, None],
        on_read: Callable[[AbstractSet[Key]], None],
        on_state: Callable[[], None],
        may_write: Callable[[], bool],
        removed: Callable[[str, ConsulError | None], None],
    ) -> None:
        self.names = node_names(*whose, count)
        self.watches: dict[str, NodeWatch] = {}
        self._whose = whose
        self._servers = servers
        self._actual = actual
        self._reaped = reaped
        self._on_state = on_state
        self._may_write = may_write
        self._removed = removed
        self.in_flight = InFlight()
        self._watched = Watched(*whose, servers, actual, self.in_flight, on_read, self._changed)
        self._searched = False
        self.broken: Reason | None = None
        self._left = False
        self._awaited: set[str] = set(self.names)
        self._stirred = asyncio.Event()
        for name in self.names:
            self._add(name, passing=False)

    # --- what can be relied upon ---

    @property
    def ready(self) -> bool:
        """Whether there are nodes to work with, and the others can't be waited for.

        A former node that is found later, while work goes on, is waited for by nobody.
        """
        current = [self.watches[name] for name in self.names]
        awaited = [watch for name, watch in self.watches.items() if name in self._awaited]
        return self._searched and all(watch.tried for watch in awaited) and self._proven(current)

    def _proven(self, current: list[NodeWatch]) -> bool:
        """An empty node looks the same to a token that may read nothing, so where some are denied it proves nothing."""
        sound = [watch for watch in current if watch.sound]
        denied = any(watch.denied for watch in self.watches.values())
        return any(not watch.book.bare for watch in sound) if denied else bool(sound)

    def sound(self) -> frozenset[str]:
        """The current nodes that can be relied upon."""
        return frozenset(name for name in self.names if self.watches[name].sound)

    def trouble(self) -> Mapping[str, Reason]:
        """Why the others can't, as far as that is known."""
        return {name: w.reason for name, w in self.watches.items() if not w.sound and w.reason is not None}

    # --- which are read ---

    async def run(self) -> None:
        """Read and watch for ever; returns only when cancelled."""
        async with asyncio.TaskGroup() as group:
            for watch in tuple(self.watches.values()):
                group.create_task(watch.run())
            group.create_task(self._search(group))

    def search(self) -> None:
        """Consul was out of sight: it may be in another state now. Nothing is ready before that is known."""
        self._searched = False
        self._stirred.set()

    def _changed(self) -> None:
        """A node has come back, or failed. Where one does, so may the search."""
        if not self._searched:
            self._stirred.set()
        self._on_state()

    def _add(self, name: str, *, passing: bool) -> NodeWatch:
        book = CatalogBook(name, *self._whose, self._actual, self._reaped)
        watch = self.watches[name] = NodeWatch(book, self._watched, passing=passing)
        return watch

    async def _search(self, group: asyncio.TaskGroup) -> None:
        """Look for others now and then, for ever, whatever happens."""
        backoff = Backoff(*RETRY, random.random)
        while True:
            self._stirred.clear()
            try:
                others = await self._others()
            except ConsulError:
                await self._rest(backoff())
                continue
            except Exception as error:  # the current nodes are read all the same
                self._broke(error)
                await asyncio.sleep(backoff())
                continue
            self.broken = None
            backoff.reset()
            self._left = False
            for name in others - self.watches.keys():
                group.create_task(self._let_go(self._add(name, passing=True)))
            if not self._searched:
                self._awaited = {*self.names, *others}
                self._searched = True
                self._on_state()
            await self._rest(min(LEFT, SEARCH))
            if not self._left:
                await self._rest(SEARCH - LEFT)

    def _broke(self, error: Exception) -> None:
        reason = Reason("InternalError", f"looking for nodes of this connection broke: {error!r}")
        if reason != self.broken:
            log.error("%s", reason.message, exc_info=error)
        self.broken = reason
        self._on_state()

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stirred.wait()

    async def _others(self) -> set[str]:
        """The nodes that carry our mark and are none of the current ones. Those that ACLs hide aren't ours."""
        mine = {META_MANAGED_BY: MANAGED_BY, META_CLUSTER: self._whose[0], META_CONNECTION: self._whose[1]}
        only = " and ".join(f'Meta["{key}"] == "{value}"' for key, value in mine.items())
        answer = await self._servers.get("/v1/catalog/nodes", [("filter", only), *CONSISTENT])
        return set(catalog_wire.decode_nodes(answer)) - set(self.names)

    async def _let_go(self, watch: NodeWatch) -> None:
        """Watch a node until nothing of ours stands on it any more, then remove it."""
        name = watch.book.node
        await watch.run()
        if self._may_write():
            await self._remove(name)
        else:
            self._left = True
        del self.watches[name]
        self._actual.forget(name)
        self._on_state()

    async def dissolve(self) -> None:
        """Remove the current nodes on which nothing stands: nobody will use them any more."""
        for name in self.names:
            watch = self.watches[name]
            if watch.sound and watch.book.row is not None and self._may_write() and not self._actual.on_node(name):
                await self._remove(name)

    async def _remove(self, name: str) -> None:
        """Remove an empty node that carries our mark, as it was just read. What fails is left for the next search."""
        try:
            row = await self._empty(name)
            if row is None:
                return
            body = catalog_wire.node_delete(name, row.ModifyIndex).body
            verdict = catalog_wire.decode_verdict(await self._servers.transact(b"[" + body + b"]"))
            if verdict.Errors:
                raise Stale(Reason("Stale", f"Consul refused to remove the node {name} ({verdict.Errors[0].What})"))
        except ConsulError as error:
            log.warning("the empty Consul node %s could not be removed: %s", name, error.reason.message)
            self._removed(name, error)
        else:
            log.info("the Consul node %s of connection %s was empty and is removed", name, self._whose[1])
            self._removed(name, None)

    async def _empty(self, name: str) -> catalog_wire.NodeRow | None:
        """The node as it stands now; None where there is none, or it isn't ours, or holds anything at all."""
        services_path, checks_path = paths_of(name)
        row, services = catalog_wire.decode_services(
            whole(services_path, await self._servers.get(services_path, CONSISTENT))
        )
        checks = catalog_wire.decode_checks(whole(checks_path, await self._servers.get(checks_path, CONSISTENT)))
        if row is None or services or checks or not is_ours(row.Meta, *self._whose):
            return None
        return row
