"""Fields of a ConsulConnection: each is set, in both modes, and what came of it is asked of the real Consul."""

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from operator_world import (
    MERGE,
    RESOURCES,
    Operator,
    World,
    always,
    connection,
    deployment,
    eventually,
    pod,
    registration,
    statuses,
)
from test_limits import written

from devcluster import Cluster
from devcluster.kube import ApiError


@pytest.fixture(params=["Agent", "Catalog"], ids=["agent", "catalog"])
def own(request: pytest.FixtureRequest, cluster: Cluster, world: World) -> Iterator[str]:
    """A connection of each mode for one test; its name."""
    name = f"{world.namespace}-{request.param}".lower()
    where = {
        "Agent": {"addresses": [cluster.consul.agents["node-1"].http_addr]},
        "Catalog": {"addresses": [cluster.consul.http_addr], "virtualNodes": 2},
    }
    lax = {"removalGuard": {"atLeast": 100}}
    world.apply(connection(name, mode=request.param, **where[request.param], **lax))
    yield name
    terms(world, name, removalGuard={"atLeast": 100}, policy="Sync")
    world.kubectl("delete", "sreg", "--all", "--timeout=180s")
    world.kubectl("delete", "cconn", name, "--timeout=180s")


def terms(world: World, name: str, **spec: Any) -> None:
    """Merge into a connection's spec, and wait until the operator knows it: what is edited next may reach it first."""
    path = f"{RESOURCES}/consulconnections/{name}"
    edited = world.cluster.api.request("PATCH", path, {"spec": spec}, MERGE)["metadata"]["generation"]
    eventually(lambda: world.cluster.api.request("GET", path)["status"]["observedGeneration"] >= edited)


def says(world: World, name: str, reason: str) -> dict[str, Any]:
    """Wait until a connection gives this reason; its status."""

    def look() -> dict[str, Any]:
        status: dict[str, Any] = world.cluster.api.request("GET", f"{RESOURCES}/consulconnections/{name}")["status"]
        reasons = {condition["reason"] for condition in status["conditions"]}
        assert reason in reasons, status["conditions"]
        return status

    return eventually(look)


def into(own: str, name: str, **spec: Any) -> dict[str, Any]:
    """A registration in that connection, under a name of its own there."""
    return registration(name, consulRefs=[{"name": own}], service={"name": f"{own}-{name}"}, **spec)


ENDPOINT = {"name": "one", "address": "192.0.2.1", "port": 80}


@pytest.mark.shows("cconn.spec.allowEndpoints")
def test_addresses_of_its_users_own_are_refused_where_it_says_so(world: World, own: str) -> None:
    world.apply(into(own, "db", endpoints=[ENDPOINT], checks=[]))
    world.passing(f"{own}-db", 1)
    terms(world, own, allowEndpoints=False)
    assert "spec.allowEndpoints" in world.says("db", "EndpointsNotAllowed")["message"]
    assert len(world.health(f"{own}-db")) == 1, "what stands stays"
    tagged = {"taggedAddresses": {"wan": {"address": "203.0.113.7", "port": 443}}}
    world.apply(deployment("tagged", 1), into(own, "tagged", pods={"selector": {"matchLabels": {"app": "tagged"}}}))
    world.passing(f"{own}-tagged", 1)
    world.patch("tagged", {"service": tagged})
    service = {"ports": [{"name": "http", "port": 80}], "externalIPs": ["198.51.100.4"]}
    world.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "out"}, "spec": service})
    world.apply(into(own, "out", kubernetesService={"name": "out", "publish": "ExternalIP"}, checks=[]))
    for name in ("tagged", "out"):
        assert "spec.allowEndpoints" in world.says(name, "EndpointsNotAllowed")["message"]
    assert world.health(f"{own}-out") == {}
    (row,) = world.health(f"{own}-tagged").values()
    assert "wan" not in (row["Service"].get("TaggedAddresses") or {})
    terms(world, own, allowEndpoints=True)
    for name in ("db", "tagged", "out"):
        world.says(name, "Registered")


@pytest.mark.shows("cconn.spec.allowedNamespaces")
def test_it_takes_the_registrations_of_the_namespaces_that_it_allows(world: World, own: str) -> None:
    world.apply(deployment("in", 1), into(own, "in", pods={"selector": {"matchLabels": {"app": "in"}}}))
    world.passing(f"{own}-in", 1)
    name = {"key": "kubernetes.io/metadata.name", "operator": "In"}
    for refusing, taking in (
        ({"names": ["elsewhere"], "selector": None}, {"names": [world.namespace]}),
        (
            {"names": [], "selector": {"matchLabels": {"kubernetes.io/metadata.name": "elsewhere"}}},
            {"selector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}}},
        ),
        (
            {"selector": {"matchLabels": None, "matchExpressions": [name | {"values": ["elsewhere"]}]}},
            {"selector": {"matchExpressions": [name | {"values": [world.namespace]}]}},
        ),
    ):
        terms(world, own, allowedNamespaces=refusing)
        assert world.namespace in world.says("in", "NamespaceNotAllowed")["message"]
        terms(world, own, allowedNamespaces=taking)
        world.says("in", "Registered")
    assert len(world.health(f"{own}-in")) == 1


@pytest.mark.shows("cconn.spec.sharedNames")
def test_two_namespaces_share_a_name_only_where_it_says_so(world: World, neighbour: World, own: str) -> None:
    name = f"{own}-shared"
    for one, address in ((world, "192.0.2.1"), (neighbour, "192.0.2.2")):
        ends = [ENDPOINT | {"address": address}]
        refs = [{"name": own}]
        one.apply(registration("shared", consulRefs=refs, service={"name": name}, endpoints=ends, checks=[]))
        one.says("shared", "Registered" if one is world else "ServiceNameTaken")
        time.sleep(1.1)  # who was first is told by whole seconds
    assert {row["ServiceAddress"] for row in world.consul(f"/v1/catalog/service/{name}")} == {"192.0.2.1"}
    terms(world, own, sharedNames="Allow")
    neighbour.says("shared", "Registered")

    def addresses() -> set[str]:
        return {row["ServiceAddress"] for row in world.consul(f"/v1/catalog/service/{name}")}

    eventually(lambda: addresses() == {"192.0.2.1", "192.0.2.2"})
    neighbour.kubectl("delete", "sreg", "shared", "--timeout=180s")


@pytest.mark.shows(
    "cconn.spec.checkPolicy.methods", "cconn.spec.checkPolicy.refusedAddresses", "cconn.spec.checkPolicy.redirects"
)
def test_checks_keep_to_its_methods_and_addresses_and_its_word_on_redirects(world: World, own: str) -> None:
    terms(world, own, checkPolicy={"methods": ["GET"], "refusedAddresses": ["Loopback"]})
    post = [{"name": "post", "http": {"method": "POST"}}]
    home = [ENDPOINT | {"address": "127.0.0.1"}]
    world.apply(into(own, "post", endpoints=[ENDPOINT], checks=post))
    world.apply(into(own, "home", endpoints=home, checks=[{"name": "port", "tcp": {}}]))
    led = [{"name": "led", "http": {"followRedirects": True}}]
    world.apply(into(own, "led", endpoints=[ENDPOINT], checks=led))
    assert "it must not follow redirects" in world.says("led", "CheckNotAllowed")["message"]
    assert "its method must be one of GET" in world.says("post", "CheckNotAllowed")["message"]
    assert "a loopback address" in world.says("home", "CheckNotAllowed")["message"]
    assert world.health(f"{own}-post") == world.health(f"{own}-home") == world.health(f"{own}-led") == {}
    consul = world.cluster.consul
    theirs = {"agent": consul.agents["node-1"].http_addr, "catalog": consul.http_addr}[own.rpartition("-")[2]]
    for refused, address, what in (
        ("LinkLocal", "169.254.169.254", "a link-local address"),
        ("Node", world.cluster.nodes["node-2"], "the address of a node"),
        ("Consul", urlsplit(theirs).hostname, "an address of Consul"),
    ):
        name = refused.lower()
        terms(world, own, checkPolicy={"refusedAddresses": [refused]})
        ends = [ENDPOINT | {"address": address}]
        world.apply(into(own, name, endpoints=ends, checks=[{"name": "port", "tcp": {}}]))
        assert what in world.says(name, "CheckNotAllowed")["message"]
        assert world.health(f"{own}-{name}") == {}
    terms(world, own, checkPolicy={"methods": ["GET", "POST"], "refusedAddresses": [], "redirects": "Allow"})
    world.says("post", "Registered")
    world.says("led", "Registered")
    world.says("home", "Registered")


@pytest.mark.shows("cconn.spec.defaults.weights", "cconn.spec.defaults.checks")
def test_its_defaults_are_those_of_who_says_nothing(world: World, own: str) -> None:
    defaults = {"weights": {"passing": 5, "warning": 2}, "checks": [{"name": "ours", "readiness": {}}]}
    terms(world, own, defaults=defaults)
    pods = {"selector": {"matchLabels": {"app": "mute"}}}
    loud = into(own, "loud", pods=pods, checks=[{"name": "mine", "readiness": {}}])
    loud["spec"]["service"]["weights"] = {"passing": 9}
    world.apply(deployment("mute", 1), into(own, "mute", pods=pods), loud)
    found = {}
    for name in ("mute", "loud"):
        (row,) = world.passing(f"{own}-{name}", 1).values()
        found[name] = (row["Service"]["Weights"], statuses(row))
    assert found == {
        "mute": ({"Passing": 5, "Warning": 2}, {"ours": "passing"}),
        "loud": ({"Passing": 9, "Warning": 1}, {"mine": "passing"}),
    }


@pytest.mark.shows(
    "cconn.spec.removalGuard.atLeast", "cconn.spec.removalGuard.release", "cconn.spec.removalGuard.after"
)
def test_removals_of_what_is_absent_are_held_as_it_says(world: World, own: str) -> None:
    """All four of a registration: held from the fourth on till somebody approves, not below five, or for a time."""
    selector = {"selector": {"matchLabels": {"app": "guarded"}}}
    world.apply(deployment("guarded", 4), into(own, "guarded", pods=selector))
    world.passing(f"{own}-guarded", 4)
    terms(world, own, removalGuard={"share": 100, "atLeast": 4, "release": "Manual", "after": "10s", "rate": 1})
    world.patch("guarded", {"pods": {"selector": {"matchLabels": {"app": "typo"}}}})
    world.says("guarded", "RemovalHeld")
    always(lambda: len(world.health(f"{own}-guarded")) == 4, during=2)
    world.patch("guarded", selector_of("guarded"))
    world.says("guarded", "Registered")
    terms(world, own, removalGuard={"atLeast": 5, "share": 0})
    world.patch("guarded", selector_of("typo"))
    eventually(lambda: world.health(f"{own}-guarded") == {})
    world.patch("guarded", selector_of("guarded"))
    world.passing(f"{own}-guarded", 4)
    terms(world, own, removalGuard={"atLeast": 1, "share": 0, "release": "After", "after": "10s", "rate": 1})
    world.patch("guarded", selector_of("typo"))
    world.says("guarded", "RemovalHeld")
    eventually(lambda: world.health(f"{own}-guarded") == {})


def selector_of(app: str) -> dict[str, Any]:
    return {"pods": {"selector": {"matchLabels": {"app": app}}}}


@pytest.mark.shows("cconn.spec.removalGuard.share")
def test_a_share_of_all_that_is_absent_at_once_may_go_and_a_larger_one_is_held(world: World, own: str) -> None:
    names = [f"one-{number}" for number in range(8)]
    world.apply(*(pod(name, "one") for name in names))
    world.apply(into(own, "one", pods={"selector": {"matchLabels": {"app": "one"}}}))
    world.passing(f"{own}-one", 8)
    terms(world, own, removalGuard={"share": 50, "atLeast": 3, "release": "Manual"})
    world.kubectl("label", "--overwrite", "pod", *names[:3], "app=other")
    eventually(lambda: world.health(f"{own}-one").keys() == set(names[3:]))
    terms(world, own, removalGuard={"share": 20})
    world.kubectl("label", "--overwrite", "pod", *names[3:6], "app=other")
    world.says("one", "RemovalHeld")
    always(lambda: world.health(f"{own}-one").keys() == set(names[3:]), during=2)


@pytest.mark.shows("cconn.spec.removalGuard.rate")
def test_what_was_held_goes_at_the_rate_that_it_says(world: World, operator: Operator, own: str) -> None:
    world.apply(deployment("slow", 8), into(own, "slow", pods={"selector": {"matchLabels": {"app": "slow"}}}))
    world.passing(f"{own}-slow", 8)
    terms(world, own, removalGuard={"atLeast": 3, "after": "10s", "rate": 1})
    world.patch("slow", selector_of("typo"))
    eventually(lambda: world.health(f"{own}-slow") == {})
    times = eventually(lambda: len(found := written(operator, own, "deregister")) == 8 and found)
    assert (times[-1] - times[0]).total_seconds() >= 3.0, "seven seconds at one a second; all at once by the default"


@pytest.mark.shows("cconn.spec.limits.writesPerSecond")
def test_a_limit_of_writes_is_waited_for_and_all_are_made(world: World, operator: Operator, own: str) -> None:
    terms(world, own, limits={"writesPerSecond": 2})
    world.apply(deployment("paced", 8), into(own, "paced", pods={"selector": {"matchLabels": {"app": "paced"}}}))
    world.passing(f"{own}-paced", 8)
    world.registered("paced", 8)
    times = written(operator, own)
    assert (times[-1] - times[0]).total_seconds() >= 2.0, "two at once, two a second"
    terms(world, own, limits=None)


@pytest.mark.shows("cconn.spec.datacenter")
@pytest.mark.parametrize("mode", ["Agent", "Catalog"])
def test_another_datacenter_than_it_names_is_not_written_to(world: World, mode: str) -> None:
    name = f"{world.namespace}-far-{mode}".lower()
    address = {"Agent": world.cluster.consul.agents["node-1"].http_addr, "Catalog": world.cluster.consul.http_addr}
    for datacenter, ready in (("nowhere", False), ("dc1", True)):
        one = f"{name}-{datacenter}"
        world.apply(connection(one, mode=mode, addresses=[address[mode]], datacenter=datacenter))
        world.apply(into(one, datacenter, endpoints=[ENDPOINT], checks=[]))
        if ready:
            world.passing(f"{one}-{datacenter}", 1)
        else:
            eventually(lambda datacenter=datacenter: world.condition(datacenter)["status"] == "False")
            assert world.health(f"{one}-{datacenter}") == {}
        world.kubectl("annotate", "sreg", datacenter, "consul-registrar.dev/skip-deregistration=true")
        world.kubectl("delete", "sreg", datacenter, "--timeout=180s")
        world.kubectl("delete", "cconn", one, "--timeout=180s")


@pytest.mark.shows("cconn.spec.nodeAgents", mode="agent")
def test_the_agents_are_those_on_the_nodes_where_it_says_that_they_listen(world: World) -> None:
    name = f"{world.namespace}-nodes"
    (port,) = {agent.http_addr.rpartition(":")[2] for agent in world.cluster.consul.agents.values()}
    right = {"port": int(port), "scheme": "http", "addressType": "InternalIP"}
    world.apply(connection(name, mode="Agent", nodeAgents=right))
    world.apply(deployment("spread", 3), into(name, "spread", pods={"selector": {"matchLabels": {"app": "spread"}}}))
    rows = world.passing(f"{name}-spread", 3)
    assert all(row["Node"]["Node"] == row["Service"]["Meta"]["k8s-node"] for row in rows.values())
    for wrong, reason in (
        ({"port": 1}, "AgentDown"),
        ({"port": int(port), "scheme": "https"}, "TlsFailed"),
        ({"scheme": "http", "addressType": "ExternalDNS"}, "NoAgents"),
    ):
        terms(world, name, nodeAgents=wrong)
        world.says("spread", reason)
        assert len(world.health(f"{name}-spread")) == 3, "what stands stays"
    terms(world, name, nodeAgents=right)
    world.says("spread", "Registered")
    world.kubectl("delete", "sreg", "spread", "--timeout=180s")
    world.kubectl("delete", "cconn", name, "--timeout=180s")


def test_its_status_names_consuls_version_datacenter_and_leader_and_a_restart_writes_none_of_it(
    world: World, own: str, operator: Operator
) -> None:
    def found() -> dict[str, Any]:
        one: dict[str, Any] = world.cluster.api.request("GET", f"{RESOURCES}/consulconnections/{own}")
        return one

    def look() -> None:
        status = found()["status"]
        config = world.consul("/v1/agent/self")["Config"]
        known = (config["Version"], config["Datacenter"], world.consul("/v1/status/leader"))
        assert (status["version"], status["datacenter"], status["leader"]) == known

    eventually(look)
    before = found()["metadata"]["resourceVersion"]
    operator.restart()
    always(lambda: found()["metadata"]["resourceVersion"] == before, during=3)


@pytest.mark.shows("cconn.spec.namespace", "cconn.spec.partition", condition="EnterpriseOnly")
@pytest.mark.parametrize("field", ["namespace", "partition"])
def test_what_consul_enterprise_alone_has_is_said_and_nothing_is_written(world: World, own: str, field: str) -> None:
    world.apply(into(own, "before", endpoints=[ENDPOINT], checks=[]))
    world.passing(f"{own}-before", 1)
    terms(world, own, **{field: "team-a"})
    conditions = says(world, own, "EnterpriseOnly")["conditions"]
    assert next(c["status"] for c in conditions if c["type"] == "Ready") == "False"
    world.apply(into(own, "after", endpoints=[ENDPOINT], checks=[]))
    assert f"spec.{field} must not be set" in world.says("after", "EnterpriseOnly")["message"]
    assert (world.health(f"{own}-after"), len(world.health(f"{own}-before"))) == ({}, 1), "what stands stays"
    terms(world, own, **{field: None})
    world.passing(f"{own}-after", 1)
    world.says("before", "Registered")


@pytest.mark.shows("cconn.spec.nodeAgents", mode="catalog", condition="refused")
@pytest.mark.shows("cconn.spec.virtualNodes", mode="agent", condition="refused")
@pytest.mark.shows("cconn.spec.deadMan", mode="catalog", condition="refused")
@pytest.mark.parametrize(
    ("spec", "must"),
    [
        (
            {"mode": "Catalog", "addresses": ["http://a:8500"], "nodeAgents": {}},
            "must have addresses and no nodeAgents in mode Catalog",
        ),
        (
            {"mode": "Agent", "addresses": ["http://a:8500"], "virtualNodes": 4},
            "must not have virtualNodes in mode Agent",
        ),
        (
            {"mode": "Catalog", "addresses": ["http://a:8500"], "deadMan": {}},
            "must not have deadMan in mode Catalog",
        ),
        (
            {"mode": "Agent", "nodeAgents": {}, "deadMan": {}, "policy": "Observe"},
            "must not have deadMan with policy Observe",
        ),
    ],
    ids=["nodeAgents", "virtualNodes", "deadMan", "observed"],
)
def test_what_the_other_mode_alone_can_have_is_refused(world: World, spec: dict[str, Any], must: str) -> None:
    with pytest.raises(ApiError, match=must):
        world.cluster.api.request("POST", f"{RESOURCES}/consulconnections?dryRun=All", connection("odd", **spec))
