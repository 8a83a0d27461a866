"""A registry behind the claim of its cluster's name: put to work once that is ours, and only while it is.

Decides what a connection looks like before that: nothing of it can be placed or written, and what stands under a name
that another cluster holds isn't ours, so it isn't shown. How the claim is made is `claim.py`'s concern; everything else
is that of the registry behind it.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Protocol

from consul_registrar.changes import Change
from consul_registrar.consul.claim import Asks, Claim, Name
from consul_registrar.consul.errors import ConsulError, NotSent
from consul_registrar.consul.registry import OnChange, Registry, RegistryStatus
from consul_registrar.model import CONNECTING, Instance, Key, Node, Reason, RegistrationKey
from consul_registrar.together import together


class Inner(Registry, Asks, Protocol):
    """What stands behind the claim."""

    def set_nodes(self, nodes: Mapping[str, Node]) -> None: ...


Make = Callable[[OnChange, Callable[[str], None], Callable[[], bool], Callable[[], bool]], Inner]
"""Makes the registry, from its `on_change`, `on_agent`, `may_write` and `may_beat`."""


class ClaimedRegistry:
    """One Consul, put to work once the cluster's name there is ours. Implements `registry.Registry`."""

    def __init__(
        self,
        name: Name,
        make: Make,
        on_change: OnChange,
        on_agent: Callable[[str], None],
        may_write: Callable[[], bool],
        wrote: Callable[[str, ConsulError | None], None],
    ) -> None:
        self._on_change = on_change
        self._on_agent = on_agent
        self._inner = make(self._changed, self._agent_changed, self._may_write, self._may_beat)
        self._leads = may_write
        self._observes = name.observes
        self._claim = Claim(name, self._inner, may_write, self._claim_changed, wrote)
        self.name = self._inner.name

    async def run(self) -> None:
        """Connect, claim and go on for ever; returns only when cancelled."""
        await together(self._inner.run(), self._claim.keep())

    def _may_write(self) -> bool:
        return not self._observes and self._may_beat()

    def _may_beat(self) -> bool:
        """Asked where what stands is only kept alive, which a policy that writes nothing must not end."""
        return self._claim.reason is None and self._leads()

    # --- what is told ---

    def _changed(self, keys: AbstractSet[Key], *, routine: bool = False) -> None:
        """Nobody could decide anything before the claim stands; afterwards all is told at once."""
        if self._claim.reason is None:
            self._on_change(keys, routine=routine)

    def _agent_changed(self, label: str) -> None:
        """While the claim is only being made, nobody could place anything at the agent: that is told with the claim."""
        self._claim.wake()
        reason = self._claim.reason
        if reason is None or reason.code != CONNECTING or not self._inner.ready:
            self._on_agent(label)

    def _claim_changed(self) -> None:
        self._on_agent("")
        if self._claim.reason is None:
            self._on_change({Key(registration) for registration in self._inner.registrations()})

    # --- what the claim decides ---

    @property
    def ready(self) -> bool:
        return self._claim.reason is None and self._inner.ready

    def status(self) -> RegistryStatus:
        """What is wrong with Consul itself is said first: then nobody could be asked for the claim."""
        status, reason = self._inner.status(), self._claim.reason
        if reason is None or not status.ready:
            return status
        return replace(status, ready=False, reason=reason, instances=0)

    def place(self, node: Node | None, identity: str, standing: Sequence[Instance]) -> str | Reason:
        place = self._inner.place(node, identity, standing)
        return place if isinstance(place, Reason) else self._claim.reason or place

    def instances(self, registration: RegistrationKey, subject: str) -> tuple[Instance, ...]:
        return () if self._claim.reason else self._inner.instances(registration, subject)

    def subjects(self, registration: RegistrationKey) -> AbstractSet[str]:
        return frozenset() if self._claim.reason else self._inner.subjects(registration)

    def registrations(self) -> AbstractSet[RegistrationKey]:
        return frozenset() if self._claim.reason else self._inner.registrations()

    def standing(self) -> int:
        return 0 if self._claim.reason else self._inner.standing()

    async def out_of_reach(self, registration: RegistrationKey) -> Sequence[str]:
        """What may be ours, and can't be written to before that is known. What is another cluster's is no concern."""
        reason = self._claim.reason
        if reason is None:
            return await self._inner.out_of_reach(registration)
        if reason.code == "ClusterNameTaken":
            return ()
        raise NotSent(reason)

    async def apply(self, node: str, changes: Sequence[Change]) -> Sequence[ConsulError | None]:
        reason = self._claim.reason
        if reason is not None:
            return [NotSent(reason) for _ in changes]
        return await self._inner.apply(node, changes)

    # --- what it doesn't ---

    @property
    def batch(self) -> int:
        return self._inner.batch

    @property
    def room(self) -> int:
        return self._inner.room

    def heard(self) -> float | None:
        return self._inner.heard()

    def set_nodes(self, nodes: Mapping[str, Node]) -> None:
        self._inner.set_nodes(nodes)

    async def reread(self) -> None:
        await self._inner.reread()

    async def dissolve(self) -> None:
        await self._inner.dissolve()

    async def strangers(self, service: str) -> Sequence[Instance]:
        return await self._inner.strangers(service)

    async def foreign(self, service: str) -> Sequence[tuple[str, str]]:
        return await self._inner.foreign(service)

    def reaped(self, registration: RegistrationKey, subject: str) -> bool:
        return self._inner.reaped(registration, subject)

    def lane(self, node: str) -> str:
        return self._inner.lane(node)
