"""A connection's terms for what registrations publish there: names, checks, and what is added to all of them; pure.

Decides which service names a namespace may use, which checks go too far, and how defaults go under a registration.
Where a registration is judged as a whole is `acceptance.py`'s matter; what an instance looks like, `desired.py`'s.

    tags, meta     both; of two values for one key the registration's
    weights        the registration's, where it says something of them
    checks         the registration's, where it says something of them; for Pods only
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import urlsplit

from consul_registrar import dead_man
from consul_registrar.addresses import canonical, dialled
from consul_registrar.api.connection import CheckPolicy, Defaults
from consul_registrar.model import Check, Reason
from consul_registrar.names import folded
from consul_registrar.objects import Registration
from consul_registrar.probes import AliasProbe, HttpProbe, Readiness, TtlProbe

_NAMESPACE = "$(metadata.namespace)"
_LONGEST = 63  # characters of a namespace's name


@dataclass(frozen=True, slots=True)
class CheckTerms:
    """What a connection says of checks. `nodes`, `consul`: canonical addresses of the cluster's nodes, and its own.

    `agent_port`: where an agent of its own listens on each node, 0 where there is none.
    """

    policy: CheckPolicy
    nodes: Collection[str] = ()
    consul: Collection[str] = ()
    agent_port: int = 0


# --- names ----------------------------------------------------------------------------------------------------------


def owner_by_pattern(pattern: str, service: str, namespace: str, namespaces: Collection[str]) -> str | None:
    """The namespace that a pattern gives a service name to, if it is this one or a longer one; None: not to this one.

    Of several whose names fit, the longest has it: `shop-*` and `shop-eu-*` both fit shop-eu-web. It has shop-EU-web
    too, which is the same name for Consul; but what this namespace publishes must fit as it is written.
    """
    before, found, _ = pattern.partition(_NAMESPACE)
    rest = folded(service)[len(before) :]
    lengths = range(min(_LONGEST, len(rest)), len(namespace), -1) if found else ()
    for candidate in (rest[:length] for length in lengths):
        if candidate in namespaces and _fits(folded(pattern), candidate, folded(service)):
            return candidate
    return namespace if _fits(pattern, namespace, service) else None


def prefix_of(pattern: str, namespace: str) -> str | None:
    """What names begin with, folded, that a pattern gives to this namespace; None where it gives to all alike."""
    before, found, _ = pattern.partition(_NAMESPACE)
    return folded(before + namespace) if found else None


def _fits(pattern: str, namespace: str, service: str) -> bool:
    return _compiled(pattern, namespace).fullmatch(service) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str, namespace: str) -> re.Pattern[str]:
    parts = pattern.replace(_NAMESPACE, namespace).split("*")
    return re.compile("[A-Za-z0-9._-]*".join(map(re.escape, parts)))


# --- checks ---------------------------------------------------------------------------------------------------------


def refused_check(checks: tuple[Check, ...], terms: CheckTerms) -> Reason | None:
    """Why a check goes too far, None where none does."""
    findings = (f"check {check.name!r}: {why}" for check in checks for why in _against(check, terms))
    first = next(findings, None)
    return Reason("CheckNotAllowed", f"{first} (spec.checkPolicy of the connection)") if first else None


def _against(check: Check, terms: CheckTerms) -> Iterator[str]:
    policy, kind = terms.policy, check.id.rpartition(":")[2]
    if kind not in {*policy.types, "draining", dead_man.KIND}:
        yield f"its type must be one of {', '.join(policy.types)}, not {kind}"
    if isinstance(check.probe, HttpProbe) and check.probe.method not in policy.methods:
        yield f"its method must be one of {', '.join(policy.methods)}, not {check.probe.method}"
    if isinstance(check.probe, HttpProbe) and check.probe.follow_redirects and policy.redirects == "Refuse":
        yield "it must not follow redirects"
    host, port = _target(check)
    if (
        policy.ports
        and port
        and not any(allowed.first <= port <= (allowed.last or allowed.first) for allowed in policy.ports)
    ):
        yield f"its port must be one of those allowed, not {port}"
    what = next((kind for kind in _kinds(host, port, terms) if kind in policy.refused_addresses), None)
    if what is not None:
        yield f"it must not go to {host}, which is {_ARTICLES[what]}"


_ARTICLES = {
    "Loopback": "a loopback address",
    "LinkLocal": "a link-local address",
    "Node": "the address of a node",
    "Consul": "an address of Consul",
}


def _target(check: Check) -> tuple[str, int]:
    match check.probe:
        case HttpProbe(url=url):
            parts = urlsplit(url)
            return parts.hostname or "", parts.port or 0
        case None | Readiness() | TtlProbe() | AliasProbe():
            return "", 0
        case probe:
            return probe.host, probe.port


def _kinds(host: str, port: int, terms: CheckTerms) -> Iterator[str]:
    """All that an address is. Names are compared as they are written: what they lead to isn't known here."""
    name, address = canonical(host), dialled(host)
    on_node = name in terms.nodes
    if name in terms.consul or (on_node and 0 < port == terms.agent_port):
        yield "Consul"
    if on_node:
        yield "Node"
    if name == "localhost" or name.endswith(".localhost"):
        yield "Loopback"
    if address is not None and (address.is_loopback or address.is_unspecified):
        yield "Loopback"  # who dials the unspecified address reaches itself
    if address is not None and address.is_link_local:
        yield "LinkLocal"


# --- defaults -------------------------------------------------------------------------------------------------------


def with_defaults(registration: Registration, defaults: Defaults | None) -> Registration:
    """The registration with a connection's defaults under it."""
    spec = registration.spec
    if defaults is None or isinstance(spec, Reason):
        return registration
    service = spec.service
    changed: dict[str, object] = {
        "tags": list(dict.fromkeys([*service.tags, *defaults.tags])),
        "meta": defaults.meta | service.meta,
    }
    if defaults.weights is not None and "weights" not in service.model_fields_set:
        changed["weights"] = defaults.weights
    edited: dict[str, object] = {"service": service.model_copy(update=changed)}
    if defaults.checks is not None and spec.checks is None and spec.pods is not None and not spec.checks_from_probes:
        edited["checks"] = defaults.checks
    return replace(registration, spec=spec.model_copy(update=edited))
