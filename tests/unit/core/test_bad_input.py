"""Whatever is wrong in a spec is refused with the field's path, also where the API server's definitions are older."""

from typing import Any
from urllib.parse import urlsplit

import pytest

from bad_input import VALID, Bad, bad_inputs, fields, schema
from consul_registrar import objects
from consul_registrar.consul import bodies
from consul_registrar.desired import Absent, Kept, Present, desired
from consul_registrar.model import Hidden, Reason
from unit.core.build import body, facts, of_address, of_endpoint, pod

KINDS = sorted(VALID)
#: What a definition of the examples' checks has.
DEFINED = {
    *("CheckID", "Name", "Notes", "Status", "Interval", "Timeout", "DeregisterCriticalServiceAfter"),
    *("SuccessBeforePassing", "FailuresBeforeWarning", "FailuresBeforeCritical"),
    *("TCP", "UDP", "HTTP", "Method", "Header", "Body", "DisableRedirects", "TLSServerName", "TLSSkipVerify"),
    *("GRPC", "GRPCUseTLS", "H2PING", "H2PingUseTLS", "TTL", "AliasService", "AliasNode"),
}


def parsed(kind: str, spec: Any) -> Any:
    read = objects.registration if kind == "ServiceRegistration" else objects.connection
    return read(body() | {"spec": spec}).spec


@pytest.mark.parametrize("kind", KINDS)
def test_the_examples_are_valid_and_every_text_has_a_longest_length(kind: str) -> None:
    for spec in VALID[kind]:
        assert not isinstance(parsed(kind, spec), Reason), parsed(kind, spec)
    unbound = [
        path
        for path, node in fields(schema(kind))
        if node.get("type") == "string" and not ({"maxLength", "enum"} & node.keys())
    ]
    assert unbound == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_schema_rules_out_is_refused_with_the_fields_path(kind: str) -> None:
    bad = [each for each in bad_inputs(kind) if not each.text]
    assert len(bad) > 300
    taken = [str(each) for each in bad if not _refused(kind, each)]
    assert taken == []


def _refused(kind: str, bad: Bad) -> bool:
    found = parsed(kind, bad.spec)
    return isinstance(found, Reason) and found.code == "InvalidSpec" and bad.is_named_in(found.message)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_out_of_place_is_refused_with_its_path_or_is_nothing_but_text(kind: str) -> None:
    """What is taken is published as it is, or is a problem of the Pod: it never becomes anything else."""
    for bad in (each for each in bad_inputs(kind) if each.text):
        found = parsed(kind, bad.spec)
        if isinstance(found, Reason):
            assert bad.is_named_in(found.message), found.message
        elif kind == "ServiceRegistration":
            _is_only_text(bad)


def _is_only_text(bad: Bad) -> None:
    secrets = {("probe", "token"): Hidden("s", "1")}
    spec = bad.spec | {"checksFromProbes": False} if "pods" in bad.spec else bad.spec
    if "kubernetesService" in spec:
        known = of_address("203.0.113.7", spec)
    elif "pods" in spec:
        known = facts(spec, pod=pod(labels={"app": "web", "tier": "front"}), secrets=secrets)
    else:
        known = of_endpoint(spec=spec)
    want = desired(known)
    elsewhere = "selector" in bad.path or "kubernetesService" in bad.path
    assert isinstance(want, Present | Kept) or (elsewhere and isinstance(want, Absent)), bad
    if isinstance(want, Present):
        sent = [bodies.definition(check, check.status) for check in want.instance.checks]
        assert {field for definition in sent for field in definition} <= DEFINED, bad
        assert all(is_to_the_instance(definition, want.instance.address) for definition in sent), bad
        assert all(text.isprintable() for text in (*dict(want.instance.meta).values(), *want.instance.tags)), bad


def is_to_the_instance(definition: dict[str, Any], address: str) -> bool:
    url = urlsplit(definition.get("HTTP", f"http://{address}:1"))
    return url.hostname == address and url.port is not None and not url.username
