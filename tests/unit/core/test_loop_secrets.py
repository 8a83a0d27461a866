"""The loop with a header out of a Secret: it follows the Secret, and is seen nowhere."""

import asyncio
from typing import Any

import pytest

from consul_registrar.model import Health, Hidden
from consul_registrar.probes import HttpProbe
from unit.core.build import body, of_pods, pod, reason
from unit.core.instant import instantly
from unit.core.shell import World
from unit.core.situations import HELD, TEN, applied, passes, registered

TOKEN = ("shop", "probe", "token")
SECRETLY = {"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "probe", "key": "token"}}}
WITH_SECRET = of_pods(checks=[{"name": "health", "http": {"headers": [SECRETLY]}}])


def with_a_token() -> World:
    """The Secret is there, with its key."""
    world = World()
    world.cluster.secrets[TOKEN] = Hidden("s3cret-one", "uid/1")
    return world


def header_of(world: World) -> str:
    (one,) = world.consul.held
    (check,) = one.checks
    assert isinstance(check.probe, HttpProbe)
    return check.probe.headers[0][1]


@instantly
async def test_a_header_out_of_a_secret_follows_it_and_is_seen_nowhere(caplog: Any) -> None:
    caplog.set_level("DEBUG")
    async with registered(*TEN[:5], spec=WITH_SECRET, world=with_a_token()) as world:
        assert world.cluster.secret_reads == 1
        for name in TEN[1:5]:
            world.pods.remove(pod(name).uid)
        await passes(1)
        assert header_of(world) == "s3cret-one"
        before = world.consul.held[0].meta
        world.cluster.secrets[TOKEN] = Hidden("s3cret-two", "uid/2")
        await passes(40)
        assert header_of(world) == "s3cret-two"
        assert world.consul.held[0].meta != before
        world.cluster.secrets[TOKEN] = reason("SecretUnreadable")
        await passes(40)
        assert header_of(world) == "s3cret-two"
        del world.cluster.secrets[TOKEN]
        await passes(40)
    assert world.cluster.ready == ("False", "SecretNotFound")
    assert header_of(world) == "s3cret-two"
    assert "s3cret" not in f"{caplog.text}{world.cluster.statuses}{world.cluster.events}{world.consul.written}"


@instantly
async def test_who_leads_again_reads_secrets_anew() -> None:
    """Another process has led meanwhile, and has told Consul what they hold now."""
    async with registered(spec=WITH_SECRET, world=with_a_token()) as world:
        pass
    world.cluster.secrets[TOKEN] = Hidden("s3cret-two", "uid/2")
    async with world.standing_by():
        await passes(3)
    async with world.running():
        await passes(3)
        assert header_of(world) == "s3cret-two"


@pytest.mark.parametrize("waits", [True, False])
@instantly
async def test_what_is_gone_does_not_wait_for_a_secret(waits: bool) -> None:
    """Whether its Pod goes while somebody waits for the Secret already, or before."""
    async with registered("web-1", "web-2", spec=WITH_SECRET, world=with_a_token()) as world:
        pass
    async with world.standing_by():
        await passes(3)
    read, answers = world.secrets._read, asyncio.Event()

    async def answers_late(namespace: str, name: str, key: str) -> Any:
        await answers.wait()
        return await read(namespace, name, key)

    world.secrets._read = answers_late
    async with world.running():
        await passes(1 if waits else 0)
        world.pods.put(pod(version=2, deleting=True))
        world.run_pod(pod("web-2", version=2, ready=False))
        await passes(1)
        assert [i.subject for i in world.consul.held] == ["uid-web-2"]
        answers.set()
        await passes(3)
        assert header_of(world) == "s3cret-one"
        assert world.consul.held[0].health is Health.CRITICAL
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_a_secret_that_can_not_be_read_keeps_the_pods_out_and_is_asked_for_again() -> None:
    async with applied(spec=WITH_SECRET) as world:
        assert (world.consul.held, world.cluster.ready) == ([], ("False", "SecretNotFound"))
        world.cluster.secrets[TOKEN] = Hidden("s3cret", "uid/1")
        await passes(40)
        assert header_of(world) == "s3cret"
        world.apply(body(generation=4, **HELD))
        await passes(40)
        reads = world.cluster.secret_reads
        await passes(100)
    assert world.cluster.secret_reads == reads
