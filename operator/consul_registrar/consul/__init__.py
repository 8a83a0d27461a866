"""Everything that talks to Consul: the registry protocol, its two adapters, the errors.

Outside of this package only these names are used.
"""

from consul_registrar.consul import lean  # noqa: F401 - before anything that imports py-consul
from consul_registrar.consul.agent import AgentRegistry, AgentSettings
from consul_registrar.consul.catalog import VIRTUAL_NODES, CatalogRegistry, CatalogSettings
from consul_registrar.consul.claim import Name
from consul_registrar.consul.claimed import ClaimedRegistry
from consul_registrar.consul.errors import (
    ConsulError,
    Denied,
    Invalid,
    Misdirected,
    NotSent,
    OutcomeUnknown,
    Paced,
    Stale,
    Throttled,
    Unavailable,
)
from consul_registrar.consul.login import Login, Method
from consul_registrar.consul.registry import OnChange, Registry, RegistryStatus, TokenStatus
from consul_registrar.consul.tls import Tls, show_instead, tls_context
from consul_registrar.consul.token import Recorded, Token
from consul_registrar.consul.transport import Access, Endpoint

__all__ = [
    "VIRTUAL_NODES",
    "Access",
    "AgentRegistry",
    "AgentSettings",
    "CatalogRegistry",
    "CatalogSettings",
    "ClaimedRegistry",
    "ConsulError",
    "Denied",
    "Endpoint",
    "Invalid",
    "Login",
    "Method",
    "Misdirected",
    "Name",
    "NotSent",
    "OnChange",
    "OutcomeUnknown",
    "Paced",
    "Recorded",
    "Registry",
    "RegistryStatus",
    "Stale",
    "Throttled",
    "Tls",
    "Token",
    "TokenStatus",
    "Unavailable",
    "show_instead",
    "tls_context",
]
