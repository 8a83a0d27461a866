"""Registrations beside others and beside what is in Consul already, in both modes."""

import threading
from collections.abc import Iterator

import pytest
from operator_world import EXAMPLES, World, deployment, eventually, registration
from scenarios.test_life_cycle import watching

from devcluster import Cluster

CONNECTIONS = "/apis/consul-registrar.dev/v1alpha1/consulconnections"


@pytest.fixture(scope="module", params=["default", "catalog"], ids=["agent", "catalog"])
def connection(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[str]:
    """A connection of each mode: the agents on the nodes, and the server's catalog."""
    if request.param == "catalog":
        text = (EXAMPLES / "01-connection-catalog.yaml").read_text()
        cluster.kubectl("apply", "-f", "-", stdin=text.replace("http://127.0.0.1:8500", cluster.consul.http_addr))
    yield request.param
    if request.param == "catalog":
        cluster.api.request("DELETE", f"{CONNECTIONS}/catalog")


def registering(name: str, app: str, connection: str, **spec: object) -> dict:
    pods = {"selector": {"matchLabels": {"app": app}}}
    return registration(name, consulRefs=[{"name": connection}], pods=pods, **spec)


def by_registration(world: World, service: str) -> dict[str, set[str]]:
    """Which Pods each registration has under a name."""
    found: dict[str, set[str]] = {}
    for row in world.consul(f"/v1/catalog/service/{service}"):
        found.setdefault(row["ServiceMeta"].get("k8s-registration", ""), set()).add(row["ServiceMeta"]["k8s-pod"])
    return found


def test_of_two_that_publish_the_same_pods_the_older_does_and_the_younger_takes_over_without_a_gap(
    world: World, connection: str
) -> None:
    service = f"pair-{connection}"
    world.apply(deployment("pair", 3), registering("z-old", "pair", connection, service={"name": service}))
    names = world.passing(service, 3).keys()
    threading.Event().wait(1.1)  # the API server counts seconds
    world.apply(registering("a-new", "pair", connection, service={"name": service}))
    says = world.says("a-new", "Conflict")
    assert f"registration {world.namespace}/z-old publishes this Pod" in says["message"]
    assert by_registration(world, service) == {"z-old": set(names)}
    with watching(
        lambda: len({r["ServiceMeta"]["k8s-pod"] for r in world.consul(f"/v1/catalog/service/{service}")}) == 3
    ) as missed:
        world.kubectl("delete", "sreg", "z-old")
        eventually(lambda: by_registration(world, service) == {"a-new": set(names)})
    assert missed == []
    world.says("a-new", "Registered")
    world.kubectl("scale", "deployment/pair", "--replicas=1")
    world.passing(service, 1)
