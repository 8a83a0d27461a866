"""Fields of the custom resources that no story tells of: each is set, and what came of it is asked of the real Consul.

Each in both modes, where it is of any meaning. Which field is shown where says the mark `shows`; the table made of it
is docs/reference/fields.md. Those of checks are in `test_check_fields.py`.
"""

from typing import Any

import pytest
from operator_world import MERGE, World, always, deployment, eventually, pod, published, statuses


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


ZONE = "test.example/zone"
NOTE = "$(metadata.name) $(reboot) ${HOME} `id` {{ 7*7 }}"


def annotated(name: str, app: str, note: str) -> dict[str, Any]:
    """A Pod with an annotation `note` and a label `weight`."""
    made = pod(name, app)
    made["metadata"]["annotations"]["note"] = note
    made["metadata"]["labels"]["weight"] = "7"
    return made


@pytest.mark.shows("sreg.spec.service.tags", "sreg.spec.service.meta", "sreg.spec.service.weights")
def test_each_field_path_gives_what_kubernetes_says_and_what_it_gives_is_text(world: World, connection: str) -> None:
    """What an annotation holds may look like code to somebody: it arrives as it is."""
    world.cluster.kubectl("label", "--overwrite", "nodes", "--all", f"{ZONE}=east")
    paths = {
        "name": "$(metadata.name)",
        "space": "$(metadata.namespace)",
        "node": "$(spec.nodeName)",
        "at": "$(status.podIP)",
        "host": "$(status.hostIP)",
        "app": "$(metadata.labels['app'])",
        "note": "$(metadata.annotations['note'])",
        "zone": f"$(node.metadata.labels['{ZONE}'])",
        "else": "$(metadata.labels['none']:-nothing)",
        "literal": "$$(metadata.name)",
    }
    weights = {"passing": "$(metadata.labels['weight'])", "warning": "$(metadata.labels['none']:-3)"}
    service = {"meta": paths, "tags": [f"{key}={text}" for key, text in paths.items()], "weights": weights}
    world.apply(annotated("one", "paths", NOTE), published("paths", connection, service=service))
    name = f"paths-{connection}"
    world.passing(name, 1)
    live = world.pods("paths")["one"]
    given = {
        "name": "one",
        "space": world.namespace,
        "node": live["spec"]["nodeName"],
        "at": live["status"]["podIP"],
        "host": live["status"]["hostIP"],
        "app": "paths",
        "note": NOTE,
        "zone": "east",
        "else": "nothing",
        "literal": "$(metadata.name)",
    }

    def stands(wanted: dict[str, str]) -> None:
        found = world.health(name)["one"]["Service"]
        assert {key: found["Meta"].get(key) for key in wanted} == wanted
        assert set(found["Tags"]) == {f"{key}={text}" for key, text in wanted.items()}
        assert found["Weights"] == {"Passing": 7, "Warning": 3}

    stands(given)
    world.cluster.kubectl("label", "--overwrite", "nodes", "--all", f"{ZONE}=west")
    eventually(lambda: stands(given | {"zone": "west"}))


@pytest.mark.shows("sreg.spec.service.meta", "sreg.spec.service.tags")
@pytest.mark.parametrize(
    ("service", "long", "says"),
    [
        (
            {"meta": {"note": "$(metadata.annotations['note'])"}},
            "x" * 513,
            "spec.service.meta[note] must be at most 512",
        ),
        (
            {"meta": {"note": "$(metadata.annotations['note'])"}},
            "\u00e9" * 257,
            "spec.service.meta[note] must be at most 512",
        ),
        ({"tags": ["$(metadata.annotations['note'])"]}, "x" * 256, "1 to 255"),
    ],
    ids=["meta", "bytes", "tags"],
)
def test_a_value_that_is_too_long_is_the_problem_of_that_pod_alone(
    world: World, connection: str, service: dict[str, Any], long: str, says: str
) -> None:
    world.apply(published("long", connection, service=service))
    world.apply(annotated("good", "long", "short"), annotated("bad", "long", long))
    assert says in world.says("long", "ValueInvalid")["message"]
    assert world.passing(f"long-{connection}", 1).keys() == {"good"}
    (worst,) = world.registration("long")["status"]["problems"]["worst"]
    assert (worst["subject"], worst["reason"]) == ("bad", "ValueInvalid")
    path = f"/api/v1/namespaces/{world.namespace}/pods/bad"
    world.cluster.api.request("PATCH", path, {"metadata": {"annotations": {"note": "shorter"}}}, MERGE)
    world.passing(f"long-{connection}", 2)
    world.says("long", "Registered")


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


@pytest.mark.shows("sreg.spec.suspend", "sreg.spec.deletionPolicy")
def test_what_is_suspended_and_deleted_is_orphaned(world: World, connection: str) -> None:
    name = f"left-{connection}"
    world.apply(published("left", connection, endpoints=[{"name": "one", "address": "192.0.2.1", "port": 80}]))
    (row,) = world.passing(name, 1).values()
    world.patch("left", {"suspend": True})
    world.says("left", "Suspended")
    world.kubectl("delete", "sreg", "left", "--timeout=180s")
    (orphan,) = world.passing(name, 1).values()
    assert orphan["Service"]["ID"] == row["Service"]["ID"]
    assert orphan["Service"]["Meta"]["orphaned-from"] == f"test/{connection}/{world.namespace}/left"
    if connection == "default":
        holder = world.cluster.consul.agents[row["Node"]["Node"]]
        holder.request("PUT", f"/v1/agent/service/deregister/{row['Service']['ID']}")
    else:
        what = {"Node": row["Node"]["Node"], "ServiceID": row["Service"]["ID"]}
        world.cluster.consul.server.request("PUT", "/v1/catalog/deregister", what)


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
