"""The checks of an instance, and the ports that they and the instance are about.

Decides how a check's spec becomes a definition for Consul, Consul's minimums included, so that what is compared is what
Consul holds. Which instance they belong to is decided in `desired.py`.
"""

import hashlib
import json
from dataclasses import asdict

from consul_registrar.api.base import milliseconds
from consul_registrar.api.registration import Check as CheckSpec
from consul_registrar.api.registration import ServiceRegistrationSpec
from consul_registrar.model import (
    Check,
    ContainerPort,
    Health,
    HttpProbe,
    Pod,
    Probe,
    Readiness,
    Reason,
    TcpProbe,
    Timing,
)

_HASH_VERSION = "1"
_MIN_DEREGISTER_AFTER = 60_000  # Consul's agent takes less as one minute (agent/config/default.go)
_DEFAULT_INTERVAL = 10_000
_DEFAULT_TIMEOUT = 2_000  # an agent holds its lock while it waits for a probe to end: short keeps it responsive


class Unpublishable(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.reason = Reason(code, message)


def published_port(wanted: int | str | None, declared: tuple[ContainerPort, ...]) -> int:
    match wanted:
        case int():
            return wanted
        case str():
            return _named_port(wanted, declared)
        case None:
            tcp = sorted({p.port for p in declared if p.protocol == "TCP"})
            if len(tcp) == 1:
                return tcp[0]
            what = "declares no TCP port" if not tcp else f"declares several ({', '.join(map(str, tcp))})"
            raise Unpublishable("PortAmbiguous", f"spec.service.port must name one: the Pod {what}")


def _named_port(name: str, declared: tuple[ContainerPort, ...]) -> int:
    for port in declared:
        if port.name == name:
            return port.port
    names = ", ".join(sorted(p.name for p in declared if p.name)) or "none"
    raise Unpublishable("PortNotFound", f"container port {name!r} is not declared (declared names: {names})")


def checks_of(
    spec: ServiceRegistrationSpec, instance_id: str, host: str, port: int, pod: Pod | None
) -> tuple[Check, ...]:
    ports = pod.ports if pod else ()
    if spec.checks is None:
        return (_readiness("readiness", "", instance_id, pod),) if pod else ()
    return tuple(_check(c, instance_id, host, port, ports, pod) for c in spec.checks)


def _check(
    spec: CheckSpec, instance_id: str, host: str, port: int, ports: tuple[ContainerPort, ...], pod: Pod | None
) -> Check:
    if spec.readiness is not None:
        assert pod is not None, "the API refuses a readiness check without Pods"
        return _readiness(spec.name, spec.notes, instance_id, pod)
    probe = _probe(spec, host, port, ports)
    kind = "tcp" if isinstance(probe, TcpProbe) else "http"
    status = Health(spec.initial_status) if spec.initial_status else None
    return Check(f"{instance_id}:{spec.name}:{kind}", spec.name, probe, status, spec.notes)


def _readiness(name: str, notes: str, instance_id: str, pod: Pod) -> Check:
    status = Health.PASSING if pod.ready else Health.CRITICAL
    return Check(f"{instance_id}:{name}:readiness", name, Readiness(), status, notes)


def _probe(spec: CheckSpec, host: str, port: int, ports: tuple[ContainerPort, ...]) -> Probe:
    timing = _timing(spec)
    if spec.tcp is not None:
        return TcpProbe(host, _target(spec.tcp.port, port, ports), timing)
    assert spec.http is not None, "the API wants exactly one kind of check"
    http = spec.http
    shown = f"[{host}]" if ":" in host else host
    return HttpProbe(
        url=f"{http.scheme}://{shown}:{_target(http.port, port, ports)}{http.path}",
        method=http.method,
        headers=tuple(sorted((h.name, h.value) for h in http.headers)),
        body=http.body,
        tls_server_name=http.tls_server_name,
        tls_skip_verify=http.tls_skip_verify,
        timing=timing,
    )


def _target(wanted: int | str | None, default: int, ports: tuple[ContainerPort, ...]) -> int:
    return default if wanted is None else published_port(wanted, ports)


def _timing(spec: CheckSpec) -> Timing:
    after = spec.deregister_critical_service_after
    return Timing(
        interval=milliseconds(spec.interval) if spec.interval else _DEFAULT_INTERVAL,
        timeout=milliseconds(spec.timeout) if spec.timeout else _DEFAULT_TIMEOUT,
        deregister_after=max(milliseconds(after), _MIN_DEREGISTER_AFTER) if after else None,
        success_before_passing=spec.success_before_passing or 0,
        failures_before_warning=spec.failures_before_warning or 0,
        failures_before_critical=spec.failures_before_critical or 0,
    )


def checks_hash(checks: tuple[Check, ...]) -> str:
    """A versioned hash of what Consul doesn't give back: the definitions of the checks.

    The letter r says that some check lets the agent reap the instance: known that way also after a restart.
    """
    digest = hashlib.sha256(json.dumps([_hashed(c) for c in checks], sort_keys=True).encode()).hexdigest()[:16]
    return f"{_HASH_VERSION}{'r' if any(map(_reaps, checks)) else ''}-{digest}"


def _hashed(check: Check) -> dict[str, object]:
    """All of a check but what the operator says of it; field by field, since this is asked for every instance."""
    return {
        "id": check.id,
        "name": check.name,
        "probe": {} if isinstance(check.probe, Readiness) else check.probe and asdict(check.probe),
        "status": None if isinstance(check.probe, Readiness) else check.status,
        "notes": check.notes,
    }


def _reaps(check: Check) -> bool:
    return isinstance(check.probe, TcpProbe | HttpProbe) and check.probe.timing.deregister_after is not None
