"""G13: what is wanted changes while a write hangs on its way to Consul, or back. That is what stands in the end."""

import time
from collections.abc import Iterator

import pytest
from account import Account
from fault_world import CONNECTIONS, CONSUL_WRITES, Arena, Shop
from hanging import DIGESTS, Hang, Where, also, daily, single
from operator_world import MERGE, always, eventually, pod

from killpoints import Claim, kind_is

WAITS: tuple[Where, ...] = ("before", "after")
"""Where the next writes wait for one that hangs; nobody waits for one that is late."""

pytestmark = [pytest.mark.goal("G13")]


@pytest.fixture(autouse=True)
def audited(hang: Hang) -> Iterator[None]:
    """The audit log tells all that was done, and nothing else."""
    account = Account(hang.web)
    yield
    account.agrees()


@daily("agent-after", "catalog-before")
def test_what_was_edited_meanwhile_stands_as_if_it_were_new(arena: Arena, hang: Hang) -> None:
    """Name, port and tags; no Pod is without an instance for a moment."""
    web, service = hang.web, {"name": hang.web.name("renamed"), "port": 9090, "tags": ["v3"]}
    with hang.on(lambda: web.tag("web", "v1")):
        web.world.patch("web", {"service": {"port": 7070, "tags": ["v2"]}})
        arena.oracle.renamed(web.name("web"), web.name("renamed"))
        web.world.patch("web", {"service": service})
    web.claims["web"] = Claim(web.name("renamed"), web.world.namespace, {"app": "web"}, ("v3",), 9090)
    web.settled()
    also(web, "fresh", port=9090, tags=["v3"])
    web.settled()
    assert likeness(web, "renamed") == likeness(web, "fresh")


def likeness(web: Shop, app: str) -> dict[str, object]:
    """What stands in Consul, without that by which registrations differ."""
    return {
        name: (
            {key: value for key, value in row["Service"].items() if key not in OWN},
            {key: value for key, value in row["Service"]["Meta"].items() if key not in OWN},
            [(c["Name"], c["Type"], c["Status"], c["Notes"]) for c in row["Checks"] if c["ServiceID"]],
        )
        for name, row in web.world.health(web.name(app)).items()
    }


OWN = {"ID", "Service", "Meta", "CreateIndex", "ModifyIndex", "k8s-registration", "k8s-checks-hash"}


@daily("agent-late", "catalog-after")
def test_a_registration_that_is_deleted_meanwhile_leaves_nothing(hang: Hang) -> None:
    """One that had just begun and one that was just edited. They don't go before it is known what became of it."""
    web = hang.web
    with hang.on(lambda: (web.tag("web", "v1"), also(web, "more"))):
        web.unregister("web")
        web.unregister("more")
        if hang.where != "late":
            always(lambda: web.world.exists("web"), during=DIGESTS)
    web.settled()


@daily("agent-before", "catalog-late")
def test_a_namespace_that_is_deleted_meanwhile_leaves_nothing(hang: Hang) -> None:
    web = hang.web
    with hang.on(lambda: (web.tag("web", "v1"), also(web, "more"))):
        web.abandon()
    web.settled()


@daily("agent-late", "catalog-before")
def test_pods_that_end_while_they_are_being_registered_leave_nothing(hang: Hang) -> None:
    """One terminates, one is gone at once, one is replaced by another of its name."""
    web, newcomers = hang.web, ("db-1", "db-2", "db-3")
    single(web, "db-0")
    with hang.on(lambda: [web.create(web.pods, pod(name, "db")) for name in newcomers]):
        eventually(lambda: web.world.pods("db").keys() >= {*newcomers})
        web.kill_pod("db-1")
        web.kill_pod("db-2", at_once=True)
        web.kill_pod("db-3", at_once=True)
        web.create(web.pods, pod("db-3", "db"))
    web.settled()
    assert web.world.health(web.name("db")).keys() == {"db-0", "db-3"}


def label(web: Shop, name: str, app: str) -> None:
    web.arena.cluster.api.request("PATCH", f"{web.pods}/{name}", {"metadata": {"labels": {"app": app}}}, MERGE)


@daily("agent-before", "catalog-after")
def test_a_pod_that_matches_again_while_its_removal_hangs_stands_in_the_end(arena: Arena, hang: Hang) -> None:
    """The removal was asked for, and may be on its way to take effect: so it may leave, but not for good."""
    web = hang.web
    single(web, "db-0", "db-1")
    arena.oracle.excuse(web.world.pods("db")["db-1"]["metadata"]["uid"])
    with hang.on(lambda: label(web, "db-1", "other")):
        label(web, "db-1", "db")
    web.settled()


@daily("agent-after", "catalog-before", among=WAITS)
def test_a_pod_that_matches_again_before_its_removal_was_sent_never_leaves(hang: Hang) -> None:
    """It waits behind a write that hangs."""
    web = hang.web
    single(web, "db-0", "db-1")
    with hang.on(lambda: web.tag("web", "v1")):
        label(web, "db-1", "other")
        time.sleep(2)  # it is judged together with others of the time
        label(web, "db-1", "db")
    web.settled()


@daily("agent-before", "catalog-after", among=WAITS)
def test_where_nothing_may_be_written_any_more_what_waits_behind_a_hanging_write_is_not(
    arena: Arena, hang: Hang
) -> None:
    web, writes = hang.web, kind_is(*CONSUL_WRITES[hang.web.mode])

    def policy(wanted: str) -> None:
        arena.cluster.api.request("PATCH", f"{CONNECTIONS}/{web.mode}", {"spec": {"policy": wanted}}, MERGE)

    try:
        with hang.on(lambda: web.tag("web", "v1")):
            web.scale("web", 5)
            eventually(lambda: len(web.world.pods("web")) == 5)
            time.sleep(DIGESTS)
            policy("Observe")
            web.world.says("web", "Observed")
            known = arena.network.journal.count(writes)
        web.world.annotate(min(web.world.pods("web")), ready="false")
        time.sleep(DIGESTS)
        assert arena.network.journal.count(writes) == known
    finally:
        policy("Sync")
    eventually(arena.connected)
    web.settled()
