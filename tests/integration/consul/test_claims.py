"""A cluster's name is its alone in each Consul: proven against a real Consul, in both modes.

Whether something stands in Consul is asked of Consul over plain HTTP, never of the code under test.
"""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import catalog_world
import consul_world
import pytest
from consul_world import CLUSTER, WEB, eventually, register, web

from consul_registrar.consul import Access, AgentRegistry, CatalogRegistry, ClaimedRegistry, Name
from consul_registrar.model import Key, Reason
from devcluster.consul import Consul, ConsulError

KEY = f"consul-registrar/clusters/{CLUSTER}"
MODES = ["Agent", "Catalog"]


@dataclass
class Running:
    """A registry behind its claim, and what it told."""

    registry: ClaimedRegistry
    changed: list[Key] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    writes: list[tuple[str, str]] = field(default_factory=list)

    async def is_ready(self) -> None:
        await eventually(lambda: self.registry.status().ready)

    async def looks(self, code: str) -> str:
        await eventually(lambda: self.registry.status().reason.code == code)
        assert not self.registry.status().ready
        return self.registry.status().reason.message

    async def register(self, subject: str) -> Any:
        """Register an instance of shop/web; its outcome."""
        node = self.registry.place(None, f"{WEB}/{subject}", ())
        node = "node-1" if isinstance(node, Reason) else node
        (outcome,) = await self.registry.apply(self.registry.lane(node), [register(web(node, subject))])
        return outcome


@dataclass(frozen=True)
class Place:
    """One Consul in one mode."""

    consul: Consul
    mode: str
    token: str = ""

    @property
    def claim(self) -> dict[str, Any] | None:
        try:
            return dict(self.consul.server.request("GET", f"/v1/kv/{KEY}")[0])
        except ConsulError:  # 404
            return None

    @property
    def holder(self) -> str:
        claim = self.claim
        return base64.b64decode(claim["Value"]).decode() if claim else ""

    def let_hold(self, uid: str) -> None:
        value = base64.b64encode(uid.encode()).decode()
        self.consul.server.request("PUT", "/v1/txn", [{"KV": {"Verb": "set", "Key": KEY, "Value": value}}])

    def free(self) -> None:
        self.consul.server.request("DELETE", f"/v1/kv/{KEY}")

    def instances(self) -> dict[str, int]:
        """All of service web: ID to ModifyIndex."""
        return {
            row["ServiceID"]: row["ModifyIndex"] for row in self.consul.server.request("GET", "/v1/catalog/service/web")
        }

    @asynccontextmanager
    async def running(
        self, uid: str, *, leads: Callable[[], bool] = lambda: True, connection: str = "default", **name: Any
    ) -> AsyncIterator[Running]:
        changed: list[Key] = []
        states: list[str] = []
        writes: list[tuple[str, str]] = []

        def on_change(keys: AbstractSet[Key], *, routine: bool = False) -> None:
            changed.extend(keys)

        registry = ClaimedRegistry(
            Name(CLUSTER, uid, **name),
            lambda *told: self._made(connection, *told),
            on_change,
            states.append,
            leads,
            lambda cause, error: writes.append((cause, error.reason.code if error else "")),
        )
        task = asyncio.create_task(registry.run())
        try:
            yield Running(registry, changed, states, writes)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _made(
        self, connection: str, on_change: Any, on_agent: Any, may_write: Any, _may_beat: Any
    ) -> AgentRegistry | CatalogRegistry:
        access = Access(lambda: self.token, allow_plaintext_token=True)
        told = {"on_agent": on_agent, "may_write": may_write}
        if self.mode == "Catalog":
            catalog = catalog_world.to(self.consul.server.http_addr, access=access)
            return CatalogRegistry(connection, CLUSTER, catalog, on_change, **told)
        agent = consul_world.to(self.consul.agents["node-1"], access=access)
        return AgentRegistry(connection, CLUSTER, agent, on_change, **told)


@pytest.fixture(params=MODES)
def place(request, consul: Consul, truth):
    made = Place(consul, request.param)
    made.free()
    yield made
    made.free()
    catalog_world.Catalog(consul).wipe()


async def test_the_first_to_come_holds_the_name_and_works(place):
    async with place.running("one") as one:
        await one.is_ready()
        assert place.holder == "one"
        assert await one.register("a") is None
    assert one.writes == [("claimed", "")]
    assert await eventually(place.instances)


async def test_a_second_cluster_of_that_name_is_refused_and_touches_nothing(place):
    async with place.running("one") as one:
        await one.is_ready()
        await one.register("a")
        before = await eventually(place.instances)
        async with place.running("two") as two:
            message = await two.looks("ClusterNameTaken")
            assert "takeOverFrom: one" in message
            outcome = await two.register("b")
            assert outcome.reason.code == "ClusterNameTaken"
            assert two.registry.place(None, "x", ()).code == "ClusterNameTaken"
            assert two.registry.subjects(WEB) == frozenset()
            assert two.registry.instances(WEB, "a") == ()
            assert await two.registry.out_of_reach(WEB) == ()
            assert (two.registry.status().instances, two.changed, two.writes) == (0, [], [])
        assert (place.holder, place.instances()) == ("one", before)


async def test_of_many_that_come_at_once_one_gets_the_name(place):
    async with asyncio.TaskGroup() as group:
        clusters = [asyncio.Event() for _ in range(5)]

        async def come(number: int) -> None:
            async with place.running(f"cluster-{number}") as one:
                await eventually(
                    lambda: one.registry.status().ready or one.registry.status().reason.code == "ClusterNameTaken"
                )
                ready.append(one.registry.status().ready)
                clusters[number].set()
                for each in clusters:
                    await each.wait()

        ready: list[bool] = []
        for number in range(5):
            group.create_task(come(number))
    assert sorted(ready) == [False] * 4 + [True]


async def test_what_stands_from_before_is_told_once_the_claim_is_seen(place):
    async with place.running("one") as first:
        await first.is_ready()
        await first.register("a")
        await eventually(place.instances)
    claim = place.claim
    async with place.running("one") as second:
        await eventually(lambda: Key(WEB) in second.changed)
        await second.is_ready()
        assert second.registry.subjects(WEB) == {"a"}
        assert second.registry.registrations() == {WEB}
        assert second.writes == []
    assert place.claim == claim


async def test_two_connections_of_one_cluster_get_along(place):
    async with place.running("one") as one, place.running("one", connection="another") as other:
        await one.is_ready()
        await other.is_ready()
        assert len(one.writes) + len(other.writes) == 1


async def test_a_claim_that_vanishes_is_made_again_without_a_stop(place):
    async with place.running("one") as one:
        await one.is_ready()
        one.states.clear()
        place.free()
        await eventually(lambda: place.holder == "one")
        assert await one.register("a") is None
        assert one.states == []
        assert one.writes == [("claimed", "")] * 2


async def test_a_name_that_another_takes_stops_all_writes_and_goes_on_once_it_is_free(place):
    async with place.running("one") as one:
        await one.is_ready()
        await one.register("a")
        await eventually(place.instances)
        place.let_hold("two")
        await one.looks("ClusterNameTaken")
        assert (await one.register("b")).reason.code == "ClusterNameTaken"
        assert one.registry.subjects(WEB) == frozenset()
        assert place.holder == "two"
        one.changed.clear()
        place.free()
        await one.is_ready()
        await eventually(lambda: Key(WEB) in one.changed)
        assert await one.register("b") is None


async def test_a_rebuilt_cluster_takes_over_and_its_wish_does_no_harm_afterwards(place):
    place.let_hold("old")
    async with place.running("new", takes_over="old") as one:
        await one.is_ready()
        assert (place.holder, one.writes) == ("new", [("taken-over", "")])
    claim = place.claim
    async with place.running("new", takes_over="old") as again:
        await again.is_ready()
        assert again.writes == []
        assert place.claim == claim
        place.let_hold("third")
        await again.looks("ClusterNameTaken")
        assert place.holder == "third"


async def test_who_may_only_observe_claims_nothing_but_respects_another(place):
    async with place.running("one", observes=True) as one:
        await one.is_ready()
        assert (place.claim, one.writes) == (None, [])
        place.let_hold("two")
        await one.looks("ClusterNameTaken")
    async with place.running("one", observes=True, takes_over="two") as one:
        await one.is_ready()
        assert (place.holder, one.writes) == ("two", [])


async def test_who_does_not_lead_claims_nothing_until_it_does(place):
    leading: list[bool] = []
    async with place.running("one", leads=lambda: bool(leading)) as standby:
        await asyncio.sleep(1)
        assert (place.claim, standby.registry.status().reason.code) == (None, "AgentConnecting")
        async with place.running("one") as leader:
            await leader.is_ready()
            await standby.is_ready()
            assert standby.writes == []
        place.free()
        await asyncio.sleep(1)
        assert place.claim is None
        assert standby.registry.status().ready
        leading.append(True)
        await eventually(lambda: place.holder == "one")


async def test_nothing_is_written_while_nothing_changes(place):
    async with place.running("one") as one:
        await one.is_ready()
        claim = place.claim
        await asyncio.sleep(2)
        assert (place.claim, one.writes) == (claim, [("claimed", "")])


# --- rights ---


def token(consul: Consul, mode: str, *rules: str) -> str:
    name = secrets.token_hex(4)
    read = 'agent_prefix "" { policy = "read" }\nnode_prefix "" { policy = "read" }\n'
    write = 'service_prefix "" { policy = "write" }\n' + (
        f'node_prefix "{CLUSTER}-default-" {{ policy = "write" }}\n' if mode == "Catalog" else ""
    )
    policy = {"Name": name, "Rules": read + write + "\n".join(rules)}
    consul.server.request("PUT", "/v1/acl/policy", policy)
    made = consul.server.request("PUT", "/v1/acl/token", {"Policies": [{"Name": name}]})
    return str(made["SecretID"])


@pytest.fixture(params=MODES)
def guarded(request, guarded_consul: Consul):
    made = Place(guarded_consul, request.param)
    made.free()
    yield made
    made.free()


async def test_a_token_without_the_rule_is_told_which(guarded):
    bare = Place(guarded.consul, guarded.mode, token(guarded.consul, guarded.mode))
    async with bare.running("one") as one:
        message = await one.looks("ClaimDenied")
        assert f'key "{KEY}" {{ policy = "write" }}' in message
        assert guarded.claim is None
        assert (await one.register("a")).reason.code == "ClaimDenied"


async def test_one_exact_rule_is_enough(guarded):
    rule = f'key "{KEY}" {{ policy = "write" }}'
    allowed = Place(guarded.consul, guarded.mode, token(guarded.consul, guarded.mode, rule))
    async with allowed.running("one") as one:
        await one.is_ready()
        assert guarded.holder == "one"


async def test_a_claim_that_stands_needs_no_right_to_write(guarded):
    rule = f'key "{KEY}" {{ policy = "read" }}'
    reading = Place(guarded.consul, guarded.mode, token(guarded.consul, guarded.mode, rule))
    async with reading.running("one") as one:
        await one.looks("ClaimDenied")
        assert ("claimed", "PermissionDenied") in one.writes
        guarded.let_hold("one")
        await one.is_ready()
