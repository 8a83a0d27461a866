"""The heartbeat at a real agent: what hangs on it turns critical without the operator; it is there for that alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from consul_world import CLUSTER, CONNECTION, Truth, deregister, eventually, register, running, to, web

from consul_registrar.changes import Cause, DropCheck, Register
from consul_registrar.consul import heartbeat
from consul_registrar.consul.agent import AgentRegistry, AgentSettings
from consul_registrar.consul.claim import Name
from consul_registrar.consul.claimed import ClaimedRegistry
from consul_registrar.dead_man import heartbeat_id, hung_on
from consul_registrar.model import Instance

HEARTBEAT = heartbeat_id(CLUSTER, CONNECTION)
AFTER = 2_000


def hanging(subject: str) -> Instance:
    """An instance that hangs on the heartbeat, as the core would have it."""
    plain = web("node-1", subject)
    return replace(plain, checks=hung_on(HEARTBEAT, plain.id, plain.checks))


def beats(truth: Truth) -> bool:
    return truth.at_agent(HEARTBEAT) is not None


def health(truth: Truth, instance: Instance) -> dict[str, str]:
    """What the catalog says of the checks of an instance, by what their IDs end with."""
    return {id_.rpartition(":")[2]: row["Status"] for id_, row in truth.catalog_checks(instance).items()}


@asynccontextmanager
async def observing(settings: AgentSettings) -> AsyncIterator[ClaimedRegistry]:
    """What a leader with `policy: Observe` runs."""

    def make(on_change, on_agent, may_write, may_beat):
        told = {"on_agent": on_agent, "may_write": may_write, "may_beat": may_beat}
        return AgentRegistry(CONNECTION, CLUSTER, settings, on_change, **told)

    name = Name(CLUSTER, "uid", observes=True)
    registry = ClaimedRegistry(name, make, lambda _, **__: None, lambda _: None, lambda: True, lambda *_: None)
    running = asyncio.create_task(registry.run())
    try:
        yield registry
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


HEALTHY = {"readiness": "passing", "dead-man": "passing"}
DEAD = {"readiness": "passing", "dead-man": "critical"}


async def test_what_hangs_on_it_turns_critical_without_the_operator_and_passing_with_it(truth):
    one = hanging("a")
    async with running(to(truth.agent, dead_man=AFTER)) as first:
        await first.is_ready()
        await first.write(register(one))
        await eventually(lambda: health(truth, one) == HEALTHY)
        row = truth.in_catalog(HEARTBEAT)
        assert (row["Service"], row["Meta"]["managed-by"]) == ("consul-registrar-heartbeat", "consul-registrar")
    await eventually(lambda: health(truth, one) == DEAD)
    async with running(to(truth.agent, dead_man=AFTER)) as second:
        await second.is_ready()
        await eventually(lambda: health(truth, one) == HEALTHY)
        await second.write(deregister(one))
        await eventually(lambda: not beats(truth))  # else it goes while the next test is prepared


async def test_an_instance_is_never_critical_for_want_of_it(truth):
    """It is there before the first instance is, so that callers never see one that hangs on nothing."""
    one, seen = hanging("a"), []

    async def look():
        while True:
            seen.append(await asyncio.to_thread(lambda: [row["Status"] for row in truth.agent_checks(one).values()]))

    async with running(to(truth.agent, dead_man=60_000)) as registry:
        await registry.is_ready()
        looking = asyncio.create_task(look())
        await asyncio.sleep(0.2)
        await registry.write(register(one))
        await eventually(lambda: health(truth, one) == HEALTHY)
        await eventually(lambda: any(seen))
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
        assert {status for statuses in seen for status in statuses} == {"passing"}
        await registry.write(deregister(one))
        await eventually(lambda: not beats(truth))


async def test_it_is_no_instance_and_goes_with_the_last_one(truth):
    one, two = hanging("a"), hanging("b")
    async with running(to(truth.agent, dead_man=AFTER)) as registry:
        await registry.is_ready()
        assert not await asyncio.to_thread(beats, truth)
        await registry.write(register(one), register(two))
        await registry.registry.reread()
        assert registry.registry.status().instances == 2
        await registry.write(deregister(one))
        await asyncio.sleep(1)
        assert await asyncio.to_thread(beats, truth)
        await registry.write(deregister(two))
        await eventually(lambda: not beats(truth))
        await eventually(lambda: truth.in_catalog(HEARTBEAT) is None)


async def test_one_that_is_removed_behind_our_back_comes_back(truth):
    one = hanging("a")
    async with running(to(truth.agent, dead_man=60_000)) as registry:
        await registry.is_ready()
        await registry.write(register(one))
        await eventually(lambda: health(truth, one) == HEALTHY)
        truth.agent.request("PUT", f"/v1/agent/service/deregister/{HEARTBEAT}")
        await eventually(lambda: beats(truth) and health(truth, one) == HEALTHY)
        truth.agent.request("PUT", f"/v1/agent/check/deregister/{HEARTBEAT}:beat")
        await eventually(lambda: truth.status(f"{HEARTBEAT}:beat") == "passing")
        await registry.write(deregister(one))
        await eventually(lambda: not beats(truth))


async def test_it_goes_on_for_what_hangs_on_it_after_it_was_switched_off(truth):
    one, plain = hanging("a"), web("node-1", "a")
    async with running(to(truth.agent, dead_man=AFTER)) as first:
        await first.is_ready()
        await first.write(register(one))
    async with running(to(truth.agent)) as second:
        await second.is_ready()
        await eventually(lambda: health(truth, one) == HEALTHY)
        await asyncio.sleep(2 * AFTER / 1000)
        await eventually(lambda: health(truth, one) == HEALTHY)  # without a beat it would stay dead
        await second.write(Register(plain, (), Cause.EDITED), DropCheck(plain, f"{plain.id}::dead-man"))
        await eventually(lambda: not beats(truth))
        assert await asyncio.to_thread(health, truth, plain) == {"readiness": "passing"}
        await second.write(deregister(plain))


async def test_it_goes_on_under_a_policy_that_writes_nothing_else(truth, monkeypatch):
    monkeypatch.setattr(heartbeat, "LEAST", AFTER)
    one = hanging("a")
    async with running(to(truth.agent, dead_man=AFTER)) as first:
        await first.is_ready()
        await first.write(register(one))
    async with observing(to(truth.agent)):
        await eventually(lambda: health(truth, one) == HEALTHY)
        await asyncio.sleep(2 * AFTER / 1000)
        await eventually(lambda: health(truth, one) == HEALTHY)  # without a beat it would stay dead
        truth.agent.request("PUT", f"/v1/agent/service/deregister/{HEARTBEAT}")
        await asyncio.sleep(AFTER / 1000)
        assert not await asyncio.to_thread(beats, truth)
    async with running(to(truth.agent, dead_man=AFTER)) as third:
        await third.is_ready()
        await eventually(lambda: beats(truth) and health(truth, one) == HEALTHY)
    async with observing(to(truth.agent)) as registry:
        await eventually(lambda: registry.ready)
        truth.agent.request("PUT", f"/v1/agent/service/deregister/{one.id}")
        await eventually(lambda: registry.standing() == 0)
        await asyncio.sleep(AFTER / 1000)
        assert await asyncio.to_thread(beats, truth)
    truth.agent.request("PUT", f"/v1/agent/service/deregister/{HEARTBEAT}")


async def test_nobody_who_asks_for_none_has_one(truth):
    one = web("node-1", "a")
    async with running(to(truth.agent)) as registry:
        await registry.is_ready()
        await registry.write(register(one))
        await eventually(lambda: health(truth, one) == {"readiness": "passing"})
        assert not await asyncio.to_thread(beats, truth)
        await registry.write(deregister(one))
