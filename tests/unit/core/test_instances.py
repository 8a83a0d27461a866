"""An instance for one subject: every field of it, and its identity."""

from dataclasses import replace
from typing import Any

import pytest

from consul_registrar.checks import checks_hash
from consul_registrar.model import META_HASH, ContainerPort, Owner
from unit.core.build import HTTP, OWNER, endpoint, instance, node, of_endpoint, of_endpoints, of_pods, pod, present


def test_a_pods_instance_says_what_it_is_and_whose() -> None:
    found = instance()
    assert (found.node, found.service, found.address, found.port) == ("agent-1", "web", "10.0.0.1", 8080)
    assert dict(found.meta) == {
        "external-source": "kubernetes",
        "managed-by": "consul-registrar",
        "k8s-cluster": "prod",
        "k8s-connection": "default",
        "k8s-namespace": "shop",
        "k8s-registration": "web",
        "k8s-pod": "web-1",
        "k8s-pod-uid": "uid-web-1",
        "k8s-node": "node-1",
        META_HASH: checks_hash(found.checks),
    }
    assert (found.owner, found.subject) == (OWNER, "uid-web-1")


def test_an_endpoints_instance_says_what_it_is_and_whose() -> None:
    spec = of_endpoints(endpoint(meta={"role": "primary", "tier": "own"}), service={"meta": {"tier": "x", "a": "b"}})
    found = present(of_endpoint(spec=spec))
    assert (found.address, found.port, found.checks) == ("db.example.com", 5432, ())
    assert (found.owner, found.subject) == (OWNER, "primary")
    assert {"role": "primary", "tier": "own", "a": "b"}.items() <= dict(found.meta).items()
    assert not {"k8s-pod", "k8s-pod-uid", "k8s-node"} & dict(found.meta).keys()


@pytest.mark.parametrize(
    ("port", "expected"),
    [(9000, 9000), ("http", 8080), ("metrics", 9100), ("dns", 53)],
)
def test_a_port_is_a_number_or_looked_up(port: Any, expected: int) -> None:
    ports = (HTTP, ContainerPort("metrics", 9100), ContainerPort("dns", 53, "UDP"))
    assert instance(of_pods(service={"port": port}), pod=pod(ports=ports)).port == expected


def test_the_only_tcp_port_is_the_default_also_where_several_containers_or_protocols_name_it() -> None:
    ports = (ContainerPort("dns", 53, "UDP"), ContainerPort("a", 80), ContainerPort("b", 80))
    assert instance(pod=pod(ports=ports)).port == 80


def test_field_paths_are_looked_up_in_pod_and_node() -> None:
    texts = ["$(metadata.name)", "$(spec.nodeName)", "$(node.metadata.labels['zone'])", "$(status.hostIP)", "$$(x)"]
    found = instance(of_pods(service={"tags": texts}), node=node(labels={"zone": "z1"}))
    assert set(found.tags) == {"web-1", "node-1", "z1", "192.168.0.1", "$(x)"}


def test_without_a_known_node_a_default_stands_in() -> None:
    spec = of_pods(service={"tags": ["$(node.metadata.labels['zone']:-nowhere)"]})
    assert instance(spec, node=None).tags == ("nowhere",)


def test_tags_and_meta_are_sorted_and_tags_are_a_set() -> None:
    spec = of_pods(service={"tags": ["b", "a", "$(metadata.labels['b'])"], "meta": {"z": "1", "a": "2"}})
    found = instance(spec, pod=pod(labels={"app": "web", "b": "b"}))
    assert found.tags == ("a", "b")
    assert list(found.meta) == sorted(found.meta)


@pytest.mark.parametrize("value", ["", "é" * 256, "x" * 512])
def test_meta_takes_what_consul_takes(value: str) -> None:
    spec = of_pods(service={"meta": {"m": "$(metadata.annotations['a'])"}})
    assert instance(spec, pod=pod(annotations={"a": value})).meta_value("m") == value


def test_an_id_is_readable_and_stable() -> None:
    first = instance().id
    assert first.startswith("shop-web-web-1-")
    assert first == instance(of_pods(service={"tags": ["x"]}), pod=pod(ip="10.9.9.9"), place="agent-2").id


def test_what_stands_keeps_its_id() -> None:
    other = replace(instance(), id="from-an-older-version")
    assert instance(standing=(other,)).id == "from-an-older-version"


@pytest.mark.parametrize("fields", [{"node": "agent-2"}, {"service": "other"}])
def test_what_stands_elsewhere_or_under_another_name_does_not_give_its_id(fields: Any) -> None:
    other = replace(instance(), id="other", **fields)
    assert instance(standing=(other,)).id == instance().id


def test_a_new_service_name_is_another_instance() -> None:
    stands = instance()
    assert instance(of_pods(service={"name": "shop"}), standing=(stands,)).id != stands.id


def test_a_same_named_successor_is_another_instance() -> None:
    assert instance(pod=pod(uid="1")).id != instance(pod=pod(uid="2")).id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Owner("a", "bc", "shop", "web"), Owner("ab", "c", "shop", "web")),
        (Owner("a", "b", "c-d", "e"), Owner("a", "b", "c", "d-e")),
        (Owner("prod", "default", "shop", "web"), Owner("test", "default", "shop", "web")),
        (Owner("prod", "default", "shop", "web"), Owner("prod", "other", "shop", "web")),
    ],
)
def test_no_two_owners_share_an_id(one: Owner, other: Owner) -> None:
    spec = of_endpoints(consulRefs=[{"name": name} for name in sorted({one.connection, other.connection})])
    found = {present(of_endpoint(spec=spec, owner=owner)).id for owner in (one, other)}
    assert len(found) == 2


def test_an_id_stays_short_enough_to_read() -> None:
    long = instance(pod=pod("p" * 253), owner=replace(OWNER, registration="r" * 253))
    assert len(long.id) <= 133
