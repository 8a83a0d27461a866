"""What becomes of writes that Consul refuses, that a token doesn't allow, or whose answer is lost."""

import asyncio
import json
import secrets
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web as http
from catalog_world import NODES, Catalog, recorded, running, to, transactions
from consul_world import CLUSTER, deregister, register

from consul_registrar.audit import Audit
from consul_registrar.changes import Change
from consul_registrar.consul import Denied, NotSent, OutcomeUnknown
from consul_registrar.consul.transport import Access
from consul_registrar.consul.virtual import node_names
from consul_registrar.writer import Lanes


async def test_who_may_not_write_sends_nothing(catalog):
    async with recorded(catalog.consul) as way:
        settings = to(f"http://127.0.0.1:{way.port}")
        async with running(settings, may_write=lambda: False) as registry:
            await registry.is_ready()
            (error,) = await registry.registry.apply("", [register(registry.web("u1"))])
            assert isinstance(error, NotSent)
            assert error.reason.code == "NotLeading"
        assert transactions(way) == []


async def test_an_answer_that_got_lost_is_read_back(catalog):
    lose = [True]

    async def fault(request: Any) -> http.Response | None:
        if request.path == "/v1/txn" and lose:
            lose.clear()
            body = await request.read()
            await asyncio.to_thread(catalog.ask, "PUT", "/v1/txn", json.loads(body))
            return http.Response(status=500, text="rpc error making call: EOF")
        return None

    async with recorded(catalog.consul, fault) as way, running(to(f"http://127.0.0.1:{way.port}")) as registry:
        await registry.is_ready()
        one = registry.web("u1")
        (error,) = await registry.registry.apply("", [register(one)])
        assert isinstance(error, OutcomeUnknown)
        await registry.told("u1")
        assert registry.planned(one) == ()


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (500, "No cluster leader", "Unavailable"),
        (500, "leadership lost while committing log", "OutcomeUnknown"),
        (429, "rate limit exceeded, try again later or against a different server", "Throttled"),
        (503, "this operation can only be performed by the leader, try again later", "Throttled"),
        (403, "Permission denied", "Denied"),
    ],
)
async def test_what_consul_answers_for_a_transaction_is_what_each_change_is_told(catalog, status, text, kind):
    async def fault(request: Any) -> http.Response | None:
        return http.Response(status=status, text=text) if request.path == "/v1/txn" else None

    async with recorded(catalog.consul, fault) as way, running(to(f"http://127.0.0.1:{way.port}")) as registry:
        await registry.is_ready()
        outcomes = await registry.registry.apply("", [register(registry.web(f"u{n}")) for n in range(3)])
        assert [type(error).__name__ for error in outcomes] == [kind] * 3


async def test_how_often_consul_is_tried_without_a_leader_does_not_depend_on_how_many_wait(catalog):
    leaderless = asyncio.Event()

    async def fault(request: Any) -> http.Response | None:
        lost = leaderless.is_set() and request.path == "/v1/txn"
        return http.Response(status=500, text="rpc error making call: No cluster leader") if lost else None

    async def persist(lanes: Lanes, change: Change) -> None:
        while True:
            with suppress(NotSent):
                return await lanes.write(change)
            await asyncio.sleep(0.05)

    async with recorded(catalog.consul, fault) as way, running(to(f"http://127.0.0.1:{way.port}")) as registry:
        await registry.is_ready()
        lanes = Lanes(registry.registry, Audit("default", lambda *_: None))
        wanted = [registry.web(f"u{number}") for number in range(400)]
        leaderless.set()
        waiting = [asyncio.create_task(persist(lanes, register(one))) for one in wanted]
        await asyncio.sleep(3.0)
        tries = len(transactions(way))
        leaderless.clear()
        await asyncio.gather(*waiting)
        assert 2 <= tries <= 16  # as many as there is room for, then one after the other
        assert all(catalog.service(one) for one in wanted)


async def test_a_request_that_is_too_large_is_sent_in_halves(catalog):
    async def fault(request: Any) -> http.Response | None:
        if request.path == "/v1/txn" and (await request.text()).count('"Service":{"Verb"') > 2:
            return http.Response(status=413, text="Request body too large")
        return None

    async with recorded(catalog.consul, fault) as way, running(to(f"http://127.0.0.1:{way.port}")) as registry:
        await registry.is_ready()
        wanted = [registry.web(f"u{n}") for n in range(10)]
        await registry.write(*map(register, wanted))
        assert all(catalog.service(one) for one in wanted)


async def test_the_next_address_is_used_when_the_first_is_dead(catalog):
    settings = to(catalog.consul.http_addr)
    settings = replace(settings, addresses=(("127.0.0.1", 9, "http"), *settings.addresses))
    async with running(settings) as registry:
        await registry.is_ready()
        one = registry.web("u1")
        await registry.write(register(one))
        assert catalog.service(one) is not None


async def test_a_token_without_rights_for_one_service_costs_only_that_one(guarded_consul):
    catalog = Catalog(guarded_consul)
    names = node_names(CLUSTER, "default", NODES)
    rules = """
        node_prefix "tests-default-" { policy = "write" }
        service_prefix "" { policy = "read" }
        service "web" { policy = "write" }
    """
    async with running(to(guarded_consul.http_addr, access=_access(catalog, rules))) as registry:
        await registry.is_ready()
        outcomes = await registry.registry.apply(
            "", [register(registry.web("u1")), register(registry.web("u2", service="payroll"))]
        )
        assert outcomes[0] is None
        assert isinstance(outcomes[1], Denied)
        assert "payroll" in outcomes[1].reason.message
        assert registry.registry.status().version == ""
        assert registry.registry.status().datacenter == "dc1"
    for name in names:
        catalog.remove(name)


async def test_a_list_that_acls_cut_short_is_not_complete(guarded_consul):
    catalog = Catalog(guarded_consul)
    async with running(to(guarded_consul.http_addr, access=_access(catalog, None))) as full:
        await full.is_ready()
        one = full.web("u1")
        await full.write(register(one))
        rules = 'node_prefix "" { policy = "write" }\nservice "other" { policy = "write" }'
        async with running(to(guarded_consul.http_addr, access=_access(catalog, rules))) as blind:
            message = await blind.looks("ReadIncomplete")
            assert "service_prefix" in message
            assert not blind.registry.status().ready
            (error,) = await blind.registry.apply("", [register(one)])
            assert isinstance(error, NotSent)
        await full.write(deregister(one))
        assert catalog.service(one) is None
    for name in node_names(CLUSTER, "default", NODES):
        catalog.remove(name)


def _access(catalog: Catalog, rules: str | None) -> Access:
    token = catalog.consul.token
    if rules is not None:
        policy = catalog.ask("PUT", "/v1/acl/policy", {"Name": f"p-{secrets.token_hex(4)}", "Rules": rules})
        token = catalog.ask("PUT", "/v1/acl/token", {"Policies": [{"ID": policy["ID"]}]})["SecretID"]
    return Access(token=lambda: token or "", allow_plaintext_token=True)
