"""Decides how changes reach the catalog: which requests are sent, what is sent again, what each change is answered.

    send ──applied──> noted in the books
      ├──operations refused──> their changes are answered; the rest is sent again without them
      ├──too large, or not understood──> in halves, until the one that it is about stands alone
      └──not sent, or nobody knows──> all are answered so; their nodes are read afresh

What a change is made of, and which change a refusal is about, is decided in `catalog_batch.py`; how named ports are
written, in `catalog_ported.py`. Every write but those, and the removal of what is gone for good, says which version it
replaces: a process that wakes late, or writes on an old read, changes nothing.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from consul_registrar.changes import Change, Deregister, DropCheck, Feed, Register
from consul_registrar.consul import catalog_batch as batch
from consul_registrar.consul.catalog_batch import Composed, Unit
from consul_registrar.consul.catalog_ported import Audited, PortedWriter
from consul_registrar.consul.catalog_servers import REQUESTS, Servers
from consul_registrar.consul.catalog_watch import NodeWatch
from consul_registrar.consul.catalog_wire import (
    Fault,
    Op,
    Result,
    Verdict,
    decode_verdict,
    node_op,
)
from consul_registrar.consul.errors import ConsulError, Invalid, NotSent, OutcomeUnknown, Stale
from consul_registrar.consul.in_flight import InFlight
from consul_registrar.consul.turns import Turns
from consul_registrar.consul.virtual import node_meta
from consul_registrar.model import Reason
from consul_registrar.together import results

log = logging.getLogger(__name__)

ROUNDS = 8
"""How often what is left of a request is sent again; each time something else in it was refused."""

Outcomes = dict[int, ConsulError | None]


class CatalogWriter:
    """Writes changes of one connection; `made` is called with each node that was made, or marked, for them, `audited`
    with each change beside them.
    """

    def __init__(
        self,
        whose: tuple[str, str],
        datacenter: str,
        servers: Servers,
        watches: Mapping[str, NodeWatch],
        in_flight: InFlight,
        may_write: Callable[[], bool],
        version: Callable[[], str],
        made: Callable[[str, ConsulError | None], None],
        audited: Audited,
    ) -> None:
        self._whose = whose
        self._datacenter = datacenter
        self._servers = servers
        self._watches = watches
        self._in_flight = in_flight
        self._may_write = may_write
        self._made = made
        self._turns = Turns(REQUESTS)
        self._ported = PortedWriter(
            datacenter, servers, watches, in_flight, may_write, version, self._transact, audited
        )

    async def apply(self, changes: Sequence[Change]) -> list[ConsulError | None]:
        """Write; outcomes in the order of the changes. Those of one instance are sent one after the other."""
        outcomes: Outcomes = {}
        for wave in batch.waves(changes):
            units = list(self._units(wave, outcomes))
            plain = [unit for unit in units if not unit.ported]
            await results(self._in_turn(each, outcomes) for each in batch.pack(plain, self._needs(plain)))
            await self._register([unit for unit in units if unit.ported], outcomes)
        return [outcomes[at] for at in range(len(changes))]

    def _units(self, wave: Sequence[tuple[int, Change]], outcomes: Outcomes) -> Iterator[Unit]:
        """Changes as operations; what can't be written is answered here."""
        for at, change in wave:
            watch = self._watches.get(change.node)
            if watch is None:
                outcomes[at] = NotSent(Reason("NodeUnknown", f"{change.node} is no node of this connection"))
                continue
            if not watch.sound:
                outcomes[at] = NotSent(watch.reason or Reason("AgentConnecting", f"{change.node} is being read"))
                continue
            try:
                yield Unit(at, change, batch.operations(change, watch.book))
            except ConsulError as error:
                outcomes[at] = error

    async def _in_turn(self, units: Sequence[Unit], outcomes: Outcomes) -> None:
        """One request beside others; what Consul tells no number of leaves alone, for others to be told apart by."""
        if any(op.answered for unit in units for op in unit.ops):
            async with self._turns.beside(self._needs(units).keys()):
                await self._commit(units, outcomes)
        elif units:
            async with self._turns.alone():
                await self._commit(units, outcomes)

    async def _commit(self, units: Sequence[Unit], outcomes: Outcomes) -> None:
        """Send until each of them has an outcome."""
        for _ in range(ROUNDS):
            if not units:
                return
            if not self._may_write():
                self._answer(
                    units, NotSent(Reason("NotLeading", "this process doesn't lead, so it writes nothing")), outcomes
                )
                return
            try:
                units = await self._send(units, outcomes)
            except Invalid as error:
                await self._halve(units, error, outcomes)
                return
            except ConsulError as error:
                self._answer(units, error, outcomes)
                return
        self._answer(units, NotSent(Reason("RefusedRepeatedly", "something else was refused each time")), outcomes)

    async def _send(self, units: Sequence[Unit], outcomes: Outcomes) -> Sequence[Unit]:
        """One transaction; returns what is to be sent again. Raises where it says nothing of single operations."""
        request = batch.compose(units, self._needs(units))
        verdict = await self._transact(request.body, {unit.change.node for unit in units})
        if not verdict.Errors:
            self._note(request, verdict.Results or ())
            outcomes.update({unit.at: None for unit in units})
            return ()
        refused = batch.blame(request, verdict.Errors)
        if not refused:
            raise NotSent(Reason("TransactionRefused", f"Consul refused a transaction: {verdict.Errors[0].What}"))
        return self._sift(units, refused, outcomes)

    async def _transact(self, body: bytes, nodes: AbstractSet[str]) -> Verdict:
        """What of the changes of these nodes is our doing is known afterwards."""
        with self._in_flight.request() as told:
            verdict = decode_verdict(await self._servers.transact(body))
            if not verdict.Errors:
                told(verdict.index, nodes)
            return verdict

    def _sift(self, units: Sequence[Unit], refused: Mapping[int, Fault], outcomes: Outcomes) -> list[Unit]:
        """What is left of a refused request: what is not to blame, and what the making of its node will mend."""
        left = []
        for unit in units:
            fault = refused.get(unit.at)
            if fault is None:
                left.append(unit)
            elif self._mends(unit, fault):
                left.append(replace(unit, ops=batch.operations(unit.change, self._watches[unit.change.node].book)))
            else:
                self._answer([unit], batch.error_of(unit, fault), outcomes)
        return left

    def _mends(self, unit: Unit, fault: Fault) -> bool:
        """A node that was removed behind our back is made again, once: then the book says that it isn't there."""
        book = self._watches[unit.change.node].book
        if batch.MISSING_NODE not in fault.What.lower() or not isinstance(unit.change, Register):
            return False
        book.vanished()
        return True

    async def _halve(self, units: Sequence[Unit], error: Invalid, outcomes: Outcomes) -> None:
        """A request that is refused as a whole, on account of one of them perhaps."""
        if len(units) == 1:
            self._answer(units, error, outcomes)
            return
        middle = len(units) // 2
        await self._commit(units[:middle], outcomes)
        await self._commit(units[middle:], outcomes)

    def _answer(self, units: Sequence[Unit], error: ConsulError, outcomes: Outcomes) -> None:
        """The same for all of them; what is known of their nodes may be wrong."""
        for unit in units:
            outcomes[unit.at] = error
            if isinstance(error, OutcomeUnknown | Stale):
                self._watches[unit.change.node].wake()

    async def _register(self, units: Sequence[Unit], outcomes: Outcomes) -> None:
        """Register those with named ports; what their nodes need first, by a transaction."""
        if not units:
            return
        async with self._turns.alone():  # it takes all connections by itself
            lacking = self._needs(units).keys()
            await self._commit([unit for unit in units if unit.change.node in lacking], outcomes)
            left = [unit for unit in units if outcomes.get(unit.at) is None]
            fates = await self._ported.register(left)
        outcomes.update(fates)
        for unit in left:
            if (error := fates[unit.at]) is not None:
                self._answer([unit], error, outcomes)

    # --- what nodes need ---

    def _needs(self, units: Sequence[Unit]) -> dict[str, Op]:
        """An operation for each node that doesn't exist, or doesn't ask for probes that it gets now."""
        registering = {unit.change.node for unit in units if isinstance(unit.change, Register)}
        probed = {unit.change.node for unit in units if unit.probed}
        needs = {}
        for node in sorted(registering):
            row = self._watches[node].book.row
            if row is None or (node in probed and not self._watches[node].book.probed):
                meta = node_meta(*self._whose, probed=node in probed)
                needs[node] = node_op(node, meta, self._datacenter, row.ModifyIndex if row else 0)
        return needs

    # --- what was acknowledged ---

    def _note(self, request: Composed, results: Sequence[Result]) -> None:
        """Consul lists what it wrote in the order of the operations; removals are not listed."""
        rows: dict[Unit | str, list[Result]] = {of: [] for of in request.of}
        answered = [of for op, of in zip(request.ops, request.of, strict=True) if op.answered]
        if len(answered) != len(results):
            message = f"{len(answered)} things were written, and Consul tells of {len(results)}: they are read back"
            raise OutcomeUnknown(Reason("OutcomeUnknown", message))
        for of, result in zip(answered, results, strict=True):
            rows[of].append(result)
        for of, written in rows.items():
            if isinstance(of, Unit):
                self._note_change(of.change, written)
            elif written[0].Node is not None:
                self._watches[of].book.created(written[0].Node)
                self._made(of, None)

    def _note_change(self, change: Change, written: Sequence[Result]) -> None:
        watch = self._watches[change.node]
        services = [result.Service for result in written if result.Service is not None]
        checks = [result.Check for result in written if result.Check is not None]
        match change:
            case Register():
                watch.book.registered(services[0], checks)
            case Feed():
                watch.book.fed(change.id, checks[0])
            case DropCheck(check_id=check_id):
                watch.book.dropped(change.id, check_id)
            case Deregister():
                watch.book.removed(change.id)
