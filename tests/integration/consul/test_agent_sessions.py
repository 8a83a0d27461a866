"""What a registry knows and says of its agents: who they are, what they hold, when they are gone and back."""

import asyncio

import pytest
from aiohttp import web as aioweb
from consul_faults import Agent, Server, passed_on, serving
from consul_world import CONNECTION, WEB, Truth, deregister, eventually, meta, node, register, running, tcp, to, web

from consul_registrar.consul import Access, AgentSettings, NotSent
from consul_registrar.model import META_CONNECTION, META_HASH, Health, Key
from devcluster.consul import Consul


def foreign(truth: Truth, **more: str) -> None:
    """A service that somebody else registered."""
    truth.agent.request("PUT", "/v1/agent/service/register", {"ID": "vm", "Name": "web", "Port": 1, "Meta": more})


async def test_foreign_services_are_neither_seen_nor_touched(truth):
    """Not even those that another connection of the same cluster registered."""
    foreign(truth, **dict(meta("x")) | {META_CONNECTION: "another"})
    truth.agent.request("PUT", "/v1/agent/service/register", {"ID": "plain", "Name": "web"})
    await eventually(lambda: truth.in_catalog("plain") and truth.in_catalog("vm"))
    before = truth.in_catalog("vm"), truth.in_catalog("plain")
    async with running(to(truth.agent)) as one:
        await one.is_ready()
        await one.write(register(web("node-1", "a")), deregister(web("node-1", "a")))
        assert one.registry.registrations() == set()
        assert one.registry.status().instances == 0
    assert (truth.in_catalog("vm"), truth.in_catalog("plain")) == before


async def test_what_stands_from_before_is_found_at_the_start(truth):
    async with running(to(truth.agent)) as first:
        await first.is_ready()
        await first.write(register(web("node-1", "a")))
    async with running(to(truth.agent)) as second:
        await second.told("a")
        assert Key(WEB) in second.changed
        assert second.actual("a").health is Health.PASSING


async def test_a_quiet_registry_changes_nothing_and_hears_nothing(truth):
    one = web("node-1", "a")
    async with running(to(truth.agent)) as first:
        await first.is_ready()
        await first.write(register(one))
        row = await eventually(lambda: truth.in_catalog(one))
        first.changed.clear()
        await asyncio.sleep(3)
        assert first.changed == []
    assert truth.in_catalog(one) == row


async def test_a_service_removed_at_the_agent_is_noticed(registry, truth):
    one = web("node-1", "a")
    await registry.write(register(one))
    await eventually(lambda: truth.in_catalog(one))
    truth.agent.request("PUT", f"/v1/agent/service/deregister/{one.id}")
    await registry.told("a")
    assert registry.actual("a") is None
    assert not registry.registry.reaped(WEB, "a")


async def test_a_status_edited_at_the_agent_is_noticed(registry, truth):
    one = web("node-1", "a")
    await registry.write(register(one))
    await eventually(lambda: truth.in_catalog(one))
    truth.agent.request("PUT", f"/v1/agent/check/warn/{one.id}:readiness")
    await registry.told("a")
    await eventually(lambda: registry.actual("a").health is Health.WARNING)


async def test_the_status_tells_who_answers(registry, truth):
    status = registry.registry.status()
    assert (status.ready, status.reason.code, status.datacenter) == (True, "AgentReady", "dc1")
    assert status.version
    leader = truth.consul.server.request("GET", "/v1/status/leader")
    await eventually(lambda: registry.registry.status().leader == leader)
    assert (status.agents, status.agents_ready) == (1, 1)
    assert registry.registry.place(None, "x", ()) == "node-1"
    assert registry.registry.status().ready


async def test_a_killed_agent_is_down_at_once_and_its_keys_are_told_when_it_is_back(registry, truth):
    one = web("node-1", "a")
    await registry.write(register(one))
    truth.agent.process.kill()
    try:
        message = await registry.looks("AgentDown")
        assert truth.agent.address in message
        assert not registry.registry.status().ready
        assert registry.registry.place(None, "x", ()).code == "AgentDown"
        (outcome,) = await registry.registry.apply("node-1", [deregister(one)])
        assert isinstance(outcome, NotSent)
        assert registry.actual("a") is not None
        registry.changed.clear()
    finally:
        await asyncio.to_thread(truth.agent.process.start)
    await registry.told("a")
    assert registry.registry.status().ready
    assert registry.agents == ["", "", ""]
    assert registry.actual("a") is not None


async def test_an_agent_that_lost_its_data_is_missing_everything(registry, truth):
    one = web("node-1", "a")
    await registry.write(register(one))
    registry.changed.clear()
    await asyncio.to_thread(truth.agent.restart, keep_data=False)
    await eventually(lambda: registry.actual("a") is None)
    await registry.told("a")
    assert not registry.registry.reaped(WEB, "a")
    await eventually(lambda: registry.registry.status().ready)
    await registry.write(register(one))
    await eventually(lambda: truth.status("shop-web-a:readiness") == "passing")


async def test_a_frozen_agent_does_not_hold_up_another(consul: Consul, truth):
    """Writes to the frozen one end when they time out; the other's are done long before."""
    nodes = {name: node(name, agent.address) for name, agent in consul.agents.items()}
    other = web("node-2", "b")
    async with running(AgentSettings(), nodes) as both:
        await eventually(lambda: both.registry.status().agents_ready == 2)
        consul.agents["node-1"].process.pause()
        try:
            stuck = asyncio.create_task(both.registry.apply("node-1", [register(web("node-1", "a"))]))
            await both.write(register(other), deregister(other))
            assert not stuck.done()
            (outcome,) = await stuck
            assert outcome is not None
            await eventually(lambda: both.registry.status().agents_ready == 1)
        finally:
            consul.agents["node-1"].process.resume()
        await eventually(lambda: both.registry.status().agents_ready == 2)


# --- tokens and ACLs ---


async def test_a_list_that_acls_filtered_is_never_taken_as_complete(guarded_consul: Consul):
    """Else what the token may not see would count as gone."""
    truth = Truth(guarded_consul, "node-1")
    blind = token(guarded_consul, 'agent_prefix "" { policy = "read" } service "unrelated" { policy = "write" }')
    seeing = token(
        guarded_consul,
        'agent_prefix "" { policy = "read" } node_prefix "" { policy = "read" } service_prefix "" { policy = "write" }',
    )
    async with running(to(truth.agent, access=access(seeing))) as one:
        await one.is_ready()
        await one.write(register(web("node-1", "a")))
    async with running(to(truth.agent, access=access(blind))) as two:
        assert "service_prefix" in await two.looks("ReadIncomplete")
        assert two.changed == []
    secret = [seeing]
    async with running(to(truth.agent, access=Access(lambda: secret[0], allow_plaintext_token=True))) as three:
        await three.told("a")
        secret[0] = blind
        truth.agent.request("PUT", f"/v1/agent/check/warn/{web('node-1', 'a').id}:readiness")
        await three.looks("ReadIncomplete")
        assert three.actual("a") is not None
        secret[0] = seeing
        await three.is_ready()


async def test_an_agent_without_rights_says_what_is_missing(guarded_consul: Consul):
    truth = Truth(guarded_consul, "node-1")
    async with running(to(truth.agent)) as anonymous:
        await anonymous.looks("PermissionDenied")
    async with running(to(truth.agent, access=access("11111111-2222-3333-4444-555555555555"))) as unknown:
        await unknown.looks("TokenUnknown")


async def test_a_token_never_leaves_in_plain_text_unasked(truth):
    async with running(to(truth.agent, access=Access(lambda: "s3cret"))) as one:
        assert "s3cret" not in await one.looks("PlaintextTokenRefused")


async def test_the_token_leaves_in_its_header_and_nowhere_else(truth, monkeypatch, caplog):
    """Whatever the environment says, and also when things go wrong."""
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "env-s3cret")

    async def forward(request):
        return await passed_on(request, truth.agent.http_addr)

    async with serving(forward) as server:
        settings = AgentSettings(host="127.0.0.1", port=server.port, access=access("s3cret"))
        async with running(settings) as one:
            await one.is_ready()
            await one.write(register(web("node-1", "a")), deregister(web("node-1", "a")))
            (outcome,) = await one.registry.apply("node-1", [register(web("node-1", "b", address="0.0.0.0"))])
            assert "s3cret" not in repr(settings) + repr(outcome) + repr(vars(one.registry._sessions[""]))
    assert server.requests
    for what, headers, body in server.requests:
        assert headers.pop("X-Consul-Token") == "s3cret"
        assert "s3cret" not in what + body + str(headers)
    assert "s3cret" not in caplog.text


def access(secret: str) -> Access:
    return Access(lambda: secret, allow_plaintext_token=True)


def token(consul: Consul, rules: str) -> str:
    name = f"rules-{abs(hash(rules))}"
    consul.server.request("PUT", "/v1/acl/policy", {"Name": name, "Rules": rules})
    made = consul.server.request("PUT", "/v1/acl/token", {"Policies": [{"Name": name}]})
    return made["SecretID"]


# --- blocking queries ---


async def test_an_index_that_goes_backwards_starts_the_query_over():
    """The servers' log is another one then: waiting for the old index would be waiting for ever."""
    indexes = iter([50, 3, 8])
    asked: list[str | None] = []

    async def services(request):
        asked.append(request.query.get("index"))
        index = next(indexes, None)
        if index is None:
            await asyncio.sleep(60)
        return aioweb.json_response({"Services": []}, headers={"X-Consul-Index": str(index)})

    async def checks(request):
        if "index" in request.query:
            await asyncio.sleep(60)
        return aioweb.json_response([], headers={"X-Consul-Index": "7"})

    agent = Agent(faults={"/v1/catalog/node-services": services, "/v1/health/node": checks})
    async with serving(agent) as server, running(AgentSettings(host="127.0.0.1", port=server.port)) as one:
        await one.is_ready()
        await eventually(lambda: len(asked) == 4)
        assert asked == [None, "50", None, "8"]


async def at_rest(server: Server) -> None:
    """Wait until nothing has been asked for a second."""
    asked = -1
    while asked != len(server.requests):
        asked = len(server.requests)
        await asyncio.sleep(1)


async def test_what_changes_on_other_nodes_lets_nobody_read_this_one(truth):
    """Although the index of a node's checks is that of all checks."""

    async def forward(request):
        return await passed_on(request, truth.agent.http_addr)

    def reads() -> int:
        return sum("index" not in what for what, _, _ in server.requests if what.startswith("GET /v1/health/node"))

    def elsewhere(number: int) -> None:
        check = {"Node": "elsewhere", "CheckID": "c", "Name": "c", "Status": ("passing", "critical")[number % 2]}
        body = {"Node": "elsewhere", "Address": "192.0.2.1", "Check": check}
        truth.consul.server.request("PUT", "/v1/catalog/register", body)

    async with serving(forward) as server, running(AgentSettings(host="127.0.0.1", port=server.port)) as one:
        await one.is_ready()
        await eventually(lambda: sum("index" in what for what, _, _ in server.requests) == 2)
        await at_rest(server)  # they wait at the servers by then
        before = reads()
        for number in range(10):
            await asyncio.to_thread(elsewhere, number)
            await asyncio.sleep(0.05)
        truth.consul.server.request("PUT", "/v1/catalog/deregister", {"Node": "elsewhere"})
        assert reads() == before


async def test_servers_without_a_leader_are_waited_for():
    async def leaderless(_request):
        return aioweb.Response(status=500, text="No cluster leader")

    agent = Agent(faults={"/v1/catalog/node-services": leaderless, "/v1/health/node": leaderless})
    async with serving(agent) as server, running(AgentSettings(host="127.0.0.1", port=server.port)) as one:
        await one.looks("ConsulNoLeader")
        assert one.registry.status().ready
        asked = len(server.requests)
        await asyncio.sleep(2)
        assert len(server.requests) - asked < 20


async def test_a_single_incomplete_read_ends_the_session(truth):
    async def hidden(_request):
        return aioweb.json_response({}, headers={"X-Consul-Results-Filtered-By-ACLs": "true"})

    agent = Agent(faults={"/v1/agent/services": hidden})
    async with serving(agent) as server, running(AgentSettings(host="127.0.0.1", port=server.port)) as one:
        await one.looks("ReadIncomplete")


# --- reaping ---


@pytest.mark.slow
async def test_what_the_agent_reaped_is_told_apart(registry, truth):
    """Consul's shortest time is a minute, and its reaper looks every half."""
    one = web("node-1", "a")
    check = tcp(one.id, 1, deregister_after=60_000)
    one = web("node-1", "a", checks=(check,), meta=meta("a", **{META_HASH: "1r-abc"}))
    kept = web("node-1", "b", checks=(tcp("shop-web-b", 1),))
    await registry.write(register(one), register(kept))
    await eventually(lambda: registry.actual("a") is None, within=300)
    await eventually(lambda: truth.in_catalog(one) is None)
    assert registry.registry.reaped(WEB, "a")
    assert registry.actual("b") is not None
    assert Key(WEB, "a") in registry.changed
    await registry.write(register(one))
    assert not registry.registry.reaped(WEB, "a")
    assert registry.registry.name == CONNECTION
