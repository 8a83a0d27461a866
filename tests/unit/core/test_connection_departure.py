# ruff: noqa: ARG002 - fakes take what the real ones take
"""When a deleted connection is let go: once nobody refers to it, and what it made in Consul was taken back."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from consul_registrar.cache import Cache
from consul_registrar.connection_status import ConnectionStatus, _of_consul
from consul_registrar.consul import RegistryStatus
from consul_registrar.guard import NOTHING, HeldSet, Terms
from consul_registrar.model import Reason
from consul_registrar.objects import FINALIZER
from consul_registrar.queue import Queue
from unit.core.build import connection, registration
from unit.core.instant import elapsed, instantly


class Kubernetes:
    """Lets connections go."""

    def __init__(self) -> None:
        self.released: list[float] = []
        self.written: list[tuple[str, float]] = []

    async def release_connection(self, one: Any) -> None:
        self.released.append(elapsed())

    async def write_connection(self, one: Any, wanted: Any) -> None:
        self.written.append((one.name, elapsed()))

    async def event_connection(self, one: Any, why: Reason, *, warning: bool) -> None:
        pass


class Consuls:
    """Takes back what a connection made, unless it hangs."""

    def __init__(self, *, hangs: bool) -> None:
        self.hangs = hangs
        self.dissolved: list[str] = []

    async def dissolve(self, name: str) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        self.dissolved.append(name)

    def status(self, name: str) -> RegistryStatus:
        return RegistryStatus(ready=True, reason=Reason("CatalogReady", "so it is"))

    def removal_terms(self, name: str) -> Terms:
        return Terms()


class Quarantine:
    """Holds nothing."""

    def held(self, name: str) -> HeldSet:
        return NOTHING


def deleted(name: str = "default") -> Any:
    one = connection(name)
    return replace(one, meta=replace(one.meta, deleted="2026-01-01T00:00:00Z", finalizers=(FINALIZER,)))


def status(cache: Cache, consuls: Consuls, kubernetes: Kubernetes) -> ConnectionStatus:
    nothing: Any = Quarantine()
    publisher: Any = kubernetes
    asked: Any = consuls
    return ConnectionStatus(cache, asked, nothing, Queue(), publisher, now=lambda: "now")


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


@instantly
async def test_a_connection_that_hangs_on_its_way_out_keeps_no_other_waiting() -> None:
    consuls, kubernetes, cache = Consuls(hangs=True), Kubernetes(), Cache()
    held = replace(connection("b"), meta=replace(connection("b").meta, finalizers=(FINALIZER,)))
    cache.connections = {"a": deleted("a"), "b": held, "c": deleted("c")}
    one = status(cache, consuls, kubernetes)
    running = asyncio.create_task(one.run())
    await asyncio.sleep(0.5)
    assert kubernetes.written == [("b", 0.0)]
    cache.connections["d"] = replace(held, name="d", meta=replace(held.meta, uid="uid-d"))
    one.look()
    await asyncio.sleep(0.3)
    assert kubernetes.written == [("b", 0.0), ("d", 0.5)]
    await asyncio.sleep(30)
    running.cancel()
    assert kubernetes.released == [10.0, 10.0], "each is let go by itself, and once"


@pytest.mark.parametrize(("leader", "said"), [(None, "a:8300"), ("b:8300", "b:8300"), ("", None)])
def test_what_consul_has_not_told_yet_is_said_as_before(leader: str | None, said: str | None) -> None:
    before = {"version": "1.22.7", "datacenter": "dc1", "leader": "a:8300"}
    looks = RegistryStatus(ready=True, reason=Reason("CatalogReady", "so it is"), leader=leader)
    found = _of_consul(looks, before)
    assert (found["version"], found["datacenter"], found.get("leader")) == ("1.22.7", "dc1", said)
