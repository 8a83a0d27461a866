"""Custom resources are parsed once, at the door: whatever they hold, the answer is a spec or a reason."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consul_registrar import objects
from consul_registrar.api.connection import ConsulConnectionSpec
from consul_registrar.model import Reason
from unit.core.build import KEY, OLD, body, connection, of_endpoints, of_pods, registration

CATALOG = {"mode": "Catalog", "nodeAgents": None, "addresses": ["http://a:8500", "http://b:8500"]}


def test_a_registration_is_named_and_published_by_its_own_name() -> None:
    found = registration()
    assert (found.key, found.service, found.connections) == (KEY, "web", ("default",))
    assert (found.meta.uid, found.meta.version, found.meta.generation) == ("uid-of-shop-web", 7, 3)
    assert (found.meta.created, found.meta.deleted, found.meta.finalizers) == (OLD, "", ())


@pytest.mark.parametrize("status", [None, {}, {"observedGeneration": -1}])
def test_an_object_that_nobody_has_looked_at_has_no_status(status: dict[str, int] | None) -> None:
    assert objects.registration(body() | {"status": status}).status == {}


def test_service_name_wins_over_the_registrations_name() -> None:
    assert registration(of_pods(service={"name": "shop-web"})).service == "shop-web"


def test_nobody_publishes_the_service_consul() -> None:
    found = registration(name="consul")
    assert isinstance(found.spec, Reason)
    assert "must not be 'consul'" in found.spec.message
    assert not isinstance(registration(of_pods(service={"name": "mine"}), name="consul").spec, Reason)


def test_a_long_name_needs_a_service_name() -> None:
    found = registration(name="a" * 129)
    assert isinstance(found.spec, Reason)
    assert "must have spec.service.name" in found.spec.message
    assert not isinstance(registration(name="a" * 128).spec, Reason)
    assert not isinstance(registration(of_pods(service={"name": "mine"}), name="a" * 129).spec, Reason)


def test_a_malformed_registration_has_no_service_and_wants_no_consul() -> None:
    found = registration({"pods": {}})
    assert (found.service, found.connections, found.suspended, found.orphans) == ("", (), False, False)


@pytest.mark.parametrize(
    ("spec", "orphans"),
    [
        (of_pods(), False),
        (of_pods(deletionPolicy="Deregister"), False),
        (of_pods(deletionPolicy="Orphan"), True),
        (of_pods(suspend=True), True),
        (of_endpoints(suspend=True, deletionPolicy="Deregister"), True),
    ],
)
def test_deletion_leaves_the_instances_of_what_is_suspended_or_says_orphan(spec: Any, orphans: bool) -> None:
    assert registration(spec).orphans is orphans


def test_deletion_shows() -> None:
    assert not registration().deleting
    assert registration(deletionTimestamp=OLD).deleting


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"nodeAgents": {}, "addresses": ["http://a:8500"]}, "must have exactly one of addresses and nodeAgents"),
        ({"nodeAgents": None}, "must have exactly one of addresses and nodeAgents"),
        ({"mode": None}, "'Agent'"),
        ({"nodeAgents": None, "addresses": ["http://a:8500", "http://b:8500"]}, "must have one address in mode Agent"),
        ({"mode": "Catalog"}, "must have addresses and no nodeAgents in mode Catalog"),
        ({"virtualNodes": 4}, "must not have virtualNodes in mode Agent"),
        ({"nodeAgents": None, "addresses": ["ftp://a"]}, "should match pattern"),
        ({"nodeAgents": None, "addresses": ["http://a:8500/path"]}, "should match pattern"),
        ({"nodeAgents": None, "addresses": ["http://user@a"]}, "should match pattern"),
        ({"auth": {"token": {}}}, "must have exactly one of secretKeyRef and file"),
        ({"auth": {"token": {"file": "relative"}}}, "should match pattern"),
        ({"policy": "Force"}, "'Sync', 'UpsertOnly' or 'Observe'"),
        ({"sharedNames": "Maybe"}, "'Refuse' or 'Allow'"),
        ({"datacenter": "DC1"}, "should match pattern"),
    ],
)
def test_a_malformed_connection_is_refused_with_why(spec: Any, message: str) -> None:
    found = connection(**spec).spec
    assert isinstance(found, Reason)
    assert (found.code, message in found.message) == ("InvalidSpec", True)


@pytest.mark.parametrize("url", ["http://10.0.0.1:8500", "https://[2001:db8::1]:8501", "https://consul.example.com"])
def test_a_connection_leads_to_one_agent(url: str) -> None:
    found = connection(nodeAgents=None, addresses=[url]).spec
    assert isinstance(found, ConsulConnectionSpec)
    assert (found.addresses, found.policy, found.shared_names) == ([url], "Sync", "Refuse")


@pytest.mark.parametrize("more", [{}, {"virtualNodes": 1}, {"virtualNodes": 64}])
def test_a_connection_in_mode_catalog_has_servers(more: dict[str, Any]) -> None:
    assert isinstance(connection(**CATALOG, **more).spec, ConsulConnectionSpec)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=12,
)
_FIELDS = [
    *("consulRefs", "suspend", "service", "name", "port", "tags", "meta", "pods", "selector", "matchLabels", "key"),
    *("matchExpressions", "operator", "values", "register", "endpoints", "address", "checks", "readiness", "tcp"),
    *("http", "interval", "timeout", "path", "headers", "deletionPolicy", "initialStatus"),
]
_LIKE_A_SPEC = st.recursive(
    _JSON | st.sampled_from(["In", "Exists", "5s", "http", "$(metadata.name)", "/", 80, {}, []]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_FIELDS), inner, max_size=5),
    max_leaves=20,
)


@given(_JSON | _LIKE_A_SPEC)
def test_no_spec_raises(spec: Any) -> None:
    for found in (
        objects.registration(body() | {"spec": spec}).spec,
        objects.connection(body() | {"spec": spec}).spec,
    ):
        assert not isinstance(found, Reason) or (found.code == "InvalidSpec" and found.message.startswith("spec"))


@pytest.mark.parametrize("text", ["x" * 300_000, "é" * 300_000, "\n" * 300_000])
def test_a_refusal_fits_into_a_condition(text: str) -> None:
    """The API server takes no message over 32768 characters: a longer one would keep the whole status unwritten."""
    found = registration(of_pods(service={"name": text, "port": text, "tags": [text]}, deletionPolicy=text)).spec
    assert isinstance(found, Reason)
    assert len(found.message) <= 32768
