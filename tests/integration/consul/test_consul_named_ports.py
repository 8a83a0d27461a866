"""Named ports at a real agent and in a real catalog, and with servers that don't know them."""

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web as http
from catalog_world import Catalog, recorded
from catalog_world import running as in_catalog
from catalog_world import to as catalog_to
from consul_faults import passed_on, serving
from consul_world import WEB, Truth, eventually, register, to, web
from consul_world import running as at_agent

from consul_registrar.audit import Audit
from consul_registrar.changes import Cause, Change, Deregister, Feed
from consul_registrar.consul.agent import AgentSettings
from consul_registrar.consul.errors import ConsulError, Denied, OutcomeUnknown, Stale
from consul_registrar.model import Health, Instance, Key, NamedPort

PORTS = (NamedPort("grpc", 90), NamedPort("http", 9, default=True))
OTHERS = (NamedPort("grpc", 91), NamedPort("http", 9, default=True))


def told(row: dict[str, Any] | None) -> list[tuple[str, int, bool]]:
    assert row is not None
    return sorted((port["Name"], port["Port"], port["Default"]) for port in row.get("Ports") or ())


def edited(row: dict[str, Any]) -> dict[str, Any]:
    """The service as somebody else would write it over ours."""
    kept = {key: row[key] for key in ("ID", "Service", "Address", "Tags", "Meta", "Weights")}
    return kept | {"Ports": [{"Name": "http", "Port": 1, "Default": True}]}


async def test_an_agent_is_given_them_and_what_reads_back_is_what_was_wanted(truth: Truth) -> None:
    instance = web(truth.node, "ports", ports=PORTS)
    async with at_agent(to(truth.agent)) as one:
        await one.is_ready()
        await one.write(register(instance))
        await eventually(lambda: told(truth.in_catalog(instance)) == [tuple(port) for port in PORTS])
        await eventually(lambda: (one.actual("ports") or instance).ports == PORTS)
        actual = one.actual("ports")
        assert actual is not None
        assert (actual.port, actual.ports) == (9, PORTS)
        await one.write(register(replace(instance, ports=OTHERS)))
        await eventually(lambda: told(truth.in_catalog(instance)) == [tuple(port) for port in OTHERS])
        await one.write(register(replace(instance, ports=())))
        await eventually(lambda: told(truth.in_catalog(instance)) == [])
        assert truth.at_agent(instance) is not None


async def test_edited_in_the_catalog_they_are_told_as_drift_of_the_agents(truth: Truth) -> None:
    instance = web(truth.node, "drift", ports=PORTS)
    async with at_agent(to(truth.agent)) as one:
        await one.is_ready()
        await one.write(register(instance))
        row = await eventually(lambda: truth.in_catalog(instance))
        entry = {"Node": truth.node, "Address": truth.agent.address, "SkipNodeUpdate": True, "Service": edited(row)}
        one.changed.clear()

        def is_told() -> bool:
            if told(truth.in_catalog(instance)) != [("http", 1, True)]:  # the agent may have looked by itself just now
                truth.consul.server.request("PUT", "/v1/catalog/register", entry)
            return Key(WEB, "drift") in one.changed

        await eventually(is_told)


async def test_the_catalog_holds_them_with_the_checks_and_a_feed_leaves_them_alone(catalog: Catalog) -> None:
    async with in_catalog(catalog_to(catalog.consul.http_addr)) as one:
        await one.is_ready()
        instance = one.web("ports", ports=PORTS)
        await one.write(register(instance))
        assert told(catalog.service(instance)) == [tuple(port) for port in PORTS]
        assert one.planned(instance) == ()
        critical = replace(instance.checks[0], status=Health.CRITICAL)
        await one.write(Feed(instance, critical))
        assert catalog.status(instance) == "critical"
        assert told(catalog.service(instance)) == [tuple(port) for port in PORTS]
        changed = replace(instance, checks=(critical,), ports=OTHERS)
        await one.converges(changed)
        assert told(catalog.service(instance)) == [tuple(port) for port in OTHERS]
        assert catalog.status(instance) == "critical", "an edit of ports leaves the health"
        await one.converges(replace(changed, ports=()))
        assert told(catalog.service(instance)) == []
        await one.write(Deregister(instance, Cause.UNSELECTED))
        assert catalog.service(instance) is None


async def test_edited_in_the_catalog_they_are_set_right(catalog: Catalog) -> None:
    async with in_catalog(catalog_to(catalog.consul.http_addr)) as one:
        await one.is_ready()
        instance = one.web("drift", ports=PORTS)
        await one.write(register(instance))
        one.changed.clear()
        row = catalog.service(instance)
        assert row is not None
        catalog.register(instance.node, edited(row))
        await one.told("drift")
        await one.converges(instance)
        assert told(catalog.service(instance)) == [tuple(port) for port in PORTS]


async def test_at_rest_nothing_is_written_again(catalog: Catalog) -> None:
    async with recorded(catalog.consul) as server, in_catalog(catalog_to(f"http://127.0.0.1:{server.port}")) as one:
        await one.is_ready()
        instances = [one.web(f"rest-{at}", ports=PORTS) for at in range(5)]
        await one.write(*map(register, instances))
        sent = [what for what, _, _ in server.requests if what.startswith("PUT /v1/catalog/register")]
        assert len(sent) == len(instances)
        for instance in instances:
            await one.converges(instance)
        assert [what for what, _, _ in server.requests if what.startswith("PUT /v1/catalog/register")] == sent


def older(version: str, to: str) -> Any:
    """Answers of a real Consul, but for what it says of its version."""

    async def fault(request: http.Request) -> http.Response | None:
        if request.path != "/v1/agent/self":
            return None
        answer = await passed_on(request, to)
        body = json.loads(answer.body or b"{}")
        body["Config"]["Version"] = version
        return http.json_response(body)

    return fault


async def test_an_agent_that_is_too_old_is_sent_nothing(truth: Truth) -> None:
    instance = web(truth.node, "old", ports=PORTS)
    fault = older("1.21.5", truth.agent.http_addr)

    async def handler(request: http.Request) -> http.Response:
        return await fault(request) or await passed_on(request, truth.agent.http_addr)

    async with serving(handler) as server, at_agent(AgentSettings(host="127.0.0.1", port=server.port)) as one:
        await one.is_ready()
        (error,) = await one.registry.apply(instance.node, [register(instance)])
        assert error is not None
        assert (error.reason.code, "1.21.5" in error.reason.message) == ("NamedPortsUnsupported", True)
        await one.write(register(replace(instance, ports=(), id="shop-web-old-plain")))
    assert truth.at_agent(instance) is None
    assert not [what for what, _, body in server.requests if what.startswith("PUT") and "Ports" in body]


async def test_a_catalog_that_is_too_old_is_sent_nothing(catalog: Catalog) -> None:
    fault = older("1.21.5", catalog.consul.http_addr)
    async with recorded(catalog.consul, fault) as server:
        async with in_catalog(catalog_to(f"http://127.0.0.1:{server.port}")) as one:
            await one.is_ready()
            await eventually(lambda: one.registry.status().version == "1.21.5")
            instance = one.web("old", ports=PORTS)
            (error,) = await one.registry.apply("", [register(instance)])
            assert error is not None
            assert error.reason.code == "NamedPortsUnsupported"
        assert not [what for what, _, _ in server.requests if what.startswith("PUT /v1/catalog/register")]
    assert catalog.service(instance) is None


async def test_what_somebody_writes_before_it_is_read_back_is_not_taken_for_ours(catalog: Catalog) -> None:
    others = iter([{"Tags": ["theirs"]}, {"Ports": [{"Name": "http", "Port": 1, "Default": True}]}])

    async def fault(request: http.Request) -> http.Response | None:
        if request.path != "/v1/catalog/register":
            return None
        answer = await passed_on(request, catalog.consul.http_addr)
        if (changed := next(others, None)) is not None:
            body = json.loads(await request.read())
            catalog.register(body["Node"], body["Service"] | changed)
        return answer

    async with (
        recorded(catalog.consul, fault) as server,
        in_catalog(catalog_to(f"http://127.0.0.1:{server.port}")) as one,
    ):
        await one.is_ready()
        instance = one.web("between", ports=PORTS)
        for _ in range(2):
            (error,) = await one.registry.apply("", [register(instance)])
            assert isinstance(error, Stale)
        await one.converges(instance)
        row = catalog.service(instance)
        assert (told(row), row and row["Tags"]) == ([tuple(port) for port in PORTS], list(instance.tags))


async def test_several_are_registered_side_by_side_and_read_back_together(catalog: Catalog) -> None:
    waiting = asyncio.Barrier(4)

    async def fault(request: http.Request) -> http.Response | None:
        if request.path == "/v1/catalog/register":
            await asyncio.wait_for(waiting.wait(), 10)
        return None

    async with (
        recorded(catalog.consul, fault) as server,
        in_catalog(catalog_to(f"http://127.0.0.1:{server.port}", virtual_nodes=1)) as one,
    ):
        await one.is_ready()
        instances = [one.web(f"side-{at}", ports=PORTS) for at in range(12)]
        await one.write(*map(register, instances))
        reads = [what for what, _, _ in server.requests if "filter=ID+" in what and "side-" in what]
        assert 0 < len(reads) < len(instances) / 2
        for instance in instances:
            assert told(catalog.service(instance)) == [tuple(port) for port in PORTS]
            assert one.planned(instance) == ()


async def test_what_was_refused_is_told_so_though_the_others_cannot_be_read_back(catalog: Catalog) -> None:
    failing = True

    async def fault(request: http.Request) -> http.Response | None:
        if request.path == "/v1/catalog/register" and b"refused" in await request.read():
            return http.Response(status=403, text="Permission denied")
        reads_back = failing and "side-" in request.query.get("filter", "")
        return http.Response(status=500, text="No cluster leader") if reads_back else None

    async with (
        recorded(catalog.consul, fault) as server,
        in_catalog(catalog_to(f"http://127.0.0.1:{server.port}", virtual_nodes=1)) as one,
    ):
        await one.is_ready()
        taken, refused = (one.web(name, ports=PORTS) for name in ("side-taken", "side-refused"))
        outcomes = await one.registry.apply("", [register(taken), register(refused)])
        assert [type(error) for error in outcomes] == [OutcomeUnknown, Denied]
        failing = False
        await one.converges(taken)


def dropping(catalog: Catalog) -> Any:
    """An older server behind the one that is asked: it takes the request, and what it stores has no ports."""

    async def fault(request: http.Request) -> http.Response | None:
        if request.path != "/v1/catalog/register":
            return None
        body = json.loads(await request.read())
        del body["Service"]["Ports"]
        catalog.ask("PUT", "/v1/catalog/register", body)
        return http.json_response(True)

    return fault


async def test_with_servers_that_drop_them_what_had_some_stands_at_its_default_port(catalog: Catalog) -> None:
    drops, faults = dropping(catalog), []

    async def fault(request: http.Request) -> http.Response | None:
        return await drops(request) if faults else None

    async with (
        recorded(catalog.consul, fault) as server,
        in_catalog(catalog_to(f"http://127.0.0.1:{server.port}")) as one,
    ):
        await one.is_ready()
        named = one.web("moved", ports=PORTS)
        await one.write(register(named))
        faults.append("the leader is an older one now")
        (error,) = await one.registry.apply("", [register(replace(named, ports=OTHERS))])
        assert error is not None
        assert error.reason.code == "NamedPortsUnsupported"
        row = catalog.service(named)
        assert (told(row), row and row["Port"]) == ([], 9)


async def test_a_taking_back_that_somebody_was_faster_than_is_tried_again(catalog: Catalog) -> None:
    drops, faster = dropping(catalog), iter(["theirs"])
    plain: list[Instance] = []

    async def fault(request: http.Request) -> http.Response | None:
        if request.path == "/v1/txn" and plain and next(faster, None):
            row = catalog.service(plain[0])
            assert row is not None
            kept = {key: row[key] for key in ("ID", "Service", "Address", "Tags", "Meta", "Weights")}
            catalog.register(plain[0].node, kept | {"Tags": ["theirs"]})
        return await drops(request)

    async with (
        recorded(catalog.consul, fault) as server,
        in_catalog(catalog_to(f"http://127.0.0.1:{server.port}")) as one,
    ):
        await one.is_ready()
        made = one.web("fast")
        await one.write(register(made))
        plain.append(made)
        named = replace(made, ports=PORTS)
        (error,) = await one.registry.apply("", [register(named)])
        assert isinstance(error, Stale)
        (error,) = await one.registry.apply("", [register(named)])
        assert error is not None
        assert error.reason.code == "NamedPortsUnsupported"
        row = catalog.service(made)
        assert (row and row["Port"]) == 9


async def test_who_no_longer_leads_takes_nothing_back_and_the_next_who_does_leaves_no_port_lost(
    catalog: Catalog,
) -> None:
    drops, leads = dropping(catalog), [True]

    async def fault(request: http.Request) -> http.Response | None:
        answer: http.Response | None = await drops(request)
        leads[0] = leads[0] and answer is None
        return answer

    async with recorded(catalog.consul, fault) as server:
        to = catalog_to(f"http://127.0.0.1:{server.port}")
        async with in_catalog(to, may_write=lambda: leads[0]) as one:
            await one.is_ready()
            made = one.web("late")
            await one.write(register(made))
            named = replace(made, ports=PORTS)
            (error,) = await one.registry.apply("", [register(named)])
            assert error is not None
            assert error.reason.code == "NotLeading"
            row = catalog.service(made)
            assert (row and row.get("Port", 0)) == 0
        async with in_catalog(to) as other:
            await other.is_ready()
            (error,) = await other.registry.apply("", [register(named)])
            assert error is not None
            assert error.reason.code == "NamedPortsUnsupported"
            row = catalog.service(made)
            assert (row and row["Port"]) == 9


@pytest.mark.parametrize(
    ("stood", "operation"), [(False, "deregister"), (True, "register")], ids=["new", "stood before"]
)
async def test_what_is_taken_back_leaves_a_line_of_its_own(
    catalog: Catalog, caplog: pytest.LogCaptureFixture, stood: bool, operation: str
) -> None:
    audit = Audit("default", lambda *_: None)

    def audited(change: Change, error: ConsulError | None) -> None:
        audit.record(change, error, 1)

    async with (
        recorded(catalog.consul, dropping(catalog)) as server,
        in_catalog(catalog_to(f"http://127.0.0.1:{server.port}"), audited=audited) as one,
    ):
        await one.is_ready()
        plain = one.web("line")
        if stood:
            await one.write(register(plain))
        with caplog.at_level(logging.INFO, "consul_registrar.audit"):
            await one.registry.apply("", [register(replace(plain, ports=PORTS))])
    (record,) = [each for each in caplog.records if each.name == "consul_registrar.audit"]
    line = json.loads(record.getMessage())
    assert {key: line[key] for key in ("operation", "cause", "outcome", "instance", "registration")} == {
        "operation": operation,
        "cause": "ports-lost",
        "outcome": "applied",
        "instance": plain.id,
        "registration": "shop/web",
    }


@pytest.mark.parametrize("stood", [False, True], ids=["new", "stood before"])
async def test_servers_that_drop_them_are_found_out_and_what_stood_before_stands(catalog: Catalog, stood: bool) -> None:
    async with (
        recorded(catalog.consul, dropping(catalog)) as server,
        in_catalog(catalog_to(f"http://127.0.0.1:{server.port}")) as one,
    ):
        await one.is_ready()
        plain = one.web("lost")
        if stood:
            await one.write(register(plain))
        named: Instance = replace(plain, ports=PORTS)
        for _ in range(2):
            (error,) = await one.registry.apply("", [register(named)])
            assert error is not None
            assert error.reason.code == "NamedPortsUnsupported"
        assert len([what for what, _, _ in server.requests if what.startswith("PUT /v1/catalog/register")]) == 1
        row = catalog.service(plain)
        assert (row and row["Port"]) == (9 if stood else None)
        await one.converges(plain)
