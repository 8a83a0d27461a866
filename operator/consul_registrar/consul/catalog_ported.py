"""Decides how registrations with named ports reach the catalog, since a transaction would drop the ports.

    a few at once: register ──> read back ──as it was sent─────> noted in the books
                                  ├──otherwise, or not there──> somebody was faster: it is read and planned again
                                  └──without its ports────────> a server is too old: what stood before stands again

A registration doesn't say which version it replaces, and no answer says what was written. So what is read back is taken
for ours only where it equals what was sent.
"""

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from consul_registrar.changes import Cause, Change, Deregister, Register
from consul_registrar.consul import catalog_batch as batch
from consul_registrar.consul.catalog_batch import Unit
from consul_registrar.consul.catalog_servers import Servers
from consul_registrar.consul.catalog_watch import NodeWatch, paths_of
from consul_registrar.consul.catalog_wire import (
    CheckRow,
    ServiceRow,
    Verdict,
    decode_checks,
    decode_services,
    registration,
    service_delete,
    service_op,
)
from consul_registrar.consul.drift import same_service
from consul_registrar.consul.errors import ConsulError, Invalid, NotSent, OutcomeUnknown, Stale
from consul_registrar.consul.in_flight import InFlight, Told
from consul_registrar.consul.named_ports import explained, refuse_unknown, unsupported
from consul_registrar.consul.wire import instance_of
from consul_registrar.model import Check, Health, Instance, Reason
from consul_registrar.probes import Readiness
from consul_registrar.together import results

AT_ONCE = 8
"""How many go to Consul side by side, and are read back together; more would neither be faster nor fit into a URL."""

LOST = 600.0
"""Seconds until named ports are tried again with servers that have dropped them."""

Audited = Callable[[Change, ConsulError | None], None]

_OLDER_SERVER = "a server of this one is older: they were lost on the way to the catalog"


@dataclass(frozen=True, slots=True)
class Sent:
    """What Consul took: an instance, and checks with the statuses that they begin with.

    `before`: what stood in its place; None: nothing of ours.
    """

    unit: Unit
    instance: Instance
    checks: Sequence[tuple[Check, Health]]
    before: Instance | None


@dataclass(frozen=True, slots=True)
class Found:
    """What stands there now."""

    row: ServiceRow
    checks: Sequence[CheckRow]

    def equals(self, sent: Sent) -> bool:
        """Whether it is what was sent. Others may edit tags where they are let; a probe's status is its runner's."""
        stands = instance_of(sent.instance.node, self.row, ())
        ours = replace(sent.instance, tags=stands.tags) if sent.instance.tag_override else sent.instance
        return self.row.plain and same_service(ours, stands) and all(self._has(*check) for check in sent.checks)

    def _has(self, check: Check, begins: Health) -> bool:
        row = next((row for row in self.checks if row.CheckID == check.id), None)
        if row is None or (row.Name, row.Notes) != (check.name, check.notes):
            return False
        return row.Status == begins or not isinstance(check.probe, Readiness)

    def lacks_ports(self, sent: Sent) -> bool:
        """Whether it is what was sent, but for its ports."""
        portless = replace(sent.instance, ports=(), port=self.row.Port)
        return self.equals(replace(sent, instance=portless))


class PortedWriter:
    """Writes registrations with named ports, on nodes that exist. `transact` sends a transaction about such nodes.

    `audited` is told of each change that nobody has asked for: what is taken back.
    """

    def __init__(
        self,
        datacenter: str,
        servers: Servers,
        watches: Mapping[str, NodeWatch],
        in_flight: InFlight,
        may_write: Callable[[], bool],
        version: Callable[[], str],
        transact: Callable[[bytes, AbstractSet[str]], Awaitable[Verdict]],
        audited: Audited,
    ) -> None:
        self._datacenter = datacenter
        self._servers = servers
        self._watches = watches
        self._in_flight = in_flight
        self._may_write = may_write
        self._version = version
        self._transact = transact
        self._audited = audited
        self._lost_at = -math.inf

    async def register(self, units: Sequence[Unit]) -> dict[int, ConsulError | None]:
        """Write each by a registration of its own; the outcomes, by the places of the changes."""
        outcomes: dict[int, ConsulError | None] = {}
        for node in dict.fromkeys(unit.change.node for unit in units):
            here = [unit for unit in units if unit.change.node == node]
            for at in range(0, len(here), AT_ONCE):
                some = here[at : at + AT_ONCE]
                fates = await self._together(node, some)
                outcomes |= {unit.at: fate for unit, fate in zip(some, fates, strict=True)}
        return outcomes

    async def _together(self, node: str, units: Sequence[Unit]) -> list[ConsulError | None]:
        """Who watches the node is told afterwards what of its changes is our doing."""
        answers: list[Sent | ConsulError] = []
        try:
            with self._in_flight.request() as told:
                answers = await results(self._put(unit) for unit in units)
                found = await self._read_back(node, [each for each in answers if isinstance(each, Sent)])
                self._note(node, answers, found, told)
        except ConsulError as error:
            return [each if isinstance(each, ConsulError) else OutcomeUnknown(error.reason) for each in answers]
        return [each if isinstance(each, ConsulError) else await self._fate(each, found) for each in answers]

    async def _put(self, unit: Unit) -> Sent | ConsulError:
        change, book = unit.change, self._watches[unit.change.node].book
        assert isinstance(change, Register)
        meta = book.row.Meta if book.row else None
        try:
            self._refuse(change.instance)
            sent = Sent(unit, change.instance, batch.beginnings(change, book), book.shown(change.id))
            body = registration(sent.instance, sent.checks, meta or {}, self._datacenter)
            await self._servers.put("/v1/catalog/register", (), body)
        except Invalid as error:
            return explained(error)
        except ConsulError as error:
            return error
        return sent

    def _refuse(self, instance: Instance) -> None:
        """Raises where it can't be sent now."""
        refuse_unknown(instance, self._version())
        if time.monotonic() < self._lost_at + LOST:
            raise unsupported(_OLDER_SERVER)
        self._ask_leave()

    def _ask_leave(self) -> None:
        if not self._may_write():
            raise NotSent(Reason("NotLeading", "this process doesn't lead, so it writes nothing"))

    async def _read_back(self, node: str, sent: Sequence[Sent]) -> dict[str, Found]:
        """Services with their checks, as the catalog has them, by ID."""
        if not sent:
            return {}
        only = [
            (("filter", " or ".join(f'{key} == "{each.instance.id}"' for each in sent)),) for key in ("ID", "ServiceID")
        ]
        services, checks = paths_of(node)
        _, rows = decode_services(await self._servers.get(services, only[0]))
        of = decode_checks(await self._servers.get(checks, only[1]))
        return {row.ID: Found(row, [check for check in of if check.ServiceID == row.ID]) for row in rows}

    def _note(self, node: str, answers: Sequence[Sent | ConsulError], found: Mapping[str, Found], told: Told) -> None:
        """What stands as it was sent, in the order of Consul's log."""
        sent = {each.instance.id: each for each in answers if isinstance(each, Sent)}
        for each in sorted(found.values(), key=lambda each: each.row.ModifyIndex):
            if each.equals(sent[each.row.ID]):
                told(each.row.ModifyIndex, {node})
                defined = {check.id for check, _ in sent[each.row.ID].checks}
                self._watches[node].book.registered(each.row, [c for c in each.checks if c.CheckID in defined])

    async def _fate(self, sent: Sent, found: Mapping[str, Found]) -> ConsulError | None:
        """What became of a registration that Consul took."""
        stands, about = found.get(sent.instance.id), f"{sent.instance.id} was registered on {sent.instance.node}"
        if stands is None:
            return OutcomeUnknown(Reason("OutcomeUnknown", f"{about} and is not there: it is read again"))
        if stands.equals(sent):
            return None
        if not stands.lacks_ports(sent):
            return Stale(Reason("Stale", f"{about}, and somebody has written it since: it is read and planned again"))
        try:
            await self._take_back(sent, stands.row.ModifyIndex)
        except ConsulError as error:
            return error
        self._lost_at = time.monotonic()
        return unsupported(_OLDER_SERVER)

    async def _take_back(self, sent: Sent, index: int) -> None:
        """Without its ports it would be found at none: what stood before stands again, at its default port."""
        self._ask_leave()
        evidence = sent.unit.change.evidence
        if sent.before is None:
            change: Change = Deregister(sent.instance, Cause.PORTS_LOST, evidence)
            op = service_delete(sent.instance, index)
        else:
            port = sent.before.port or sent.instance.port  # none: what an interrupted try has left
            change = Register(replace(sent.before, ports=(), port=port), (), Cause.PORTS_LOST, evidence)
            op = service_op(change.instance, index)
        try:
            verdict = await self._transact(b"[" + op.body + b"]", {sent.instance.node})
            if verdict.Errors:
                raise batch.error_of(sent.unit, verdict.Errors[0])
        except ConsulError as error:
            self._audited(change, error)
            raise
        self._audited(change, None)
        self._watches[sent.instance.node].wake()
