"""Which agents a registry speaks to: one on each node, and no address that leads to several or to none."""

import asyncio
import time
from itertools import count, pairwise

import pytest
from aiohttp import web as aioweb
from consul_faults import passed_on, serving
from consul_world import WEB, eventually, node, register, running, to, web

from consul_registrar.consul import AgentSettings, Misdirected, NotSent
from consul_registrar.model import Key, Reason
from devcluster.consul import Consul


async def test_a_pods_instance_stands_on_the_agent_of_its_node(consul: Consul, truth):
    nodes = {name: node(name, agent.address) for name, agent in consul.agents.items()}
    async with running(AgentSettings(), nodes) as both:
        await eventually(lambda: both.registry.status().agents_ready == 2)
        registry = both.registry
        assert registry.status().reason == Reason("AgentsReady", "2 of 2 Consul agents are ready")
        assert [registry.place(n, "x", ()) for n in nodes.values()] == ["node-1", "node-2"]
        assert registry.place(node("node-7", "127.0.0.1"), "x", ()).code == "NodeUnknown"


async def test_a_node_without_the_wanted_address_says_so(consul: Consul):
    lonely = node("node-1", "127.0.0.9", "Hostname")
    async with running(AgentSettings(), {"node-1": lonely}) as one:
        assert one.registry.place(lonely, "x", ()).code == "AgentAddressUnknown"


async def test_endpoints_stay_where_they_stand_and_are_spread_else(consul: Consul, truth):
    nodes = {name: node(name, agent.address) for name, agent in consul.agents.items()}
    async with running(AgentSettings(), nodes) as both:
        await eventually(lambda: both.registry.status().agents_ready == 2)
        place = both.registry.place
        assert {place(None, f"endpoint-{n}", ()) for n in range(20)} == {"node-1", "node-2"}
        for where in ("node-1", "node-2"):
            assert place(None, "endpoint-0", [web(where, "a")]) == where
        both.registry.set_nodes({"node-1": nodes["node-1"]})
        assert place(None, "endpoint-0", [web("node-2", "a")]) == "node-1"
        assert both.registry.status().agents == 1


async def test_what_may_stand_anywhere_waits_until_each_agent_was_asked_what_it_holds(consul: Consul, truth):
    """Else an operator that starts would register anew what stands at the agent that answers last."""
    agents = [agent.http_addr for agent in consul.agents.values()]
    answers = asyncio.Event()

    async def late(request):
        is_late = request.host.startswith("localhost")
        if is_late:
            await answers.wait()
        return await passed_on(request, agents[is_late])

    async with serving(late) as server:
        nodes = {"node-1": node("node-1", "127.0.0.1"), "node-2": node("node-2", "localhost")}
        async with running(AgentSettings(port=server.port), nodes) as both:
            place = both.registry.place
            await eventually(lambda: both.registry.status().agents_ready == 1)
            assert place(None, "endpoint-0", ()).code == "AgentConnecting"
            assert place(None, "endpoint-0", [web("node-1", "a")]) == "node-1"
            answers.set()
            await eventually(lambda: {place(None, f"endpoint-{n}", ()) for n in range(20)} == {"node-1", "node-2"})


async def test_a_node_that_goes_takes_its_instances_out_of_sight(consul: Consul, truth):
    nodes = {"node-1": node("node-1", truth.agent.address)}
    async with running(AgentSettings(), nodes) as one:
        await one.is_ready()
        await one.write(register(web("node-1", "a")))
        one.registry.set_nodes({})
        assert one.registry.registrations() == set()
        assert Key(WEB, "a") in one.changed
        assert one.registry.status().reason.code == "NoAgents"
        one.registry.set_nodes(nodes)
        await eventually(lambda: one.actual("a"))


async def test_a_dead_agent_is_its_own_problem(consul: Consul, truth):
    nodes = {"node-1": node("node-1", truth.agent.address), "node-9": node("node-9", "127.255.255.9")}
    async with running(AgentSettings(), nodes) as both:
        await both.looks("SomeAgentsUnwell")
        assert both.registry.status().ready
        assert both.registry.place(nodes["node-9"], "x", ()).code == "AgentDown"
        await both.write(register(web("node-1", "a")))


# --- addresses that don't lead to one agent ---


async def test_a_load_balancer_over_agents_is_refused(consul: Consul, truth):
    """Two real agents behind one address that takes turns."""
    turn = count()
    agents = [agent.http_addr for agent in consul.agents.values()]

    async def balance(request):
        return await passed_on(request, agents[next(turn) % 2])

    async with serving(balance) as server, running(AgentSettings(host="127.0.0.1", port=server.port)) as one:
        message = await one.looks("AddressIsLoadBalanced")
        assert "node-1, node-2" in message
        (outcome,) = await one.registry.apply("node-1", [register(web("node-1", "a"))])
        assert isinstance(outcome, NotSent | Misdirected)
    assert not [what for what, _, _ in server.requests if what.startswith("PUT")]


async def test_two_addresses_of_one_agent_are_refused_for_the_second(consul: Consul, truth):
    async def forward(request):
        return await passed_on(request, truth.agent.http_addr)

    async with serving(forward) as server:
        nodes = {"node-1": node("node-1", "127.0.0.1"), "twin": node("twin", "127.0.0.1")}
        async with running(AgentSettings(port=server.port), nodes) as both:

            def refused() -> set[str]:
                places = [both.registry.place(each, "x", ()) for each in nodes.values()]
                return {place.code for place in places if isinstance(place, Reason)}

            await eventually(lambda: refused() == {"AddressIsLoadBalanced"})
            status = both.registry.status()
            assert (status.reason.code, status.agents_ready) == ("SomeAgentsUnwell", 1)


@pytest.mark.parametrize(
    ("what", "status", "asked"),
    [
        ("/v1/catalog/node-services/", 429, "/v1/agent/services"),
        ("index=", 403, "index="),
    ],
)
async def test_an_agent_that_answers_in_part_is_asked_less_and_less_often(
    consul: Consul, truth, what: str, status: int, asked: str
):
    times: list[float] = []

    async def forward(request):
        if asked in request.raw_path:
            times.append(time.monotonic())
        if what in request.raw_path:
            return aioweb.Response(status=status, text="not now")
        return await passed_on(request, truth.agent.http_addr)

    def gaps() -> list[float]:
        """Between rounds: several requests of one round come together."""
        return [gap for earlier, later in pairwise(times) if (gap := later - earlier) > 0.2]

    async with serving(forward) as server, running(AgentSettings(host="127.0.0.1", port=server.port)):
        await eventually(lambda: len(gaps()) >= 6)
    first, *_, last = gaps()
    assert last > 2 * first


async def test_another_agent_at_the_address_is_noticed_and_read_from_the_start(consul: Consul, truth):
    now = "node-1"

    async def forward(request):
        return await passed_on(request, consul.agents[now].http_addr)

    async with serving(forward) as server, running(AgentSettings(host="127.0.0.1", port=server.port)) as one:
        await one.is_ready()
        await one.write(register(web("node-1", "a")))
        now = "node-2"
        consul.agents["node-2"].request("PUT", "/v1/agent/check/register", {"ID": "own", "Name": "own", "TTL": "1h"})
        truth.agent.request("PUT", f"/v1/agent/check/warn/{web('node-1', 'a').id}:readiness")
        await eventually(lambda: one.registry.place(None, "x", ()) == "node-2")
        assert one.actual("a") is None
        assert Key(WEB, "a") in one.changed
    consul.agents["node-2"].request("PUT", "/v1/agent/check/deregister/own")


async def test_an_agent_of_another_datacenter_is_refused(truth):
    async with running(to(truth.agent, datacenter="dc9")) as one:
        assert "dc9" in await one.looks("DatacenterMismatch")
        assert not one.registry.status().ready


async def test_something_else_than_an_agent_is_refused():
    async def page(_request):
        return aioweb.Response(text="<html>")

    async with serving(page) as server, running(AgentSettings(host="127.0.0.1", port=server.port)) as one:
        await one.looks("NotConsul")
