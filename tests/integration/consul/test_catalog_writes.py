"""What the catalog registry writes, against a real Consul."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from catalog_world import Catalog, Running, recorded, running, to, transactions
from consul_faults import passed_on
from consul_world import CLUSTER, deregister, meta, readiness, register, tcp

from consul_registrar.audit import Audit
from consul_registrar.changes import Cause, Deregister, DropCheck, Feed, Register
from consul_registrar.consul import Invalid, Stale
from consul_registrar.consul.catalog_servers import REQUESTS
from consul_registrar.model import Health, NamedPort
from consul_registrar.probes import HttpProbe, Timing
from consul_registrar.writer import Lanes


@pytest.fixture
async def registry(catalog: Catalog) -> AsyncIterator[Running]:
    async with running(to(catalog.consul.http_addr)) as made:
        await made.is_ready()
        yield made


async def test_an_instance_is_registered_fed_and_removed(registry, catalog):
    one = registry.web("u1")
    await registry.write(register(one))
    row = catalog.service(one)
    assert row is not None
    assert (row["Service"], row["Address"], row["Port"]) == ("web", one.address, one.port)
    assert (sorted(row["Tags"]), row["Meta"], row["Weights"]) == (
        ["blue", "v1"],
        dict(one.meta),
        {"Passing": 1, "Warning": 1},
    )
    assert catalog.status(one) == "passing"
    await registry.write(Feed(one, readiness(one.id, Health.CRITICAL)))
    (check,) = catalog.checks(one).values()
    assert check["Status"] == "critical"
    assert "not ready" in check["Output"]
    assert check["ServiceName"] == "web"
    await registry.write(deregister(one))
    assert catalog.service(one) is None
    assert catalog.checks(one) == {}


async def test_what_was_written_reads_back_as_what_was_wanted(registry, catalog):
    one = registry.web("u1")
    await registry.write(register(one))
    assert registry.planned(one) == ()
    async with running(to(catalog.consul.http_addr)) as other:
        await other.is_ready()
        assert other.planned(one) == ()
        assert other.actual("u1") == registry.actual("u1")


async def test_virtual_nodes_say_whose_they_are(registry, catalog):
    one = registry.web("u1")
    await registry.write(register(one))
    node = catalog.node(one.node)
    assert node is not None
    assert node["ID"] == ""
    assert node["Meta"] == {
        "external-source": "kubernetes",
        "managed-by": "consul-registrar",
        "k8s-cluster": CLUSTER,
        "k8s-connection": "default",
    }
    assert [row["CheckID"] for row in catalog.checks(one).values()] == [f"{one.id}:readiness"]


async def test_a_node_whose_checks_are_to_be_probed_says_so(registry, catalog):
    plain = registry.web("u1")
    await registry.write(register(plain))
    probed = replace(plain, checks=(*plain.checks, tcp(plain.id)))
    await registry.write(Register(probed, (tcp(plain.id),), Cause.EDITED))
    node = catalog.node(plain.node)
    assert node is not None
    assert (node["Meta"]["external-node"], node["Meta"]["external-probe"]) == ("true", "false")
    definition = catalog.checks(plain)[f"{plain.id}:port:tcp"]["Definition"]
    assert definition == {"TCP": "127.0.0.1:9", "Interval": "1s", "Timeout": "500ms"}
    assert await registry.looks("EsmMissing")
    assert registry.registry.esm_missing


@pytest.mark.shows(
    "sreg.spec.checks[].http.path",
    "sreg.spec.checks[].http.port",
    "sreg.spec.checks[].http.scheme",
    "sreg.spec.checks[].http.method",
    "sreg.spec.checks[].http.headers[].name",
    "sreg.spec.checks[].http.headers[].value",
    "sreg.spec.checks[].http.tlsServerName",
    "sreg.spec.checks[].http.tlsSkipVerify",
    "sreg.spec.checks[].interval",
    "sreg.spec.checks[].timeout",
    "sreg.spec.checks[].deregisterCriticalServiceAfter",
    "sreg.spec.checks[].initialStatus",
    mode="catalog",
)
async def test_an_http_check_is_written_as_consul_esm_reads_it(registry, catalog):
    one = registry.web("u1")
    timing = Timing(10_000, 2_000, 90_000)
    probe = HttpProbe("https://10.0.0.1:8443/health", "HEAD", (("A", "1"),), "", "name", True, timing)
    check = replace(tcp(one.id), id=f"{one.id}:health:http", probe=probe, status=Health.WARNING)
    await registry.write(register(replace(one, checks=(check,))))
    (row,) = catalog.checks(one).values()
    assert row["Status"] == "warning"
    assert row["Definition"] == {
        "HTTP": "https://10.0.0.1:8443/health",
        "Method": "HEAD",
        "Header": {"A": ["1"]},
        "TLSServerName": "name",
        "TLSSkipVerify": True,
        "Interval": "10s",
        "Timeout": "2s",
        "DeregisterCriticalServiceAfter": "1m30s",
    }


@pytest.mark.shows("sreg.spec.checks[].failuresBeforeCritical", mode="catalog", condition="CheckNotSupported")
async def test_a_probe_that_nobody_can_run_is_refused(registry, catalog):
    one = registry.web("u1")
    check = tcp(one.id, failures_before_critical=3)
    (error,) = await registry.registry.apply("", [register(replace(one, checks=(check,)))])
    assert isinstance(error, Invalid)
    assert error.reason.code == "CheckNotSupported"
    assert catalog.service(one) is None


async def test_what_consul_esm_found_is_never_rewritten(registry, catalog):
    one = registry.web("u1")
    probed = replace(one, checks=(tcp(one.id),))
    await registry.write(register(probed))
    (row,) = catalog.checks(one).values()
    found = {name: value for name, value in row.items() if name not in {"Interval", "Timeout", "ExposedPort"}}
    catalog.transact({"Check": {"Verb": "cas", "Check": found | {"Status": "passing", "Output": "connected"}}})
    await registry.told("u1")
    assert registry.planned(probed) == ()
    await registry.write(Register(replace(probed, port=10), probed.checks, Cause.EDITED))
    assert catalog.status(one) == "passing"


async def test_a_check_is_dropped(registry, catalog):
    one = registry.web("u1")
    two = replace(one, checks=(*one.checks, tcp(one.id)))
    await registry.write(register(two))
    await registry.write(DropCheck(one, f"{one.id}:port:tcp"))
    assert list(catalog.checks(one)) == [f"{one.id}:readiness"]
    assert registry.planned(one) == ()


async def test_five_hundred_instances_take_eight_transactions(catalog):
    async with recorded(catalog.consul) as way, running(to(f"http://127.0.0.1:{way.port}")) as registry:
        await registry.is_ready()
        wanted = [registry.web(f"u{number}") for number in range(500)]
        changes = [register(one) for one in wanted]
        for at in range(0, 500, 64):
            await registry.write(*changes[at : at + 64])
        sent = transactions(way)
        assert len(sent) <= 9  # eight batches; the first has operations that make nodes besides
        assert all(len(each) <= 128 for each in sent)
        assert sum(len(catalog.services(node)) for node in registry.registry._nodes.names) == 500
        assert not any(registry.planned(one) for one in wanted)


async def test_what_is_many_transactions_goes_to_consul_side_by_side(catalog):
    """One after the other each would wait for Consul's way to the disk of the one before."""
    together: list[tuple[int, bool]] = []
    under_way: list[bool] = []

    async def counts(request: Any) -> web.Response | None:
        if request.path != "/v1/txn":
            return None
        only_removes = '"cas"' not in (body := await request.text()) and '"set"' not in body
        under_way.append(only_removes)
        together.append((len(under_way), any(under_way)))
        await asyncio.sleep(0.1)
        answer = await passed_on(request, catalog.consul.http_addr)
        under_way.remove(only_removes)
        return answer

    async with recorded(catalog.consul, counts) as way, running(to(f"http://127.0.0.1:{way.port}")) as registry:
        await registry.is_ready()
        first, *rest = (registry.web(f"u{number}") for number in range(257))
        await registry.write(*map(register, rest))  # makes the nodes: who makes one goes before the others on it
        together.clear()
        await registry.write(*(register(replace(one, port=1)) for one in rest))
        assert max(together) == (4, False)
        gone = [deregister(one) for one in rest[:128]]
        together.clear()
        await registry.write(*gone, *(register(replace(one, port=2)) for one in rest[128:]), register(first))
        # Consul tells no number of what only removes: it goes alone
        assert {number for number, removes in together if removes} == {1}
        stand = {one.id for one in (first, *rest[128:])}
        assert {row for node in registry.registry._nodes.names for row in catalog.services(node)} == stand
        assert not any(registry.planned(replace(one, port=2)) for one in rest[128:])


async def test_transactions_are_as_large_as_consul_takes_them(catalog):
    async with recorded(catalog.consul) as way, running(to(f"http://127.0.0.1:{way.port}")) as registry:
        await registry.is_ready()
        long = {f"note{number}": "x" * 500 for number in range(30)}
        wanted = [registry.web(f"u{number}", meta=meta(f"u{number}", **long)) for number in range(100)]
        await registry.write(*map(register, wanted))
        sizes = [len(body) for what, _, body in way.requests if what.startswith("PUT /v1/txn")]
        assert len(sizes) == 4  # 1.6 MiB of 512 KiB each, and none was refused
        assert all(catalog.service(one) for one in wanted)


async def test_two_changes_of_one_instance_are_sent_in_order(registry, catalog):
    one = registry.web("u1")
    await registry.write(
        register(one), Feed(one, readiness(one.id, Health.CRITICAL)), Feed(one, readiness(one.id, Health.WARNING))
    )
    assert catalog.status(one) == "warning"
    await registry.write(deregister(one), register(one))
    assert catalog.service(one) is not None


async def test_a_poisoned_change_costs_only_itself(registry, catalog):
    good = [registry.web(f"u{number}") for number in range(60)]
    poisoned = [registry.web(f"bad{number}", meta=meta(f"bad{number}", **{"a b": "x"})) for number in range(3)]
    nameless = registry.web("nameless", service="")
    changes = [register(one) for one in [*good[:30], *poisoned, nameless, *good[30:]]]
    outcomes = await registry.registry.apply("", changes)
    assert [type(error) for error in outcomes[30:34]] == [Invalid] * 4
    assert "Invalid Service Meta" in outcomes[30].reason.message
    assert [error for error in outcomes if error is None] == [None] * 60
    assert all(catalog.service(one) for one in good)
    assert not any(catalog.service(one) for one in poisoned)


async def test_refusals_of_several_phases_cost_only_those_they_are_about(registry, catalog):
    stands, edited = registry.web("u1"), registry.web("u2")
    await registry.write(register(stands), register(edited))
    catalog.register(edited.node, _payload(edited, port=99))
    changes = [
        Register(replace(edited, port=10), (), Cause.EDITED),
        register(registry.web("bad", meta=meta("bad", **{"a b": "x"}))),
        register(registry.web("u3")),
    ]
    outcomes = await registry.registry.apply("", changes)
    assert [type(error) for error in outcomes] in ([Stale, Invalid, type(None)], [type(None), Invalid, type(None)])
    assert catalog.service(registry.web("u3")) is not None


def _payload(instance: Any, **changes: Any) -> dict[str, Any]:
    body = {
        "ID": instance.id,
        "Service": instance.service,
        "Address": instance.address,
        "Port": instance.port,
        "Tags": list(instance.tags),
        "Meta": dict(instance.meta),
    }
    return body | {name.capitalize(): value for name, value in changes.items()}


@pytest.mark.parametrize("cause", [Cause.UNSELECTED, Cause.REGISTRATION_DELETED])
async def test_a_removal_of_what_is_not_gone_is_refused_when_somebody_wrote_in_between(catalog, cause):
    """Where the registration is deleted: one that was let go uncleaned, and is created again, goes on with it."""
    edit = []

    async def fault(request: Any) -> None:
        """Somebody writes right before the transaction arrives."""
        if request.path == "/v1/txn" and edit:
            one = edit.pop()
            await asyncio.to_thread(catalog.register, one.node, _payload(one, port=99))

    async with recorded(catalog.consul, fault) as way, running(to(f"http://127.0.0.1:{way.port}")) as registry:
        await registry.is_ready()
        one = registry.web("u1")
        await registry.write(register(one))
        standing = registry.actual("u1")
        assert standing is not None
        edit.append(one)
        (error,) = await registry.registry.apply("", [Deregister(standing, cause)])
        assert isinstance(error, Stale)
        assert catalog.service(one) is not None
        edit.append(replace(one, address="127.0.0.9"))
        await registry.write(Deregister(standing, Cause.GONE))
        assert catalog.service(one) is None


async def test_a_stale_process_changes_nothing_that_another_wrote(catalog):
    async with running(to(catalog.consul.http_addr)) as awake, running(to(catalog.consul.http_addr)) as late:
        await awake.is_ready()
        await late.is_ready()
        one = awake.web("u1")
        first, second = await asyncio.gather(
            awake.registry.apply("", [register(one)]), late.registry.apply("", [register(replace(one, port=7))])
        )
        assert sorted(type(error).__name__ for error in (*first, *second)) == ["NoneType", "Stale"]
        await awake.converges(one)
        row = catalog.service(one)
        assert row is not None
        assert row["Port"] == one.port


async def test_an_orphan_stays_and_is_nobodys(registry, catalog):
    one = registry.web("u1")
    await registry.write(register(one))
    orphan = replace(one, meta=(("orphaned-from", "tests/default/shop/web"),), checks=())
    await registry.write(Register(orphan, (), Cause.ORPHANED))
    row = catalog.service(one)
    assert row is not None
    assert row["Meta"] == {"orphaned-from": "tests/default/shop/web"}
    assert catalog.status(one) == "passing"
    assert registry.actual("u1") is None


async def test_foreign_services_are_invisible_and_untouched(registry, catalog):
    one = registry.web("u1")
    await registry.write(register(one))
    theirs = {"CheckID": "theirs", "ServiceID": "theirs", "Name": "t", "Status": "passing"}
    catalog.register(one.node, {"ID": "theirs", "Service": "theirs", "Port": 1}, Check=theirs)
    catalog.register("elsewhere", {"ID": "vm", "Service": "web", "Port": 1})
    before = catalog.services(one.node)["theirs"], catalog.services("elsewhere")
    await registry.write(Feed(one, readiness(one.id, Health.CRITICAL)))
    await registry.write(deregister(one))
    assert (catalog.services(one.node)["theirs"], catalog.services("elsewhere")) == before
    assert registry.registry.registrations() == set()


async def test_an_empty_id_never_reaches_consul(registry, catalog):
    one = registry.web("u1")
    await registry.write(register(one))
    outcomes = await registry.registry.apply(
        "", [deregister(replace(one, id="")), DropCheck(one, ""), deregister(replace(one, service=""))]
    )
    assert [type(error) for error in outcomes] == [Invalid, Stale, Invalid]
    assert catalog.service(one) is not None


async def test_one_lane_takes_the_changes_of_all_nodes_and_adoptions_keep_none_of_them_waiting(registry):
    assert {registry.registry.lane(node) for node in registry.registry._nodes.names} == {""}
    assert registry.registry.lane("legacy") == "legacy"


@pytest.mark.parametrize(
    "ports", [(), (NamedPort("grpc", 90), NamedPort("http", 9, default=True))], ids=["without ports", "with ports"]
)
async def test_no_more_writes_are_on_their_way_than_there_are_connections(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, ports: tuple[NamedPort, ...]
) -> None:
    """Else they would wait for one, and that would count as time in which Consul doesn't answer."""
    async with running(to(catalog.consul.http_addr)) as one:
        await one.is_ready()
        servers, lanes = one.registry._servers, Lanes(one.registry, Audit("default", lambda *_: None))
        put, under_way, together = servers.put, set[object](), list[int]()

        async def counted(*request: Any) -> Any:
            under_way.add(this := object())
            together.append(len(under_way))
            try:
                return await put(*request)
            finally:
                under_way.remove(this)

        monkeypatch.setattr(servers, "put", counted)
        wanted = [replace(one.web(f"crowd-{number}"), ports=ports) for number in range(400)]
        await asyncio.gather(*(lanes.write(register(each)) for each in wanted))
        assert 1 < max(together) <= REQUESTS
        assert all(catalog.service(each) for each in wanted)
