"""What an agent and the catalog hold after changes were applied."""

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from consul_world import Running, Truth, deregister, eventually, meta, readiness, register, tcp, web

from consul_registrar.changes import Cause, Deregister, DropCheck, Feed, Register
from consul_registrar.consul import Invalid, NotSent, Stale
from consul_registrar.model import MANAGED_BY, META_HASH, META_MANAGED_BY, META_NONCE, Check, Health, Instance
from consul_registrar.probes import HttpProbe, Timing


@pytest.fixture
def listener() -> Iterator[int]:
    """A port that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made.getsockname()[1]


async def test_an_instance_is_registered_with_all_that_was_said_of_it(registry: Running, truth: Truth):
    one = web("node-1", "a")
    await registry.write(register(one))
    row = await eventually(lambda: truth.in_catalog(one))
    assert (row["Service"], row["Address"], row["Port"]) == ("web", "127.0.0.1", 9)
    assert sorted(row["Tags"]) == ["blue", "v1"]
    assert row["Meta"] == dict(one.meta)
    assert {c: r["Status"] for c, r in truth.catalog_checks(one).items()} == {"shop-web-a:readiness": "passing"}


async def test_what_was_acknowledged_is_actual_at_once(registry: Running):
    one = web("node-1", "a")
    await registry.write(register(one))
    assert registry.actual("a") == replace(one, checks=(replace(one.checks[0], probe=None),))
    assert registry.registry.subjects(("shop", "web")) == {"a"}
    await registry.write(deregister(one))
    assert registry.actual("a") is None
    assert registry.registry.registrations() == set()


async def test_a_deregistered_instance_is_gone_from_agent_and_catalog(registry: Running, truth: Truth):
    one = web("node-1", "a")
    await registry.write(register(one))
    await registry.write(deregister(one))
    assert truth.at_agent(one) is None
    await eventually(lambda: truth.in_catalog(one) is None)


async def test_deregistering_what_the_agent_does_not_have_is_a_success(registry: Running):
    await registry.write(deregister(web("node-1", "never")))


async def by_hand(truth: Truth, **more: Any) -> None:
    body = {"ID": "by-hand", "Name": "legacy", "Address": "127.0.0.9", "Port": 9} | more
    await asyncio.to_thread(truth.agent.request, "PUT", "/v1/agent/service/register", body)


STRANGER = Instance("node-1", "by-hand", "legacy", "127.0.0.9", 9)


@pytest.mark.parametrize("more", [{"Address": "127.0.0.8"}, {"Port": 10}, {"Meta": {META_MANAGED_BY: MANAGED_BY}}])
async def test_what_is_adopted_is_removed_only_while_it_is_the_same(registry: Running, truth: Truth, more: Any):
    await by_hand(truth, **more)
    adopts = Deregister(STRANGER, Cause.ADOPTED)
    (outcome,) = await registry.registry.apply("node-1", [adopts])
    assert isinstance(outcome, Stale)
    assert truth.at_agent(STRANGER) is not None
    await by_hand(truth)
    await registry.write(adopts)
    assert truth.at_agent(STRANGER) is None
    await registry.write(adopts)


async def test_readiness_is_fed(registry: Running, truth: Truth):
    one = web("node-1", "a")
    await registry.write(register(one))
    await registry.write(Feed(one, readiness(one.id, Health.CRITICAL)))
    assert registry.actual("a").health is Health.CRITICAL
    await eventually(lambda: truth.status("shop-web-a:readiness") == "critical")


async def test_feeding_a_check_that_is_gone_says_that_the_view_is_stale(registry: Running):
    one = web("node-1", "a")
    (outcome,) = await registry.registry.apply("node-1", [Feed(one, one.checks[0])])
    assert isinstance(outcome, Stale)


async def test_a_registration_of_a_known_check_corrects_its_status(registry: Running, truth: Truth):
    """An agent ignores the status of a check that it has."""
    one = web("node-1", "a")
    await registry.write(register(one))
    sick = replace(one, tags=("v2",), checks=(readiness(one.id, Health.CRITICAL),))
    await registry.write(register(sick))
    await eventually(lambda: truth.status("shop-web-a:readiness") == "critical")
    await eventually(lambda: truth.in_catalog(one)["Tags"] == ["v2"])


async def test_a_dropped_check_is_gone_and_dropping_it_again_is_a_success(registry: Running, truth: Truth):
    one = web("node-1", "a")
    one = replace(one, checks=(*one.checks, tcp(one.id)))
    await registry.write(register(one))
    drop = DropCheck(one, "shop-web-a:port:tcp")
    await registry.write(drop)
    await registry.write(drop)
    assert set(truth.agent_checks(one)) == {"shop-web-a:readiness"}
    assert [c.id for c in registry.actual("a").checks] == ["shop-web-a:readiness"]


async def test_a_change_of_tags_leaves_the_checks_running(registry: Running, truth: Truth, listener: int):
    """A check that were defined anew would begin critical, or lose its output."""
    one = web("node-1", "a")
    one = replace(one, checks=(*one.checks, tcp(one.id, listener)))
    await registry.write(register(one))
    await eventually(lambda: truth.status("shop-web-a:port:tcp") == "passing")
    before = truth.agent_checks(one)
    await registry.write(Register(replace(one, tags=("v3",)), (), Cause.EDITED))
    after = truth.agent_checks(one)
    assert [(r["Status"], r["Output"]) for r in after.values()] == [(r["Status"], r["Output"]) for r in before.values()]
    await eventually(lambda: truth.in_catalog(one)["Tags"] == ["v3"])


async def test_a_probe_finds_its_status_and_the_key_is_reported(registry: Running, listener: int):
    one = web("node-1", "a")
    one = replace(one, checks=(tcp(one.id, listener),))
    await registry.write(register(one))
    await eventually(lambda: registry.actual("a").health is Health.PASSING)
    await registry.told("a")


async def test_an_http_check_is_defined_completely(registry: Running, truth: Truth):
    one = web("node-1", "a")
    probe = HttpProbe(
        url="http://127.0.0.1:9/health",
        method="HEAD",
        headers=(("X-A", "1"), ("X-A", "2")),
        body="hello",
        tls_server_name="web.example",
        tls_skip_verify=True,
        timing=Timing(2500, 500, 90_000, 2, 1, 3),
    )
    one = replace(one, checks=(Check(f"{one.id}:h:http", "h", probe, Health.WARNING, "a note"),))
    await registry.write(register(one))
    row = truth.agent_checks(one)["shop-web-a:h:http"]
    assert (row["Name"], row["Type"], row["Notes"]) == ("h", "http", "a note")
    assert (row["Interval"], row["Timeout"]) == ("2.5s", "500ms")


async def test_an_identical_write_gets_through_to_a_catalog_that_lost_the_row(registry: Running, truth: Truth):
    """The agent doesn't push what equals its own copy; the nonce makes the difference and stays out of sight."""
    one = web("node-1", "a")
    await registry.write(register(one))
    await eventually(lambda: truth.in_catalog(one))
    gone = {"Node": "node-1", "ServiceID": one.id}
    truth.consul.server.request("PUT", "/v1/catalog/deregister", gone)
    await eventually(lambda: truth.in_catalog(one) is None)
    await eventually(lambda: not registry.actual("a").meta_value(META_HASH))
    await registry.told("a")
    await registry.write(register(one))
    row = await eventually(lambda: truth.in_catalog(one), within=30)
    assert row["Meta"].pop(META_NONCE)
    assert row["Meta"] == dict(one.meta)
    await eventually(lambda: truth.status("shop-web-a:readiness") == "passing", within=30)
    assert registry.actual("a").meta == one.meta


async def test_a_check_lost_in_the_catalog_comes_back(registry: Running, truth: Truth):
    one = web("node-1", "a")
    await registry.write(register(one))
    await eventually(lambda: truth.catalog_checks(one))
    lost = {"Node": "node-1", "CheckID": "shop-web-a:readiness"}
    truth.consul.server.request("PUT", "/v1/catalog/deregister", lost)
    await eventually(lambda: registry.actual("a").checks == ())
    await registry.write(register(one))
    await eventually(lambda: truth.status("shop-web-a:readiness") == "passing", within=30)


async def test_a_status_spoiled_in_the_catalog_is_put_right(registry: Running, truth: Truth):
    one = web("node-1", "a")
    await registry.write(register(one))
    row = await eventually(lambda: truth.catalog_checks(one).get("shop-web-a:readiness"))
    check = {k: row[k] for k in ("Node", "CheckID", "Name", "ServiceID")} | {"Status": "critical"}
    spoil = {"Node": "node-1", "Address": truth.agent.address, "SkipNodeUpdate": True, "Check": check}
    truth.consul.server.request("PUT", "/v1/catalog/register", spoil)
    await eventually(lambda: registry.actual("a").checks == ())
    await registry.write(register(one))
    await eventually(lambda: truth.status("shop-web-a:readiness") == "passing", within=30)


async def test_an_edit_in_the_catalog_shows_as_drift(registry: Running, truth: Truth):
    one = web("node-1", "a")
    await registry.write(register(one))
    await eventually(lambda: truth.in_catalog(one))
    service = {"ID": one.id, "Service": "web", "Address": "127.0.0.9", "Port": 1, "Meta": dict(one.meta)}
    edit = {"Node": "node-1", "Address": truth.agent.address, "SkipNodeUpdate": True, "Service": service}
    truth.consul.server.request("PUT", "/v1/catalog/register", edit)
    await eventually(lambda: not registry.actual("a").meta_value(META_HASH))
    await registry.write(register(one))
    await eventually(lambda: truth.in_catalog(one)["Address"] == "127.0.0.1", within=30)
    await asyncio.sleep(2)
    assert registry.actual("a").meta_value(META_HASH)


async def test_a_poisoned_change_fails_alone(registry: Running, truth: Truth):
    good, bad = web("node-1", "a"), web("node-1", "b", address="0.0.0.0")
    outcomes = await registry.registry.apply("node-1", [register(bad), register(good)])
    assert isinstance(outcomes[0], Invalid)
    assert outcomes[0].reason.code == "InvalidRequest"
    assert outcomes[1] is None
    assert truth.at_agent(good)
    assert registry.actual("b") is None


async def test_changes_of_one_instance_are_sent_in_order(registry: Running, truth: Truth):
    one = web("node-1", "a")
    await registry.write(register(one), deregister(one), register(one), Feed(one, readiness(one.id, Health.WARNING)))
    assert truth.agent_checks(one)["shop-web-a:readiness"]["Status"] == "warning"
    await registry.write(*[c for _ in range(5) for c in (register(one), deregister(one))])
    assert truth.at_agent(one) is None


async def test_an_empty_id_is_never_sent(registry: Running):
    (outcome,) = await registry.registry.apply("node-1", [deregister(web("node-1", "a", id=""))])
    assert isinstance(outcome, Invalid)


async def test_ids_are_quoted(registry: Running, truth: Truth):
    one = web("node-1", "a", id="odd id/with%41?and#", checks=(readiness("odd id/with%41?and#"),))
    await registry.write(register(one), Feed(one, replace(one.checks[0], status=Health.WARNING)))
    assert truth.agent_checks(one)["odd id/with%41?and#:readiness"]["Status"] == "warning"
    await registry.write(DropCheck(one, one.checks[0].id), deregister(one))
    assert truth.at_agent(one) is None


async def test_nothing_is_written_to_another_node(registry: Running):
    (outcome,) = await registry.registry.apply("node-9", [register(web("node-9", "a"))])
    assert isinstance(outcome, NotSent)


async def test_maintenance_and_foreign_checks_stay_and_are_not_seen(registry: Running, truth: Truth):
    one = web("node-1", "a")
    await registry.write(register(one))
    truth.agent.request("PUT", f"/v1/agent/service/maintenance/{one.id}?enable=true")
    foreign = {"ID": "other", "Name": "other", "TTL": "1h", "ServiceID": one.id, "Status": "critical"}
    truth.agent.request("PUT", "/v1/agent/check/register", foreign)
    await registry.write(Register(replace(one, meta=meta("a", color="red")), one.checks, Cause.EDITED))
    await asyncio.sleep(1)
    assert set(truth.agent_checks(one)) == {"shop-web-a:readiness", "other", f"_service_maintenance:{one.id}"}
    assert registry.actual("a").health is Health.PASSING
