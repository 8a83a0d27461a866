"""What a check does: the kinds of probes, as they are compared. A check's name, status and place are in `model.py`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """How a probe is run. Durations in milliseconds; thresholds count consecutive results; None is Consul's default."""

    interval: int
    timeout: int
    deregister_after: int | None = None
    success_before_passing: int = 0
    failures_before_warning: int = 0
    failures_before_critical: int = 0


@dataclass(frozen=True, slots=True)
class Readiness:
    """The Pod's readiness as Kubernetes sees it, mirrored: nobody probes, the operator says."""


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """Passing while a TCP connection to the target can be opened."""

    host: str
    port: int
    timing: Timing


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """Passing on 2xx, warning on 429, else critical. A redirect may leave the target: then it is critical, too."""

    url: str
    method: str
    headers: tuple[tuple[str, str], ...]
    body: str
    tls_server_name: str
    tls_skip_verify: bool
    timing: Timing
    follow_redirects: bool = False


@dataclass(frozen=True, slots=True)
class GrpcProbe:
    """Passing while the target's health service (grpc.health.v1) says SERVING; `service` "" asks for the whole."""

    host: str
    port: int
    service: str
    tls: bool
    tls_server_name: str
    tls_skip_verify: bool
    timing: Timing


@dataclass(frozen=True, slots=True)
class UdpProbe:
    """Passing once the target answers an empty datagram, critical when it refuses; silence leaves it as it was."""

    host: str
    port: int
    timing: Timing


@dataclass(frozen=True, slots=True)
class H2PingProbe:
    """Passing while the target answers an HTTP/2 ping."""

    host: str
    port: int
    tls: bool
    tls_server_name: str
    tls_skip_verify: bool
    timing: Timing


@dataclass(frozen=True, slots=True)
class TtlProbe:
    """Passing while the application itself tells the agent so in time. Milliseconds."""

    ttl: int
    deregister_after: int | None = None


@dataclass(frozen=True, slots=True)
class AliasProbe:
    """As healthy as another service instance (`service_id`), or a whole node where that is ""; `node` "": its own."""

    service_id: str
    node: str


Timed = TcpProbe | HttpProbe | GrpcProbe | UdpProbe | H2PingProbe
Probe = Readiness | Timed | TtlProbe | AliasProbe
