"""Finds Consul nodes that hold something of ours and are no agent's of this connection, and cleans those that are gone.

What becomes of each is decided in `fates.py`; what of it is to go, by the plan, as everywhere: here it is only shown,
and removed through the catalog on request. Before each removal the member and the row are read afresh: an agent that
lives would bring it back, and what isn't ours is never touched. Living agents are handed to the registry.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from consul_registrar import model
from consul_registrar.actual import Actual
from consul_registrar.changes import Change, Deregister
from consul_registrar.consul import wire
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.claim import Asks
from consul_registrar.consul.errors import ConsulError, Denied, NotSent, Stale
from consul_registrar.consul.fates import Agent, Fate, Leftover, Member, fate
from consul_registrar.consul.heartbeat import Wrote, unheard
from consul_registrar.consul.holders import Row, rows
from consul_registrar.consul.wire import Reader
from consul_registrar.dead_man import heartbeat_id
from consul_registrar.model import Instance, Key, Reason

log = logging.getLogger(__name__)

LOOKS = 60.0
LOOKS_CLOSELY = 5.0
"""Seconds between two looks: as a rule, and while something is left somewhere."""

SPACING = 1.0
SERF = "serfHealth"


class Agents(Asks, Protocol):
    """The agents of the connection."""

    def agents(self) -> Collection[Agent] | None:
        """Those that there should be; None while some of them weren't tried yet: nothing can be concluded then."""
        ...

    def unaddressed(self) -> Collection[str]:
        """The Kubernetes nodes without an address for an agent."""
        ...

    def meet(self, nodes: Mapping[str, str]) -> None:
        """Talk to the agents of these Consul nodes (name to address), and to no others of the kind."""
        ...


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose instances are looked for."""

    cluster: str
    connection: str


class Leftovers:
    """What stands where no agent of this connection is. `wrote` is told of writes that are about no instance."""

    def __init__(
        self,
        whose: Whose,
        consul: Agents,
        actual: Actual,
        on_change: Callable[[AbstractSet[Key]], None],
        may_write: Callable[[], bool],
        wrote: Wrote = unheard,
    ) -> None:
        self._wrote = wrote
        self._whose = whose
        self._consul = consul
        self._actual = actual
        self._on_change = on_change
        self._may_write = may_write
        self._gone: dict[str, Reader] = {}
        self._left: dict[str, tuple[Fate, int]] = {}
        self._stirred = asyncio.Event()

    @property
    def gone(self) -> AbstractSet[str]:
        """The nodes that can be cleaned through the catalog."""
        return self._gone.keys()

    @property
    def left(self) -> AbstractSet[str]:
        """All nodes that hold something, as far as was seen."""
        return self._left.keys()

    def told(self) -> str:
        """What is left where, for people; "" where nothing is."""
        words = {Fate.MEET: "whose agent lives", Fate.GONE: "whose agent is gone"}
        left = [(node, f, count) for node, (f, count) in sorted(self._left.items()) if f in words]
        named = [f"{count} on {node}, {words[f]}" for node, f, count in left[:3]]
        return "; ".join([*named, f"and {len(left) - 3} nodes more"] if left[3:] else named)

    def stir(self) -> None:
        """An agent came, went or changed: look soon."""
        self._stirred.set()

    def release(self, node: str) -> None:
        """An agent of ours is this node now: it tells what it holds itself."""
        if self._gone.pop(node, None) is not None:
            self._on_change(self._actual.forget(node))

    async def run(self) -> None:
        """Look now and then, for ever, whatever happens; returns only when cancelled."""
        trouble = ""
        while True:
            try:
                await self._look()
                trouble = ""
            except ConsulError as error:
                if error.reason.code != trouble:
                    log.warning("what may be left on other agents' nodes can't be told: %s", error.reason.message)
                trouble = error.reason.code
            except Exception as error:  # the agents themselves are written to all the same
                if repr(error) != trouble:
                    log.exception("looking for what is left on other agents' nodes broke, and is tried again")
                trouble = repr(error)
            await asyncio.sleep(SPACING)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOKS_CLOSELY if self._left else LOOKS):
                    await self._stirred.wait()
            self._stirred.clear()

    # --- what is left, and where ---

    async def _look(self) -> None:
        agents = self._consul.agents()
        if agents is None:
            return
        found = await rows(self._consul, *self._of(), {}, {agent.node for agent in agents if agent.node})
        members = await self._members() if found else {}
        fates = {node: await self._fate(node, found, members, agents) for node in {row.Node for row in found}}
        self._left = {node: (f, sum(row.Node == node for row in found)) for node, f in fates.items()}
        self._consul.meet({node: members[node].address for node, f in fates.items() if f is Fate.MEET})
        for node in self._gone.keys() - {node for node, f in fates.items() if f is Fate.GONE}:
            self.release(node)
        for node in [node for node, f in fates.items() if f is Fate.GONE]:
            await self._show(node)

    def _of(self) -> tuple[str, str]:
        return self._whose.cluster, self._whose.connection

    async def _fate(
        self, node: str, found: Sequence[Row], members: Mapping[str, Member], agents: Collection[Agent]
    ) -> Fate:
        mine = [row for row in found if row.Node == node]
        stood_on = {(row.ServiceMeta or {}).get(model.META_NODE, "") for row in mine}
        leftover = Leftover(
            node, frozenset(row.Address for row in mine), frozenset(stood_on - {""}), await self._is_healthy(node)
        )
        return fate(leftover, members.get(node), agents, self._consul.unaddressed())

    async def _members(self) -> Mapping[str, Member]:
        return wire.decode_members(_whole("/v1/agent/members", await self._consul.get("/v1/agent/members")))

    async def _is_healthy(self, node: str) -> bool:
        checks = wire.decode_node_checks(await self._read("/v1/health/node", node))
        return SERF in checks and checks[SERF].Status == "passing"

    async def _read(self, path: str, node: str) -> Answer:
        path = f"{path}/{quote(node, safe='')}"
        return _whole(path, await self._consul.get(path))

    async def _show(self, node: str) -> None:
        """What stands on a node that is gone, for the plan."""
        if node not in self._gone:
            log.info("the agent of Consul node %s is gone: what is to go there is removed through the catalog", node)
        reader = self._gone.setdefault(node, Reader(node, *self._of()))
        began = self._actual.begin()
        services = wire.decode_node_services(await self._read("/v1/catalog/node-services", node))
        checks = wire.decode_node_checks(await self._read("/v1/health/node", node))
        changed = self._actual.replace(node, [held.instance for held in reader.ours(services, checks)], began)
        if changed:
            self._on_change(changed)

    # --- what is removed ---

    async def apply(self, node: str, changes: Sequence[Change]) -> list[ConsulError | None]:
        """Remove from a node that is gone; anything else needs an agent. Outcomes in the order of the changes."""
        return [await self._outcome(node, change) for change in changes]

    async def _outcome(self, node: str, change: Change) -> ConsulError | None:
        try:
            await self._remove(node, change)
        except ConsulError as error:
            self.stir()
            return error
        return None

    async def _remove(self, node: str, change: Change) -> None:
        if not isinstance(change, Deregister):
            raise NotSent(agent_gone(node))
        await self._confirm_gone(node)
        services = wire.decode_node_services(await self._read("/v1/catalog/node-services", node))
        row = services.get(change.id)
        if row is not None:
            self._confirm_ours(node, change.instance, row)
            await self._deregister(node, change.id)
        if not any(wire.is_ours(other.Meta, *self._of()) for other in services.values() if other is not row):
            await self._remove_heartbeat(node, services)
        self._actual.remove(node, change.id)

    async def _remove_heartbeat(self, node: str, services: Mapping[str, wire.ServiceRow]) -> None:
        """Nothing hangs on it any more."""
        heartbeat = heartbeat_id(*self._of())
        if heartbeat not in services:
            return
        self._ask_leave()
        try:
            await self._deregister(node, heartbeat)
        except ConsulError as error:
            self._wrote("remove-heartbeat", "needless", node, error)
            raise
        self._wrote("remove-heartbeat", "needless", node, None)

    def _ask_leave(self) -> None:
        if not self._may_write():
            raise NotSent(Reason("NotLeading", "this process doesn't lead, so it writes nothing"))

    async def _deregister(self, node: str, service_id: str) -> None:
        self._ask_leave()
        body = json.dumps({"Node": _named(node), "ServiceID": _named(service_id)}).encode()
        await self._consul.put("/v1/catalog/deregister", (), body)

    async def _confirm_gone(self, node: str) -> None:
        """What lives brings back what the catalog loses."""
        member = (await self._members()).get(node)
        agents = self._consul.agents() or ()
        leftover = Leftover(node, frozenset(), frozenset(), await self._is_healthy(node))
        known = any(agent.node == node for agent in agents)
        if known or fate(leftover, member, (), ()) is not Fate.GONE:
            raise Stale(Reason("Stale", f"the agent of Consul node {node} is back: it is looked at again"))

    def _confirm_ours(self, node: str, instance: Instance, row: wire.ServiceRow) -> None:
        stands = wire.held(node, row, ()).instance
        if (stands.owner, stands.subject) != (instance.owner, instance.subject):
            raise Stale(Reason("Stale", f"{instance.id} on {node} is somebody else's by now: it is read again"))


def agent_gone(node: str) -> Reason:
    """Why nothing can be registered or changed there."""
    return Reason(
        "AgentGone", f"the agent of Consul node {node} is gone, so nothing there can be changed, only removed"
    )


def _named(name: str) -> str:
    """Without an ID Consul would remove the whole node."""
    assert name, "an empty ID or name is never sent to Consul"
    return name


def _whole(path: str, answer: Answer) -> Answer:
    """Nothing may be concluded from what a filtered list lacks."""
    if answer.filtered:
        raise Denied(Reason("ReadIncomplete", f"{path} was answered in part: ACLs hid the rest"))
    return answer
