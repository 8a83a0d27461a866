"""What goes wrong, and that status says why, by name; and that it stays its own trouble."""

import json
import time

from operator_world import World, always, deployment, eventually, pod, published, registration
from operator_world import connection as connecting

from devcluster import Cluster

ABOUT = "involvedObject.kind=ConsulConnection,involvedObject.name=one-agent"


def problems(world: World, name: str) -> dict[str, tuple[str, str]]:
    """Reason and message for each Pod that status names."""
    worst = world.registration(name)["status"].get("problems", {}).get("worst", [])
    return {problem["subject"]: (problem["reason"], problem["message"]) for problem in worst}


def events(world: World, name: str) -> list[tuple[str, str]]:
    """Type and reason of the registration's Events."""
    found = json.loads(world.kubectl("get", "events", f"--field-selector=involvedObject.name={name}", "-o", "json"))
    return [(event["type"], event["reason"]) for event in found["items"]]


def test_a_wrong_port_name_is_told_with_the_names_that_there_are(world: World) -> None:
    world.apply(registration("port", service={"port": "htpp"}), deployment("port", 2))
    says = world.says("port", "PortNotFound")
    assert says["status"] == "False"
    assert "container port 'htpp' is not declared (declared names: http)" in says["message"]
    eventually(lambda: world.registration("port")["status"]["problems"]["counts"] == {"PortNotFound": 2})
    assert problems(world, "port").keys() == world.pods("port").keys()
    eventually(lambda: ("Warning", "PortNotFound") in events(world, "port"))
    assert world.health("port") == {}
    world.patch("port", {"service": {"port": "http"}})
    world.passing("port", 2)
    world.says("port", "Registered")


def test_a_missing_label_is_the_problem_of_that_pod_alone(world: World) -> None:
    good, bad = pod("good", "labelled"), pod("bad", "labelled")
    good["metadata"]["labels"]["version"] = "1"
    world.apply(registration("labelled", service={"meta": {"v": "$(metadata.labels['version'])"}}), good, bad)
    world.says("labelled", "FieldPathNotFound")
    assert world.passing("labelled", 1).keys() == {"good"}
    ((reason, message),) = problems(world, "labelled").values()
    assert problems(world, "labelled").keys() == {"bad"}
    assert reason == "FieldPathNotFound"
    assert "spec.service.meta[v]: metadata.labels['version'] has no value" in message
    world.kubectl("label", "pod", "bad", "version=2")
    world.passing("labelled", 2)
    world.says("labelled", "Registered")
    assert "problems" not in world.registration("labelled")["status"]


def test_what_only_the_operator_sees_to_be_wrong_is_not_accepted_and_leaves_what_stands_save_what_is_gone(
    world: World, connection: str
) -> None:
    """The API server knows no table of what is printable."""
    name = f"wrong-{connection}"
    world.apply(published("wrong", connection, service={"tags": ["good"]}), deployment("wrong", 2))
    world.passing(name, 2)
    world.patch("wrong", {"service": {"tags": ["fine", "\u202egnp.exe"], "meta": {"some": "thing"}}})
    says = world.says("wrong", "InvalidSpec", "Accepted")
    assert says["status"] == "False"
    assert "spec.service.tags[1]: must be printable characters, not '\\u202egnp.exe'" in says["message"]
    assert world.says("wrong", "InvalidSpec")["status"] == "False"
    eventually(lambda: ("Warning", "InvalidSpec") in events(world, "wrong"))
    world.kubectl("scale", "deployment/wrong", "--replicas=1")
    eventually(lambda: len(world.pods("wrong")) == 1 and world.health(name).keys() == world.pods("wrong").keys())
    world.kubectl("scale", "deployment/wrong", "--replicas=3")
    eventually(lambda: len(world.pods("wrong")) == 3)
    always(lambda: len(world.health(name)) == 1, during=1)
    (row,) = world.health(name).values()
    assert (row["Service"]["Tags"], "some" in row["Service"]["Meta"]) == (["good"], False)
    world.patch("wrong", {"service": {"tags": ["fine"]}})
    rows = world.passing(name, 3)
    eventually(lambda: all(row["Service"]["Tags"] == ["fine"] for row in world.health(name).values()))
    assert rows.keys() == world.pods("wrong").keys()
    world.says("wrong", "Registered")


def test_several_declared_ports_want_one_to_be_named(world: World) -> None:
    ports = [{"name": "http", "containerPort": 8080}, {"name": "admin", "containerPort": 9090}]
    world.apply(registration("twofold"), deployment("twofold", 1, ports=ports))
    assert "declares several (8080, 9090)" in world.says("twofold", "PortAmbiguous")["message"]
    world.patch("twofold", {"service": {"port": "admin"}})
    assert world.passing("twofold", 1).popitem()[1]["Service"]["Port"] == 9090


def test_a_registration_without_pods_is_ready_and_warns_once(world: World) -> None:
    world.apply(registration("lonely"))
    says = world.says("lonely", "NoPodsMatched")
    assert says["status"] == "True"
    eventually(lambda: events(world, "lonely") == [("Warning", "NoPodsMatched")])


def test_a_connection_that_does_not_exist_is_named_and_its_coming_heals(world: World) -> None:
    name = f"{world.namespace}-late"
    world.apply(registration("early", consulRefs=[{"name": name}]), deployment("early", 1))
    says = world.says("early", "ConnectionNotFound", "Accepted")
    assert f"there is no ConsulConnection '{name}'" in says["message"]
    agent = world.cluster.consul.agents["node-1"]
    world.apply(connecting(name, mode="Agent", addresses=[agent.http_addr]))
    world.passing("early", 1)
    world.says("early", "Registered")
    world.kubectl("delete", "sreg", "early", "--timeout=180s")
    world.kubectl("delete", "cconn", name, "--timeout=180s")


def test_a_service_name_belongs_to_the_namespace_that_had_it_first(world: World, neighbour: World) -> None:
    world.apply(registration("first", service={"name": "contested"}), deployment("first", 2))
    world.passing("contested", 2)
    time.sleep(1.1)  # creation times are whole seconds
    neighbour.apply(registration("second", service={"name": "contested"}), deployment("second", 3))
    says = neighbour.says("second", "ServiceNameTaken")
    assert says["status"] == "False"
    assert f"'contested' belongs to namespace '{world.namespace}'" in says["message"]
    assert neighbour.condition("second", "Accepted")["status"] == "False"
    assert neighbour.registration("second")["status"]["instances"]["registered"] == 0
    assert world.health("contested").keys() == world.pods("first").keys()
    world.kubectl("delete", "sreg", "first", "--timeout=180s")
    eventually(lambda: world.health("contested").keys() == neighbour.pods("second").keys())
    neighbour.says("second", "Registered")


def test_two_registrations_of_one_namespace_share_a_service_name(world: World) -> None:
    for name in ("blue", "green"):
        world.apply(registration(name, service={"name": "shared", "tags": [name]}), deployment(name, 2))
    rows = world.passing("shared", 4)
    assert sorted(tag for row in rows.values() for tag in row["Service"]["Tags"]) == ["blue", "blue", "green", "green"]


def test_an_address_that_is_no_consul_is_told_and_hurts_nobody_else(world: World) -> None:
    name = f"{world.namespace}-wrong"
    world.apply(connecting(name, mode="Agent", addresses=["http://127.0.0.1:1"]))
    world.apply(registration("astray", consulRefs=[{"name": name}]), deployment("astray", 1))
    world.apply(registration("well"), deployment("well", 1))
    world.passing("well", 1)

    def told() -> None:
        condition = world.condition("astray")
        assert condition["status"] == "False"
        assert f"Consul '{name}'" in condition["message"]
        assert "127.0.0.1:1" in condition["message"]

    eventually(told)
    world.kubectl("annotate", "sreg", "astray", "consul-registrar.dev/skip-deregistration=yes")
    world.kubectl("delete", "sreg", "astray", "--timeout=180s")
    world.kubectl("delete", "cconn", name, "--timeout=180s")


def test_a_connection_in_use_stays_until_the_last_registration_goes(world: World, one_agent: str) -> None:
    world.apply(registration("user", consulRefs=[{"name": "one-agent"}]), deployment("user", 1))
    world.passing("user", 1)
    world.kubectl("delete", "cconn", "one-agent", "--wait=false")

    def in_use() -> None:
        found = json.loads(world.kubectl("get", "cconn", "one-agent", "-o", "json"))
        ready = next(each for each in found["status"]["conditions"] if each["type"] == "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "InUse")
        assert f"{world.namespace}/user" in ready["message"]

    eventually(in_use)
    world.kubectl("delete", "sreg", "user", "--timeout=180s")
    assert world.health("user") == {}
    eventually(lambda: world.kubectl("get", "cconn", "one-agent", "--ignore-not-found") == "")
    assert "ConnectionNotFound" not in world.cluster.kubectl("get", "events", "-A", f"--field-selector={ABOUT}")


def test_what_others_have_in_consul_is_never_touched(world: World) -> None:
    agent = world.cluster.consul.agents["node-1"]
    foreign = {"ID": "foreign-1", "Name": "foreign", "Port": 80, "Meta": {"external-source": "kubernetes"}}
    elsewhere = {
        "ID": "other-cluster-1",
        "Name": "joint",
        "Port": 80,
        "Meta": {
            "managed-by": "consul-registrar",
            "k8s-cluster": "elsewhere",
            "k8s-connection": "default",
            "k8s-namespace": world.namespace,
            "k8s-registration": "joint",
            "k8s-pod-uid": "nobody",
        },
    }
    outside = {"Node": "vm-1", "Address": "192.0.2.9", "Service": {"ID": "vm-db", "Service": "foreign", "Port": 5432}}
    agent.request("PUT", "/v1/agent/service/register", foreign)
    agent.request("PUT", "/v1/agent/service/register", elsewhere)
    world.cluster.consul.server.request("PUT", "/v1/catalog/register", outside)

    def stand() -> list[tuple[str, int]]:
        rows = world.consul("/v1/catalog/service/foreign") + world.consul("/v1/catalog/service/joint")
        others = [row for row in rows if row["ServiceID"] in {"foreign-1", "other-cluster-1", "vm-db"}]
        return sorted((row["ServiceID"], row["ModifyIndex"]) for row in others)

    stood = eventually(lambda: stand() if len(stand()) == 3 else [])
    world.apply(registration("joint"), deployment("joint", 2))
    eventually(lambda: len(world.consul("/v1/catalog/service/joint")) == 3)
    world.kubectl("scale", "deployment/joint", "--replicas=1")
    eventually(lambda: len(world.consul("/v1/catalog/service/joint")) == 2)
    world.kubectl("delete", "sreg", "joint", "--timeout=180s")
    eventually(lambda: len(world.consul("/v1/catalog/service/joint")) == 1)
    assert stand() == stood
    for name in ("foreign-1", "other-cluster-1"):
        agent.request("PUT", f"/v1/agent/service/deregister/{name}")
    world.cluster.consul.server.request("PUT", "/v1/catalog/deregister", {"Node": "vm-1"})


def test_what_is_removed_or_changed_behind_our_back_is_right_again(world: World) -> None:
    world.apply(registration("drift"), deployment("drift", 2))
    name, row = min(world.passing("drift", 2).items())
    agent = world.cluster.consul.agents[row["Node"]["Node"]]
    agent.request("PUT", f"/v1/agent/service/deregister/{row['Service']['ID']}")
    world.passing("drift", 2)
    spoiled = {"ID": row["Service"]["ID"], "Name": "drift", "Port": 1, "Meta": row["Service"]["Meta"]}
    agent.request("PUT", "/v1/agent/service/register", spoiled)
    eventually(lambda: world.health("drift")[name]["Service"]["Port"] == 8080)
    agent.request("PUT", f"/v1/agent/check/fail/{row['Service']['ID']}:readiness:readiness")
    world.passing("drift", 2)


def test_an_observing_connection_writes_nothing_and_says_what_it_would(world: World) -> None:
    name = f"{world.namespace}-observer"
    agent = world.cluster.consul.agents["node-1"]
    world.apply(connecting(name, mode="Agent", addresses=[agent.http_addr], policy="Observe"))
    world.apply(registration("seen", consulRefs=[{"name": name}]), deployment("seen", 2))
    says = world.says("seen", "Observed", message="the connection's policy lets 2 changes wait")
    assert says["status"] == "False"
    always(lambda: world.health("seen") == {}, during=1)
    world.kubectl("patch", "cconn", name, "--type=merge", "-p", '{"spec": {"policy": "Sync"}}')
    world.passing("seen", 2)
    world.kubectl("delete", "sreg", "seen", "--timeout=180s")
    world.kubectl("delete", "cconn", name, "--timeout=180s")


def test_a_new_node_without_an_agent_is_told_by_name(cluster: Cluster, world: World) -> None:
    agent = cluster.consul.agents["node-3"]
    agent.process.kill()
    try:
        here = pod("here", "partly") | {"spec": {"nodeName": "node-1", **pod("", "")["spec"]}}
        there = pod("there", "partly") | {"spec": {"nodeName": "node-3", **pod("", "")["spec"]}}
        world.apply(registration("partly"), here, there)
        assert world.passing("partly", 1).keys() == {"here"}
        eventually(lambda: world.condition("partly")["status"] == "False")  # a Pod that isn't running yet is no trouble
        condition = world.condition("partly")
        assert problems(world, "partly").keys() == {"there"}
        assert condition["message"].startswith("there: ")
        assert "node-3" in condition["message"] or agent.address in condition["message"]
    finally:
        agent.process.start()
    world.passing("partly", 2)
    world.says("partly", "Registered")
