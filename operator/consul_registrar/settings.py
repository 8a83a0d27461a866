"""The operator's own settings: each a flag and an environment variable (`cli/`), gathered here in one value.

Which Consul to write to is said by ConsulConnection objects, or for one of them, `default`, by Consul's own standard
variables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from consul_registrar.api.access import Auth, ClientCertificate, Source, Tls
from consul_registrar.api.connection import ConsulConnectionSpec
from consul_registrar.objects import ENTERPRISE_ONLY, Connection, Meta


@dataclass(frozen=True, slots=True)
class Settings:
    """How one operator runs. Addresses are host:port; no namespaces means all; `resync` in seconds.

    No `status_page_address` means no status page; `status_page_hosts`: further names by which it may be asked for.
    """

    cluster: str
    namespaces: tuple[str, ...] = ()
    pod_selector: str = ""
    log_format: str = "console"
    log_level: str = "info"
    health_address: str = "0.0.0.0:8080"
    status_page_address: str = ""
    status_page_hosts: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    mode: str = ""
    lease: str = "default/consul-registrar"
    resync: float = 600.0
    readiness_gate: bool = True
    annotated_workloads: bool = False
    registration_metrics: bool = True
    traces: bool = False

    @property
    def lease_place(self) -> tuple[str, str]:
        """Namespace and name of the Lease."""
        namespace, _, name = self.lease.rpartition("/")
        return namespace or "default", name


class EnvironmentInvalid(ValueError):
    """Consul's variables don't make up a connection."""


def default_connection(settings: Settings) -> Connection | None:
    """The connection `default` as Consul's standard variables describe it; None where no --mode asks for it.

    Raises EnvironmentInvalid with what must be. Variables as Consul's own commands read them (consul/api/api.go).
    """
    if not settings.mode:
        return None
    address = settings.environment.get("CONSUL_HTTP_ADDR", "")
    if not address:
        raise EnvironmentInvalid("--mode makes the connection 'default' out of CONSUL_HTTP_ADDR, which must be set")
    for name in ("CONSUL_NAMESPACE", "CONSUL_PARTITION"):
        if settings.environment.get(name):
            raise EnvironmentInvalid(f"{name} must not be set: {ENTERPRISE_ONLY}")
    spec = ConsulConnectionSpec.model_validate(
        {
            "mode": settings.mode,
            "addresses": [_url(address, settings.environment)],
            "tls": _tls(settings.environment),
            "auth": _auth(settings.environment),
        }
    )
    return Connection("default", Meta("", 0, 0, "", "", (), {}), spec, {})


def _url(address: str, environment: Mapping[str, str]) -> str:
    if "://" in address:
        return address.rstrip("/")
    secure = environment.get("CONSUL_HTTP_SSL", "").lower() in {"1", "t", "true"}
    return f"{'https' if secure else 'http'}://{address}"


def _tls(environment: Mapping[str, str]) -> Tls | None:
    ca, name = environment.get("CONSUL_CACERT", ""), environment.get("CONSUL_TLS_SERVER_NAME", "")
    shown = _client_certificate(environment)
    if not ca and not name and shown is None:
        return None
    return Tls(ca=Source(file=ca) if ca else None, server_name=name, client_certificate=shown)


def _client_certificate(environment: Mapping[str, str]) -> ClientCertificate | None:
    certificate, key = environment.get("CONSUL_CLIENT_CERT", ""), environment.get("CONSUL_CLIENT_KEY", "")
    if bool(certificate) != bool(key):
        raise EnvironmentInvalid("CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY must be set together")
    return ClientCertificate(certificate=Source(file=certificate), key=Source(file=key)) if key else None


def _auth(environment: Mapping[str, str]) -> Auth | None:
    file = environment.get("CONSUL_HTTP_TOKEN_FILE", "")
    return Auth(token=Source(file=file)) if file else None


def direct_tokens(settings: Settings) -> dict[str, str]:
    """Tokens that were given as they are, by connection; a token file goes before."""
    token = settings.environment.get("CONSUL_HTTP_TOKEN", "")
    return {"default": token} if token and settings.mode else {}


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port" or ":port". Raises ValueError with what must be."""
    parts = urlsplit(f"//{address}")
    if parts.port is None:
        raise ValueError(f"must be host:port, not {address!r}")
    return parts.hostname or "0.0.0.0", parts.port  # noqa: S104  (a Pod is probed from its node)
