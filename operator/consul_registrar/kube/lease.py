"""Leadership by a Kubernetes Lease: one process writes, the others stand by.

Decides who leads, and until when a write may still be sent. A Lease is no fence: a process that was paused may wake
after its term, so every write asks `may_write` first, and writes are safe when repeated (design 3.6). What a leader
does is decided elsewhere. Clocks of different machines are never compared: a standby waits until the Lease has not
changed for a whole term by its own clock (as client-go's leaderelection does).
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from consul_registrar.kube.client import KubeClient
from consul_registrar.kube.errors import Conflict, KubeError, NotFound

_log = logging.getLogger(__name__)

#: Seconds that a term lasts without being renewed: a killed leader is followed after that and one look.
TERM = 7.0
#: Seconds between two renewals, and between two looks of a standby.
RENEW = 1.5
LOOK = 0.5
#: Seconds that one try may take; two fit into a term, so that one lost answer loses no leadership.
PATIENCE = 2.0
#: Seconds before the end of its term at which a leader sends nothing more: what is in flight has time to arrive.
MARGIN = 1.0


class _Spec(msgspec.Struct, omit_defaults=True):
    holderIdentity: str | None = None  # noqa: N815 - the wire's name
    leaseDurationSeconds: int | None = None  # noqa: N815
    acquireTime: str | None = None  # noqa: N815
    renewTime: str | None = None  # noqa: N815
    leaseTransitions: int | None = None  # noqa: N815


class _Meta(msgspec.Struct):
    name: str
    namespace: str
    resourceVersion: str = ""  # noqa: N815


class _Lease(msgspec.Struct):
    metadata: _Meta
    spec: _Spec


@dataclass(frozen=True, slots=True)
class _Seen:
    """The Lease as it was when it last changed, and when its term ends by our clock, counted from when we noticed."""

    version: str
    ends: float


def since_boot() -> float:
    """Seconds, those in which the machine slept included: `time.monotonic` leaves them out on Linux."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Leadership:
    """Takes part in the election for one Lease. `identity` must be this process's alone."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        clock: Callable[[], float] = since_boot,
    ) -> None:
        self._client = client
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{name}"
        self._blank = _Meta(name, namespace)
        self._identity = identity
        self._clock = clock
        self._term_ends = 0.0
        self._seen: _Seen | None = None
        self._mine: _Lease | None = None

    def may_write(self) -> bool:
        """Whether a write that is sent now is sent within our term."""
        return self._clock() < self._term_ends - MARGIN

    async def acquire(self) -> None:
        """Stand by until we lead."""
        while not await self._try(self._take_over):  # noqa: ASYNC110 - what changes is on the API server
            await asyncio.sleep(self._until_look())
        _log.info("leading as %s", self._identity)

    def _until_look(self) -> float:
        """Seconds until the next look: one comes just when the holder's term ends."""
        usual = LOOK * (0.8 + 0.4 * random.random())  # noqa: S311 - spreads, keeps no secret
        left = self._seen.ends - self._clock() if self._seen else 0.0
        return min(usual, left) if left > 0 else usual

    async def hold(self) -> None:
        """Renew until the term is lost; returns then."""
        while self.may_write():
            await asyncio.sleep(RENEW)
            await self._try(self._renew)
        self._term_ends = 0.0
        _log.warning("no longer leading: the lease could not be renewed in time")

    async def release(self) -> None:
        """Give the Lease up, so that another leads at once. Never raises for what Kubernetes answers."""
        leads, self._term_ends = self._term_ends > self._clock(), 0.0
        if leads:
            await self._try(self._give_up)

    async def _try(self, step: Callable[[], Awaitable[bool]]) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                return await step()
        except Conflict:
            self._mine = None
            return False
        except (KubeError, TimeoutError, msgspec.DecodeError) as error:
            self._mine = None
            _log.warning("the lease %s can't be read or written: %s", self._path, str(error) or "timed out")
            return False

    async def _read(self) -> _Lease | None:
        try:
            return msgspec.json.decode(await self._client.get(self._path), type=_Lease)
        except NotFound:
            return None

    async def _take_over(self) -> bool:
        lease = await self._read()
        if lease is None:
            await self._write(_Lease(self._blank, _Spec()), transitions=0)
            return True
        if lease.spec.holderIdentity and lease.spec.holderIdentity != self._identity and not self._expired(lease):
            return False
        await self._write(lease, transitions=(lease.spec.leaseTransitions or 0) + 1)
        return True

    def _expired(self, lease: _Lease) -> bool:
        if self._seen is None or self._seen.version != lease.metadata.resourceVersion:
            ends = self._clock() + (lease.spec.leaseDurationSeconds or TERM)
            self._seen = _Seen(lease.metadata.resourceVersion, ends)
        return self._clock() >= self._seen.ends

    async def _renew(self) -> bool:
        """One request while nobody else writes it: what we wrote last is replaced, or there is a conflict."""
        lease = self._mine or await self._read()
        if lease is None or lease.spec.holderIdentity != self._identity:
            self._term_ends = 0.0
            return False
        await self._write(lease, transitions=lease.spec.leaseTransitions or 0)
        return True

    async def _write(self, lease: _Lease, transitions: int) -> None:
        """The term counts from before the request is sent: nobody else counts it from earlier."""
        began, now = self._clock(), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = lease.spec.holderIdentity == self._identity
        acquired = lease.spec.acquireTime if mine else now
        spec = _Spec(self._identity, round(TERM), acquired, now, transitions)
        self._mine = await self._send(_Lease(lease.metadata, spec))
        self._term_ends = began + TERM

    async def _give_up(self) -> bool:
        lease = await self._read()
        if lease is not None and lease.spec.holderIdentity == self._identity:
            lease.spec.holderIdentity = ""
            lease.spec.leaseDurationSeconds = 1
            await self._send(lease)
            _log.info("the lease is released")
        return True

    async def _send(self, lease: _Lease) -> _Lease:
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **msgspec.to_builtins(lease)}
        if lease.metadata.resourceVersion:
            return msgspec.json.decode(await self._client.replace(self._path, body), type=_Lease)
        return msgspec.json.decode(await self._client.create(self._collection, body), type=_Lease)
