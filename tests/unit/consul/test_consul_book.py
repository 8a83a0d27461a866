"""What is known of one agent: drift against the catalog, repairs, reaping. Time is an argument."""

from dataclasses import replace

import pytest

from consul_registrar.actual import Actual
from consul_registrar.changes import Cause, Register
from consul_registrar.consul.book import Book
from consul_registrar.consul.drift import PATIENCE, SETTLE, Catalog, differences, shown
from consul_registrar.consul.sender import needed
from consul_registrar.consul.wire import CheckRow, Held, Reader, ServiceRow
from consul_registrar.model import (
    MANAGED_BY,
    META_CLUSTER,
    META_CONNECTION,
    META_HASH,
    META_MANAGED_BY,
    META_NAMESPACE,
    META_NONCE,
    META_POD_UID,
    META_REGISTRATION,
    Check,
    Health,
    Instance,
    Key,
    RegistrationKey,
)
from consul_registrar.probes import Readiness

WEB = RegistrationKey("shop", "web")


def instance(flag: str = "1", health: Health = Health.PASSING) -> Instance:
    own = {
        META_MANAGED_BY: MANAGED_BY,
        META_CLUSTER: "tests",
        META_CONNECTION: "c",
        META_NAMESPACE: WEB.namespace,
        META_REGISTRATION: WEB.name,
        META_POD_UID: "uid",
        META_HASH: f"{flag}-abc",
    }
    checks = (Check("i:a", "a", None, health), Check("i:b", "b", None, Health.PASSING))
    return Instance("n", "i", "web", "10.0.0.1", 80, ("x",), tuple(sorted(own.items())), checks)


def catalog(of: Instance | None, nonce: str = "") -> Catalog:
    """The catalog when everything was pushed."""
    if of is None:
        return Catalog({}, {})
    meta = dict(of.meta) | ({META_NONCE: nonce} if nonce else {})
    row = ServiceRow(of.id, of.service, of.address, of.port, of.tags, meta, of.tag_override)
    return Catalog({of.id: row}, {c.id: CheckRow("n", c.id, c.name, c.status or "", "", of.id) for c in of.checks})


@pytest.fixture
def actual() -> Actual:
    return Actual("tests", "c")


@pytest.fixture
def book(actual: Actual) -> Book:
    return Book("n", Reader("n", "tests", "c"), actual, {})


@pytest.mark.parametrize(
    ("edit", "wrong"),
    [
        (lambda c: c, set()),
        (lambda _: Catalog({}, {}), {"i", "i:a", "i:b"}),
        (lambda c: Catalog(c.services, {"i:a": c.checks["i:a"]}), {"i:b"}),
        (lambda _: catalog(instance(health=Health.CRITICAL)), {"i:a"}),
        (lambda _: catalog(replace(instance(), port=81)), {"i"}),
        (lambda _: catalog(replace(instance(), tags=("y",))), {"i"}),
        (lambda _: catalog(replace(instance(), meta=instance().meta[1:])), {"i"}),
        (lambda _: catalog(instance(), nonce="other"), {"i"}),
    ],
)
def test_the_catalog_differs_in(edit, wrong):
    assert differences(Held(instance()), edit(catalog(instance()))).keys() == wrong


def test_tags_may_be_edited_in_the_catalog_where_the_instance_says_so():
    free = replace(instance(), tag_override=True)
    assert differences(Held(free), catalog(replace(free, tags=("edited",)))) == {}


def test_what_was_written_is_visible_once_the_catalog_holds_it_as_the_agent_does(actual):
    visible: list = []
    book = Book("n", Reader("n", "tests", "c"), actual, {}, visible.append)
    book.registered(Held(instance()), 100.0)
    book.await_visible("i", 7, 100.0)
    began = actual.begin()
    book.take([Held(instance())], None, began, 100.1)
    book.take([Held(instance())], catalog(None), began, 100.2)
    book.take([Held(instance())], catalog(instance(health=Health.CRITICAL)), began, 100.3)
    assert visible == []
    book.take([Held(instance())], catalog(instance()), began, 100.4)
    assert visible == [7]
    book.take([Held(instance())], catalog(instance()), began, 100.5)
    assert visible == [7], "measured once"


def test_a_removal_is_visible_once_the_catalog_holds_it_no_more(actual):
    visible: list = []
    book = Book("n", Reader("n", "tests", "c"), actual, {}, visible.append)
    book.take([Held(instance())], catalog(instance()), actual.begin(), 100.0)
    book.removed("i")
    book.await_visible("i", 8, 100.1)
    began = actual.begin()
    book.take([], catalog(instance()), began, 100.2)
    assert visible == []
    book.take([], catalog(None), began, 100.3)
    assert visible == [8]


def test_a_write_whose_push_was_read_before_its_answer_came_is_looked_for_once_more(actual):
    visible: list = []
    book = Book("n", Reader("n", "tests", "c"), actual, {}, visible.append)
    began = actual.begin()
    book.take([], catalog(instance()), began, 100.0)
    book.registered(Held(instance()), 100.1)
    book.await_visible("i", 7, 100.1)
    assert book.look_again_at() == 100.1 + SETTLE
    book.take([Held(instance())], catalog(instance()), actual.begin(), 101.2)
    assert visible == [7]
    assert book.look_again_at() == float("inf")


def test_what_no_pod_led_to_is_waited_for_by_nobody(book):
    book.registered(Held(instance()), 100.0)
    book.await_visible("i", None, 100.0)
    assert book.look_again_at() == float("inf")


def test_what_is_wrong_is_shown_so_that_it_is_written_again_and_can_be_removed():
    seen = shown(instance(), {"i": None, "i:a": None})
    assert seen.owner == instance().owner
    assert seen.subject == "uid"
    assert not seen.meta_value(META_HASH)
    assert [c.id for c in seen.checks] == ["i:b"]
    assert (seen.address, seen.port) == (instance().address, instance().port)


def test_a_difference_counts_when_it_has_stood_for_a_while_and_was_confirmed(book, actual):
    held = Held(instance())
    assert book.take([held], catalog(None), 0, 100.0) == {Key(WEB), Key(WEB, "uid")}
    assert book.look_again_at() == 100.0 + SETTLE
    assert book.take([held], catalog(None), 0, 100.9) == frozenset()
    assert book.take([held], catalog(None), 0, 101.1) == {Key(WEB, "uid")}
    assert book.wrong("i").keys() == {"i", "i:a", "i:b"}
    assert book.look_again_at() == float("inf")
    assert book.take([held], catalog(instance()), 0, 102.0) == {Key(WEB, "uid")}
    assert actual.instances(WEB, "uid") == (instance(),)


def test_a_push_on_its_way_is_no_difference(book):
    book.take([], catalog(None), 0, 100.0)
    book.registered(Held(instance()), 100.5)
    assert book.take([Held(instance())], catalog(None), 1, 100.6) == frozenset()
    assert book.look_again_at() == 100.6 + SETTLE
    assert book.take([Held(instance())], catalog(instance()), 1, 100.7) == frozenset()


def test_a_repair_that_does_not_help_is_repeated_ever_later(book):
    now, waits = 100.0, []
    book.take([Held(instance())], catalog(None), 0, now)
    for _ in range(10):
        first = now
        while not book.wrong("i"):
            now = max(now + 0.1, min(book.look_again_at(), now + PATIENCE))
            book.take([Held(instance())], catalog(None), 10**6, now)
        waits.append(now - first)
        book.registered(Held(instance()), now)
    assert waits == sorted(waits)
    assert PATIENCE <= waits[-1] < PATIENCE + 5
    assert book.not_pushed() == 1


def test_feeding_a_check_leaves_what_else_is_wrong_as_it_is(book, actual):
    book.take([Held(instance())], catalog(None), 0, 100.0)
    book.take([Held(instance())], catalog(None), 0, 102.0)
    book.fed("i", "i:b", Health.WARNING, 102.0)
    assert book.wrong("i").keys() == {"i", "i:a"}
    assert [c.id for c in actual.get("n", "i").checks] == ["i:b"]


def test_writes_acknowledged_during_a_read_are_not_undone(book, actual):
    began = actual.begin()
    book.registered(Held(instance()), 100.0)
    book.take([], None, began, 100.1)
    assert book.holds("i")
    began = actual.begin()
    book.removed("i")
    book.take([Held(instance())], None, began, 100.2)
    assert book.holds("i") is None
    assert actual.get("n", "i") is None


@pytest.mark.parametrize(
    ("flag", "health", "after", "reaped"),
    [
        ("1r", Health.CRITICAL, 60.0, True),
        ("1r", Health.CRITICAL, 10.0, False),
        ("1", Health.CRITICAL, 60.0, False),
        ("1r", Health.PASSING, 60.0, False),
    ],
)
def test_reaped_is_what_vanished_long_after_it_turned_critical(actual, flag, health, after, reaped):
    found: dict = {}
    book = Book("n", Reader("n", "tests", "c"), actual, found)
    book.take([Held(instance(flag))], None, 0, 100.0)
    book.take([Held(instance(flag, health))], None, 0, 200.0)
    book.take([], None, 0, 200.0 + after)
    assert ((WEB, "uid") in found) is reaped


def test_what_was_critical_when_first_seen_may_have_been_so_for_long(actual):
    found: dict = {}
    book = Book("n", Reader("n", "tests", "c"), actual, found)
    book.take([Held(instance("1r", Health.CRITICAL))], None, 0, 100.0)
    book.take([], None, 0, 101.0)
    assert (WEB, "uid") in found
    book.take([Held(instance("1r"))], None, 0, 102.0)
    assert found == {}


def test_what_vanished_out_of_sight_or_by_our_own_hand_was_not_reaped(actual):
    found: dict = {}
    book = Book("n", Reader("n", "tests", "c"), actual, found)
    sick = Held(instance("1r", Health.CRITICAL))
    book.take([sick], None, 0, 100.0)
    book.interrupted()
    book.take([], None, 0, 300.0)
    book.take([sick], None, 0, 400.0)
    book.take([sick], None, 0, 500.0)
    book.removed("i")
    book.take([], None, actual.begin(), 600.0)
    assert found == {}


def test_only_checks_that_the_agent_does_not_run_are_defined():
    wanted = replace(instance(), checks=tuple(replace(c, probe=Readiness()) for c in instance().checks))
    change = Register(wanted, wanted.checks, Cause.DRIFT)
    held = Held(instance())
    assert needed(change, None, frozenset()) == list(wanted.checks)
    assert needed(change, held, frozenset()) == []
    assert [c.id for c in needed(change, held, {"i:b"})] == ["i:b"]
    other = replace(held, instance=replace(instance(), meta=instance("1r").meta))
    assert needed(change, other, frozenset()) == list(wanted.checks)
