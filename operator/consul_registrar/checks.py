"""The checks of an instance, and the ports that they and the instance are about.

Decides how a check's spec becomes a definition for Consul, Consul's minimums included, so that what is compared is what
Consul holds. Which instance they belong to is decided in `desired.py`.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, field, replace

from consul_registrar.api.base import milliseconds
from consul_registrar.api.check import Check as CheckSpec
from consul_registrar.api.check import Header, Http
from consul_registrar.api.registration import ServiceRegistrationSpec
from consul_registrar.fieldpath import NO_VALUES, MissingValue, Values, substitute
from consul_registrar.model import Check, ContainerPort, Health, Hidden, NamedPort, Pod, ReadinessProbe, Reason
from consul_registrar.probes import (
    AliasProbe,
    GrpcProbe,
    H2PingProbe,
    HttpProbe,
    Probe,
    Readiness,
    TcpProbe,
    Timing,
    TtlProbe,
    UdpProbe,
)
from consul_registrar.services import KubernetesService, ServicePort
from consul_registrar.values import record

_HASH_VERSION = "1"
_READINESS = "readiness"
_MIN_DEREGISTER_AFTER = 60_000  # Consul's agent takes less as one minute (agent/config/default.go)
_DEFAULT_INTERVAL = 10_000
_DEFAULT_TIMEOUT = 2_000  # an agent holds its lock while it waits for a probe to end: short keeps it responsive

_encode = json.JSONEncoder(sort_keys=True).encode
_quote = json.encoder.encode_basestring_ascii

_PATH = re.compile(r"/[!-\"$-~]{0,2047}")
_HEADER = re.compile(r"[ -~]{0,1024}")


#: What is known of Secrets, by name and key.
Secrets = Mapping[tuple[str, str], Hidden | Reason]
_NOT_READ = Reason("SecretUnreadable", "the Secret was not read (yet); it is for a registration's own checks only")


class Unpublishable(Exception):
    """A Pod can't be published as its registration asks; the reason says what must be."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.reason = Reason(code, message)


@record(frozen=True, slots=True)
class Target:
    """The instance that checks are about: of a Pod, a Service, or an endpoint (neither).

    `on_node`: it is reached by its node's ports. `ready`: whether something ready stands behind the Service.
    """

    instance_id: str
    host: str
    port: int
    pod: Pod | None = None
    values: Values = NO_VALUES
    on_node: bool = False
    secrets: Secrets = field(default_factory=dict)
    service: KubernetesService | None = None
    ready: bool = False
    ports: tuple[NamedPort, ...] = ()


def filled(text: str, values: Values, where: str) -> str:
    """A text with its field paths replaced. Raises Unpublishable where one has no value; `where` names the field."""
    try:
        return substitute(text, values)
    except MissingValue as missing:
        message = f"{where}: {missing.path} has no value and the field path no default"
        raise Unpublishable("FieldPathNotFound", message) from None


def published_port(wanted: int | str | None, declared: tuple[ContainerPort, ...], *, on_node: bool = False) -> int:
    """The port to publish: the container's, or with `on_node` that of the node which leads to it."""
    port = _container_port(wanted, declared)
    if not on_node:
        return port
    found = next((p.host_port for p in declared if p.port == port and p.host_port), 0)
    if not found:
        message = f"spec.pods.address is HostIP: the container port {port} must be declared with a hostPort"
        raise Unpublishable("HostPortNotFound", message)
    return found


def _container_port(wanted: int | str | None, declared: tuple[ContainerPort, ...]) -> int:
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


def service_port(wanted: int | str | None, service: KubernetesService, *, on_node: bool = False) -> int:
    """The port to publish: the Service's, or with `on_node` that of each node which leads to it."""
    port = _port_of_service(wanted, service)
    if not on_node:
        return port.port
    if not port.node_port:
        message = f"spec.kubernetesService.publish is NodePort: the port {port.port} of the Service has no nodePort"
        raise Unpublishable("NodePortNotFound", message)
    return port.node_port


def _port_of_service(wanted: int | str | None, service: KubernetesService) -> ServicePort:
    """Only what is declared: nothing answers at another port of a Service."""
    if wanted is None and len(service.ports) == 1:
        return service.ports[0]
    declared = ", ".join(f"{p.name or '-'} {p.port}/{p.protocol}" for p in service.ports) or "none"
    if wanted is None:
        message = f"spec.service.port must name one of the Service's ports (declared: {declared})"
        raise Unpublishable("PortAmbiguous", message)
    found = next((port for port in service.ports if wanted in (port.name, port.port)), None)
    if found is None:
        raise Unpublishable("PortNotFound", f"port {wanted!r} is not one of the Service's (declared: {declared})")
    return found


def named_ports(
    wanted: Mapping[str, int | str] | None, default: str | None, find: Callable[[int | str], int]
) -> tuple[NamedPort, ...]:
    """The named ports of an instance, sorted; `find` says which number each stands for. Consul wants one default."""
    return tuple(
        NamedPort(name, find(ref), default=name == default or len(wanted or ()) == 1)
        for name, ref in sorted((wanted or {}).items())
    )


def checks_of(spec: ServiceRegistrationSpec, target: Target, named: Collection[str] | None = None) -> tuple[Check, ...]:
    """The checks of an instance; `named`: only those of the spec's. Raises Unpublishable.

    An instance that is to be shown draining has a check of the operator's own, whatever else there is.
    """
    specs = [c for c in spec.checks or () if named is None or c.name in named]
    checks = tuple(_check(c, target) for c in specs)
    if target.pod is None:
        mirrored = spec.checks is None and target.service is not None
        return (_readiness("readiness", "", target),) if mirrored else checks
    if spec.checks_from_probes:
        checks = (*checks, *_from_probes(target, target.pod))
    if spec.checks is None and not checks:
        return (_readiness("readiness", "", target),)
    drains = spec.pods is not None and spec.pods.on_termination == "Critical"
    if drains and not any(isinstance(c.probe, Readiness) for c in checks):
        return (*checks, _draining(target.instance_id, target.pod))
    return checks


def _check(spec: CheckSpec, target: Target) -> Check:
    if spec.readiness is not None:
        return _readiness(spec.name, spec.notes, target)
    kind, probe = _probe(spec, target)
    status = Health(spec.initial_status) if spec.initial_status else None
    return Check(f"{target.instance_id}:{spec.name}:{kind}", spec.name, probe, status, spec.notes)


def is_readiness(check_id: str) -> bool:
    """Whether it is the ID of a check that mirrors readiness: definitions can't be read back."""
    return check_id.endswith(f":{_READINESS}")


def _readiness(name: str, notes: str, target: Target) -> Check:
    ready = target.pod.ready and not target.pod.deleting if target.pod else target.ready
    status = Health.PASSING if ready else Health.CRITICAL
    return Check(f"{target.instance_id}:{name}:{_READINESS}", name, Readiness(), status, notes)


def _draining(instance_id: str, pod: Pod) -> Check:
    status = Health.CRITICAL if pod.deleting else Health.PASSING
    return Check(f"{instance_id}::draining", "draining", Readiness(), status, "critical once the Pod terminates")


def _probe(spec: CheckSpec, target: Target) -> tuple[str, Probe]:
    """The kind as it stands in the check's ID, and what is probed."""
    timing = _timing(spec)
    if spec.tcp is not None:
        return "tcp", TcpProbe(target.host, _port(spec.tcp.port, target), timing)
    if spec.udp is not None:
        return "udp", UdpProbe(target.host, _port(spec.udp.port, target), timing)
    if spec.http is not None:
        return "http", _http(spec.name, spec.http, target, timing)
    if spec.grpc is not None:
        by, port = spec.grpc, _port(spec.grpc.port, target)
        names = (by.tls_server_name, by.tls_skip_verify)
        return "grpc", GrpcProbe(target.host, port, by.service, by.tls, *names, timing)
    if spec.h2ping is not None:
        ping, port = spec.h2ping, _port(spec.h2ping.port, target)
        return "h2ping", H2PingProbe(target.host, port, ping.tls, ping.tls_server_name, ping.tls_skip_verify, timing)
    if spec.ttl is not None:
        return "ttl", TtlProbe(milliseconds(spec.ttl.ttl), timing.deregister_after)
    assert spec.alias is not None, "the API wants exactly one kind of check"
    return "alias", AliasProbe(spec.alias.service_id, spec.alias.node)


def _from_probes(target: Target, pod: Pod) -> Iterator[Check]:
    """One check for each container that has a readiness probe, as the kubelet runs it. Raises Unpublishable."""
    if not pod.probes:
        message = "spec.checksFromProbes: no container of the Pod has a readiness probe"
        raise Unpublishable("ProbeNotFound", message)
    for probe in pod.probes:
        name = f"probe:{probe.container}"
        derived = _from_probe(probe, target, pod)
        yield Check(f"{target.instance_id}:{name}:{probe.kind}", name, derived, None, "the container's readiness probe")


def _from_probe(probe: ReadinessProbe, target: Target, pod: Pod) -> Probe:
    """The kubelet doesn't verify certificates, so neither does the check. A threshold of one is Consul's default."""
    where = f"spec.checksFromProbes: the readiness probe of container {probe.container!r}"
    if probe.kind == "exec":
        raise Unpublishable("ProbeNotSupported", f"{where} runs a command, which only the kubelet can")
    if probe.host:
        raise Unpublishable("ProbeNotSupported", f"{where} has a host ({probe.host}): checks go to the Pod itself")
    timing = Timing(
        interval=probe.period * 1000,
        timeout=probe.timeout * 1000,
        success_before_passing=probe.successes if probe.successes > 1 else 0,
        failures_before_critical=probe.failures if probe.failures > 1 else 0,
    )
    if isinstance(probe.port, str):
        raise Unpublishable(
            "PortNotFound", f"{where} names the port {probe.port!r}, which that container doesn't declare"
        )
    port = published_port(probe.port, pod.ports, on_node=target.on_node)
    if probe.kind == "tcp":
        return TcpProbe(target.host, port, timing)
    if probe.kind == "grpc":
        return GrpcProbe(
            target.host, port, probe.text, tls=False, tls_server_name="", tls_skip_verify=False, timing=timing
        )
    path = _sound("/" + probe.text.lstrip("/"), _PATH, where, "a path without spaces or #")
    for header, value in probe.headers:
        _sound(value, _HEADER, f"{where}, header {header}", "at most 1024 printable characters")
    return HttpProbe(
        url=f"{'https' if probe.https else 'http'}://{_in_url(target.host)}:{port}{path}",
        method="GET",
        headers=tuple(sorted(probe.headers)),
        body="",
        tls_server_name="",
        tls_skip_verify=probe.https,
        timing=timing,
    )


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _http(name: str, http: Http, target: Target, timing: Timing) -> HttpProbe:
    where = f"spec.checks[{name}].http"
    path = _sound(
        filled(http.path, target.values, f"{where}.path"), _PATH, f"{where}.path", "a path without spaces or #"
    )
    headers = [(h.name, _value(h, target, f"{where}.headers[{h.name}]")) for h in http.headers]
    for header, value in headers:
        _sound(value, _HEADER, f"{where}.headers[{header}]", "at most 1024 printable characters")
    return HttpProbe(
        url=f"{http.scheme}://{_in_url(target.host)}:{_port(http.port, target)}{path}",
        method=http.method,
        headers=tuple(sorted(headers)),
        body=http.body,
        tls_server_name=http.tls_server_name,
        tls_skip_verify=http.tls_skip_verify,
        timing=timing,
        follow_redirects=http.follow_redirects,
    )


def _value(header: Header, target: Target, where: str) -> str:
    if header.value_from is None:
        return filled(header.value or "", target.values, where)
    ref = header.value_from.secret_key_ref
    found = target.secrets.get((ref.name, ref.key), _NOT_READ)
    if isinstance(found, Reason):
        raise Unpublishable(found.code, f"{where}: {found.message}")
    return found


def _sound(text: str, pattern: re.Pattern[str], where: str, what: str) -> str:
    """What field paths have made of a text; a label or annotation may bring what the spec could not."""
    if not pattern.fullmatch(text):
        raise Unpublishable("ValueInvalid", f"{where}: {text!r} must be {what}")
    return text


def _port(wanted: int | str | None, target: Target) -> int:
    if wanted is None:
        return target.port
    named = next((port.port for port in target.ports if port.name == wanted), None)
    if named is not None:
        return named
    if isinstance(wanted, str) and target.pod is None and target.service is None:
        names = ", ".join(port.name for port in target.ports) or "none"
        raise Unpublishable("PortNotFound", f"port {wanted!r} is not one of the endpoint's (declared names: {names})")
    if target.service is not None:
        return service_port(wanted, target.service, on_node=target.on_node)
    return published_port(wanted, target.pod.ports if target.pod else (), on_node=target.on_node)


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
    digest = hashlib.sha256(f"[{', '.join(map(_hashed, checks))}]".encode()).hexdigest()[:16]
    return f"{_HASH_VERSION}{'r' if any(map(_reaps, checks)) else ''}-{digest}"


def _hashed(check: Check) -> str:
    """All of a check but what the operator says of it, as JSON with sorted keys; readiness, the usual one, by hand."""
    if isinstance(check.probe, Readiness):
        texts = (_quote(check.id), _quote(check.name), _quote(check.notes))
        return '{{"id": {}, "name": {}, "notes": {}, "probe": {{}}, "status": null}}'.format(*texts)
    return _encode(
        {
            "id": check.id,
            "name": check.name,
            "probe": check.probe and _told(_masked(check.probe)),
            "status": check.status,
            "notes": check.notes,
        }
    )


def _told(probe: Probe) -> dict[str, object]:
    """A probe as before there was a field, where that is off: what stands keeps its hash."""
    told = asdict(probe)
    return told if told.get("follow_redirects") else {k: v for k, v in told.items() if k != "follow_redirects"}


def _masked(probe: Probe) -> Probe:
    """What is secret has the version of its Secret in its place: nothing of the value can be found out."""
    if not isinstance(probe, HttpProbe) or not any(isinstance(value, Hidden) for _, value in probe.headers):
        return probe
    shown = ((name, f"secret {value.version}" if isinstance(value, Hidden) else value) for name, value in probe.headers)
    return replace(probe, headers=tuple(shown))


def _reaps(check: Check) -> bool:
    match check.probe:
        case None | Readiness() | AliasProbe():
            return False
        case TtlProbe(deregister_after=after):
            return after is not None
        case timed:
            return timed.timing.deregister_after is not None
