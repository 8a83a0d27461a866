# ruff: noqa: ARG002 - fakes take what the real ones take
"""When a deleted connection is let go: once nobody refers to it, and what it made in Consul was taken back."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from consul_registrar.cache import Cache
from consul_registrar.connection_status import ConnectionStatus, _of_consul
from consul_registrar.consul import RegistryStatus
from consul_registrar.model import Reason
from consul_registrar.objects import FINALIZER
from consul_registrar.queue import Queue
from unit.core.build import connection, registration
from unit.core.instant import elapsed, instantly


class Kubernetes:
    """Lets connections go."""

    def __init__(self) -> None:
        self.released: list[float] = []

    async def release_connection(self, one: Any) -> None:
        self.released.append(elapsed())


class Consuls:
    """Takes back what a connection made, unless it hangs."""

    def __init__(self, *, hangs: bool) -> None:
        self.hangs = hangs
        self.dissolved: list[str] = []

    async def dissolve(self, name: str) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        self.dissolved.append(name)


def deleted() -> Any:
    one = connection()
    return replace(one, meta=replace(one.meta, deleted="2026-01-01T00:00:00Z", finalizers=(FINALIZER,)))


def status(cache: Cache, consuls: Consuls, kubernetes: Kubernetes) -> ConnectionStatus:
    nothing: Any = None
    publisher: Any = kubernetes
    asked: Any = consuls
    return ConnectionStatus(cache, asked, nothing, Queue(), publisher, now=str)


@pytest.mark.parametrize(("hangs", "after"), [(False, 0), (True, 10)])
@instantly
async def test_what_a_connection_made_is_taken_back_before_it_is_let_go_and_nothing_hangs_on_that(
    hangs: bool, after: int
) -> None:
    consuls, kubernetes = Consuls(hangs=hangs), Kubernetes()
    await status(Cache(), consuls, kubernetes)._hold(deleted())
    assert (consuls.dissolved, kubernetes.released) == ([] if hangs else ["default"], [after])


class Unread(dict[Any, Any]):
    """Nobody is to go through all of it."""

    def values(self) -> Any:
        raise AssertionError


def test_as_long_as_a_connection_stays_nobody_goes_through_all_registrations_for_its_status() -> None:
    cache = Cache()
    cache.registrations = Unread()
    looks = RegistryStatus(ready=True, reason=Reason("CatalogReady", "so it is"))
    verdict = status(cache, Consuls(hangs=False), Kubernetes())._verdict(connection(), looks)
    assert (verdict.status, verdict.reason.code) == (True, "CatalogReady")


@instantly
async def test_nothing_is_taken_back_while_a_registration_refers_to_it() -> None:
    consuls, kubernetes, cache = Consuls(hangs=False), Kubernetes(), Cache()
    cache.put_registration(registration())
    await status(cache, consuls, kubernetes)._hold(deleted())
    assert (consuls.dissolved, kubernetes.released) == ([], [])


@pytest.mark.parametrize(("leader", "said"), [(None, "a:8300"), ("b:8300", "b:8300"), ("", None)])
def test_what_consul_has_not_told_yet_is_said_as_before(leader: str | None, said: str | None) -> None:
    before = {"version": "1.22.7", "datacenter": "dc1", "leader": "a:8300"}
    looks = RegistryStatus(ready=True, reason=Reason("CatalogReady", "so it is"), leader=leader)
    found = _of_consul(looks, before)
    assert (found["version"], found["datacenter"], found.get("leader")) == ("1.22.7", "dc1", said)
