"""What the catalog registry notices of what others do, against a real Consul."""

import asyncio
import time
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from catalog_world import Catalog, Running, recorded, running, to, transactions
from consul_world import WEB, deregister, eventually, readiness, register, tcp

from consul_registrar.consul import NotSent
from consul_registrar.consul.wire import decode_self
from consul_registrar.model import CONNECTING, Health, Reason


@pytest.fixture
async def registry(catalog: Catalog) -> AsyncIterator[Running]:
    async with running(to(catalog.consul.http_addr)) as made:
        await made.is_ready()
        yield made


async def _written(registry: Running, *subjects: str) -> list[Any]:
    """Instances that stand; what was told so far is forgotten."""
    made = [registry.web(subject) for subject in subjects]
    await registry.write(*map(register, made))
    registry.changed.clear()
    return made


async def test_a_service_that_was_removed_is_told_and_comes_back(registry, catalog):
    (one,) = await _written(registry, "u1")
    catalog.remove(one.node, ServiceID=one.id)
    await registry.told("u1")
    assert registry.actual("u1") is None
    await registry.converges(one)
    assert catalog.service(one) is not None
    assert catalog.status(one) == "passing"


async def test_what_is_heard_of_a_node_makes_its_watch_fresh(catalog):
    async with running(to(catalog.consul.http_addr, virtual_nodes=1)) as made:
        await made.is_ready()
        (one,) = await _written(made, "u1")
        heard = made.registry.heard()
        assert heard is not None
        catalog.remove(one.node, ServiceID=one.id)
        await made.told("u1")
        assert made.registry.heard() > heard


async def test_a_node_that_was_removed_comes_back_with_all_that_stood_on_it(registry, catalog):
    made = await _written(registry, *(f"u{number}" for number in range(20)))
    for node in {one.node for one in made}:
        catalog.remove(node)
    for number in range(20):
        await registry.told(f"u{number}")
    await asyncio.gather(*map(registry.converges, made))
    assert all(catalog.service(one) and catalog.status(one) == "passing" for one in made)


async def test_a_node_that_was_removed_unseen_is_made_again_by_the_next_write(registry, catalog):
    (one,) = await _written(registry, "u1")
    catalog.remove(one.node)
    await registry.converges(replace(one, port=10))
    row = catalog.service(one)
    assert row is not None
    assert row["Port"] == 10
    assert catalog.status(one) == "passing"


async def test_a_check_that_was_removed_is_told_and_comes_back(registry, catalog):
    (one,) = await _written(registry, "u1")
    catalog.remove(one.node, CheckID=one.checks[0].id)
    await registry.told("u1")
    await registry.converges(one)
    assert catalog.status(one) == "passing"


async def test_a_status_that_was_edited_is_told_and_set_right(registry, catalog):
    (one,) = await _written(registry, "u1")
    check = {"Node": one.node, "CheckID": one.checks[0].id, "Name": "readiness", "ServiceID": one.id}
    catalog.transact({"Check": {"Verb": "set", "Check": check | {"ServiceName": "web", "Status": "critical"}}})
    await registry.told("u1")
    await registry.converges(one)
    assert catalog.status(one) == "passing"


@pytest.mark.parametrize(
    "edit",
    [
        {"Port": 99},
        {"Address": "127.0.0.9"},
        {"Tags": ["theirs"]},
        {"Meta": {}},
        {"Weights": {"Passing": 7, "Warning": 2}},
        {"TaggedAddresses": {"wan": {"Address": "127.0.0.9", "Port": 1}}},
    ],
    ids=lambda edit: next(iter(edit)),
)
async def test_a_service_that_was_edited_is_told_and_set_right(registry, catalog, edit):
    (one,) = await _written(registry, "u1")
    right = catalog.service(one)
    assert right is not None
    catalog.register(one.node, {name: right[name] for name in _WRITTEN} | edit)
    await registry.told("u1")
    await registry.converges(one)
    row = catalog.service(one)
    assert row is not None
    assert {name: row.get(name) for name in (*_WRITTEN, *edit)} == {n: right.get(n) for n in (*_WRITTEN, *edit)}


_WRITTEN = ("ID", "Service", "Address", "Port", "Tags", "Meta", "Weights")


async def test_a_probe_that_was_edited_is_told_and_set_right_but_keeps_its_status(registry, catalog):
    one = registry.web("u1")
    one = replace(one, checks=(tcp(one.id),))
    await registry.write(register(one))
    (row,) = catalog.checks(one).values()
    edited = {name: row[name] for name in ("Node", "CheckID", "Name", "ServiceID", "ServiceName")} | {
        "Status": "passing",
        "Definition": {"TCP": "127.0.0.1:22", "Interval": "1s"},
    }
    await asyncio.sleep(0.5)
    catalog.transact({"Check": {"Verb": "set", "Check": edited}})
    await registry.told("u1")
    await registry.converges(one)
    (again,) = catalog.checks(one).values()
    assert again["Definition"] == row["Definition"]
    assert again["Status"] == "passing"


async def test_a_check_that_was_led_elsewhere_comes_back(registry, catalog):
    (one,) = await _written(registry, "u1")
    check = {"Node": one.node, "CheckID": one.checks[0].id, "Name": "x", "Status": "passing"}
    catalog.transact({"Check": {"Verb": "set", "Check": check}})
    await registry.told("u1")
    await registry.converges(one)
    assert catalog.status(one) == "passing"


async def test_our_own_writes_are_no_news_and_cost_few_reads(catalog):
    async with recorded(catalog.consul) as way, running(to(f"http://127.0.0.1:{way.port}")) as registry:
        await registry.is_ready()
        (one,) = await _written(registry, "u1")
        await asyncio.sleep(2)
        way.requests.clear()
        for number in range(50):
            await registry.write(register(replace(one, port=1000 + number)))
        await asyncio.sleep(2)
        reads = [
            what for what, _, _ in way.requests if what.startswith("GET /v1/catalog/node-serv") and "index" not in what
        ]
        assert len(transactions(way)) == 50
        assert len(reads) <= 3
        assert registry.actual("u1") == replace(registry.actual("u1"), port=1049)


async def test_what_was_taken_for_ours_is_read_once_the_node_rests(catalog, monkeypatch):
    monkeypatch.setattr("consul_registrar.consul.catalog_watch.REST", 0.5)
    async with recorded(catalog.consul) as way, running(to(f"http://127.0.0.1:{way.port}")) as registry:
        await registry.is_ready()
        (one,) = await _written(registry, "u1")
        for number in range(10):
            await registry.write(register(replace(one, port=1000 + number)))
        way.requests.clear()

        def reads() -> list[str]:
            path = f"GET /v1/catalog/node-services/{one.node}"
            return [what for what, _, _ in way.requests if what.startswith(path) and "index" not in what]

        await eventually(lambda: len(reads()) > 0)
        await asyncio.sleep(2)
        assert len(reads()) <= 2
        assert registry.changed == []


async def test_a_node_is_read_compressed_once_it_has_rested(catalog, monkeypatch):
    """What a change costs after a calm shall not grow with its node; while much changes, compressing costs more."""
    encodings: dict[str, list[str]] = {}

    async def notes(request: Any) -> Any:
        if request.path.startswith("/v1/catalog/node-services/") and "index" not in request.query:
            encodings.setdefault(request.path, []).append(request.headers["Accept-Encoding"])

    async with recorded(catalog.consul, notes) as way, running(to(f"http://127.0.0.1:{way.port}")) as registry:

        async def read_after(rested: float) -> str:
            monkeypatch.setattr("consul_registrar.consul.catalog_watch.RESTED", rested)
            encodings.clear()
            catalog.remove(one.node, ServiceID=one.id)
            await registry.told("u1")
            await registry.converges(one)
            registry.changed.clear()
            return encodings[path][0]

        await registry.is_ready()
        (one,) = await _written(registry, "u1")
        path = f"/v1/catalog/node-services/{one.node}"
        assert set(encodings[path]) == {"identity"}
        assert await read_after(rested=0.1) == "gzip"
        assert await read_after(rested=600) == "identity"
    async with running(to(catalog.consul.http_addr)) as registry:
        await registry.is_ready()
        plain, packed = [await registry.registry._servers.get(path, compressed=packs) for packs in (False, True)]
        assert plain.body == packed.body  # which is short: Consul leaves it as it is
        long = await registry.registry._servers.get("/v1/agent/self", compressed=True)
        assert long.headers["Content-Encoding"] == "gzip"
        assert decode_self(long).datacenter == "dc1"


async def test_nothing_is_asked_or_written_while_nothing_changes(catalog):
    async with recorded(catalog.consul) as way, running(to(f"http://127.0.0.1:{way.port}")) as registry:
        await registry.is_ready()
        await _written(registry, "u1", "u2", "u3")
        await asyncio.sleep(3)
        way.requests.clear()
        await asyncio.sleep(5)
        assert [what for what, _, _ in way.requests if "index=" not in what] == []
        assert registry.changed == []


async def test_a_consul_that_reads_but_refuses_to_be_watched_is_asked_less_and_less_often(catalog):
    """As it does with more connections of one address than `limits.http_max_conns_per_client` allows."""
    refused: dict[str, list[float]] = {}

    async def refuses(request: Any) -> Any:
        if "index" not in request.query:
            return None
        refused.setdefault(request.path, []).append(time.monotonic())
        return web.Response(status=429, text="Your IP is issuing too many concurrent connections")

    async with recorded(catalog.consul, refuses) as way, running(to(f"http://127.0.0.1:{way.port}")):
        await eventually(lambda: any(len(times) >= 6 for times in refused.values()))
    first, *_, last = (later - earlier for earlier, later in pairwise(max(refused.values(), key=len)))
    assert last > 2 * first


async def test_what_is_removed_while_we_write_is_found(registry, catalog):
    (victim,) = await _written(registry, "u1")
    busy = replace(victim, id="shop-web-busy", meta=registry.web("busy").meta, checks=())
    await registry.write(register(busy))
    for number in range(20):
        await registry.write(register(replace(busy, port=number + 1)))
        if number == 10:
            await asyncio.to_thread(catalog.remove, victim.node, ServiceID=victim.id)
    await registry.told("u1")
    await registry.converges(victim)
    assert catalog.service(victim) is not None


async def test_before_everything_was_read_no_place_is_known(catalog):
    async with running(to("http://127.0.0.1:9")) as registry:
        place = registry.registry.place(None, "x", ())
        assert isinstance(place, Reason)
        assert place.code == CONNECTING
        assert await registry.looks("ConsulUnreachable")
        assert not registry.registry.status().ready


async def test_a_restarted_server_is_found_again_and_nothing_was_lost(registry, catalog):
    (one,) = await _written(registry, "u1")
    await asyncio.to_thread(catalog.consul.server.process.stop)
    await eventually(lambda: not registry.registry.status().ready)
    assert registry.actual("u1") is not None
    (error,) = await registry.registry.apply("", [deregister(one)])
    assert error is not None
    await asyncio.to_thread(catalog.consul.server.process.start)
    await registry.looks("CatalogReady")  # ready it is as soon as one node is
    assert registry.states[-2:] == ["", ""]
    assert registry.planned(one) == ()
    await registry.write(deregister(one))
    assert catalog.service(one) is None


async def test_a_restored_snapshot_is_read_and_set_right(registry, catalog):
    kept, removed = await _written(registry, "u1", "u2")
    snapshot = await asyncio.to_thread(_snapshot, catalog)
    await registry.write(deregister(removed), register(replace(kept, port=10)), register(registry.web("u3")))
    new = registry.actual("u3")
    assert new is not None
    registry.changed.clear()
    await asyncio.to_thread(_restore, catalog, snapshot)
    for subject in ("u1", "u2", "u3"):
        await registry.told(subject)
    assert registry.actual("u2") is not None
    await registry.converges(replace(kept, port=10))
    await registry.converges(registry.web("u3"))
    await registry.write(deregister(removed))
    assert catalog.service(removed) is None
    assert catalog.service(new) is not None
    row = catalog.service(kept)
    assert row is not None
    assert row["Port"] == 10


def _snapshot(catalog: Catalog) -> bytes:
    with urllib.request.urlopen(f"{catalog.consul.http_addr}/v1/snapshot", timeout=20) as answer:
        return bytes(answer.read())


def _restore(catalog: Catalog, snapshot: bytes) -> None:
    request = urllib.request.Request(f"{catalog.consul.http_addr}/v1/snapshot", data=snapshot, method="PUT")
    with urllib.request.urlopen(request, timeout=20) as answer:
        answer.read()


async def test_two_clusters_do_not_see_each_other(registry, catalog):
    (one,) = await _written(registry, "u1")
    async with running(to(catalog.consul.http_addr), cluster="other") as other:
        await other.is_ready()
        assert other.registry.registrations() == set()
        assert registry.registry.registrations() == {WEB}
        row = catalog.service(one)
    assert catalog.service(one) == row


async def test_what_consul_esm_removes_is_reaped(registry, catalog, monkeypatch):
    monkeypatch.setattr("consul_registrar.consul.catalog_book.REAPED_AFTER", 1.0)
    one = registry.web("u1")
    meta = tuple((key, "1r-abc" if key == "k8s-checks-hash" else value) for key, value in one.meta)
    one = replace(one, meta=meta, checks=(readiness(one.id, Health.PASSING),))
    await registry.write(register(one))
    check = {"Node": one.node, "CheckID": one.checks[0].id, "Name": "readiness", "ServiceID": one.id}
    catalog.transact({"Check": {"Verb": "set", "Check": check | {"ServiceName": "web", "Status": "critical"}}})
    await registry.told("u1")
    await asyncio.sleep(1.5)
    catalog.remove(one.node, ServiceID=one.id)
    await eventually(lambda: registry.actual("u1") is None)
    assert registry.registry.reaped(WEB, "u1")
    await registry.write(register(one))
    assert not registry.registry.reaped(WEB, "u1")


async def test_a_consul_esm_that_is_there_is_seen(registry, catalog, monkeypatch):
    catalog.register("esm-host", {"ID": "esm", "Service": "consul-esm"})
    async with running(to(catalog.consul.http_addr)) as other:
        await other.is_ready()
        one = other.web("u1")
        await other.write(register(replace(one, checks=(tcp(one.id),))))
        await eventually(lambda: other.registry.status().leader)
        assert not other.registry.esm_missing
        assert other.registry.status().reason.code == "CatalogReady"


async def test_nothing_runs_on_after_the_end(catalog):
    before = asyncio.all_tasks()
    async with running(to(catalog.consul.http_addr)) as registry:
        await registry.is_ready()
    assert asyncio.all_tasks() <= before


async def test_all_is_within_reach_or_nobody_knows(registry):
    assert await registry.registry.out_of_reach(WEB) == ()
    async with running(to("http://127.0.0.1:9")) as cut_off:
        with pytest.raises(NotSent):
            await cut_off.registry.out_of_reach(WEB)
