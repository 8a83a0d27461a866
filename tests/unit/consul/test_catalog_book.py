"""What is known of a virtual node, and where instances stand."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consul_registrar.actual import Actual
from consul_registrar.consul.catalog_book import CatalogBook
from consul_registrar.consul.catalog_wire import CheckRow, NodeRow, ServiceRow
from consul_registrar.consul.placement import choose
from consul_registrar.consul.virtual import is_probed, node_meta, node_names
from consul_registrar.model import META_HASH, Health, Instance, Key, RegistrationKey

KEY = RegistrationKey("ns", "r")
META = {
    "managed-by": "consul-registrar",
    "k8s-cluster": "c",
    "k8s-connection": "n",
    "k8s-namespace": "ns",
    "k8s-registration": "r",
    "k8s-pod-uid": "u",
    META_HASH: "1r-abc",
}
SERVICE = ServiceRow("i", "web", "10.0.0.1", 80, Tags=("b", "a"), Meta=META, CreateIndex=5, ModifyIndex=7)
CHECK = CheckRow("node", "i:readiness", "readiness", "passing", ServiceID="i", ModifyIndex=8)
NODE = NodeRow("node", "dc1", {}, 4)


class Fixture:
    def __init__(self):
        self.actual = Actual("c", "n")
        self.reaped = {}
        self.book = CatalogBook("node", "c", "n", self.actual, self.reaped)

    def take(self, services=(SERVICE,), checks=(CHECK,), index=9, began=None, now=0.0, node=NODE):
        return self.book.take(node, services, checks, index, began or self.actual.begin(), now)

    @property
    def one(self):
        return self.actual.get("node", "i")


@pytest.fixture
def node():
    made = Fixture()
    made.take()
    return made


def test_what_is_read_is_known(node):
    assert (node.one.tags, node.one.health) == (("a", "b"), Health.PASSING)
    assert (node.book.index("i"), node.book.check_index("i", "i:readiness")) == (7, 8)
    assert node.book.keys() == {Key(KEY, "u"), Key(KEY)}


def test_reading_the_same_again_changes_nothing_and_makes_nothing(node):
    before = node.one
    assert node.take() == frozenset()
    assert node.one is before


def test_a_read_that_began_before_an_acknowledgement_does_not_undo_it(node):
    began = node.actual.begin()
    node.book.registered(msgspec.structs.replace(SERVICE, Port=81, ModifyIndex=20), [])
    assert node.take(began=began) == frozenset()
    assert (node.one.port, node.book.index("i")) == (81, 20)
    began = node.actual.begin()
    node.book.removed("i")
    node.take(began=began)
    assert (node.one, node.book.index("i")) == (None, 0)


def test_a_node_that_was_just_made_is_not_unmade_by_an_older_read():
    one = Fixture()
    began = one.actual.begin()
    one.book.created(NODE)
    one.take((), (), began=began, node=None)
    assert one.book.row == NODE
    one.take((), (), node=None)
    assert one.book.row is None


def test_what_was_edited_where_a_plan_sees_nothing_is_shown_as_missing(node):
    edited = msgspec.structs.replace(SERVICE, ModifyIndex=10, Kind="terminating-gateway")
    assert node.take((edited,)) == {Key(KEY, "u")}
    assert node.one.meta_value(META_HASH) == ""
    probed = msgspec.structs.replace(CHECK, ModifyIndex=11, Definition=msgspec.Raw(b'{"TCP":"x:1"}'))
    node.take(checks=(probed,))
    assert node.one.checks == ()
    assert node.book.status("i", "i:readiness") is Health.PASSING
    assert node.take(checks=(probed,)) == frozenset()
    node.take(checks=(msgspec.structs.replace(CHECK, ModifyIndex=12),))
    assert len(node.one.checks) == 1


def test_a_status_that_somebody_else_writes_is_no_edit(node):
    node.take(checks=(msgspec.structs.replace(CHECK, ModifyIndex=11, Status="critical"),))
    assert node.one.health is Health.CRITICAL


def test_the_same_index_in_another_log_is_another_version(node):
    other = msgspec.structs.replace(SERVICE, Port=99)
    assert node.take((other,), index=3) == {Key(KEY, "u")}
    assert node.one.port == 99


def test_a_check_that_stands_under_another_service_is_still_found(node):
    node.take(checks=(msgspec.structs.replace(CHECK, ServiceID="", ModifyIndex=15),))
    assert node.one.checks == ()
    assert node.book.check_index("i", "i:readiness") == 15


def test_a_status_that_is_none_is_a_missing_check_of_a_known_version(node):
    node.take(checks=(msgspec.structs.replace(CHECK, Status="bogus", ModifyIndex=15),))
    assert node.one.checks == ()
    assert node.book.check_index("i", "i:readiness") == 15


def test_foreign_services_are_not_ours_but_keep_a_node_from_being_bare(node):
    theirs = ServiceRow("x", "web", Meta={"k8s-cluster": "other"}, ModifyIndex=3)
    node.take((theirs,), ())
    assert len(node.actual) == 0
    assert not node.book.bare
    node.take((), ())
    assert node.book.bare


def test_an_acknowledged_status_is_known_at_once(node):
    node.book.fed("i", msgspec.structs.replace(CHECK, Status="critical", ModifyIndex=30))
    assert (node.one.health, node.book.check_index("i", "i:readiness")) == (Health.CRITICAL, 30)
    node.book.dropped("i", "i:readiness")
    assert (node.one.checks, node.book.check_index("i", "i:readiness")) == ((), 0)


@pytest.mark.parametrize(
    ("hash_", "critical_for", "watched", "reaped"),
    [
        ("1r-abc", 60.0, True, True),
        ("1r-abc", 30.0, True, False),
        ("1-abc", 60.0, True, False),
        ("1r-abc", 60.0, False, False),
    ],
)
def test_what_vanished_after_it_was_critical_for_long_was_reaped(hash_, critical_for, watched, reaped):
    one = Fixture()
    service = msgspec.structs.replace(SERVICE, Meta=META | {META_HASH: hash_})
    one.take((service,), now=0.0)
    one.take((service,), (msgspec.structs.replace(CHECK, Status="critical", ModifyIndex=11),), now=1.0)
    if not watched:
        one.book.interrupted()
    one.take((), (), now=1.0 + critical_for)
    assert ((KEY, "u") in one.reaped) is reaped


# --- virtual nodes ---

IDENTITIES = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=40)


@given(IDENTITIES, st.integers(1, 64), st.integers(1, 64))
def test_with_another_number_of_nodes_only_those_move_whose_node_went(identities, before, after):
    old, new = node_names("c", "n", before), node_names("c", "n", after)
    for identity in identities:
        stood = choose(old, identity, ())
        stands = choose(new, identity, [Instance(stood, "i", "web", "", 0)])
        assert stands in new
        assert stands == stood or stood not in new


@given(IDENTITIES, st.integers(2, 40))
def test_the_choice_keeps_when_other_nodes_go(identities, count):
    nodes = node_names("c", "n", count)
    for identity in identities:
        chosen = choose(nodes, identity, ())
        others = [node for node in nodes if node == chosen or node != nodes[0]]
        assert choose(others, identity, ()) == chosen


def test_instances_spread_evenly_over_the_nodes():
    nodes = node_names("c", "n", 32)
    counts = dict.fromkeys(nodes, 0)
    for number in range(3200):
        counts[choose(nodes, f"ns/r/{number}", ())] += 1
    assert min(counts.values()) > 60
    assert max(counts.values()) < 150


def test_nodes_are_named_and_say_whose_they_are():
    assert node_names("prod", "default", 2) == ("prod-default-00", "prod-default-01")
    assert not is_probed(node_meta("c", "n", probed=False))
    assert is_probed(node_meta("c", "n", probed=True))
    assert not is_probed({"external-node": "true", "external-probe": "true"})


def test_an_orphan_is_no_longer_ours_but_its_version_is_known(node):
    node.book.registered(msgspec.structs.replace(SERVICE, Meta={"orphaned-from": "x"}, ModifyIndex=40), [])
    assert node.one is None
    assert node.book.index("i") == 40
    assert not replace(Instance("node", "i", "web", "", 0)).owner
