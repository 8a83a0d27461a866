"""The agent-mode registry: one fixed Consul agent, or the agents on the Kubernetes nodes.

Decides which agents there are, on which of them an instance stands, and how all of them look together. How one agent
is talked to is `session.py`'s concern, when instances are given anew under another token `renewal.py`'s, what a
registration looks like on the wire `bodies.py`'s.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from consul_registrar.actual import Actual
from consul_registrar.changes import Cause, Change
from consul_registrar.consul.agent_status import reason_of
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.errors import ConsulError, NotSent
from consul_registrar.consul.fates import Agent
from consul_registrar.consul.heartbeat import Wrote, unheard
from consul_registrar.consul.holders import holders
from consul_registrar.consul.leader import Leader
from consul_registrar.consul.leftovers import Leftovers, Whose
from consul_registrar.consul.placement import choose
from consul_registrar.consul.registry import OnChange, OnVisible, RegistryStatus, ignore
from consul_registrar.consul.renewal import Renewal
from consul_registrar.consul.session import WRITES, AgentSession, Phase, Scope
from consul_registrar.consul.strangers import foreign, strangers
from consul_registrar.consul.token import Token, introduction
from consul_registrar.consul.transport import Access, Endpoint, Params, Transport
from consul_registrar.model import CONNECTING, Instance, Node, Reason, RegistrationKey

PASSING = "left:"
"""The beginning of the labels of sessions with agents that are none of the connection's, but hold something of it."""

REREAD = 0.05
"""Seconds between two looks whether what is read anew was taken in."""

FIXED = ""
"""The label of the one session where the address is fixed; else labels are the Kubernetes nodes' names."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Where the agents are. `host`: one fixed agent; "": one on each Kubernetes node, at its `address_type` address.

    `datacenter`: the one that the agents must be of; "" for any. `dead_man`: milliseconds after which the operator
    counts as gone and what it vouches for as critical; 0 for never.
    """

    host: str = ""
    address_type: str = "InternalIP"
    port: int = 8500
    scheme: str = "http"
    datacenter: str = ""
    access: Access = field(default_factory=Access)
    dead_man: int = 0


def _always() -> bool:
    return True


class AgentRegistry:
    """One Consul, written through its agents. Implements `registry.Registry`.

    `on_change` is called for what reads find, not for our own acknowledged writes. `on_agent` is called with a
    Kubernetes node's name ("" for the fixed agent) whenever `place` may answer otherwise for it.
    `may_write` is asked before each single write, `may_beat` before each beat of a heartbeat that is there. `token` is
    the one that `settings.access` shows, where it may be replaced. `on_visible` gets the Pod's version of a change that
    the catalog was seen to hold. `wrote` is told of writes that are about no instance.
    """

    batch = 1  # an agent takes them one by one, so that more would only keep waiting who could go on
    room = WRITES + 1  # the next one is at hand when one of them is done

    def __init__(
        self,
        name: str,
        cluster: str,
        settings: AgentSettings,
        on_change: OnChange,
        *,
        on_agent: Callable[[str], None] = ignore,
        may_write: Callable[[], bool] = _always,
        may_beat: Callable[[], bool] = _always,
        token: Token | None = None,
        on_visible: OnVisible = ignore,
        wrote: Wrote = unheard,
    ) -> None:
        self.name = name
        self._token = token or Token("")
        self._settings = settings
        self._actual = Actual(cluster, name)
        self._sessions: dict[str, AgentSession] = {}
        self._unaddressed: set[str] = set()
        self._renewal = Renewal(self._token, self._sessions, self.unaddressed, may_write)
        self._passing: dict[str, AgentSession] = {}
        self._owners: dict[str, str] = {}
        self._moved = asyncio.Event()
        self._on_agent = on_agent
        self._leader = Leader(self)
        self._leftovers = Leftovers(Whose(cluster, name), self, self._actual, on_change, may_write, wrote)
        self._scope = Scope(
            cluster,
            name,
            settings.datacenter,
            settings.access,
            self._actual,
            on_change,
            self._agent_changed,
            may_write,
            may_beat,
            self._claim,
            on_visible,
            dead_man=settings.dead_man,
            wrote=wrote,
        )
        if settings.host:
            self._want({FIXED: settings.host})

    # --- which agents there are ---

    def set_nodes(self, nodes: Mapping[str, Node]) -> None:
        """Tell which Kubernetes nodes there are now; of no effect where the agent's address is fixed."""
        if self._settings.host:
            return
        addresses = {name: node.addresses.get(self._settings.address_type, "") for name, node in nodes.items()}
        self._unaddressed = {name for name, address in addresses.items() if not address}
        self._want({name: address for name, address in addresses.items() if address})

    def _want(self, addresses: Mapping[str, str]) -> None:
        for label in self._sessions.keys() - addresses.keys():
            self._leave(label)
        for label, host in addresses.items():
            endpoint = self._endpoint(host)
            session = self._sessions.get(label)
            if session is not None and session.endpoint != endpoint:
                self._leave(label)
            if label not in self._sessions:
                self._sessions[label] = AgentSession(label, endpoint, self._scope)
        self._moved.set()
        self._leftovers.stir()

    def _leave(self, label: str) -> None:
        """Forget an agent that is none of ours any more; `run` ends its task."""
        session = (self._sessions if label in self._sessions else self._passing).pop(label)
        if session.phase is Phase.CONNECTING:
            self._agent_changed(label)  # `place` had others wait for its first answer, which never comes
        node = session.node
        if node and self._owners.get(node) == label:
            del self._owners[node]
            changed = self._actual.forget(node)
            if changed:
                self._scope.on_change(changed)

    def _claim(self, node: str, label: str) -> bool:
        """Whether a Consul node is this session's alone; what the session held before is let go."""
        holder = self._of(node)
        if holder is not None and holder.label != label and holder.ready:
            if holder.label in self._sessions:
                return False
            self._leave(holder.label)
        self._leftovers.release(node)
        self._owners[node] = label
        for other in [n for n, owner in self._owners.items() if owner == label and n != node]:
            del self._owners[other]
        return True

    async def run(self) -> None:
        """Talk to every agent, for ever; returns only when cancelled. Ends every task and connection of its own."""
        running: dict[AgentSession, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            group.create_task(self._token.run(self._introduce))
            group.create_task(self._renewal.run())
            group.create_task(self._leftovers.run())
            group.create_task(self._leader.run())
            while True:
                self._moved.clear()
                wanted = {*self._sessions.values(), *self._passing.values()}
                for session in running.keys() - wanted:
                    running.pop(session).cancel()
                for session in wanted - running.keys():
                    running[session] = group.create_task(session.run())
                await self._moved.wait()

    def _agent_changed(self, label: str) -> None:
        self._leftovers.stir()
        self._leader.met()
        self._on_agent(label)

    # --- what was left where no agent of ours is (any more) ---

    def agents(self) -> Sequence[Agent] | None:
        """Those that there should be; None while one of them wasn't tried yet, or none can be asked."""
        sessions = self._sessions.values()
        if any(session.phase is Phase.CONNECTING for session in sessions):
            return None
        if not any(session.ready for session in sessions):
            return None
        return [Agent(session.label, session.endpoint.host, session.node) for session in sessions]

    def unaddressed(self) -> AbstractSet[str]:
        return self._unaddressed

    def meet(self, nodes: Mapping[str, str]) -> None:
        """Talk to the agents of these Consul nodes (name to address) too, until nothing of ours is left there."""
        wanted = {f"{PASSING}{node}": self._endpoint(address) for node, address in nodes.items()}
        for label, session in list(self._passing.items()):
            if wanted.get(label) != session.endpoint and not (session.ready and session.holds):
                self._leave(label)
        for label, endpoint in wanted.items():
            if label not in self._passing:
                self._passing[label] = AgentSession(label, endpoint, self._scope)
        self._moved.set()

    def _endpoint(self, host: str) -> Endpoint:
        return Endpoint(host, self._settings.port, self._settings.scheme)

    # --- where an instance stands ---

    def place(self, node: Node | None, identity: str, standing: Sequence[Instance]) -> str | Reason:
        """The agent on the Pod's node; for endpoints where it stands, else a ready one chosen by rendezvous hash.

        What isn't seen to stand anywhere may stand at an agent that was not asked yet: then it waits.
        """
        if self._settings.host:
            return self._node_or_reason(self._sessions[FIXED])
        if node is not None:
            return self._place_on(node)
        ready = [session.node for session in self._sessions.values() if session.ready]
        if not standing and any(session.phase is Phase.CONNECTING for session in self._sessions.values()):
            return Reason(CONNECTING, "not every agent was asked yet what it holds")
        if not ready:
            return Reason("NoAgentReady", f"none of the {len(self._sessions)} Consul agents answers")
        return choose(ready, identity, standing)

    def _place_on(self, node: Node) -> str | Reason:
        session = self._sessions.get(node.name)
        if session is not None:
            return self._node_or_reason(session)
        if node.name in self._unaddressed:
            kind = self._settings.address_type
            return Reason("AgentAddressUnknown", f"node {node.name} has no address of type {kind} for its Consul agent")
        return Reason("NodeUnknown", f"node {node.name} is not known, so neither is its Consul agent")

    def _node_or_reason(self, session: AgentSession) -> str | Reason:
        return session.node if session.ready else session.reason

    async def out_of_reach(self, registration: RegistrationKey) -> Sequence[str]:
        """Those that the catalog, asked through an agent that answers, knows of beyond the agents that answer."""
        sessions = list(self._sessions.values())
        ready = [session for session in sessions if session.ready]
        if len(ready) == len(sessions) and not self._unaddressed and not self._leftovers.left:
            return ()
        if not ready:
            raise NotSent(self.status().reason)
        found = await holders(self, self._scope.cluster, self.name, registration)
        written = [*ready, *(session for session in self._passing.values() if session.ready)]
        return sorted(found - {session.node for session in written} - self._leftovers.gone)

    async def reread(self) -> None:
        """The lists of every agent that answers, and what the catalog has of it."""
        if not self.ready:
            raise NotSent(self.status().reason)
        began, left = self._actual.begin(), {session for session in self._sessions.values() if session.ready}
        for session in left:
            session.read_afresh()
        while left := {s for s in left if s.ready and self._actual.taken(s.node) < began}:  # noqa: ASYNC110
            await asyncio.sleep(REREAD)

    async def dissolve(self) -> None:
        """Nodes are the agents' own, but not the heartbeats there."""
        await asyncio.gather(*(session.dissolve() for session in self._sessions.values()))

    async def strangers(self, service: str) -> Sequence[Instance]:
        """Those at agents of this connection that answer."""
        return await strangers(self, service, lambda node, _: self._answers(node))

    async def foreign(self, service: str) -> Sequence[tuple[str, str]]:
        return await foreign(self, service)

    def _of(self, consul_node: str) -> AgentSession | None:
        label = self._owners.get(consul_node)
        return None if label is None else self._sessions.get(label) or self._passing.get(label)

    def _answers(self, consul_node: str) -> bool:
        session = self._of(consul_node)
        return session is not None and session.ready

    # --- whom to ask ---

    async def get(self, path: str, params: Params = ()) -> Answer:
        """Read, by an agent that answers; all of them ask the same servers."""
        return await self._any().get(path, params)

    async def put(self, path: str, params: Params, body: bytes) -> Answer:
        """Write what isn't an agent's own."""
        return await self._any().put(path, params, body)

    def _any(self) -> AgentSession:
        session = next((session for session in self._sessions.values() if session.ready), None)
        if session is None:
            raise NotSent(Reason(CONNECTING, "there is no agent yet that could be asked"))
        return session

    # --- what stands there ---

    def instances(self, registration: RegistrationKey, subject: str) -> tuple[Instance, ...]:
        return self._actual.instances(registration, subject)

    def subjects(self, registration: RegistrationKey) -> AbstractSet[str]:
        return self._actual.subjects(registration)

    def registrations(self) -> AbstractSet[RegistrationKey]:
        return self._actual.registrations()

    def reaped(self, registration: RegistrationKey, subject: str) -> bool:
        return (registration, subject) in self._scope.reaped

    def lane(self, node: str) -> str:
        """Each agent has its own, so that a slow one keeps no other waiting."""
        return node

    async def apply(self, node: str, changes: Sequence[Change]) -> Sequence[ConsulError | None]:
        """Write to one agent; answered at once with `NotSent` while the agent is not ready."""
        session = self._of(node)
        if session is None and node in self._leftovers.gone:
            return await self._leftovers.apply(node, changes)
        if session is None:
            reason = Reason("AgentUnknown", f"no Consul agent of this connection is {node}")
            return [NotSent(reason) for _ in changes]
        outcomes = await session.apply(changes)
        for change, error in zip(changes, outcomes, strict=True):
            if change.cause is Cause.ROTATED:
                self._renewal.note(error)
        return outcomes

    # --- which token is shown ---

    async def _introduce(self, secret: str) -> str:
        """Show a token to an agent, one that answers where there is one; returns its accessor ID."""
        sessions = sorted(self._sessions.values(), key=lambda session: not session.ready)
        if not sessions:
            raise NotSent(self.status().reason)
        access = replace(self._settings.access, token=lambda: secret)
        return await introduction(Transport(sessions[0].endpoint, access), ("/v1/agent/self", "/v1/agent/services"))

    # --- how it looks ---

    @property
    def ready(self) -> bool:
        return any(session.ready for session in self._sessions.values())

    def standing(self) -> int:
        return len(self._actual)

    def heard(self) -> float | None:
        return min((session.heard for session in self._sessions.values()), default=None)

    def status(self) -> RegistryStatus:
        sessions = list(self._sessions.values())
        ready = [session for session in sessions if session.ready]
        met = next((s for s in [*ready, *sessions] if s.identity is not None), None)
        identity = met.identity if met else None
        return RegistryStatus(
            ready=bool(ready),
            reason=reason_of(sessions, self._leftovers.told(), fixed=bool(self._settings.host)),
            version=identity.version if identity else "",
            datacenter=identity.datacenter if identity else "",
            leader=self._leader.address,
            agents=len(sessions) + len(self._unaddressed),
            agents_ready=len(ready),
            instances=len(self._actual),
            token=self._renewal.status(),
        )
