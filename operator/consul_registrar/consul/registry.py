"""The port to one Consul: read what is ours, apply changes, tell what changed. Adapters: `agent.py`, `catalog.py`.

What to write is decided elsewhere (`plan.py`); an adapter decides how, and where an instance can stand.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

from consul_registrar.changes import Change
from consul_registrar.consul.errors import ConsulError
from consul_registrar.model import Instance, Key, Node, Reason, RegistrationKey


@dataclass(frozen=True, slots=True)
class TokenStatus:
    """Which token is used, by its accessor ID. `refused`: why the one that was read last isn't.

    `left`: how many instances stand under another one at their agents; `unseen`: how many agents can't be asked;
    `denied`: what the token in use may not write.
    """

    accessor: str
    refused: Reason | None = None
    rotating: bool = False
    left: int = 0
    unseen: int = 0
    denied: Reason | None = None


@dataclass(frozen=True, slots=True)
class RegistryStatus:
    """How one Consul looks from here. `reason` says why, also when it is well. `leader`: "" for none, None: untold."""

    ready: bool
    reason: Reason
    version: str = ""
    datacenter: str = ""
    leader: str | None = None
    agents: int = 0
    agents_ready: int = 0
    instances: int = 0
    token: TokenStatus | None = None


class OnChange(Protocol):
    """Called with the keys whose actual state changed, and with the registration keys (subject None) found in Consul.

    `routine`: nothing is known to have changed for them, but they should be looked at again.
    """

    def __call__(self, keys: AbstractSet[Key], *, routine: bool = False) -> None: ...


OnVisible = Callable[[int | None], None]
"""Called once the catalog holds a change, with the version of the Pod that it was decided on; None for no Pod."""


def ignore(_about: object) -> None:
    """Nobody wants to know."""


class Registry(Protocol):
    """One Consul. Everything but `run` and `apply` answers at once from what was read last."""

    name: str

    @property
    def batch(self) -> int:
        """How many changes `apply` is given at most: whoever waits for one of them waits for the last."""
        ...

    @property
    def room(self) -> int:
        """How many changes of one lane may be in flight, in several batches side by side."""
        ...

    @property
    def ready(self) -> bool:
        """Whether it can be written to, in part at least; cheap to ask, unlike `status`, which says the same."""
        ...

    def status(self) -> RegistryStatus:
        """What the connection's conditions are made of."""
        ...

    def place(self, node: Node | None, identity: str, standing: Sequence[Instance]) -> str | Reason:
        """The Consul node for an instance: of the agent on the Pod's `node`; None: of any, chosen by `identity`.

        An instance that stands somewhere already stays there while that place is sound. A `Reason` where there is
        no place now: nothing known to be complete may be compared with.
        """
        ...

    def instances(self, registration: RegistrationKey, subject: str) -> tuple[Instance, ...]:
        """What this registration owns here for one subject: last read, with our acknowledged writes over it."""
        ...

    def subjects(self, registration: RegistrationKey) -> AbstractSet[str]:
        """The subjects for which this registration owns something here."""
        ...

    def standing(self) -> int:
        """How many instances stand here that are this connection's."""
        ...

    def heard(self) -> float | None:
        """When that of its watches was last answered which wasn't for longest, in monotonic time; None: it has none."""
        ...

    def registrations(self) -> AbstractSet[RegistrationKey]:
        """The registrations, existing or not, that own something here."""
        ...

    async def out_of_reach(self, registration: RegistrationKey) -> Sequence[str]:
        """The Consul nodes that hold something of this registration and can't be written to now.

        Raises the tree of `errors.py` where nobody can be asked.
        """
        ...

    async def reread(self) -> None:
        """Read everything anew that can be read now; returns once that is taken in. Raises `NotSent`: nothing can."""
        ...

    async def dissolve(self) -> None:
        """The connection is about to go: remove what it made beside instances, where none stands. Never raises for
        what Consul answers.
        """
        ...

    async def strangers(self, service: str) -> Sequence[Instance]:
        """What stands under a service name, is nobody's, and could be removed here: on nodes that we may write to.

        Raises the tree of `errors.py`.
        """
        ...

    async def foreign(self, service: str) -> Sequence[tuple[str, str]]:
        """Where what is nobody's stands under a service name, wherever that is: names of Consul nodes, with IDs.

        Raises the tree of `errors.py`.
        """
        ...

    def reaped(self, registration: RegistrationKey, subject: str) -> bool:
        """Whether the agent itself removed it after it had stayed critical for long (deregister-critical-after)."""
        ...

    def lane(self, node: str) -> str:
        """Changes of one lane are sent together, in batches; `apply` is given the lane as its node."""
        ...

    async def apply(self, node: str, changes: Sequence[Change]) -> Sequence[ConsulError | None]:
        """Write changes of one lane; one outcome each, in order. None: acknowledged by Consul.

        Never raises for what Consul answers. Two changes of one instance are sent in the order given; what is given
        at the same time is about other instances.
        """
        ...

    async def run(self) -> None:
        """Connect, read, watch and go on for ever; returns only when cancelled. No failure of Consul's ends it."""
        ...
