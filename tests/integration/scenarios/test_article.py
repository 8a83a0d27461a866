"""What one does with Consul's service discovery, step by step, each with an example file and Consul's own answers."""

import itertools
import time
from typing import Any

import pytest
from operator_world import World, call, deployment, eventually, pod, registration, statuses


def answer(row: dict[str, Any], path: str = "/") -> tuple[int, str]:
    """What an instance answers; a simulated Pod may be ready a moment before somebody listens for it."""
    return eventually(lambda: call(row, path))


def test_three_lines_register_every_pod_under_the_name_of_the_registration(world: World) -> None:
    world.example("02-web-three-lines.yaml")
    rows = world.passing("web", 3)
    pods = world.pods("web")
    assert {name: row["Service"]["Address"] for name, row in rows.items()} == {
        name: pod["status"]["podIP"] for name, pod in pods.items()
    }
    assert {row["Service"]["Port"] for row in rows.values()} == {8080}
    assert all(statuses(row) == {"readiness": "passing"} for row in rows.values())
    says = world.says("web", "Registered", message="3 of 3 instances registered, 3 passing")
    assert says["status"] == "True"
    world.kubectl("wait", "--for=condition=Ready", "sreg/web", "--timeout=180s")
    line = world.kubectl("get", "sreg", "web", "--no-headers").split()
    assert line[:5] == ["web", "True", "web", "3/3", "3"]
    listed = world.kubectl("get", "consul", "-o", "name")
    assert "serviceregistration.consul-registrar.dev/web" in listed
    assert "consulconnection.consul-registrar.dev/default" in listed
    assert "Tags of each instance" in world.kubectl("explain", "sreg.spec.service.tags")


@pytest.mark.shows(
    "sreg.spec.service.name",
    "sreg.spec.service.port",
    "sreg.spec.service.tags",
    "sreg.spec.service.meta",
    "sreg.spec.pods.selector.matchLabels",
    mode="agent",
)
def test_a_service_has_id_name_tags_address_port_and_metadata_from_labels(world: World) -> None:
    world.example("03-service-with-everything.yaml")
    world.passing("shop-frontend", 2)
    rows = world.catalog("shop-frontend")
    pods = world.pods("frontend")
    assert rows.keys() == pods.keys()
    assert len({row["ServiceID"] for row in rows.values()}) == 2
    for name, row in rows.items():
        assert row["ServiceID"].startswith(f"{world.namespace}-frontend-{name}-")
        assert row["ServiceName"] == "shop-frontend"
        assert sorted(row["ServiceTags"]) == ["http", "track-stable", "v1"]
        assert (row["ServiceAddress"], row["ServicePort"]) == (pods[name]["status"]["podIP"], 8080)
        meta = row["ServiceMeta"]
        assert meta["version"] == "1.4.2"
        assert meta["node"] == pods[name]["spec"]["nodeName"] == row["Node"]
        assert meta["protocol"] == "http"
        assert meta["external-source"] == "kubernetes"
        assert meta["k8s-pod-uid"] == pods[name]["metadata"]["uid"]


@pytest.mark.shows("sreg.spec.checks[].name", "sreg.spec.checks[].interval", "sreg.spec.checks[].timeout", mode="agent")
def test_a_tcp_check_runs_every_5_s_and_its_user_is_told_of_consuls_minimum(world: World) -> None:
    world.example("04-tcp-check.yaml")
    rows = world.passing("cache", 2)
    for row in rows.values():
        check = world.agent_checks(row)["port"]
        assert (check["Type"], check["Interval"], check["Timeout"]) == ("tcp", "5s", "5s")
    note = world.says("cache", "Accepted", "Accepted")
    assert note["status"] == "True"
    assert "checks[port].deregisterCriticalServiceAfter: 20s is below Consul's minimum, 1m is used" in note["message"]


def test_a_tcp_check_turns_critical_when_nothing_listens_and_passing_again(world: World) -> None:
    world.apply(
        registration("door", checks=[{"name": "port", "tcp": {}, "interval": "1s", "timeout": "1s"}]),
        deployment("door", 2),
    )
    name = min(world.passing("door", 2))
    world.annotate(name, listen="false")
    eventually(lambda: statuses(world.health("door")[name]) == {"port": "critical"})
    assert len(world.health("door", passing=True)) == 1
    world.annotate(name, listen=None)
    world.passing("door", 2)


@pytest.mark.slow
@pytest.mark.shows("sreg.spec.checks[].deregisterCriticalServiceAfter", mode="agent")
def test_what_stays_critical_is_removed_by_its_agent_and_the_operator_does_not_fight_it(world: World) -> None:
    world.example("04-tcp-check.yaml")
    name, other = sorted(world.passing("cache", 2))
    world.annotate(name, listen="false")
    eventually(lambda: world.health("cache").keys() == {other}, within=200)
    says = world.says("cache", "Reaped")
    assert says["status"] == "False"
    assert [entry["name"] for entry in world.registration("cache")["status"]["reaped"]] == [name]
    # A Pod that has changed is tried again at once.
    world.annotate(name, listen=None)
    world.annotate(name, restarts="1")
    world.passing("cache", 2)
    world.says("cache", "Registered")


def test_an_http_check_asks_for_health_every_10_s(world: World) -> None:
    world.example("05-http-check.yaml")
    rows = world.passing("api", 2)
    for row in rows.values():
        assert statuses(row) == {"ready": "passing", "health": "passing"}
        check = world.agent_checks(row)["health"]
        assert (check["Type"], check["Interval"], check["Timeout"]) == ("http", "10s", "2s")


@pytest.mark.shows("sreg.spec.checks[].http.path", mode="agent")
def test_an_http_check_follows_what_health_says(world: World) -> None:
    check = {"name": "health", "http": {"path": "/health"}, "interval": "1s", "timeout": "1s"}
    world.apply(registration("ill", checks=[check]), deployment("ill", 1))
    (name,) = world.passing("ill", 1)
    world.registered("ill", 1)
    for code, status in (("503", "critical"), ("429", "warning"), ("200", "passing")):
        world.annotate(name, health=code)
        eventually(lambda status=status: statuses(world.health("ill")[name]) == {"health": status})
    # Health is no trouble of the registration: it stays ready all the while.
    assert world.condition("ill")["reason"] == "Registered"


def test_several_instances_in_one_go_and_only_the_healthy_ones_are_found_and_called(world: World) -> None:
    world.example("06-batch.yaml")
    eventually(lambda: len(world.health("worker")) == 5 and len(world.health("worker", passing=True)) == 4)
    everybody, healthy = world.health("worker"), world.health("worker", passing=True)
    assert everybody.keys() - healthy.keys() == {"worker-unhealthy"}
    assert statuses(everybody["worker-unhealthy"]) == {"health": "critical"}
    assert answer(everybody["worker-unhealthy"], "/health")[0] == 503
    name, row = next(iter(healthy.items()))
    assert answer(row) == (200, f"{world.namespace}/{name} at {row['Service']['Address']}\n")
    addresses = {record.data for record in world.dns("worker.service.consul").answers}
    assert addresses <= {row["Service"]["Address"] for row in healthy.values()}
    assert addresses
    eventually(lambda: world.registration("worker")["status"]["instances"]["critical"] == 1)


def test_calls_are_balanced_over_all_healthy_instances_of_the_health_api(world: World) -> None:
    world.example("02-web-three-lines.yaml")
    rows = world.passing("web", 3)
    rotation = itertools.islice(itertools.cycle(sorted(rows.items())), 6)
    answers = [(name, answer(row)) for name, row in rotation]
    assert all(answer == (200, f"{world.namespace}/{n} at {rows[n]['Service']['Address']}\n") for n, answer in answers)
    assert {name for name, _ in answers} == rows.keys() == world.pods("web").keys()


def test_the_catalog_lists_all_services_with_their_tags(world: World) -> None:
    world.example("02-web-three-lines.yaml")
    world.example("03-service-with-everything.yaml")
    world.passing("web", 3)
    world.passing("shop-frontend", 2)
    listed = world.consul("/v1/catalog/services")
    assert listed["web"] == []
    assert sorted(listed["shop-frontend"]) == ["http", "track-stable", "v1"]
    assert "consul" in listed


def test_dns_answers_with_addresses_ports_and_tags(world: World) -> None:
    world.example("03-service-with-everything.yaml")
    rows = world.passing("shop-frontend", 2)
    addresses = {row["Service"]["Address"] for row in rows.values()}
    eventually(lambda: {r.data for r in world.dns("shop-frontend.service.consul").answers} == addresses)
    assert {r.data for r in world.dns("v1.shop-frontend.service.consul").answers} == addresses
    located = world.dns("shop-frontend.service.consul", "SRV")
    assert {r.data.split()[2] for r in located.answers} == {"8080"}
    assert {r.data for r in located.additional if r.type == "A"} == addresses
    assert world.dns("no-such.service.consul").code == "NXDOMAIN"


def test_scaling_deleting_a_pod_and_deleting_the_registration_deregister(world: World) -> None:
    world.example("02-web-three-lines.yaml")
    before = world.passing("web", 3)
    world.kubectl("scale", "deployment/web", "--replicas=5")
    assert world.passing("web", 5).keys() >= before.keys()
    world.kubectl("scale", "deployment/web", "--replicas=2")
    eventually(lambda: world.health("web").keys() == world.pods("web").keys() and len(world.health("web")) == 2)
    gone = min(world.health("web"))
    world.kubectl("delete", "pod", gone, "--wait=false")
    eventually(lambda: gone not in world.health("web"))
    world.passing("web", 2)
    world.kubectl("delete", "sreg", "web", "--timeout=180s")
    assert world.health("web") == {}
    assert "web" not in world.consul("/v1/catalog/services")
    assert len(world.pods("web")) == 2


def test_a_terminating_pod_is_gone_from_consul_while_it_still_answers(world: World) -> None:
    world.apply(registration("slow-end"), pod("slow-end", "slow-end", **{"terminate-after": "20s"}))
    row = world.passing("slow-end", 1)["slow-end"]
    world.kubectl("delete", "pod", "slow-end", "--wait=false")
    eventually(lambda: world.health("slow-end") == {})
    assert answer(row)[0] == 200
    assert "deletionTimestamp" in world.kubectl("get", "pod", "slow-end", "-o", "json")
    world.kubectl("delete", "pod", "slow-end", "--grace-period=0", "--force", "--wait=false")


@pytest.mark.shows(
    "sreg.spec.endpoints[].name",
    "sreg.spec.endpoints[].address",
    "sreg.spec.endpoints[].port",
    "sreg.spec.endpoints[].meta",
    mode="agent",
)
def test_an_external_service_is_found_by_its_endpoints(world: World) -> None:
    world.example("07-external-service.yaml")
    rows = world.passing("orders-db", 2)
    primary, replica = rows["primary"]["Service"], rows["replica"]["Service"]
    assert (primary["Address"], primary["Port"], primary["Meta"]["role"]) == ("db-1.example.com", 5432, "primary")
    assert (replica["Address"], replica["Port"], replica["Meta"]["role"]) == ("203.0.113.12", 5432, "replica")
    assert all(row["Service"]["Meta"]["team"] == "orders" for row in rows.values())
    found = world.dns("replica.orders-db.service.consul").answers
    assert [record.data for record in found] == ["203.0.113.12"]
    names = world.dns("primary.orders-db.service.consul").answers
    assert ("CNAME", "db-1.example.com.") in {(record.type, record.data) for record in names}
    world.says("orders-db", "Registered")
    world.patch("orders-db", {"endpoints": [{"name": "replica", "address": "203.0.113.13", "port": 5433}]})

    def moved() -> None:
        (row,) = world.health("orders-db").values()
        assert (row["Service"]["Address"], row["Service"]["Port"]) == ("203.0.113.13", 5433)

    eventually(moved)
    world.kubectl("delete", "sreg", "orders-db", "--timeout=180s")
    assert world.health("orders-db") == {}


def test_the_check_of_an_external_service_is_run_by_an_agent(world: World) -> None:
    world.apply(pod("target", "target"))
    address = eventually(lambda: world.pods("target")["target"]["status"]["podIP"])
    checks = [{"name": "health", "http": {"path": "/health"}, "interval": "1s", "timeout": "1s"}]
    endpoints = [
        {"name": "up", "address": address, "port": 8080},
        {"name": "down", "address": address, "port": 9},
    ]
    world.apply(registration("outside", endpoints=endpoints, checks=checks))
    eventually(lambda: len(world.health("outside")) == 2 and world.health("outside", passing=True).keys() == {"up"})


@pytest.mark.shows("cconn.spec.addresses", mode="agent")
def test_one_fixed_agent_holds_the_pods_of_all_nodes(world: World, one_agent: str) -> None:
    world.apply(registration("fixed", consulRefs=[{"name": "one-agent"}]), deployment("fixed", 3))
    rows = world.passing("fixed", 3)
    assert {row["Node"]["Node"] for row in rows.values()} == {one_agent}
    assert {row["Service"]["Meta"]["k8s-connection"] for row in rows.values()} == {"one-agent"}
    assert len({pod["spec"]["nodeName"] for pod in world.pods("fixed").values()}) > 1
    world.kubectl("delete", "sreg", "fixed", "--timeout=180s")
    assert world.health("fixed") == {}


def test_fifty_pods_come_and_go_at_random_and_none_is_missing_or_left_over(world: World) -> None:
    names = [f"many-{number}" for number in range(5)]
    world.apply(*[registration(name) for name in names], *[deployment(name, 10) for name in names])
    for replicas in ((3, 12, 1, 0, 7), (8, 2, 9, 5, 4)):
        time.sleep(0.5)
        for name, count in zip(names, replicas, strict=True):
            world.kubectl("scale", f"deployment/{name}", f"--replicas={count}")
    for name, count in zip(names, (8, 2, 9, 5, 4), strict=True):  # so many may have stood on the way, too
        eventually(lambda name=name, count=count: world.passing(name, count).keys() == world.pods(name).keys())
