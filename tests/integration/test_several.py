"""Registrations beside others and beside what is in Consul already, in both modes."""

import threading

import pytest
from listener import Listener
from operator_world import MERGE, Operator, World, deployment, eventually, pod, registration, statuses
from scenarios.test_life_cycle import watching
from test_connection_fields import terms as put_terms

from devcluster import Cluster

CONNECTIONS = "/apis/consul-registrar.dev/v1alpha1/consulconnections"


def registering(name: str, app: str, connection: str, **spec: object) -> dict:
    pods = {"selector": {"matchLabels": {"app": app}}}
    return registration(name, consulRefs=[{"name": connection}], pods=pods, **spec)


def by_registration(world: World, service: str) -> dict[str, set[str]]:
    """Which Pods each registration has under a name."""
    found: dict[str, set[str]] = {}
    for row in world.consul(f"/v1/catalog/service/{service}"):
        found.setdefault(row["ServiceMeta"].get("k8s-registration", ""), set()).add(row["ServiceMeta"]["k8s-pod"])
    return found


ADOPT = "consul-registrar.dev/adopt"


def rows(world: World, service: str) -> list[dict]:
    found: list[dict] = world.consul(f"/v1/catalog/service/{service}")
    return found


def by_hand(cluster: Cluster, connection: str, service: str, address: str) -> None:
    """What somebody has registered: at an agent, or in the catalog on a node of their own."""
    one = {"ID": f"{service}-by-hand", "Address": address, "Port": 5432}
    if connection == "default":
        check = {"Name": "alive", "TTL": "1h", "Status": "passing"}
        cluster.consul.agents["node-1"].request(
            "PUT", "/v1/agent/service/register", one | {"Name": service, "Check": check}
        )
        return
    node = {"Node": "legacy", "Address": "192.0.2.1", "Service": one | {"Service": service}}
    cluster.consul.server.request("PUT", "/v1/catalog/register", node)


@pytest.mark.shows("sreg.spec.deletionPolicy")
def test_what_was_orphaned_or_made_by_hand_is_adopted_by_an_annotation_only(
    world: World, cluster: Cluster, connection: str
) -> None:
    service, address = f"adopted-{connection}", "192.0.2.7"
    other = f"{service}-other"
    by_hand(cluster, connection, service, address)
    by_hand(cluster, connection, other, address)
    endpoints = [{"name": "primary", "address": address, "port": 5432}]
    mine = registration("mine", consulRefs=[{"name": connection}], service={"name": service}, endpoints=endpoints)
    world.apply(mine | {"spec": mine["spec"] | {"deletionPolicy": "Orphan"}})
    eventually(lambda: len(rows(world, service)) == 2)
    world.says("mine", "Registered")
    world.kubectl("delete", "sreg", "mine")
    world.apply(mine)
    eventually(lambda: len(rows(world, service)) == 3)

    def is_adopted() -> bool:
        return [row["ServiceMeta"].get("k8s-registration") for row in rows(world, service)] == ["mine"]

    with watching(lambda: len(world.consul(f"/v1/health/service/{service}?passing")) > 0) as missed:
        world.kubectl("annotate", "sreg", "mine", f"{ADOPT}=true")
        eventually(is_adopted)
    assert missed == []
    assert world.says("mine", "Registered")["status"] == "True"
    assert [row["ServiceID"] for row in rows(world, other)] == [f"{other}-by-hand"]
    world.kubectl("delete", "sreg", "mine")
    assert rows(world, service) == []


def test_all_of_a_registration_is_read_anew_on_demand_and_nothing_is_written_where_all_is_right(
    world: World, connection: str
) -> None:
    service = f"anew-{connection}"
    timing = {"interval": "90s", "timeout": "1500ms", "deregisterCriticalServiceAfter": "20s"}
    checks = [
        {"name": "ready", "readiness": {}},
        {"name": "timed", "tcp": {}, "initialStatus": "passing", **timing},
        {"name": "plain", "http": {}, "initialStatus": "passing"},
    ]
    world.apply(deployment("anew", 2))
    world.apply(registering("anew", "anew", connection, service={"name": service}, checks=checks))
    world.passing(service, 2)
    world.says("anew", "Registered")
    before = {row["ServiceID"]: row["ModifyIndex"] for row in rows(world, service)}
    for value in ("2026-01-01", "again"):
        world.kubectl("annotate", "--overwrite", "sreg", "anew", f"consul-registrar.dev/resync={value}")
        eventually(lambda value=value: world.registration("anew")["status"].get("resync") == value)
        assert world.condition("anew")["reason"] == "Registered"
    assert {row["ServiceID"]: row["ModifyIndex"] for row in rows(world, service)} == before


def test_each_pod_has_the_service_name_that_its_label_makes_and_a_bad_one_is_its_own_problem(
    world: World, connection: str
) -> None:
    made = f"{connection}-$(metadata.labels['track'])"
    world.apply(registering("each", "each", connection, service={"name": made}))
    world.apply(*(pod(name, "each") for name in ("blue", "green", "bad")))
    for name in ("blue", "green"):
        world.kubectl("label", "pod", name, f"track={name}")
    world.passing(f"{connection}-blue", 1)
    world.passing(f"{connection}-green", 1)
    assert "metadata.labels['track'] has no value" in world.says("each", "FieldPathNotFound")["message"]
    world.kubectl("label", "pod", "bad", "track=fine")
    world.passing(f"{connection}-fine", 1)
    world.kubectl("label", "--overwrite", "pod", "blue", "track=green")
    eventually(lambda: world.health(f"{connection}-green").keys() == {"blue", "green"})
    eventually(lambda: world.health(f"{connection}-blue") == {})


def test_consul_answers_for_a_name_in_any_spelling_so_another_namespace_can_not_have_it_in_another(
    world: World, neighbour: World, connection: str
) -> None:
    name, spelt = f"spelt-{connection}", f"SPELT-{connection}"
    world.apply(pod("mine", "spelt"), registering("mine", "spelt", connection, service={"name": name}))
    world.passing(name, 1)
    assert world.health(spelt).keys() == {"mine"}
    threading.Event().wait(1.1)  # the API server counts seconds
    neighbour.apply(pod("theirs", "spelt"), registering("theirs", "spelt", connection, service={"name": spelt}))
    assert (
        f"'{spelt}' belongs to namespace '{world.namespace}'" in neighbour.says("theirs", "ServiceNameTaken")["message"]
    )
    assert spelt not in world.consul("/v1/catalog/services")
    terms = {"allowedNamespaces": {"names": [neighbour.namespace]}}
    path = f"{CONNECTIONS}/{connection}"
    world.cluster.api.request("PATCH", path, {"spec": terms}, MERGE)
    try:
        assert neighbour.says("theirs", "Registered")["status"] == "True"
        world.says("mine", "NamespaceNotAllowed", "Accepted")
        assert world.health(name).keys() == {"mine", "theirs"}  # what stood stays
        world.kubectl("delete", "pod", "mine")
        eventually(lambda: world.health(name).keys() == {"theirs"})
    finally:
        world.cluster.api.request("PATCH", path, {"spec": dict.fromkeys(terms)}, MERGE)


@pytest.mark.shows("sreg.spec.checks[].http.headers[].valueFrom", mode="catalog", condition="CheckNotSupported")
def test_a_header_out_of_a_secret_reaches_agents_only_and_is_shown_nowhere(
    world: World, operator: Operator, connection: str
) -> None:
    service, value = f"secret-{connection}", "s3cret-of-the-probe"
    world.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "probe"}, "stringData": {"token": value}})
    header = {"name": "X-Probe", "valueFrom": {"secretKeyRef": {"name": "probe", "key": "token"}}}
    checks = [{"name": "health", "http": {"headers": [header]}, "interval": "1s"}]
    world.apply(registering("secret", "secret", connection, service={"name": service}, checks=checks))
    world.apply(pod("one", "secret"))
    if connection == "default":
        eventually(lambda: len(rows(world, service)) == 1)
        world.says("secret", "Registered")
        world.kubectl("delete", "secret", "probe")
        assert "Secret" in world.says("secret", "SecretNotFound")["message"]
        assert len(rows(world, service)) == 1
    else:
        assert "a header from a Secret" in world.says("secret", "CheckNotSupported")["message"]
        assert rows(world, service) == []
    seen = (
        world.consul(f"/v1/health/service/{service}"),
        world.registration("secret")["status"],
        world.kubectl("get", "events"),
    )
    assert value not in f"{seen}{operator.log}"


@pytest.mark.shows("sreg.spec.checks[].http.headers[].valueFrom", mode="agent")
def test_a_probe_shows_the_secret_and_its_successor(world: World, operator: Operator, listener: Listener) -> None:
    def holds(value: str) -> None:
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "probe"}, "stringData": {"token": value}}
        world.apply(secret)

    holds("s3cret-one")
    header = {"name": "X-Probe", "valueFrom": {"secretKeyRef": {"name": "probe", "key": "token"}}}
    checks = [{"name": "health", "http": {"headers": [header]}, "interval": "1s"}]
    endpoints = [{"name": "primary", "address": "127.0.0.1", "port": listener.port}]
    world.apply(registration("shown", service={"name": "shown"}, endpoints=endpoints, checks=checks))
    world.passing("shown", 1)
    assert set(listener.shown) == {"s3cret-one"}
    holds("s3cret-two")
    eventually(lambda: listener.shown[-1] == "s3cret-two")
    assert len(world.health("shown")) == 1
    assert "s3cret" not in operator.log


@pytest.mark.shows("sreg.spec.checksFromProbes")
def test_checks_out_of_readiness_probes_are_run_by_agents_and_refused_where_thresholds_are_not_to_be_had(
    world: World, connection: str
) -> None:
    service = f"probed-{connection}"
    probe = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1, "failureThreshold": 2}
    world.apply(deployment("probed", 1, readinessProbe=probe))
    world.apply(registering("probed", "probed", connection, service={"name": service}, checksFromProbes=True))
    if connection == "default":
        (row,) = world.passing(service, 1).values()
        assert statuses(row) == {"probe:main": "passing"}
        assert any("HTTP GET" in check["Output"] for check in row["Checks"])
        (name,) = world.pods("probed")
        world.annotate(name, health="503")
        eventually(lambda: statuses(world.health(service)[name]) == {"probe:main": "critical"})
        world.annotate(name, health=None)
        world.passing(service, 1)
    else:
        assert "thresholds" in world.says("probed", "CheckNotSupported")["message"]
    world.apply(deployment("probed", 1, readinessProbe={"exec": {"command": ["true"]}}))
    assert "runs a command" in world.says("probed", "ProbeNotSupported")["message"]


@pytest.mark.shows(
    "cconn.spec.mode",
    "cconn.spec.serviceNamePattern",
    "cconn.spec.checkPolicy.types",
    "cconn.spec.checkPolicy.ports",
    "cconn.spec.defaults.tags",
    "cconn.spec.defaults.meta",
    "cconn.spec.defaults.weights.passing",
)
def test_a_connections_terms_hold_for_all_its_registrations(world: World, cluster: Cluster, connection: str) -> None:
    terms = {
        "serviceNamePattern": "$(metadata.namespace)-*",
        "checkPolicy": {"types": ["readiness", "tcp"], "ports": [{"first": 1024, "last": 65535}]},
        "defaults": {"tags": ["k8s"], "meta": {"team": "platform"}, "weights": {"passing": 5}},
    }
    path = f"{CONNECTIONS}/{connection}"
    put_terms(world, connection, **terms)
    try:
        fits = f"{world.namespace}-{connection}"
        world.apply(deployment("terms", 1), registering("terms", "terms", connection, service={"name": fits}))
        eventually(lambda: len(rows(world, fits)) == 1)
        (row,) = rows(world, fits)
        weights = {"Passing": 5, "Warning": 1}
        assert (row["ServiceTags"], row["ServiceMeta"]["team"], row["ServiceWeights"]) == (["k8s"], "platform", weights)
        world.apply(registering("misnamed", "terms", connection))
        assert "must match" in world.says("misnamed", "ServiceNameNotAllowed", "Accepted")["message"]
        checks = [{"name": "low", "tcp": {"port": 22}}]
        world.apply(registering("low", "terms", connection, service={"name": f"{fits}-low"}, checks=checks))
        assert "its port" in world.says("low", "CheckNotAllowed")["message"]
        assert rows(world, f"{fits}-low") == rows(world, "misnamed") == []
    finally:
        cluster.api.request("PATCH", path, {"spec": dict.fromkeys(terms)}, MERGE)
    eventually(lambda: [row["ServiceTags"] for row in rows(world, fits)] == [[]])


@pytest.mark.shows("cconn.spec.serviceNamePattern")
def test_a_name_that_fits_two_namespaces_belongs_to_the_one_with_the_longer_name(
    world: World, cluster: Cluster, connection: str
) -> None:
    longer = World(cluster, f"{world.namespace}-eu")
    world.kubectl("create", "namespace", longer.namespace)
    put_terms(world, connection, serviceNamePattern="$(metadata.namespace)-*")
    try:
        service = f"{longer.namespace}-{connection}"
        for each in (world, longer):
            each.apply(deployment("fits", 1), registering("fits", "fits", connection, service={"name": service}))
        assert longer.namespace in world.says("fits", "ServiceNameNotAllowed", "Accepted")["message"]
        longer.registered("fits", 1)
        assert {row["ServiceMeta"]["k8s-namespace"] for row in rows(world, service)} == {longer.namespace}
        longer.kubectl("delete", "sreg", "fits", "--timeout=180s")
        world.kubectl("delete", "namespace", longer.namespace, "--wait=false")
    finally:
        cluster.api.request("PATCH", f"{CONNECTIONS}/{connection}", {"spec": {"serviceNamePattern": None}}, MERGE)


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
