"""Registrations by annotation of a Deployment, StatefulSet or DaemonSet: made, kept, left to people, taken back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from operator_world import (
    GROUP,
    MERGE,
    Operator,
    World,
    always,
    connection,
    deployment,
    eventually,
    operating,
    registration,
    statuses,
)

from devcluster import Cluster
from devcluster.kube import ApiError

REGISTER = f"{GROUP}/register"
PLURALS = {"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets"}


@pytest.fixture(scope="module")
def operator(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator that looks at annotations."""
    with operating(cluster, tmp_path_factory.mktemp("operator"), "--annotated-workloads=true") as one:
        yield one


def workload(kind: str, name: str, **annotations: str) -> dict[str, Any]:
    """A workload whose Pods have the label app=<name>; `_` in an annotation's name stands for `-`."""
    made = deployment(name, 2)
    made["kind"] = kind
    made["metadata"]["annotations"] = {f"{GROUP}/{key.replace('_', '-')}": text for key, text in annotations.items()}
    if kind == "StatefulSet":
        made["spec"]["serviceName"] = name
    if kind == "DaemonSet":
        del made["spec"]["replicas"]
    return made


def annotate(world: World, name: str, kind: str = "Deployment", **annotations: str | None) -> None:
    given = {f"{GROUP}/{key.replace('_', '-')}": text for key, text in annotations.items()}
    path = f"/apis/apps/v1/namespaces/{world.namespace}/{PLURALS[kind]}/{name}"
    world.cluster.api.request("PATCH", path, {"metadata": {"annotations": given}}, MERGE)


def told(world: World, reason: str) -> str:
    """Wait for an Event with this reason; what it says."""

    def look() -> str:
        found = json.loads(world.kubectl("get", "events", "-o", "json"))["items"]
        return next(event["message"] for event in found if event["reason"] == reason)

    return eventually(look)


def spec(world: World, name: str) -> dict[str, Any]:
    found: dict[str, Any] = world.registration(name)["spec"]
    return found


@pytest.mark.parametrize("kind", PLURALS)
def test_an_annotated_workload_gets_a_registration_of_its_own(world: World, kind: str) -> None:
    world.apply(workload(kind, "shop", register="http"))
    count = 3 if kind == "DaemonSet" else 2
    world.passing("shop", count)
    (owner,) = world.registration("shop")["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == (kind, "shop", True)
    assert spec(world, "shop")["pods"]["selector"] == {"matchLabels": {"app": "shop"}}
    assert spec(world, "shop")["service"] == {"port": "http"} | spec(world, "shop")["service"]


def test_the_example_is_registered(world: World) -> None:
    world.example("09-by-annotation.yaml")
    row = next(iter(world.passing("annotated-web", 2).values()))
    assert statuses(row) == {"ready": "passing", "port": "passing"}


def test_further_annotations_say_name_tags_metadata_and_checks(world: World) -> None:
    checks = json.dumps([{"name": "port", "tcp": {}, "interval": "1s"}])
    world.apply(
        workload(
            "Deployment",
            "rich",
            register="8080",
            service_name="rich-api",
            service_tags="v1, $(metadata.labels['app'])",
            service_meta="team=shop, tier=front",
            checks=checks,
        )
    )
    row = next(iter(world.passing("rich-api", 2).values()))
    assert sorted(row["Service"]["Tags"]) == ["rich", "v1"]
    assert {"team": "shop", "tier": "front"}.items() <= row["Service"]["Meta"].items()
    assert row["Service"]["Port"] == 8080
    assert statuses(row) == {"port": "passing"}


def test_a_further_annotation_says_in_which_consuls(world: World) -> None:
    other = f"{world.namespace}-catalog"
    where = {"addresses": [world.cluster.consul.http_addr], "virtualNodes": 1}
    world.apply(connection(other, mode="Catalog", **where))
    world.apply(workload("Deployment", "both", register="http", consul=f"default, {other}"))
    rows = eventually(lambda: _standing(world, "both", 4))
    assert {row["ServiceMeta"]["k8s-connection"] for row in rows} == {"default", other}
    annotate(world, "both", consul=other)
    rows = eventually(lambda: _standing(world, "both", 2))
    assert {row["ServiceMeta"]["k8s-connection"] for row in rows} == {other}
    annotate(world, "both", register=None)
    eventually(lambda: _standing(world, "both", 0) == [])
    world.kubectl("delete", "cconn", other, "--timeout=180s")


def _standing(world: World, service: str, count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = world.consul(f"/v1/catalog/service/{service}")
    assert len(rows) == count
    return rows


def test_a_workload_without_the_annotation_gets_nothing(world: World) -> None:
    world.apply(workload("Deployment", "bare", service_name="bare"))
    always(lambda: not world.exists("bare"), during=2)


def test_an_edit_of_the_annotations_is_an_edit_of_the_registration(world: World) -> None:
    world.apply(workload("Deployment", "edit", register="http", service_tags="a,b"))
    eventually(lambda: sorted(spec(world, "edit")["service"]["tags"]) == ["a", "b"])
    annotate(world, "edit", service_tags="b,c", service_name="renamed")
    eventually(lambda: sorted(spec(world, "edit")["service"]["tags"]) == ["b", "c"])
    world.passing("renamed", 2)
    annotate(world, "edit", service_tags=None, service_name=None)
    eventually(lambda: not spec(world, "edit")["service"].get("tags"))
    eventually(lambda: spec(world, "edit")["service"].get("name") is None)


def test_what_annotations_say_wins_and_everything_else_is_peoples(world: World) -> None:
    world.apply(workload("Deployment", "mine", register="http", service_tags="ours"))
    world.passing("mine", 2)
    world.patch("mine", {"service": {"port": 9999, "meta": {"by": "hand"}}, "deletionPolicy": "Orphan"})
    eventually(lambda: spec(world, "mine")["service"]["port"] == "http")
    annotate(world, "mine", service_tags="ours,other")
    eventually(lambda: sorted(spec(world, "mine")["service"]["tags"]) == ["other", "ours"])
    assert spec(world, "mine")["service"]["meta"] == {"by": "hand"}
    assert spec(world, "mine")["deletionPolicy"] == "Orphan"


def test_what_is_deleted_by_hand_is_made_again(world: World) -> None:
    world.apply(workload("Deployment", "back", register="http"))
    before = eventually(lambda: world.registration("back")["metadata"]["uid"])
    world.kubectl("delete", "sreg", "back", "--timeout=180s")
    eventually(lambda: world.registration("back")["metadata"]["uid"] != before)
    world.passing("back", 2)


def test_at_rest_nothing_is_written(world: World, operator: Operator) -> None:
    world.apply(workload("Deployment", "calm", register="http", service_tags="a"))
    world.passing("calm", 2)
    world.registered("calm", 2)
    before = eventually(lambda: settled(world, "calm"))
    world.kubectl("scale", "deployment", "calm", "--replicas=2")
    operator.restart()
    world.says("calm", "Registered")
    always(lambda: world.registration("calm")["metadata"]["resourceVersion"] == before, during=3)


def settled(world: World, name: str) -> str:
    first: str = world.registration(name)["metadata"]["resourceVersion"]
    always(lambda: world.registration(name)["metadata"]["resourceVersion"] == first, during=2)
    return first


def test_without_the_annotation_the_registration_goes_and_what_it_registered(world: World) -> None:
    world.apply(workload("Deployment", "gone", register="http"))
    world.passing("gone", 2)
    annotate(world, "gone", register=None)
    eventually(lambda: not world.exists("gone"))
    eventually(lambda: not world.catalog("gone"))
    assert len(world.pods("gone")) == 2


def test_what_was_taken_away_while_no_operator_ran_goes_as_well(world: World, operator: Operator) -> None:
    world.apply(workload("Deployment", "missed", register="http"))
    world.passing("missed", 2)
    operator.kill()
    annotate(world, "missed", register=None)
    operator.start()
    eventually(lambda: not world.exists("missed"))


def test_with_its_workload_the_registration_goes(world: World) -> None:
    world.apply(workload("Deployment", "whole", register="http"))
    world.passing("whole", 2)
    world.kubectl("delete", "deployment", "whole", "--timeout=180s")
    eventually(lambda: not world.exists("whole"))
    eventually(lambda: not world.catalog("whole"))


def test_a_workload_that_is_deleted_alone_leaves_its_registration_to_people(world: World) -> None:
    for name in ("known", "left"):
        world.apply(workload("Deployment", name, register="http", service_tags="a"))
        world.passing(name, 2)
    world.kubectl("delete", "deployment", "known", "--timeout=180s")
    eventually(lambda: not world.exists("known"))  # from then on Kubernetes' garbage collector knows of the definition
    world.kubectl("delete", "deployment", "left", "--cascade=orphan", "--timeout=180s")
    eventually(lambda: not world.registration("left")["metadata"].get("ownerReferences"))
    world.patch("left", {"service": {"tags": ["b"]}})
    eventually(lambda: {tuple(row["Service"]["Tags"]) for row in world.passing("left", 2).values()} == {("b",)})
    always(lambda: spec(world, "left")["service"]["tags"] == ["b"], during=2)


def test_switched_off_nothing_is_made_and_what_was_made_goes_on_to_work(
    world: World, operator: Operator, tmp_path: Path
) -> None:
    world.apply(workload("Deployment", "old", register="http", service_tags="a"))
    world.passing("old", 2)
    operator.stop()
    without = Operator(world.cluster, tmp_path)
    without.start()
    try:
        annotate(world, "old", service_tags="b")
        world.apply(workload("Deployment", "new", register="http"))
        world.kubectl("scale", "deployment", "old", "--replicas=3")
        world.passing("old", 3)
        always(lambda: not world.exists("new") and spec(world, "old")["service"]["tags"] == ["a"], during=2)
    finally:
        without.stop()
        operator.start()
    eventually(lambda: spec(world, "old")["service"]["tags"] == ["b"])
    world.passing("new", 2)


def test_a_registration_of_somebody_else_is_never_touched(world: World) -> None:
    world.apply(registration("theirs", service={"name": "theirs-really"}))
    before = eventually(lambda: settled(world, "theirs"))
    world.apply(workload("Deployment", "theirs", register="http"))
    assert "was not made for this Deployment" in told(world, "RegistrationNotOurs")
    world.passing("theirs-really", 2)
    annotate(world, "theirs", register=None)
    always(lambda: world.registration("theirs")["spec"]["service"]["name"] == "theirs-really", during=2)
    assert "ownerReferences" not in world.registration("theirs")["metadata"]
    assert before


@pytest.mark.parametrize(
    ("annotations", "says"),
    [
        ({"register": ""}, "register: must be the port"),
        ({"register": "99999"}, "register: spec.service.port"),
        ({"register": "http", "checks": "port"}, "checks: must be a JSON list"),
        ({"register": "http", "checks": '[{"name": "odd"}]'}, "checks: spec.checks[0]"),
        ({"register": "http", "service_name": "consul"}, "service-name: spec.service.name"),
        ({"register": "http", "service_meta": "a"}, "service-meta: must be key=value"),
    ],
)
def test_what_is_wrong_is_said_on_the_workload_and_nothing_is_made(
    world: World, annotations: dict[str, str], says: str
) -> None:
    world.apply(workload("Deployment", "wrong", **annotations))
    assert f"annotation {GROUP}/{says}" in told(world, "AnnotationInvalid")
    with pytest.raises(ApiError):
        world.registration("wrong")
    annotate(world, "wrong", register="http", checks=None, service_name=None, service_meta=None)
    world.passing("wrong", 2)


def test_a_wrong_edit_leaves_what_stands(world: World) -> None:
    world.apply(workload("Deployment", "firm", register="http"))
    world.passing("firm", 2)
    annotate(world, "firm", checks="none")
    told(world, "AnnotationInvalid")
    always(lambda: len(world.health("firm", passing=True)) == 2, during=2)
