"""Translates between our values and the JSON of Consul's catalog and transactions; pure, no I/O.

A transaction drops silently what it doesn't know. Of what we write that concerns named ports, for which there is
`registration`, and checks' thresholds, which consul-esm has for all checks alike; and it sends no bodies. Such checks
are refused: a probe that isn't run as it was asked for tells nothing. (Redirects are followed by consul-esm, whatever a
definition says.)
An empty ID never leaves here, since Consul would take its deletion for that of the whole node.
"""

from collections.abc import Mapping, Sequence

import msgspec

from consul_registrar.consul import bodies, wire
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.errors import Invalid, Misdirected
from consul_registrar.consul.virtual import ADDRESS
from consul_registrar.model import Check, Health, Hidden, Instance, Reason
from consul_registrar.probes import HttpProbe, Readiness, TcpProbe
from consul_registrar.values import record

_OUTPUT = {
    Health.PASSING: "Kubernetes reports it ready.",
    Health.WARNING: "Kubernetes reports it ready with a warning.",
    Health.CRITICAL: "Kubernetes reports it not ready, or it is being terminated.",
}
_NOT_PROBED = "consul-esm has not run this check yet."
_DEFINED = frozenset(
    {
        "HTTP",
        "Method",
        "Header",
        "TLSServerName",
        "TLSSkipVerify",
        "TCP",
        "Interval",
        "Timeout",
        "DeregisterCriticalServiceAfter",
    }
)

_encode = msgspec.json.Encoder().encode

# --- what we write --------------------------------------------------------------------------------------------------


@record(frozen=True, slots=True)
class Op:
    """One operation of a transaction, in Consul's JSON. `answered`: its row is among the results, with its index."""

    body: bytes
    answered: bool = True


def node_op(node: str, meta: Mapping[str, str], datacenter: str, index: int) -> Op:
    """Create a node (`index` 0), or rewrite the one that was read at `index`; never one that another made or wrote."""
    row = {"Node": _named(node), "Address": ADDRESS, "Meta": meta, "ModifyIndex": index}
    if datacenter:
        row["Datacenter"] = datacenter  # the `dc` of the request doesn't reach it
    return Op(_encode({"Node": {"Verb": "cas", "Node": row}}))


def node_delete(node: str, index: int) -> Op:
    """Remove a node that stands as it was read at `index`."""
    row = {"Node": _named(node), "ModifyIndex": index}
    return Op(_encode({"Node": {"Verb": "delete-cas", "Node": row}}), answered=False)


def service_op(instance: Instance, index: int) -> Op:
    """Write a service that stands as it was read at `index`; 0: that doesn't stand yet."""
    row = _service(instance) | {"ModifyIndex": index}
    return Op(_encode({"Service": {"Verb": "cas", "Node": instance.node, "Service": row}}))


def _service(instance: Instance) -> dict[str, object]:
    return {
        "ID": _named(instance.id),
        "Service": _named(instance.service),
        "Address": instance.address,
        **bodies.ports(instance),
        "Tags": instance.tags,
        "Meta": dict(instance.meta),
        "Weights": bodies.weights(instance),
        "TaggedAddresses": bodies.tagged_addresses(instance),
        "EnableTagOverride": instance.tag_override,
    }


def registration(
    instance: Instance, checks: Sequence[tuple[Check, Health]], node: Mapping[str, str], datacenter: str
) -> bytes:
    """The body of `/v1/catalog/register`: a service with its named ports, which a transaction drops, and these checks.

    `node`: the node's meta, for one that has gone meanwhile; of one that is there nothing changes.
    """
    body = {
        "Node": _named(instance.node),
        "Address": ADDRESS,
        "NodeMeta": node,
        "SkipNodeUpdate": True,
        "Service": _service(instance),
        "Checks": [_check(instance, check, status) for check, status in checks],
    }
    return _encode(body | ({"Datacenter": datacenter} if datacenter else {}))


def service_delete(instance: Instance, index: int | None) -> Op:
    """Remove a service and its checks; with an `index` only if it stands as it was read there."""
    row: dict[str, object] = {"ID": _named(instance.id), "Service": _named(instance.service)}
    verb = "delete" if index is None else "delete-cas"
    if index is not None:
        row["ModifyIndex"] = index
    op = {"Service": {"Verb": verb, "Node": _named(instance.node), "Service": row}}
    return Op(_encode(op), answered=False)


def check_op(instance: Instance, check: Check, status: Health, index: int) -> Op:
    """Write a check that stands as it was read at `index`; 0: that doesn't stand yet."""
    row = _check(instance, check, status) | {"ModifyIndex": index}
    return Op(_encode({"Check": {"Verb": "cas", "Check": row}}))


def _check(instance: Instance, check: Check, status: Health) -> dict[str, object]:
    return {
        "Node": _named(instance.node),
        "CheckID": _named(check.id),
        "Name": check.name,
        "Status": status.value,
        "Notes": check.notes,
        "Output": _OUTPUT[status] if isinstance(check.probe, Readiness) else _NOT_PROBED,
        "ServiceID": _named(instance.id),
        "ServiceName": instance.service,
        "Definition": definition(check),
    }


def check_delete(instance: Instance, check_id: str, index: int) -> Op:
    """Remove a check that stands as it was read at `index`."""
    row = {
        "Node": _named(instance.node),
        "CheckID": _named(check_id),
        "ServiceID": instance.id,
        "ServiceName": instance.service,
        "ModifyIndex": index,
    }
    return Op(_encode({"Check": {"Verb": "delete-cas", "Check": row}}), answered=False)


def definition(check: Check) -> dict[str, object]:
    """What consul-esm is to run, {} for what the operator itself says. Raises `Invalid` for what it can't run."""
    match check.probe:
        case None | Readiness():
            return {}
        case TcpProbe() | HttpProbe():
            _refuse_unsupported(check, check.probe)
            return {name: value for name, value in bodies.definition(check).items() if name in _DEFINED}
        case _:
            raise _unsupported(check, "that kind: without agents, consul-esm runs checks of the kinds tcp and http")


def _refuse_unsupported(check: Check, probe: TcpProbe | HttpProbe) -> None:
    timing = probe.timing
    if timing.success_before_passing or timing.failures_before_warning or timing.failures_before_critical:
        raise _unsupported(check, "thresholds: consul-esm has them for all checks alike, in its configuration")
    if isinstance(probe, HttpProbe) and probe.body:
        raise _unsupported(check, "a body: consul-esm sends none")
    if isinstance(probe, HttpProbe) and any(isinstance(value, Hidden) for _, value in probe.headers):
        raise _unsupported(check, "a header from a Secret: the catalog would show it to whoever may read it")


def _unsupported(check: Check, what: str) -> Invalid:
    return Invalid(Reason("CheckNotSupported", f"check {check.name!r} can't have {what}"))


def _named(name: str) -> str:
    if not name:
        raise Invalid(Reason("InvalidRequest", "an empty ID or name is never sent to Consul: it could mean a node"))
    return name


# --- what we read ---------------------------------------------------------------------------------------------------


class ServiceRow(wire.ServiceRow, frozen=True):
    """A service, with what tells whether somebody has touched it."""

    CreateIndex: int = 0
    ModifyIndex: int = 0
    Kind: str = ""

    @property
    def plain(self) -> bool:
        """Whether it has nothing that we never write."""
        return not self.Kind


class CheckRow(wire.CheckRow, frozen=True):
    """A check, with its definition: the catalog returns it, other than agents do."""

    ModifyIndex: int = 0
    Definition: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def digest(self) -> int:
        """What changes when anything but status and output is edited; comparable within this process alone."""
        return hash((self.Name, self.Notes, bytes(self.Definition)))


class NodeRow(msgspec.Struct, frozen=True):
    """A node of the catalog."""

    Node: str
    Datacenter: str = ""
    Meta: dict[str, str] | None = None
    ModifyIndex: int = 0


class _NodeServices(msgspec.Struct, frozen=True):
    Node: NodeRow | None = None
    Services: list[ServiceRow] | None = None


class _Placed(msgspec.Struct, frozen=True):
    Node: str
    NodeMeta: dict[str, str] | None = None


class Result(msgspec.Struct, frozen=True):
    """What a transaction wrote: one of the three."""

    Node: NodeRow | None = None
    Service: ServiceRow | None = None
    Check: CheckRow | None = None

    @property
    def index(self) -> int:
        """Its version."""
        row = self.Service or self.Check or self.Node
        return row.ModifyIndex if row else 0


class Fault(msgspec.Struct, frozen=True):
    """Why a transaction was refused, and on account of which operation."""

    OpIndex: int = 0
    What: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """The answer to a transaction: either all of it was applied (`Errors` is empty) or nothing."""

    Results: list[Result] | None = None
    Errors: list[Fault] | None = None

    @property
    def index(self) -> int:
        """The transaction's place in Consul's log, unless it only removed, or changed nothing; 0: nothing tells."""
        return max((result.index for result in self.Results or ()), default=0)


_node_services = msgspec.json.Decoder(_NodeServices)
_checks = msgspec.json.Decoder(list[CheckRow] | None)
_verdict = msgspec.json.Decoder(Verdict)
_nodes = msgspec.json.Decoder(list[NodeRow] | None)
_placed = msgspec.json.Decoder(list[_Placed] | None)


def _unreadable(what: str, error: Exception) -> Misdirected:
    return Misdirected(Reason("NotConsul", f"{what} was answered with something else than Consul's JSON: {error}"))


def decode_services(answer: Answer) -> tuple[NodeRow | None, Sequence[ServiceRow]]:
    """`/v1/catalog/node-services/<node>`. Raises `Misdirected` where that isn't Consul's answer; so do the others."""
    try:
        read = _node_services.decode(answer.body)
    except msgspec.DecodeError as error:
        raise _unreadable("/v1/catalog/node-services", error) from error
    return read.Node, read.Services or ()


def decode_checks(answer: Answer) -> Sequence[CheckRow]:
    """`/v1/health/node/<node>`."""
    try:
        return _checks.decode(answer.body) or ()
    except msgspec.DecodeError as error:
        raise _unreadable("/v1/health/node", error) from error


def decode_verdict(answer: Answer) -> Verdict:
    """`/v1/txn`, applied or refused."""
    try:
        return _verdict.decode(answer.body)
    except msgspec.DecodeError as error:
        raise _unreadable("/v1/txn", error) from error


def decode_nodes(answer: Answer) -> Sequence[str]:
    """`/v1/catalog/nodes`: their names."""
    try:
        return [row.Node for row in _nodes.decode(answer.body) or ()]
    except msgspec.DecodeError as error:
        raise _unreadable("/v1/catalog/nodes", error) from error


def decode_places(answer: Answer) -> Sequence[tuple[str, Mapping[str, str]]]:
    """`/v1/catalog/service/<name>`: the nodes with their meta."""
    try:
        return [(row.Node, row.NodeMeta or {}) for row in _placed.decode(answer.body) or ()]
    except msgspec.DecodeError as error:
        raise _unreadable("/v1/catalog/service", error) from error
