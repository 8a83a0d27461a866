"""Fields of the custom resources that no story tells of: each is set, and what came of it is asked of the real Consul.

Each in both modes, where it is of any meaning. Which field is shown where says the mark `shows`; the table made of it
is docs/reference/fields.md. Those of checks are in `test_check_fields.py`.
"""

from typing import Any

import pytest
from operator_world import World, always, deployment, eventually, pod, published, statuses


@pytest.mark.shows(
    "sreg.spec.consulRefs[].name",
    "sreg.spec.service.name",
    "sreg.spec.service.port",
    "sreg.spec.service.tags",
    "sreg.spec.service.meta",
    "sreg.spec.pods.selector",
    "sreg.spec.checks[].name",
    "sreg.spec.checks[].readiness",
    "sreg.spec.checks[].notes",
)
def test_what_a_registration_says_of_its_service_is_in_consul(world: World, connection: str) -> None:
    selector = {
        "matchLabels": {"app": "full"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["front", "edge"]},
            {"key": "canary", "operator": "DoesNotExist"},
        ],
    }
    service = {
        "port": "http",
        "tags": ["v1", "at-$(metadata.namespace)"],
        "meta": {"tier": "$(metadata.labels['tier'])"},
    }
    checks = [{"name": "alive", "readiness": {}, "notes": "as the kubelet says"}]
    world.apply(published("full", connection, service=service, pods={"selector": selector}, checks=checks))
    world.apply(*(pod(name, "full") for name in ("front", "edge", "back", "canary")))
    for name, tier in (("front", "front"), ("edge", "edge"), ("back", "back"), ("canary", "front")):
        labels = ["canary=yes"] if name == "canary" else []
        world.kubectl("label", "pod", name, *labels, f"tier={tier}")
    rows = world.passing(f"full-{connection}", 2)
    assert {name: row["Service"]["Meta"]["tier"] for name, row in rows.items()} == {"front": "front", "edge": "edge"}
    for row in rows.values():
        found = row["Service"]
        assert (found["Port"], sorted(found["Tags"])) == (8080, [f"at-{world.namespace}", "v1"])
        assert found["Meta"]["k8s-connection"] == connection
        (check,) = (check for check in row["Checks"] if check["ServiceID"])
        assert (check["Name"], check["Notes"], check["Status"]) == ("alive", "as the kubelet says", "passing")
    world.annotate("front", ready="false")
    eventually(lambda: world.health(f"full-{connection}", passing=True).keys() == {"edge"})


@pytest.mark.shows("sreg.spec.pods.register")
def test_a_pod_enters_when_its_registration_says(world: World, connection: str) -> None:
    def entering(when: str) -> dict[str, Any]:
        source = {"selector": {"matchLabels": {"app": "shy"}}, "register": when}
        return published(f"shy-{when}".lower(), connection, pods=source)

    world.apply(entering("Running"), entering("Ready"), pod("shy", "shy", ready="false"))
    eventually(lambda: world.health(f"shy-running-{connection}").keys() == {"shy"})
    always(lambda: world.health(f"shy-ready-{connection}") == {}, during=0.5)
    world.annotate("shy", ready=None)
    world.passing(f"shy-ready-{connection}", 1)


@pytest.mark.shows("sreg.spec.pods.address", "sreg.spec.pods.ipFamily")
def test_an_instance_has_the_address_that_is_asked_for(world: World, connection: str) -> None:
    selector = {"selector": {"matchLabels": {"app": "hosted"}}}
    ports = [{"name": "http", "containerPort": 8080, "hostPort": 30123}]
    world.apply(deployment("hosted", 1, ports=ports))
    world.apply(published("hosted", connection, pods=selector | {"address": "HostIP"}))
    (row,) = world.passing(f"hosted-{connection}", 1).values()
    node = row["Service"]["Meta"]["k8s-node"]
    assert (row["Service"]["Address"], row["Service"]["Port"]) == (world.cluster.nodes[node], 30123)
    world.patch("hosted", {"pods": {"address": "PodIP", "ipFamily": "IPv4"}})
    (live,) = world.pods("hosted").values()

    def address() -> tuple[str, int]:
        (now,) = world.health(f"hosted-{connection}").values()
        return now["Service"]["Address"], now["Service"]["Port"]

    eventually(lambda: address() == (live["status"]["podIP"], 8080))
    world.patch("hosted", {"pods": {"ipFamily": "IPv6"}})
    assert "has no IPv6 address" in world.says("hosted", "AddressNotFound")["message"]
    assert address() == (live["status"]["podIP"], 8080)


@pytest.mark.shows("sreg.spec.suspend")
def test_what_is_suspended_stays_as_it_is_until_it_isnt(world: World, connection: str) -> None:
    name = f"still-{connection}"
    world.apply(deployment("still", 1), published("still", connection))
    world.passing(name, 1)
    world.patch("still", {"suspend": True, "service": {"tags": ["later"]}})
    world.says("still", "Suspended")
    assert [row["Service"]["Tags"] for row in world.health(name).values()] == [[]]
    world.patch("still", {"suspend": False})
    eventually(lambda: [row["Service"]["Tags"] for row in world.health(name).values()] == [["later"]])


@pytest.mark.shows(
    "sreg.spec.endpoints[].name",
    "sreg.spec.endpoints[].address",
    "sreg.spec.endpoints[].port",
    "sreg.spec.endpoints[].meta",
    "sreg.spec.endpoints[].tags",
    "sreg.spec.endpoints[].weights",
    "sreg.spec.endpoints[].checks",
)
def test_each_endpoint_has_what_it_says_of_itself(world: World, connection: str) -> None:
    one = {"name": "one", "address": "192.0.2.1", "port": 5432, "meta": {"role": "primary"}, "tags": ["rw"]}
    one |= {"weights": {"passing": 7, "warning": 3}, "checks": ["first"]}
    two = {"name": "two", "address": "db.example.com", "port": 5433}
    checks = [{"name": name, "tcp": {}, "initialStatus": "passing", "interval": "1h"} for name in ("first", "second")]
    world.apply(published("ends", connection, service={"tags": ["db"]}, endpoints=[one, two], checks=checks))
    eventually(lambda: world.health(f"ends-{connection}").keys() == {"one", "two"})
    rows = world.health(f"ends-{connection}")
    first, second = rows["one"]["Service"], rows["two"]["Service"]
    assert (first["Address"], first["Port"], sorted(first["Tags"])) == ("192.0.2.1", 5432, ["db", "rw"])
    assert (first["Meta"]["role"], first["Weights"]) == ("primary", {"Passing": 7, "Warning": 3})
    assert (second["Address"], second["Port"], second["Tags"]) == ("db.example.com", 5433, ["db"])
    assert (second["Weights"], "role" in second["Meta"]) == ({"Passing": 1, "Warning": 1}, False)
    assert [sorted(statuses(rows[name])) for name in ("one", "two")] == [["first"], ["first", "second"]]
