"""What is written: our values in the JSON of Consul's agent API; pure, no I/O.

Decides how a check and an instance are spelled, also where the catalog spells them alike. What is read back is
`wire.py`'s matter.
"""

import json
from collections.abc import Mapping, Sequence

from consul_registrar.model import META_NONCE, Check, Health, Instance
from consul_registrar.probes import (
    AliasProbe,
    GrpcProbe,
    H2PingProbe,
    HttpProbe,
    Readiness,
    TcpProbe,
    Timed,
    Timing,
    TtlProbe,
    UdpProbe,
)

FOREVER = "876000h"
"""A TTL that never runs out (a hundred years): readiness is told on change, never as a heartbeat."""


def duration(milliseconds: int) -> str:
    """Consul's notation. Always with a unit: a bare number would be nanoseconds."""
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def definition(check: Check, status: Health | None = None) -> dict[str, object]:
    """A check as the agent's register call takes it; `status` (default: the check's own) is where it begins.

    The status is ignored by an agent that has a check of this ID. Raises ValueError for a check read back.
    """
    begins = status or check.status
    common: dict[str, object] = {"CheckID": check.id, "Name": check.name}
    if check.notes:
        common["Notes"] = check.notes
    if begins is not None:
        common["Status"] = begins.value
    return common | _probe(check)


def _probe(check: Check) -> dict[str, object]:
    match check.probe:
        case Readiness():
            return {"TTL": FOREVER}
        case TtlProbe(ttl, after):
            return {"TTL": duration(ttl), **({"DeregisterCriticalServiceAfter": duration(after)} if after else {})}
        case AliasProbe(service_id, node):
            given = {"AliasService": service_id, "AliasNode": node}
            return {name: value for name, value in given.items() if value}
        case None:
            raise ValueError(f"check {check.id} has no definition to write")
        case timed:
            return {**_target(timed), **_timing(timed.timing)}


def _target(probe: Timed) -> dict[str, object]:
    match probe:
        case HttpProbe():
            return _http(probe)
        case TcpProbe(host, port):
            return {"TCP": _socket(host, port)}
        case UdpProbe(host, port):
            return {"UDP": _socket(host, port)}
        case GrpcProbe(host, port, service):
            asked = f"{_socket(host, port)}/{service}" if service else _socket(host, port)
            return {"GRPC": asked, "GRPCUseTLS": probe.tls, **_verification(probe)}
        case H2PingProbe(host, port):
            return {"H2PING": _socket(host, port), "H2PingUseTLS": probe.tls, **_verification(probe)}


def _socket(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _verification(probe: GrpcProbe | H2PingProbe) -> dict[str, object]:
    given = {"TLSServerName": probe.tls_server_name, "TLSSkipVerify": probe.tls_skip_verify}
    return {name: value for name, value in given.items() if value}


def _http(probe: HttpProbe) -> dict[str, object]:
    """Redirects aren't followed unless it is said: they lead an agent to places that the target's owner chooses."""
    headers: dict[str, list[str]] = {}
    for name, value in probe.headers:
        headers.setdefault(name, []).append(value)
    optional: dict[str, object] = {
        "Header": headers,
        "Body": probe.body,
        "TLSServerName": probe.tls_server_name,
        "TLSSkipVerify": probe.tls_skip_verify,
    }
    given = {name: value for name, value in optional.items() if value}
    return {"HTTP": probe.url, "Method": probe.method, "DisableRedirects": not probe.follow_redirects, **given}


def _timing(timing: Timing) -> dict[str, object]:
    optional: dict[str, object] = {
        "SuccessBeforePassing": timing.success_before_passing,
        "FailuresBeforeWarning": timing.failures_before_warning,
        "FailuresBeforeCritical": timing.failures_before_critical,
        "DeregisterCriticalServiceAfter": duration(timing.deregister_after) if timing.deregister_after else None,
    }
    given = {name: value for name, value in optional.items() if value}
    return {"Interval": duration(timing.interval), "Timeout": duration(timing.timeout), **given}


def registration(instance: Instance, checks: Sequence[Mapping[str, object]], nonce: str) -> bytes:
    """The body of the agent's register call, with these definitions of checks."""
    return json.dumps(
        {
            "Name": instance.service,
            "ID": instance.id,
            "Address": instance.address,
            **ports(instance),
            "Tags": instance.tags,
            "Meta": dict(instance.meta) | ({META_NONCE: nonce} if nonce else {}),
            "Checks": checks,
            "EnableTagOverride": instance.tag_override,
            "Weights": weights(instance),
            "TaggedAddresses": tagged_addresses(instance) or None,
        }
    ).encode()


def update(status: Health, output: str) -> bytes:
    """The body that sets a TTL check's status."""
    return json.dumps({"Status": status.value, "Output": output}).encode()


def tagged_addresses(instance: Instance) -> dict[str, dict[str, object]]:
    """The further addresses of an instance, in Consul's JSON."""
    return {at.name: {"Address": at.address, "Port": at.port} for at in instance.tagged}


def ports(instance: Instance) -> dict[str, object]:
    """The port of an instance, or its named ports: Consul refuses both together."""
    if not instance.ports:
        return {"Port": instance.port}
    return {"Ports": [{"Name": at.name, "Port": at.port, "Default": at.default} for at in instance.ports]}


def weights(instance: Instance) -> dict[str, int]:
    """The weights of an instance, in Consul's JSON."""
    return {"Passing": instance.weights.passing, "Warning": instance.weights.warning}
