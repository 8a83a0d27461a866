"""What a request is, as far as faults and kill points need to tell requests apart; pure.

A request's `kind` names its class, in the terms of the API that it is sent to, without the names of objects:

    PUT agent/service/register      GET catalog/node-services blocking      PUT txn
    patch serviceregistrations/status      watch pods      update leases

Writes are told by the method alone: Consul's and Kubernetes' APIs keep to it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

WRITES = frozenset({"PUT", "POST", "PATCH", "DELETE"})

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_CONSUL_DEPTH = {"agent": 3}


@dataclass(frozen=True, slots=True)
class Request:
    """A request on its way. `via` names the proxy that it came through."""

    via: str
    method: str
    target: str
    body: bytes = field(default=b"", repr=False)

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def is_write(self) -> bool:
        return self.method in WRITES

    @property
    def kind(self) -> str:
        """The class of the request."""
        parts = [part for part in self.path.split("/") if part]
        if parts[:1] in (["api"], ["apis"]):
            return _kubernetes(self.method, parts, self.query)
        return _consul(self.method, parts, self.query)


Match = Callable[[Request], bool]


def kind_is(*kinds: str) -> Match:
    """Requests of these classes."""
    return lambda request: request.kind in kinds


def is_write(request: Request) -> bool:
    return request.is_write


def _consul(method: str, parts: list[str], query: dict[str, str]) -> str:
    """Two parts of the path after /v1 name the endpoint, at the agent three."""
    depth = 1 + _CONSUL_DEPTH.get(parts[1] if len(parts) > 1 else "", 2)
    return " ".join([method, "/".join(parts[1:depth]), *(["blocking"] if "index" in query else [])])


def _kubernetes(method: str, parts: list[str], query: dict[str, str]) -> str:
    """Verb and resource, as Kubernetes' own access rules name them."""
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    if not rest:
        return f"{method} discovery"
    resource = "/".join([rest[0], *rest[2:]])
    if method != "GET":
        return f"{_VERBS.get(method, method)} {resource}"
    if query.get("watch") in {"1", "true"}:
        return f"watch {resource}"
    return f"{'get' if len(rest) > 1 else 'list'} {resource}"
