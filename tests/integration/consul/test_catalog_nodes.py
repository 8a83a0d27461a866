"""Which virtual nodes are read, relied upon and removed, against a real Consul."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web as aioweb
from catalog_world import NODES, recorded, running, to, transactions
from consul_world import CLUSTER, WEB, deregister, eventually, meta, register, web

from consul_registrar.changes import Cause
from consul_registrar.consul import NotSent
from consul_registrar.consul.virtual import node_names
from consul_registrar.model import Instance, Key, Reason


async def test_a_node_of_another_is_not_written_to_and_keeps_only_its_own_instances_waiting(catalog):
    """Cluster a-b with connection c and cluster a with connection b-c would have nodes of the same names."""
    async with running(to(catalog.consul.http_addr), cluster="a-b", name="c") as first:
        await first.is_ready()
        one = first.web("u1", meta=_meta_of("a-b", "c"))
        await first.write(register(one))
        async with running(to(catalog.consul.http_addr), cluster="a", name="b-c") as second:
            message = await second.looks("SomeNodesUnsound")
            assert one.node in message
            assert "NodeNameTaken" in message
            assert second.registry.status().ready
            place = second.registry.place
            placed = {f"u{n}": place(None, f"u{n}", ()) for n in range(20)}
            waiting = {subject for subject, node in placed.items() if isinstance(node, Reason)}
            assert {node.code for node in placed.values() if isinstance(node, Reason)} == {"NodeNameTaken"}
            assert 0 < len(waiting) < 20
            for subject in placed.keys() - waiting:
                mine = replace(web(str(placed[subject]), subject), meta=_meta_of("a", "b-c"))
                await second.write(register(mine))
            (error,) = await second.registry.apply("", [register(replace(one, meta=_meta_of("a", "b-c")))])
            assert isinstance(error, NotSent)
            assert error.reason.code == "NodeNameTaken"
            assert await second.registry.out_of_reach(WEB) == []
            catalog.remove(one.node)
            await second.looks("CatalogReady")
            assert all(isinstance(place(None, subject, ()), str) for subject in waiting)
            await eventually(lambda: "" in second.states[1:])  # who waited is told


async def test_a_node_that_cannot_be_read_keeps_only_its_own_instances_waiting(catalog):
    """It is read in the end, and whom that concerns is told."""
    first = node_names(CLUSTER, "default", NODES)[0]
    broken = [True]

    async def fault(request):
        if broken[0] and request.path == f"/v1/catalog/node-services/{first}":
            return aioweb.Response(text="{}garbage")
        return None

    async with recorded(catalog.consul) as straight, running(to(f"http://127.0.0.1:{straight.port}")) as before:
        await before.is_ready()
        made = [before.web(f"u{n}") for n in range(12)]
        await before.write(*map(register, made))
    there = [one for one in made if one.node == first]
    assert there
    async with recorded(catalog.consul, fault) as way, running(to(f"http://127.0.0.1:{way.port}")) as registry:
        message = await registry.looks("SomeNodesUnsound")
        assert first in message
        assert "NotConsul" in message
        assert registry.registry.status().ready
        for one in made:
            if one.node != first:
                assert registry.planned(one) == ()
                await registry.write(register(replace(one, port=10)))
        (error,) = await registry.registry.apply("", [deregister(there[0])])
        assert isinstance(error, NotSent)
        assert await registry.registry.out_of_reach(WEB) == [first]
        registry.changed.clear()
        broken[0] = False
        await registry.looks("CatalogReady")
        await eventually(lambda: Key(WEB) in registry.changed)
        assert [registry.planned(one) for one in there] == [()] * len(there)


async def test_a_node_that_fails_later_keeps_what_is_known_of_it(catalog):
    broken: list[bool] = []

    async def fault(request):
        if broken and request.path.endswith(one.node):
            return aioweb.Response(status=500, text="some trouble with this node")
        return None

    async with recorded(catalog.consul, fault) as way, running(to(f"http://127.0.0.1:{way.port}")) as registry:
        await registry.is_ready()
        one = registry.web("u1")
        await registry.write(register(one))
        broken.append(True)
        catalog.transact({"Check": {"Verb": "set", "Check": _spoiled(one)}})
        await registry.looks("SomeNodesUnsound")
        assert registry.actual("u1")
        assert registry.registry.place(None, "u1", registry.registry.instances(WEB, "u1")).code == "ConsulFailed"
        broken.clear()
        await registry.looks("CatalogReady")
        await registry.converges(one)
        assert catalog.status(one) == "passing"


def _spoiled(one: Instance) -> dict[str, Any]:
    check = {"Node": one.node, "CheckID": one.checks[0].id, "Name": "readiness", "ServiceID": one.id}
    return check | {"ServiceName": "web", "Status": "critical"}


async def test_an_empty_node_of_former_times_is_removed(catalog):
    """Nothing of ours stands there that could tell of it; its mark does. Of an unmarked one, and of one on which
    somebody else has something, nothing is touched.
    """
    url = catalog.consul.http_addr
    mark = {"managed-by": "consul-registrar", "k8s-cluster": CLUSTER, "k8s-connection": "default"}
    catalog.ask("PUT", "/v1/catalog/register", {"Node": "tests-default-07", "Address": "127.0.0.1", "NodeMeta": mark})
    catalog.ask("PUT", "/v1/catalog/register", {"Node": "tests-default-08", "Address": "127.0.0.1", "NodeMeta": mark})
    catalog.ask("PUT", "/v1/catalog/register", {"Node": "tests-default-09", "Address": "127.0.0.1"})
    other = mark | {"k8s-connection": "another"}
    catalog.ask("PUT", "/v1/catalog/register", {"Node": "tests-another-00", "Address": "127.0.0.1", "NodeMeta": other})
    catalog.register("tests-default-08", {"ID": "vm", "Service": "vm"})
    before = catalog.node("tests-default-08"), catalog.services("tests-default-08")
    wrote: list[tuple[object, ...]] = []
    async with running(to(url), wrote=lambda *what: wrote.append(what)) as registry:
        await registry.is_ready()
        await eventually(lambda: catalog.node("tests-default-07") is None)
        await eventually(lambda: len(registry.registry._nodes.watches) == NODES)
    assert (catalog.node("tests-default-08"), catalog.services("tests-default-08")) == before
    assert catalog.node("tests-default-09")
    assert catalog.node("tests-another-00")
    assert wrote == [("remove-node", "emptied", "tests-default-07", None)]


async def test_a_connection_that_goes_takes_those_of_its_nodes_along_on_which_nothing_stands(catalog):
    wrote: list[tuple[object, ...]] = []
    async with running(to(catalog.consul.http_addr), wrote=lambda *what: wrote.append(what)) as registry:
        await registry.is_ready()
        made = [registry.web(f"u{n}") for n in range(12)]
        await registry.write(*map(register, made))
        stays, *go = node_names(CLUSTER, "default", NODES)
        await registry.write(*(deregister(one) for one in made if one.node in go))
        before = catalog.node(stays), catalog.services(stays)
        await registry.registry.dissolve()
    assert [catalog.node(node) for node in go] == [None] * len(go)
    assert before == (catalog.node(stays), catalog.services(stays))
    made_lines = {("put-node", "needed", node, None) for node in (stays, *go)}
    assert set(wrote) == made_lines | {("remove-node", "emptied", node, None) for node in go}
    assert len(wrote) == NODES + len(go)


async def test_who_may_not_write_removes_no_node(catalog):
    mark = {"managed-by": "consul-registrar", "k8s-cluster": CLUSTER, "k8s-connection": "default"}
    catalog.ask("PUT", "/v1/catalog/register", {"Node": "tests-default-07", "Address": "127.0.0.1", "NodeMeta": mark})
    async with running(to(catalog.consul.http_addr), may_write=lambda: False) as registry:
        await registry.is_ready()
        await eventually(lambda: len(registry.registry._nodes.watches) == NODES)
    assert catalog.node("tests-default-07")


def _meta_of(cluster: str, connection: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((dict(meta("u1")) | {"k8s-cluster": cluster, "k8s-connection": connection}).items()))


@pytest.mark.shows("cconn.spec.virtualNodes", mode="catalog")
async def test_fewer_virtual_nodes_leave_nothing_behind(catalog):
    url = catalog.consul.http_addr
    async with running(to(url, virtual_nodes=6)) as many:
        await many.is_ready()
        before = [many.web(f"u{number}") for number in range(30)]
        await many.write(*map(register, before))
    async with running(to(url, virtual_nodes=2)) as few:
        await few.is_ready()
        for number in range(30):
            assert few.registry.instances(WEB, f"u{number}")
            wanted = few.web(f"u{number}")
            if wanted.node in {one.node for one in before if one.subject == wanted.subject}:
                assert few.planned(wanted) == ()
            await few.converges(wanted)
        kept = node_names(CLUSTER, "default", 2)
        assert sum(len(catalog.services(node)) for node in kept) == 30
        await eventually(lambda: not set(catalog.nodes()) - set(kept))
        await eventually(lambda: len(few.registry._nodes.watches) == 2)
        await few.is_ready()


async def test_what_moves_stands_on_its_new_node_before_it_leaves_the_old_one(catalog):
    async with running(to(catalog.consul.http_addr, virtual_nodes=6)) as many:
        await many.is_ready()
        old = next(one for n in range(99) if (one := many.web(f"u{n}")).node > node_names(CLUSTER, "default", 2)[-1])
        await many.write(register(old))
    async with (
        recorded(catalog.consul) as way,
        running(to(f"http://127.0.0.1:{way.port}", virtual_nodes=2)) as few,
    ):
        await few.is_ready()
        new = few.web(old.subject)
        first, second = few.planned(new)
        await few.write(first)
        assert catalog.service(old)
        assert catalog.service(new)
        await few.write(second)
        assert catalog.service(old) is None
        assert catalog.service(new)
        assert [len(transactions(way)), second.cause] == [2, Cause.REPLACED]


async def test_more_virtual_nodes_move_nothing(catalog):
    url = catalog.consul.http_addr
    async with running(to(url, virtual_nodes=2)) as few:
        await few.is_ready()
        await few.write(*(register(few.web(f"u{number}")) for number in range(10)))
    async with running(to(url, virtual_nodes=5)) as many:
        await many.is_ready()
        assert not any(many.planned(many.web(f"u{number}")) for number in range(10))


async def test_a_former_node_that_must_stay_disturbs_nobody(catalog, monkeypatch):
    """It is found again by each search."""
    monkeypatch.setattr("consul_registrar.consul.catalog_nodes.SEARCH", 0.2)
    mark = {"managed-by": "consul-registrar", "k8s-cluster": CLUSTER, "k8s-connection": "default"}
    catalog.ask("PUT", "/v1/catalog/register", {"Node": "tests-default-08", "Address": "127.0.0.1", "NodeMeta": mark})
    catalog.register("tests-default-08", {"ID": "vm", "Service": "vm"})
    async with recorded(catalog.consul) as way, running(to(f"http://127.0.0.1:{way.port}")) as registry:
        await registry.is_ready()

        def searches() -> int:
            return sum(what.startswith("GET /v1/catalog/nodes") for what, _, _ in way.requests)

        before = searches()
        await eventually(lambda: searches() > before + 3)
        assert registry.registry.status().ready
        assert registry.states == [""]
        await asyncio.sleep(1)
        assert searches() < before + 20
