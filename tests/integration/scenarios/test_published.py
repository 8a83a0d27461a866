"""What a registration can publish, against the real agents and servers: addresses, weights, every kind of check."""

import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from operator_world import MERGE, RESOURCES, World, connection, deployment, eventually, registration, statuses

from devcluster import Cluster
from devcluster.consul import Member

BOTH = ["default", "published"]


@pytest.fixture(scope="module", autouse=True)
def published(cluster: Cluster) -> Iterator[None]:
    """A connection in catalog mode beside the one in agent mode."""
    spec = {"mode": "Catalog", "addresses": [cluster.consul.http_addr], "virtualNodes": 2}
    cluster.api.request("POST", f"{RESOURCES}/consulconnections", connection("published", **spec))
    yield
    cluster.api.request("DELETE", f"{RESOURCES}/consulconnections/published")


@pytest.fixture
def agent(cluster: Cluster) -> Member:
    return cluster.consul.agents["node-1"]


def endpoint(agent: Member, port: int) -> dict[str, Any]:
    return {"name": "agent", "address": agent.address, "port": port}


@pytest.mark.parametrize("mode", BOTH)
@pytest.mark.shows(
    "sreg.spec.service.weights", "sreg.spec.service.taggedAddresses", "sreg.spec.service.enableTagOverride"
)
def test_weights_further_addresses_and_tag_override_are_in_consul_and_go_again(world: World, mode: str) -> None:
    full = {
        "name": f"full-{mode}",
        "weights": {"passing": "$(metadata.annotations['weight']:-10)", "warning": 2},
        "taggedAddresses": {"wan": {"address": "203.0.113.7", "port": 443}},
        "enableTagOverride": True,
    }
    world.apply(deployment("web", 1), registration("web", service=full, consulRefs=[{"name": mode}]))
    (row,) = world.passing(full["name"], 1).values()
    service = row["Service"]
    assert service["Weights"] == {"Passing": 10, "Warning": 2}
    assert service["TaggedAddresses"]["wan"] == {"Address": "203.0.113.7", "Port": 443}
    assert service["EnableTagOverride"]
    plain = {"weights": None, "taggedAddresses": None, "enableTagOverride": None}
    world.patch("web", {"service": plain})

    def is_plain() -> bool:
        (now,) = world.health(full["name"]).values()
        told = now["Service"]
        return (told["Weights"], told["EnableTagOverride"], "wan" in (told.get("TaggedAddresses") or {})) == (
            {"Passing": 1, "Warning": 1},
            False,
            False,
        )

    eventually(is_plain)
    world.says("web", "Registered")


@pytest.mark.parametrize("mode", BOTH)
def test_tags_that_others_edit_survive_every_edit_but_that_of_the_tags(world: World, mode: str) -> None:
    name = f"edited-{mode}"
    service = {"name": name, "tags": ["ours"], "enableTagOverride": True}
    world.apply(deployment("web", 1), registration("web", service=service, consulRefs=[{"name": mode}]))
    (row,) = world.passing(name, 1).values()
    keys = ("ID", "Service", "Address", "Port", "Meta", "Weights", "EnableTagOverride")
    theirs = {key: row["Service"][key] for key in keys} | {"Tags": ["theirs"]}
    node = {"Node": row["Node"]["Node"], "Address": row["Node"]["Address"], "SkipNodeUpdate": True}
    world.cluster.consul.server.request("PUT", "/v1/catalog/register", node | {"Service": theirs})
    world.kubectl("annotate", "sreg", "web", "consul-registrar.dev/resync=once")
    eventually(lambda: world.registration("web")["status"].get("resync") == "once")

    def published() -> dict[str, Any]:
        (now,) = world.health(name).values()
        told: dict[str, Any] = now["Service"]
        return told

    world.patch("web", {"service": {"meta": {"some": "thing"}, "weights": {"passing": 5}}})
    eventually(lambda: published()["Weights"]["Passing"] == 5)
    assert (published()["Meta"]["some"], published()["Tags"]) == ("thing", ["theirs"])
    world.patch("web", {"service": {"tags": ["new"]}})
    eventually(lambda: published()["Tags"] == ["new"])


@pytest.mark.parametrize("mode", BOTH)
def test_weights_that_somebody_edits_are_set_right(world: World, mode: str) -> None:
    world.apply(deployment("web", 1), registration("web", service={"name": f"w-{mode}"}, consulRefs=[{"name": mode}]))
    (row,) = world.passing(f"w-{mode}", 1).values()
    service = row["Service"]
    spoiled = {key: service[key] for key in ("ID", "Service", "Address", "Port", "Tags", "Meta")}
    entry = {
        "Node": row["Node"]["Node"],
        "Address": row["Node"]["Address"],
        "SkipNodeUpdate": True,
        "Service": spoiled | {"Weights": {"Passing": 77, "Warning": 1}},
    }
    world.cluster.consul.server.request("PUT", "/v1/catalog/register", entry)

    def is_right() -> bool:
        (now,) = world.health(f"w-{mode}").values()
        return bool(now["Service"]["Weights"]["Passing"] == 1)

    eventually(is_right)


@pytest.mark.parametrize("mode", BOTH)
@pytest.mark.shows("sreg.spec.pods.onTermination")
def test_an_instance_drains_as_critical_until_its_pod_is_gone(world: World, mode: str) -> None:
    pods = {"selector": {"matchLabels": {"app": "web"}}, "onTermination": "Critical"}
    spec = {"pods": pods, "service": {"name": f"drain-{mode}"}, "checks": [], "consulRefs": [{"name": mode}]}
    world.apply(deployment("web", 1), registration("web", **spec))
    (name,) = world.passing(f"drain-{mode}", 1)
    world.annotate(name, terminate_after="1h")
    world.kubectl("delete", "pod", name, "--wait=false")
    eventually(lambda: statuses(world.health(f"drain-{mode}")[name]) == {"draining": "critical"})
    world.kubectl("delete", "pod", name, "--grace-period=0", "--force", "--wait=false")
    eventually(lambda: name not in world.health(f"drain-{mode}"))
    world.passing(f"drain-{mode}", 1)


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A listener that answers each datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))

        def answer() -> None:
            while (asker := listener.recvfrom(64)[1])[1] != listener.getsockname()[1]:
                listener.sendto(b"here", asker)

        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()
        listener.sendto(b"", listener.getsockname())  # its own word ends it
        thread.join()


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("grpc", {"grpc": {}}, {"grpc": {"service": "none.such"}}),
        ("h2ping", {"h2ping": {"tls": False}}, {"h2ping": {"tls": False, "port": 1}}),
        ("udp", {"udp": {}}, {"udp": {"port": 1}}),
        ("tcp", {"tcp": {}}, {"tcp": {"port": 1}}),
    ],
)
@pytest.mark.shows(
    "sreg.spec.checks[].grpc.port",
    "sreg.spec.checks[].grpc.service",
    "sreg.spec.checks[].h2ping.port",
    "sreg.spec.checks[].udp.port",
    "sreg.spec.checks[].tcp.port",
    mode="agent",
)
def test_each_kind_of_probe_passes_and_fails_against_a_real_listener(
    world: World, agent: Member, echo: tuple[str, int], kind: str, good: Any, bad: Any
) -> None:
    """etcd has a gRPC health service, Consul speaks HTTP/2."""
    etcd = urlsplit(world.cluster.control_plane.etcd_url)
    by_kind = {"udp": echo, "grpc": (etcd.hostname, etcd.port)}
    address, port = by_kind.get(kind, (agent.address, agent.grpc_port))
    timing = {"interval": "1s", "timeout": "1s"}
    checks = [{"name": "good", **good, **timing}, {"name": "bad", **bad, **timing, "initialStatus": "passing"}]
    at = {"name": "listener", "address": address, "port": port}
    world.apply(registration(kind, endpoints=[at], checks=checks))
    eventually(lambda: statuses(world.health(kind)["listener"]) == {"good": "passing", "bad": "critical"})
    found = world.agent_checks(world.health(kind)["listener"])
    assert {check["Type"] for check in found.values()} == {kind}


@pytest.mark.shows("sreg.spec.checks[].ttl", mode="agent")
def test_a_ttl_check_is_the_applications_word(world: World, agent: Member, cluster: Cluster) -> None:
    checks = [{"name": "beat", "ttl": {"ttl": "1h"}}]
    world.apply(registration("beat", endpoints=[endpoint(agent, 80)], checks=checks))
    row = eventually(lambda: world.health("beat")["agent"])
    assert statuses(row) == {"beat": "critical"}
    holder = cluster.consul.agents[row["Node"]["Node"]]
    for word in ("passing", "warning", "critical", "passing"):
        holder.request("PUT", f"/v1/agent/check/update/{row['Service']['ID']}:beat:ttl", {"Status": word})
        eventually(lambda word=word: statuses(world.health("beat")["agent"]) == {"beat": word})
    world.patch("beat", {"service": {"tags": ["edited"]}})
    eventually(lambda: world.health("beat", passing=True)["agent"]["Service"]["Tags"] == ["edited"])


@pytest.mark.shows("sreg.spec.checks[].ttl", mode="agent")
def test_a_ttl_check_is_critical_once_the_applications_word_is_too_old(world: World, agent: Member) -> None:
    checks = [{"name": "beat", "ttl": {"ttl": "1s"}, "initialStatus": "passing"}]
    world.apply(registration("late", endpoints=[endpoint(agent, 80)], checks=checks))
    row = eventually(lambda: world.health("late")["agent"])
    eventually(lambda: "TTL expired" in world.agent_checks(row)["beat"]["Output"])
    eventually(lambda: statuses(world.health("late")["agent"]) == {"beat": "critical"})
    world.says("late", "Registered")


@pytest.mark.shows("sreg.spec.checks[].alias", mode="agent")
def test_an_alias_check_follows_another_instance(world: World, agent: Member) -> None:
    world.apply(deployment("web", 1), registration("web", service={"name": "followed"}))
    (row,) = world.passing("followed", 1).values()
    alias = {"name": "like-web", "alias": {"serviceId": row["Service"]["ID"], "node": row["Node"]["Node"]}}
    world.apply(registration("follower", endpoints=[endpoint(agent, 80)], checks=[alias]))
    world.passing("follower", 1)
    (name,) = world.pods("web")
    world.annotate(name, ready="false")
    eventually(lambda: statuses(world.health("follower")["agent"]) == {"like-web": "critical"})


@pytest.mark.shows("sreg.spec.checks[].alias.node", mode="agent")
def test_an_alias_check_that_names_no_instance_follows_a_whole_node(world: World, agent: Member) -> None:
    node = f"vm-{world.namespace}"

    def tell(status: str) -> None:
        check = {"CheckID": "up", "Name": "up", "Status": status}
        entry = {"Node": node, "Address": "192.0.2.9", "Check": check}
        world.cluster.consul.server.request("PUT", "/v1/catalog/register", entry)

    tell("passing")
    alias = {"name": "like-vm", "alias": {"node": node}}
    world.apply(registration("behind", endpoints=[endpoint(agent, 80)], checks=[alias]))
    world.passing("behind", 1)
    tell("critical")
    eventually(lambda: statuses(world.health("behind")["agent"]) == {"like-vm": "critical"})
    tell("passing")
    world.passing("behind", 1)
    world.cluster.consul.server.request("PUT", "/v1/catalog/deregister", {"Node": node})


@pytest.mark.parametrize(
    "check", [{"grpc": {}}, {"udp": {}}, {"h2ping": {}}, {"ttl": {"ttl": "30s"}}, {"alias": {"node": "x"}}]
)
@pytest.mark.shows(
    "sreg.spec.checks[].grpc",
    "sreg.spec.checks[].udp",
    "sreg.spec.checks[].h2ping",
    "sreg.spec.checks[].ttl",
    "sreg.spec.checks[].alias",
    mode="catalog",
    condition="CheckNotSupported",
)
def test_in_catalog_mode_kinds_that_nobody_runs_are_refused_by_name(world: World, agent: Member, check: Any) -> None:
    checks = [{"name": "odd", **check}]
    refs = [{"name": "published"}]
    world.apply(registration("odd", endpoints=[endpoint(agent, 80)], checks=checks, consulRefs=refs))
    assert "odd" in world.says("odd", "CheckNotSupported")["message"]
    assert world.health("odd") == {}


@pytest.mark.shows("cconn.spec.allowEndpoints", mode="catalog")
def test_a_connection_may_refuse_addresses_of_its_users_own(world: World, agent: Member, cluster: Cluster) -> None:
    path = f"{RESOURCES}/consulconnections/published"
    world.apply(registration("db", endpoints=[endpoint(agent, 80)], consulRefs=[{"name": "published"}]))
    world.passing("db", 1)
    cluster.api.request("PATCH", path, {"spec": {"allowEndpoints": False}}, MERGE)
    world.says("db", "EndpointsNotAllowed")
    assert len(world.health("db")) == 1
    cluster.api.request("PATCH", path, {"spec": {"allowEndpoints": True}}, MERGE)
    world.says("db", "Registered")


@pytest.mark.parametrize("mode", BOTH)
@pytest.mark.shows("sreg.spec.service.ports", "sreg.spec.service.defaultPort")
def test_named_ports_are_in_consul_and_a_check_goes_to_the_one_that_it_names(world: World, mode: str) -> None:
    name = f"named-{mode}"
    service = {"name": name, "ports": {"http": "http", "admin": 9090}, "defaultPort": "http"}
    checks = [{"name": "web", "tcp": {"port": "http"}, "interval": "1s"}]
    world.apply(deployment("web", 1), registration("web", service=service, checks=checks, consulRefs=[{"name": mode}]))
    wanted = {"http": (8080, True), "admin": (9090, False)}

    def ports() -> dict[str, tuple[int, bool]]:
        (row,) = world.health(name).values()
        return {port["Name"]: (port["Port"], port["Default"]) for port in row["Service"].get("Ports") or ()}

    eventually(lambda: ports() == wanted)
    world.says("web", "Registered")
    if mode == "default":
        world.passing(name, 1)  # the agent's answer: the check went to the port that it names
    world.patch("web", {"service": {"ports": {"admin": None, "other": 9091}}})
    eventually(lambda: ports() == {"http": (8080, True), "other": (9091, False)})
    world.patch("web", {"service": {"ports": None, "defaultPort": None, "port": "http"}})
    eventually(lambda: ports() == {})
    (row,) = world.health(name).values()
    assert row["Service"]["Port"] == 8080


@pytest.mark.parametrize("mode", BOTH)
@pytest.mark.shows("sreg.spec.endpoints[].ports", "sreg.spec.endpoints[].defaultPort")
def test_an_endpoint_may_have_named_ports_of_its_own(world: World, agent: Member, mode: str) -> None:
    ports = {"http": int(agent.http_addr.rpartition(":")[2]), "none": 1}
    at = {"name": "agent", "address": agent.address, "ports": ports, "defaultPort": "http"}
    checks = [{"name": "good", "tcp": {}, "interval": "1s"}, {"name": "bad", "tcp": {"port": "none"}, "interval": "1s"}]
    spec = {"endpoints": [at], "checks": checks, "service": {"name": f"ends-{mode}"}, "consulRefs": [{"name": mode}]}
    world.apply(registration("ends", **spec))
    row = eventually(lambda: world.health(f"ends-{mode}")["agent"])
    assert {port["Name"]: port["Port"] for port in row["Service"]["Ports"]} == ports
    if mode == "default":
        eventually(lambda: statuses(world.health(f"ends-{mode}")["agent"]) == {"good": "passing", "bad": "critical"})
    world.says("ends", "Registered")
