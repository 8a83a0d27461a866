"""Decides whether a cluster's name in one Consul is ours: nothing is written to that Consul before it is.

What stands in Consul is told apart by the cluster's name. So a cluster claims its name with the UID of its
`kube-system`, in Consul's KV store, atomically:

    found there            what follows
    --------------------   ---------------------------------------------------------------------------------------
    nothing                it is created (only if there is still nothing); a policy that writes nothing goes on without
    our UID                it is ours; nothing is written
    that of takeOverFrom   it is replaced (only if it is still that one); a policy that writes nothing looks on
    another                refused: that cluster's instances aren't ours

A claim that goes missing later, as in a Consul restored from an older snapshot, is made again without a stop. What is
held is not doubted when Consul can't be asked. What a refusal means for the connection is `claimed.py`'s decision.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Protocol
from urllib.parse import quote

import msgspec

from consul_registrar.backoff import Backoff
from consul_registrar.consul.answers import CONSISTENT, Answer, Request, next_index, not_found
from consul_registrar.consul.errors import ConsulError, Denied, Misdirected
from consul_registrar.consul.transport import RETRY
from consul_registrar.model import CONNECTING, Reason

log = logging.getLogger(__name__)

FOLDER = "consul-registrar/clusters"
"""Where claims stand in the KV store, one key for each cluster's name."""

WAIT = "60s"
SPACING = 0.2
"""Seconds between two reads at least."""

LEADING = (0.1, 2.0)
"""Seconds between two looks for a claim that this process may not make, since it doesn't lead."""

LEADS = 0.1
"""Seconds between two looks whether it does."""


@dataclass(frozen=True, slots=True)
class Name:
    """The name to claim and for whom. `takes_over`: the UID of a cluster that is gone for good, "" for none.
    `observes`: nothing may be written.
    """

    cluster: str
    uid: str
    takes_over: str = ""
    observes: bool = False

    @property
    def key(self) -> str:
        return f"{FOLDER}/{self.cluster}"


@dataclass(frozen=True, slots=True)
class Found:
    """A claim as it stands; `index` names its version."""

    uid: str
    index: int


class Verdict(Enum):
    OURS = "ours"
    LOOK_ON = "look on"
    CREATE = "create"
    REPLACE = "replace"
    TAKEN = "taken"


def judge(found: Found | None, name: Name) -> Verdict:
    """The table above."""
    if found is None:
        return Verdict.LOOK_ON if name.observes else Verdict.CREATE
    if found.uid == name.uid:
        return Verdict.OURS
    if name.takes_over and found.uid == name.takes_over:
        return Verdict.LOOK_ON if name.observes else Verdict.REPLACE
    return Verdict.TAKEN


class Asks(Protocol):
    """Somebody of the Consul who can be asked. Raises the tree of `errors.py`."""

    async def get(self, path: str, params: Sequence[tuple[str, object]] = ()) -> Answer: ...
    async def put(self, path: str, params: Sequence[tuple[str, object]], body: bytes) -> Answer: ...


class Claim:
    """One cluster's claim of its name in one Consul. `reason`: why it isn't ours (yet), None: it is.

    `on_state` is called when `reason` has changed, `wrote` after each write with its cause and its error.
    """

    def __init__(
        self,
        name: Name,
        consul: Asks,
        may_write: Callable[[], bool],
        on_state: Callable[[], None],
        wrote: Callable[[str, ConsulError | None], None],
    ) -> None:
        self.reason: Reason | None = Reason(CONNECTING, f"who holds the cluster name {name.cluster!r} is being read")
        self._name = name
        self._consul = consul
        self._may_write = may_write
        self._on_state = on_state
        self._wrote = wrote
        self._path = f"/v1/kv/{quote(name.key)}"
        self._index = 0
        self._wake = asyncio.Event()
        self._doubted = ""

    def wake(self) -> None:
        """Consul may be asked now where it couldn't: don't wait for the next try."""
        self._wake.set()

    async def keep(self) -> None:
        """Make the claim, and see to it that it stands, for ever, whatever Consul answers."""
        failed = Backoff(*RETRY, random.random)
        while True:
            try:
                await self._settle(await self._read())
                failed.reset()
                self._doubted = ""
            except ConsulError as error:
                self._index = 0
                self._doubt(error)
                await self._rest(failed())

    async def _settle(self, found: Found | None) -> None:
        verdict = judge(found, self._name)
        match verdict:
            case Verdict.OURS | Verdict.LOOK_ON:
                self._becomes(None)
                await asyncio.sleep(SPACING)
            case Verdict.TAKEN:
                assert found is not None
                self._becomes(_taken(self._name, found.uid))
                await asyncio.sleep(SPACING)
            case Verdict.CREATE | Verdict.REPLACE:
                self._index = 0
                await self._make(found)

    async def _make(self, found: Found | None) -> None:
        """Write the claim over what was found, if we lead; the next read tells what came of it."""
        if not self._may_write():
            await self._wait_for_leading(found)
            return
        cause = "claimed" if found is None else "taken-over"
        try:
            done = await self._put(found.index if found else 0)
        except ConsulError as error:
            self._wrote(cause, error)
            raise
        if done:
            self._wrote(cause, None)
            log.info("the cluster name %r is claimed in Consul for %s", self._name.cluster, self._name.uid)
        else:  # somebody was faster
            await asyncio.sleep(SPACING)

    async def _wait_for_leading(self, found: Found | None) -> None:
        """Until we lead. The leader makes the claim in the meantime as a rule, so it is looked at, ever less often."""
        looks, time = Backoff(*LEADING, random.random), asyncio.get_running_loop().time
        due = time() + looks()
        while not self._may_write():
            await asyncio.sleep(LEADS)
            if time() < due:
                continue
            if await self._ask() != found:
                return
            due = time() + looks()

    # --- how it is read and written ---

    async def _read(self) -> Found | None:
        """The claim: at once at first and after a failure, else when it has changed."""
        params = [("index", self._index), ("wait", WAIT)] if self._index else CONSISTENT
        answer = await self._consul.get(self._path, params)
        self._index = next_index(self._index, answer.index)
        return self._decoded(answer)

    async def _ask(self) -> Found | None:
        return self._decoded(await self._consul.get(self._path, CONSISTENT))

    def _decoded(self, answer: Answer) -> Found | None:
        if answer.code != 404:
            return decode(answer)
        if not answer.index:
            raise not_found(Request("GET", self._path, "Consul"), answer)
        return None

    async def _put(self, index: int) -> bool:
        """Write our UID over the version `index`, 0: only where nothing is. False: somebody was faster."""
        answer = await self._consul.put(self._path, [("cas", index)], self._name.uid.encode())
        return answer.body.strip() == b"true"

    # --- what it means ---

    def _becomes(self, reason: Reason | None) -> None:
        if reason == self.reason:
            return
        self.reason = reason
        if reason is not None:
            log.warning("%s", reason.message)
        self._on_state()

    def _doubt(self, error: ConsulError) -> None:
        """Not knowing is no reason to stop what was put to work, but none to begin it."""
        reason = _denied(self._name, error) if isinstance(error, Denied) else error.reason
        if self.reason is None:
            if reason.code != self._doubted:
                log.warning("the claim of the cluster name can't be looked after: %s", reason.message)
            self._doubted = reason.code
        elif reason.code != CONNECTING:  # nobody can be asked yet, which the registry says itself
            self._becomes(reason)

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()


def _taken(name: Name, uid: str) -> Reason:
    message = (
        f"the cluster name {name.cluster!r} is held in this Consul by another cluster, whose kube-system has the UID "
        f"{uid} (ours: {name.uid}): nothing is written. Give one of them another --cluster-name; or, where that "
        f"cluster is gone for good, set takeOverFrom: {uid} on the connection"
    )
    return Reason("ClusterNameTaken", message)


def _denied(name: Name, error: Denied) -> Reason:
    """The rule that is missing, where a rule is missing."""
    if error.reason.code != "PermissionDenied":
        return error.reason
    message = (
        f'the token may not claim the cluster\'s name: give its policy key "{name.key}" {{ policy = "write" }} '
        f"({error.reason.message})"
    )
    return Reason("ClaimDenied", message)


class _Row(msgspec.Struct, frozen=True):
    Value: bytes | None = None
    ModifyIndex: int = 0


_rows = msgspec.json.Decoder(list[_Row])


def decode(answer: Answer) -> Found:
    """`/v1/kv/<key>`. Raises `Misdirected` where that isn't Consul's answer.

    A value that is no UID of ours is somebody else's claim, whatever it says.
    """
    try:
        (row,) = _rows.decode(answer.body)
    except (msgspec.DecodeError, ValueError) as error:
        message = f"/v1/kv was answered with something else than Consul's JSON: {error}"
        raise Misdirected(Reason("NotConsul", message)) from error
    return Found((row.Value or b"").decode(errors="replace").strip(), row.ModifyIndex)
