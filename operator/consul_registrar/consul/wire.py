"""What is read: the JSON of Consul's agent API in our values; pure, no I/O.

What Consul adds by itself (lan and wan addresses, default ports) is not read. Checks are ours when their ID
begins with the instance's; others' and maintenance mode's are left out. Definitions can't be read back: an agent
returns them empty. What is written is `bodies.py`'s matter.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from consul_registrar.consul.answers import Answer
from consul_registrar.consul.errors import Misdirected
from consul_registrar.consul.fates import Member
from consul_registrar.model import (
    EVEN,
    MANAGED_BY,
    META_CLUSTER,
    META_CONNECTION,
    META_MANAGED_BY,
    META_NONCE,
    Check,
    Health,
    Instance,
    NamedPort,
    Reason,
    TaggedAddress,
    Weights,
)

_CONSULS_OWN = frozenset({"lan_ipv4", "wan_ipv4", "lan_ipv6", "wan_ipv6"})


class ServiceWeights(msgspec.Struct, frozen=True):
    """The weights of a service."""

    Passing: int = 1
    Warning: int = 1


class AddressRow(msgspec.Struct, frozen=True):
    """A further address of a service."""

    Address: str = ""
    Port: int = 0


class PortRow(msgspec.Struct, frozen=True):
    """One of several ports of a service."""

    Name: str = ""
    Port: int = 0
    Default: bool = False


class ServiceRow(msgspec.Struct, frozen=True):
    """A service, as agents (`/v1/agent/services`) and the catalog (`/v1/catalog/node-services`) both spell it."""

    ID: str
    Service: str
    Address: str = ""
    Port: int = 0
    Tags: tuple[str, ...] | None = None
    Meta: dict[str, str] | None = None
    EnableTagOverride: bool = False
    Weights: ServiceWeights | None = None
    TaggedAddresses: dict[str, AddressRow] | None = None
    Ports: tuple[PortRow, ...] | None = None


class CheckRow(msgspec.Struct, frozen=True):
    """A check, as agents and the catalog both spell it."""

    Node: str
    CheckID: str
    Name: str = ""
    Status: str = ""
    Notes: str = ""
    ServiceID: str = ""


class _Configuration(msgspec.Struct, frozen=True):
    NodeName: str
    NodeID: str = ""
    Datacenter: str = ""
    Version: str = ""
    Server: bool = False


class _Self(msgspec.Struct, frozen=True):
    Config: _Configuration


class _Member(msgspec.Struct, frozen=True):
    Name: str
    Addr: str = ""
    Status: int = 0


class _NodeServices(msgspec.Struct, frozen=True):
    Services: list[ServiceRow] | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an agent says that it is. An agent that lost its data has another `node_id`."""

    node: str
    node_id: str
    datacenter: str
    version: str


@dataclass(frozen=True, slots=True)
class Held:
    """An instance as it is held somewhere, with the nonce that stands outside of every comparison."""

    instance: Instance
    nonce: str = ""


_STATUSES = frozenset(status.value for status in Health)

_services = msgspec.json.Decoder(dict[str, ServiceRow] | None)
_checks = msgspec.json.Decoder(dict[str, CheckRow] | None)
_node_checks = msgspec.json.Decoder(list[CheckRow] | None)
_node_services = msgspec.json.Decoder(_NodeServices | None)
_self = msgspec.json.Decoder(_Self)
_members = msgspec.json.Decoder(list[_Member] | None)


def _unreadable(what: str, error: Exception) -> Misdirected:
    return Misdirected(Reason("NotConsul", f"{what} was answered with something else than Consul's JSON: {error}"))


def decode_self(answer: Answer) -> Identity:
    """`/v1/agent/self`; raises `Misdirected` (NotConsul) where that is no agent's answer. So do the others here."""
    try:
        told = _self.decode(answer.body).Config
    except msgspec.DecodeError as error:
        raise _unreadable("/v1/agent/self", error) from error
    return Identity(told.NodeName, told.NodeID, told.Datacenter, told.Version)


def decode_services(answer: Answer) -> Mapping[str, ServiceRow]:
    """`/v1/agent/services`, by service ID."""
    try:
        return _services.decode(answer.body) or {}
    except msgspec.DecodeError as error:
        raise _unreadable("/v1/agent/services", error) from error


def decode_checks(answer: Answer) -> Mapping[str, CheckRow]:
    """`/v1/agent/checks`, by check ID."""
    try:
        return _checks.decode(answer.body) or {}
    except msgspec.DecodeError as error:
        raise _unreadable("/v1/agent/checks", error) from error


def decode_node_services(answer: Answer) -> Mapping[str, ServiceRow]:
    """`/v1/catalog/node-services/<node>`, by service ID; empty for a node that the catalog doesn't know."""
    try:
        read = _node_services.decode(answer.body)
    except msgspec.DecodeError as error:
        raise _unreadable("/v1/catalog/node-services", error) from error
    return {row.ID: row for row in (read.Services or () if read else ())}


def decode_node_checks(answer: Answer) -> Mapping[str, CheckRow]:
    """`/v1/health/node/<node>`, by check ID."""
    try:
        read = _node_checks.decode(answer.body)
    except msgspec.DecodeError as error:
        raise _unreadable("/v1/health/node", error) from error
    return {row.CheckID: row for row in read or ()}


def decode_members(answer: Answer) -> Mapping[str, Member]:
    """`/v1/agent/members`, by the node's name."""
    try:
        read = _members.decode(answer.body)
    except msgspec.DecodeError as error:
        raise _unreadable("/v1/agent/members", error) from error
    return {row.Name: Member(row.Addr, row.Status) for row in read or ()}


def is_ours(meta: Mapping[str, str] | None, cluster: str, connection: str) -> bool:
    """Whether an instance with this meta was written for this connection of this cluster."""
    return meta is not None and (
        (meta.get(META_MANAGED_BY), meta.get(META_CLUSTER), meta.get(META_CONNECTION))
        == (MANAGED_BY, cluster, connection)
    )


class Reader:
    """Finds our instances among what a node holds. What is read as before is the same object as before: comparing
    and keeping the thousands that didn't change costs next to nothing.
    """

    def __init__(self, node: str, cluster: str, connection: str) -> None:
        self._node = node
        self._whose = (cluster, connection)
        self._known: dict[str, tuple[ServiceRow, list[CheckRow], Held]] = {}

    def ours(self, services: Mapping[str, ServiceRow], checks: Mapping[str, CheckRow]) -> list[Held]:
        """Our instances, in the form in which they are compared."""
        by_service: dict[str, list[CheckRow]] = {}
        for check in checks.values():
            if check.ServiceID:
                by_service.setdefault(check.ServiceID, []).append(check)
        rows = [row for row in services.values() if is_ours(row.Meta, *self._whose)]
        self._known = {row.ID: self._read(row, by_service.get(row.ID, [])) for row in rows}
        return [found for _, _, found in self._known.values()]

    def _read(self, row: ServiceRow, checks: list[CheckRow]) -> tuple[ServiceRow, list[CheckRow], Held]:
        known = self._known.get(row.ID)
        if known is not None and known[0] == row and known[1] == checks:
            return known
        return row, checks, held(self._node, row, checks)


def held(node: str, row: ServiceRow, checks: Iterable[CheckRow]) -> Held:
    """One service with its checks, as an instance: tags and meta sorted, the nonce apart."""
    own = tuple(sorted(_own_checks(row.ID, checks), key=lambda check: check.id))
    return Held(instance_of(node, row, own), (row.Meta or {}).get(META_NONCE, ""))


def instance_of(node: str, row: ServiceRow, checks: tuple[Check, ...]) -> Instance:
    """One service with these checks, as an instance: tags and meta sorted, without the nonce."""
    meta = [pair for pair in (row.Meta or {}).items() if pair[0] != META_NONCE]
    ports = ports_of(row)
    return Instance(
        node=node,
        id=row.ID,
        service=row.Service,
        address=row.Address,
        port=port_of(row, ports),
        tags=tuple(sorted(row.Tags or ())),
        meta=tuple(sorted(meta)),
        checks=checks,
        tag_override=row.EnableTagOverride,
        weights=weights_of(row),
        tagged=tagged_of(row),
        ports=ports,
    )


def ports_of(row: ServiceRow) -> tuple[NamedPort, ...]:
    """The named ports of a service."""
    return tuple(sorted(NamedPort(port.Name, port.Port, port.Default) for port in row.Ports)) if row.Ports else ()


def port_of(row: ServiceRow, ports: Iterable[NamedPort]) -> int:
    """The one port of a service, or the default one of its named `ports`: agents say it, the catalog doesn't."""
    return row.Port or next((port.port for port in ports if port.default), 0)


def weights_of(row: ServiceRow) -> Weights:
    """The weights of a service; the usual ones are one object."""
    told = row.Weights
    return Weights(told.Passing, told.Warning) if told and (told.Passing, told.Warning) != (1, 1) else EVEN


def tagged_of(row: ServiceRow) -> tuple[TaggedAddress, ...]:
    """The further addresses, but for those that Consul adds by itself (agent.go `populateTaggedAddresses`)."""
    given = (row.TaggedAddresses or {}).items()
    further = [TaggedAddress(name, at.Address, at.Port) for name, at in given if name not in _CONSULS_OWN]
    return tuple(sorted(further)) if further else ()


def _own_checks(service: str, checks: Iterable[CheckRow]) -> Iterator[Check]:
    for row in checks:
        if row.CheckID.startswith(f"{service}:") and row.Status in _STATUSES:
            yield Check(row.CheckID, row.Name, None, Health(row.Status), row.Notes)
