"""Decides which changes go into which transaction, and which of them a refusal belongs to; pure.

    changes ──operations──> units ──pack──> requests of as many operations and bytes as Consul takes

A unit is one change with its operations, which stand together in one request: they are applied all or none. What a
node needs to exist stands before the first unit on it. Consul names refused operations by their place in the request;
it checks all of them for rights and form first and applies them only then, so the mending of one list of refusals may
bring up another.
"""

from collections.abc import Iterable, Mapping, Sequence

from consul_registrar.changes import Change, Deregister, DropCheck, Feed, Register
from consul_registrar.consul.catalog_book import CatalogBook
from consul_registrar.consul.catalog_wire import (
    Fault,
    Op,
    check_delete,
    check_op,
    service_delete,
    service_op,
)
from consul_registrar.consul.errors import ConsulError, Denied, Invalid, NotSent, Stale
from consul_registrar.model import Check, Health, Reason
from consul_registrar.probes import HttpProbe, Readiness, TcpProbe
from consul_registrar.values import record

MOST_OPS = 128
MOST_BYTES = 512 * 1024
"""Of a request's body, unless the servers have another `txn_max_req_len`; what is too large is sent in halves."""


@record(frozen=True, slots=True, eq=False)
class Unit:
    """One change, the `at`th of those to write, as operations."""

    at: int
    change: Change
    ops: tuple[Op, ...]

    @property
    def ported(self) -> bool:
        """Whether it brings named ports, which no transaction takes: it has no operations."""
        return isinstance(self.change, Register) and bool(self.change.instance.ports)

    @property
    def probed(self) -> bool:
        """Whether it brings checks that consul-esm is to run."""
        return isinstance(self.change, Register) and any(
            isinstance(check.probe, TcpProbe | HttpProbe) for check in self.change.define
        )


# --- what a change is made of ---------------------------------------------------------------------------------------


def operations(change: Change, book: CatalogBook) -> tuple[Op, ...]:
    """A change as operations. Raises `Invalid` for what can't be written, `Stale` for what isn't there to be edited."""
    match change:
        case Register(instance) if instance.ports:
            return ()
        case Register():
            return _register(change, book)
        case Feed(instance, check):
            index = _standing(book.check_index(change.id, check.id), f"check {check.id}")
            return (check_op(instance, check, check.status or Health.CRITICAL, index),)
        case DropCheck(instance, check_id):
            index = _standing(book.check_index(change.id, check_id), f"check {check_id}")
            return (check_delete(instance, check_id, index),)
        case Deregister(instance, cause) if cause.final:  # all others hold only for what was read
            return (service_delete(instance, None),)
        case Deregister(instance):
            return (service_delete(instance, _standing(book.index(change.id), f"instance {change.id}")),)


def _register(change: Register, book: CatalogBook) -> tuple[Op, ...]:
    instance = change.instance
    service = service_op(instance, book.index(change.id))
    checks = [
        check_op(instance, check, status, book.check_index(change.id, check.id))
        for check, status in beginnings(change, book)
    ]
    return (service, *checks)


def beginnings(change: Register, book: CatalogBook) -> list[tuple[Check, Health]]:
    """The checks that a registration defines, with the statuses that they begin with."""
    return [(check, _begins(check, book.status(change.id, check.id))) for check in change.define]


def _begins(check: Check, stands: Health | None) -> Health:
    """A probe's status is consul-esm's once the check stands; readiness is ours."""
    known = check.status if isinstance(check.probe, Readiness) else stands or check.status
    return known or Health.CRITICAL


def _standing(index: int, what: str) -> int:
    if not index:
        raise Stale(Reason("Stale", f"there is no {what} any more: it is read again"))
    return index


# --- what goes together ---------------------------------------------------------------------------------------------


def waves(changes: Sequence[Change]) -> list[list[tuple[int, Change]]]:
    """Changes with their places, in waves in which each instance occurs once: the next wave sees what came of it."""
    rounds: list[list[tuple[int, Change]]] = []
    counts: dict[tuple[str, str], int] = {}
    for at, change in enumerate(changes):
        turn = counts.get((change.node, change.id), 0)
        counts[change.node, change.id] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append((at, change))
    return rounds


def pack(units: Iterable[Unit], needs: Mapping[str, Op]) -> list[list[Unit]]:
    """Units in requests, in order, each with room for what the nodes in it need before them."""
    requests: list[list[Unit]] = []
    count = size = 0
    made: set[str] = set()
    for unit in units:
        node = unit.change.node
        ops = unit.ops if node in made or node not in needs else (needs[node], *unit.ops)
        if not requests or count + len(ops) > MOST_OPS or size + _size(ops) > MOST_BYTES:
            requests.append([])
            count, size, made = 0, _BRACKETS, set()
            ops = (needs[node], *unit.ops) if node in needs else unit.ops
        requests[-1].append(unit)
        count += len(ops)
        size += _size(ops)
        made.add(node)
    return requests


_BRACKETS = 1
"""Two, but the last operation has no comma behind it."""


def _size(ops: Iterable[Op]) -> int:
    return sum(len(op.body) + 1 for op in ops)


@record(frozen=True, slots=True)
class Composed:
    """A request for these units: its body, and to which node or unit each of its operations belongs, in order."""

    units: tuple[Unit, ...]
    ops: tuple[Op, ...]
    of: tuple[Unit | str, ...]

    @property
    def body(self) -> bytes:
        return b"[" + b",".join(op.body for op in self.ops) + b"]"


def compose(units: Sequence[Unit], needs: Mapping[str, Op]) -> Composed:
    """A request for these units, with what their nodes need before them."""
    nodes = [node for node in dict.fromkeys(unit.change.node for unit in units) if node in needs]
    pairs: list[tuple[Op, Unit | str]] = [(needs[node], node) for node in nodes]
    pairs += [(op, unit) for unit in units for op in unit.ops]
    return Composed(tuple(units), tuple(op for op, _ in pairs), tuple(of for _, of in pairs))


# --- what a refusal means -------------------------------------------------------------------------------------------

MISSING_NODE = "missing node registration"


def blame(request: Composed, faults: Sequence[Fault]) -> dict[int, Fault]:
    """Which units are refused, by their change's place, with the first fault of each.

    The first says most: what follows (a missing service) may come of it alone.
    """
    refused: dict[int, Fault] = {}
    for fault in sorted(faults, key=lambda fault: fault.OpIndex):
        if not 0 <= fault.OpIndex < len(request.of):
            continue
        culprit = request.of[fault.OpIndex]
        for unit in request.units:
            if culprit in (unit, unit.change.node):
                refused.setdefault(unit.at, fault)
    return refused


def error_of(unit: Unit, fault: Fault) -> ConsulError:
    """What a fault means for the change that it belongs to."""
    what = fault.What.lower()
    about = f"{unit.change.id} on {unit.change.node}: Consul refused it ({fault.What})"
    if "index is stale" in what or "missing service registration" in what or MISSING_NODE in what:
        return Stale(Reason("Stale", f"{about}: it is read and planned again"))
    if "permission denied" in what or "acl not found" in what:
        return Denied(Reason("PermissionDenied", f"{about}: give the token's policy the missing rule"))
    if "no cluster leader" in what or "rate limit" in what:
        return NotSent(Reason("ConsulThrottled", f"{about}: it is tried again"))
    return Invalid(Reason("InvalidRequest", f"{about}: it is not sent again unchanged"))
