"""What stands on Consul nodes that are no agent's of the connection any more: moved, replaced, renamed, vanished."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from consul_faults import passed_on, serving
from consul_world import (
    WEB,
    Running,
    Truth,
    deregister,
    eventually,
    meta,
    register,
    running,
    to,
    web,
)

from consul_registrar.changes import Cause, Deregister
from consul_registrar.consul import Access, AgentSettings, NotSent, Stale
from consul_registrar.consul.leftovers import LOOKS_CLOSELY
from consul_registrar.model import META_CONNECTION, META_NODE, Instance, Node
from devcluster.consul import Consul, datacenter
from devcluster.net import claim_block
from devcluster.process import Home


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    """A Consul whose agents are killed, renamed and replaced: node-1 to node-4."""
    block = claim_block()
    home = Home(tmp_path_factory.mktemp("doomed"), tethered=True, inherited=(block.claim.fileno(),))
    nodes = {f"node-{number}": block.node(number) for number in range(1, 5)}
    made = datacenter(home, block, nodes, acls=False, on_localhost=False)
    try:
        made.start()
        yield made
    finally:
        for process in made.processes:
            process.kill()
        block.release()


@pytest.fixture
def doomed(made: Consul) -> Consul:
    """All agents run at the start and hold nothing."""
    for agent in made.agents.values():
        if not agent.process.is_alive():
            agent.process.start()
        for service in agent.request("GET", "/v1/agent/services"):
            agent.request("PUT", f"/v1/agent/service/deregister/{service}")
    return made


def kubernetes(consul: Consul, *names: str) -> dict[str, Node]:
    """Kubernetes nodes of these names, with the addresses of the agents of those names."""
    addresses = {name: consul.agents[name].address for name in names}
    return {n: Node(uid=n, name=n, version=1, labels={}, addresses={"InternalIP": a}) for n, a in addresses.items()}


def at(node: str, subject: str) -> Instance:
    """An instance of a Pod on the Kubernetes node of the same name."""
    return web(node, subject, meta=meta(subject, **{META_NODE: node}))


def row(consul: Consul, instance: Instance) -> Any:
    return Truth(consul, instance.node).in_catalog(instance)


def failed(consul: Consul, node: str) -> bool:
    checks = consul.server.request("GET", f"/v1/health/node/{node}")
    return {c["Status"] for c in checks if c["CheckID"] == "serfHealth"} == {"critical"}


async def removed(registry: Running, subject: str) -> None:
    """Plan its removal until that is acknowledged."""

    async def remove() -> bool:
        for instance in registry.registry.instances(WEB, subject):
            await registry.registry.apply(instance.node, [Deregister(instance, Cause.GONE)])
        return not registry.registry.instances(WEB, subject)

    for _ in range(600):
        if await remove():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{subject} still stands")


async def test_what_a_vanished_node_left_is_shown_and_removed_through_the_catalog(doomed: Consul):
    """Node and agent both go. What somebody else had there stays as it is."""
    gone = doomed.agents["node-2"]
    async with running(AgentSettings(), kubernetes(doomed, "node-1", "node-2")) as one:
        await eventually(lambda: one.registry.status().agents_ready == 2)
        await one.write(register(at("node-2", "a")))
        gone.request(
            "PUT",
            "/v1/agent/service/register",
            {"ID": "vm", "Name": "web", "Meta": dict(meta("x")) | {META_CONNECTION: "another"}},
        )
        foreign = await eventually(lambda: row(doomed, replace(at("node-2", "a"), id="vm")))
        gone.process.kill()
        await eventually(lambda: failed(doomed, "node-2"))
        await eventually(lambda: one.registry.status().agents_ready == 1)
        (outcome,) = await one.registry.apply("node-2", [deregister(at("node-2", "a"))])
        assert isinstance(outcome, NotSent), "its Kubernetes node is still there"
        await asyncio.sleep(LOOKS_CLOSELY)
        assert row(doomed, at("node-2", "a"))

        one.changed.clear()
        one.registry.set_nodes(kubernetes(doomed, "node-1"))
        message = await told(one, "LeftBehind")
        assert "1 on node-2, whose agent is gone" in message
        await eventually(lambda: one.actual("a"))
        await one.told("a")
        assert list(await one.registry.out_of_reach(WEB)) == []
        (outcome,) = await one.registry.apply("node-2", [register(at("node-2", "a"))])
        assert outcome.reason.code == "AgentGone"
        await removed(one, "a")
        assert row(doomed, at("node-2", "a")) is None
        assert row(doomed, replace(at("node-2", "a"), id="vm")) == foreign
        await told(one, "AgentsReady")


async def told(registry: Running, code: str) -> str:
    await eventually(lambda: registry.registry.status().reason.code == code)
    return registry.registry.status().reason.message


async def test_an_agent_that_comes_back_with_its_node_is_left_alone(doomed: Consul):
    """What it held is its own to tell again; nothing of it is removed behind its back."""
    back = doomed.agents["node-2"]
    async with running(AgentSettings(), kubernetes(doomed, "node-1", "node-2")) as one:
        await eventually(lambda: one.registry.status().agents_ready == 2)
        await one.write(register(at("node-2", "b")))
        await eventually(lambda: row(doomed, at("node-2", "b")))
        back.process.kill()
        await eventually(lambda: failed(doomed, "node-2"))
        one.registry.set_nodes(kubernetes(doomed, "node-1"))
        await told(one, "LeftBehind")
        await eventually(lambda: one.actual("b"))
        back.process.start()
        (outcome,) = await one.registry.apply("node-2", [deregister(at("node-2", "b"))])
        assert isinstance(outcome, Stale | NotSent)
        assert row(doomed, at("node-2", "b"))
        one.registry.set_nodes(kubernetes(doomed, "node-1", "node-2"))
        await eventually(lambda: one.registry.status().agents_ready == 2)
        await told(one, "AgentsReady")
        await one.write(deregister(at("node-2", "b")))


async def test_what_stands_on_a_living_agent_whose_node_was_deleted_is_removed_by_that_agent(doomed: Consul):
    async with running(AgentSettings(), kubernetes(doomed, "node-1", "node-3")) as one:
        await eventually(lambda: one.registry.status().agents_ready == 2)
        await one.write(register(at("node-3", "c")))
        await eventually(lambda: row(doomed, at("node-3", "c")))
        one.registry.set_nodes(kubernetes(doomed, "node-1"))
        assert "whose agent lives" in await told(one, "LeftBehind")
        await eventually(lambda: one.actual("c"))
        assert one.registry.status().agents == 1
        await removed(one, "c")
        assert "shop-web-c" not in doomed.agents["node-3"].request("GET", "/v1/agent/services")
        await told(one, "AgentsReady")


async def test_a_connection_led_to_another_agent_leaves_nothing_on_the_old_one(doomed: Consul):
    async with running(to(doomed.agents["node-1"])) as before:
        await before.is_ready()
        await before.write(register(web("node-1", "d")))
        await eventually(lambda: row(doomed, web("node-1", "d")))
    async with running(to(doomed.agents["node-3"])) as after:
        await eventually(lambda: after.actual("d"))
        assert after.registry.place(None, "x", ()) == "node-3"
        await after.write(register(web("node-3", "d")))
        await after.write(deregister(web("node-1", "d")))
        await eventually(lambda: row(doomed, web("node-1", "d")) is None)
        assert row(doomed, web("node-3", "d"))
        await after.write(deregister(web("node-3", "d")))


async def test_a_node_whose_agent_was_only_deleted_by_mistake_comes_back_without_a_quarrel(doomed: Consul):
    """Its agent is met as one left behind, and gives way to itself."""
    async with running(AgentSettings(), kubernetes(doomed, "node-1", "node-3")) as one:
        await eventually(lambda: one.registry.status().agents_ready == 2)
        await one.write(register(at("node-3", "e")))
        await eventually(lambda: row(doomed, at("node-3", "e")))
        one.registry.set_nodes(kubernetes(doomed, "node-1"))
        await eventually(lambda: one.actual("e"))
        one.registry.set_nodes(kubernetes(doomed, "node-1", "node-3"))
        await eventually(lambda: one.registry.status().agents_ready == 2)
        await told(one, "AgentsReady")
        assert one.actual("e")
        await one.write(deregister(at("node-3", "e")))


def renamed(consul: Consul, node: str, name: str) -> None:
    """Give a stopped agent another node name."""
    member = consul.agents[node]
    file = member._data.with_suffix(".json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"node_name": name}))


async def test_a_renamed_agent_keeps_what_it_holds_under_its_new_name(doomed: Consul):
    agent = doomed.agents["node-4"]
    async with running(AgentSettings(), kubernetes(doomed, "node-1", "node-4")) as one:
        await eventually(lambda: one.registry.status().agents_ready == 2)
        await one.write(register(at("node-4", "f")))
        await eventually(lambda: row(doomed, at("node-4", "f")))
        agent.process.stop()
        renamed(doomed, "node-4", "node-4-renamed")
        agent.process.start(wait=False)
        there = replace(at("node-4", "f"), node="node-4-renamed")
        await eventually(lambda: one.actual("f") and one.actual("f").node == "node-4-renamed")
        await eventually(lambda: row(doomed, there))
        await eventually(lambda: row(doomed, at("node-4", "f")) is None)
        await one.write(deregister(there))


async def test_what_a_replaced_agent_held_is_removed_once_it_stands_on_the_new_one(doomed: Consul):
    """The same address, another name, no data: the old node stays in the catalog, failed."""
    agent = doomed.agents["node-4"]
    async with running(AgentSettings(), kubernetes(doomed, "node-1", "node-4")) as one:
        await eventually(lambda: one.registry.status().agents_ready == 2)
        old = at("node-4-renamed", "g")
        old = replace(old, meta=meta("g", **{META_NODE: "node-4"}))
        await one.write(register(old))
        await eventually(lambda: row(doomed, old))
        agent.process.kill()
        agent.lose_data()
        renamed(doomed, "node-4", "node-4-replaced")
        agent.process.start(wait=False)
        await eventually(
            lambda: one.registry.place(kubernetes(doomed, "node-4")["node-4"], "x", ()) == "node-4-replaced"
        )
        new = replace(old, node="node-4-replaced")
        await one.write(register(new))
        await eventually(lambda: len(one.registry.instances(WEB, "g")) == 2)
        outcomes: list[Any] = [1]
        for _ in range(600):
            outcomes = list(await one.registry.apply("node-4-renamed", [Deregister(old, Cause.REPLACED)]))
            if outcomes == [None]:
                break
            await asyncio.sleep(0.05)
        assert outcomes == [None]
        assert row(doomed, old) is None
        assert row(doomed, new)
        await one.write(deregister(new))


async def test_what_somebody_else_has_taken_meanwhile_is_not_removed(doomed: Consul):
    """The row is read afresh before it is removed."""
    gone = doomed.agents["node-2"]
    async with running(AgentSettings(), kubernetes(doomed, "node-1", "node-2")) as one:
        await eventually(lambda: one.registry.status().agents_ready == 2)
        await one.write(register(at("node-2", "h")))
        await eventually(lambda: row(doomed, at("node-2", "h")))
        gone.process.kill()
        await eventually(lambda: failed(doomed, "node-2"))
        one.registry.set_nodes(kubernetes(doomed, "node-1"))
        await eventually(lambda: one.actual("h"))
        mine = one.actual("h")
        taken = {"ID": "shop-web-h", "Service": "web", "Meta": {"managed-by": "somebody"}}
        body = {"Node": "node-2", "Address": gone.address, "SkipNodeUpdate": True, "Service": taken}
        doomed.server.request("PUT", "/v1/catalog/register", body)
        (outcome,) = await one.registry.apply("node-2", [deregister(mine)])
        assert isinstance(outcome, Stale)
        assert row(doomed, at("node-2", "h"))
        await eventually(lambda: one.actual("h") is None)
    doomed.server.request("PUT", "/v1/catalog/deregister", {"Node": "node-2", "ServiceID": "shop-web-h"})


async def test_a_quiet_connection_asks_once_a_minute(truth):
    async def forward(request):
        return await passed_on(request, truth.agent.http_addr)

    async with serving(forward) as server, running(AgentSettings(host="127.0.0.1", port=server.port)) as one:
        await one.is_ready()
        await asyncio.sleep(3)
        asked = [what for what, _, _ in server.requests if what.startswith("GET /v1/catalog/services")]
        await asyncio.sleep(3)
        assert len(asked) <= 2
        assert [what for what, _, _ in server.requests if what.startswith("GET /v1/catalog/services")] == asked


async def test_the_rules_of_agent_mode_are_enough_to_clean_up(guarded_consul: Consul):
    """`write` on the service's name, no `write` on any node."""
    rules = (
        'agent_prefix "" { policy = "read" } node_prefix "" { policy = "read" } service_prefix "" { policy = "read" } '
        'service "web" { policy = "write" }'
    )
    guarded_consul.server.request("PUT", "/v1/acl/policy", {"Name": "cleans", "Rules": rules})
    secret = guarded_consul.server.request("PUT", "/v1/acl/token", {"Policies": [{"Name": "cleans"}]})["SecretID"]
    access = Access(lambda: secret, allow_plaintext_token=True)
    gone = guarded_consul.agents["node-2"]
    async with running(AgentSettings(access=access), kubernetes(guarded_consul, "node-1", "node-2")) as one:
        await eventually(lambda: one.registry.status().agents_ready == 2)
        await one.write(register(at("node-2", "i")))
        await eventually(lambda: row(guarded_consul, at("node-2", "i")))
        gone.process.kill()
        try:
            await eventually(lambda: failed(guarded_consul, "node-2"))
            one.registry.set_nodes(kubernetes(guarded_consul, "node-1"))
            await eventually(lambda: one.actual("i"))
            await removed(one, "i")
            assert row(guarded_consul, at("node-2", "i")) is None
        finally:
            gone.lose_data()
            await asyncio.to_thread(gone.process.start)
