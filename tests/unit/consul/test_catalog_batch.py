"""How changes become transactions, and whose a refusal is."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consul_registrar.actual import Actual
from consul_registrar.changes import Cause, Deregister, DropCheck, Feed, Register
from consul_registrar.consul.catalog_batch import (
    MOST_BYTES,
    MOST_OPS,
    Unit,
    blame,
    compose,
    error_of,
    operations,
    pack,
    waves,
)
from consul_registrar.consul.catalog_book import CatalogBook
from consul_registrar.consul.catalog_wire import CheckRow, Fault, NodeRow, Op, ServiceRow, service_op
from consul_registrar.consul.errors import Denied, Invalid, Stale
from consul_registrar.model import Check, Health, Instance, NamedPort
from consul_registrar.probes import Readiness, TcpProbe, Timing

OWN = {"managed-by": "consul-registrar", "k8s-cluster": "c", "k8s-connection": "n"}
META = tuple(sorted((OWN | {"k8s-namespace": "ns", "k8s-registration": "r", "k8s-pod-uid": "u"}).items()))
READY = Check("i:readiness", "readiness", Readiness(), Health.PASSING)
PORT = Check("i:port:tcp", "port", TcpProbe("10.0.0.1", 80, Timing(10_000, 2_000)))
ONE = Instance("node", "i", "web", "10.0.0.1", 80, meta=META, checks=(READY,))


def book(*, stands: bool = True) -> CatalogBook:
    """A node that holds ONE at index 7, its readiness at 8 and its port check, warning, at 9."""
    made = CatalogBook("node", "c", "n", actual := Actual("c", "n"), {})
    services = [ServiceRow("i", "web", "10.0.0.1", 80, Meta=dict(META), ModifyIndex=7)]
    checks = [
        CheckRow("node", "i:readiness", "readiness", "critical", ServiceID="i", ModifyIndex=8),
        CheckRow("node", "i:port:tcp", "port", "warning", ServiceID="i", ModifyIndex=9),
    ]
    made.take(NodeRow("node"), services if stands else [], checks if stands else [], 9, actual.begin(), 0.0)
    return made


def sent(ops: tuple[Op, ...]) -> list[tuple[str, str, object]]:
    """(what, verb, index) of each operation."""
    rows = []
    for op in ops:
        ((kind, body),) = json.loads(op.body).items()
        rows.append((kind, body["Verb"], body[kind].get("ModifyIndex")))
    return rows


@pytest.mark.parametrize(
    ("change", "stands", "expected"),
    [
        (Register(ONE, (READY,), Cause.DESIRED), False, [("Service", "cas", 0), ("Check", "cas", 0)]),
        (Register(ONE, (), Cause.EDITED), True, [("Service", "cas", 7)]),
        (
            Register(ONE, (READY, PORT), Cause.DRIFT),
            True,
            [("Service", "cas", 7), ("Check", "cas", 8), ("Check", "cas", 9)],
        ),
        (Feed(ONE, READY), True, [("Check", "cas", 8)]),
        (DropCheck(ONE, "i:port:tcp"), True, [("Check", "delete-cas", 9)]),
        (Deregister(ONE, Cause.GONE), True, [("Service", "delete", None)]),
        (Deregister(ONE, Cause.GONE), False, [("Service", "delete", None)]),
        (Deregister(ONE, Cause.REGISTRATION_DELETED), True, [("Service", "delete-cas", 7)]),
        (Deregister(ONE, Cause.VANISHED), True, [("Service", "delete-cas", 7)]),
        (Deregister(ONE, Cause.UNSELECTED), True, [("Service", "delete-cas", 7)]),
        (Deregister(ONE, Cause.REPLACED), True, [("Service", "delete-cas", 7)]),
    ],
)
def test_every_write_but_the_removal_of_what_is_gone_names_the_version_it_replaces(change, stands, expected):
    assert sent(operations(change, book(stands=stands))) == expected


@pytest.mark.parametrize(
    "change", [Feed(ONE, READY), DropCheck(ONE, "i:port:tcp"), Deregister(ONE, Cause.UNSELECTED)], ids=type
)
def test_what_is_not_there_can_not_be_edited(change):
    with pytest.raises(Stale):
        operations(change, book(stands=False))


def test_a_probe_keeps_the_status_it_has_and_readiness_gets_ours():
    ops = operations(Register(ONE, (READY, replace(PORT, status=Health.PASSING)), Cause.EDITED), book())
    statuses = [json.loads(op.body)["Check"]["Check"]["Status"] for op in ops[1:]]
    assert statuses == ["passing", "warning"]


@pytest.mark.parametrize(
    "change",
    [
        Register(replace(ONE, id=""), (), Cause.DESIRED),
        Register(replace(ONE, service=""), (), Cause.DESIRED),
        Register(ONE, (replace(READY, id=""),), Cause.DESIRED),
        Deregister(replace(ONE, id=""), Cause.GONE),
        Deregister(replace(ONE, service=""), Cause.GONE),
    ],
)
def test_an_empty_name_is_refused(change):
    with pytest.raises(Invalid):
        operations(change, book())


def test_checks_are_sent_with_the_name_of_their_service():
    for change in (Feed(ONE, READY), DropCheck(ONE, "i:readiness"), Register(ONE, (READY,), Cause.DESIRED)):
        check = json.loads(operations(change, book())[-1].body)["Check"]["Check"]
        assert check["ServiceName"] == "web"


# --- what goes together ---


def unit(at: int, node: str, ops: int = 2, size: int = 10) -> Unit:
    instance = replace(ONE, node=node, id=f"i{at}")
    return Unit(at, Register(instance, (), Cause.DESIRED), tuple(Op(b"x" * size) for _ in range(ops)))


UNITS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 140), st.integers(1, 9000)), max_size=60).map(
    lambda rows: [unit(at, *row) for at, row in enumerate(rows)]
)


@given(UNITS, st.sets(st.sampled_from("abcdef")))
def test_packing_keeps_every_unit_once_and_in_order_within_the_limits(units, lacking):
    needs = {node: Op(b"n" * 700) for node in lacking}
    requests = [compose(request, needs) for request in pack(units, needs)]
    assert [u for request in requests for u in request.units] == units
    for request in requests:
        if len(request.units) > 1:
            assert len(request.ops) <= MOST_OPS
            assert len(request.body) <= MOST_BYTES


def test_sixty_four_instances_with_a_check_each_are_one_request():
    assert len(pack([unit(at, f"n{at % 32}") for at in range(64)], {})) == 1


@pytest.mark.parametrize(("count", "ops", "size"), [(128, 1, 100), (4, 32, 100), (4, 1, 131_070)])
def test_a_request_is_full_when_consul_takes_no_more_operations_or_bytes(count, ops, size):
    crowd = [unit(at, "n", ops, size) for at in range(count + 1)]
    assert [len(request) for request in pack(crowd, {})] == [count, 1]


@given(UNITS, st.sets(st.sampled_from("abcdef")), st.data())
def test_blame_falls_on_the_unit_of_the_operation_or_on_all_of_the_node(units, lacking, data):
    composed = compose(units, {node: Op(b"n") for node in lacking})
    if not composed.ops:
        return
    at = data.draw(st.integers(0, len(composed.ops) - 1))
    refused = blame(composed, [Fault(at, "x")])
    culprit = composed.of[at]
    expected = {culprit.at} if isinstance(culprit, Unit) else {u.at for u in units if u.change.node == culprit}
    assert refused.keys() == expected


def test_the_first_fault_of_a_unit_counts():
    composed = compose([unit(0, "a"), unit(1, "a")], {})
    refused = blame(composed, [Fault(1, "Missing service registration"), Fault(0, "index is stale"), Fault(99, "?")])
    assert {at: fault.What for at, fault in refused.items()} == {0: "index is stale"}


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("Permission denied: token with AccessorID 'x' lacks permission 'node:write' on \"node\"", Denied),
        ('failed to set node "node", index is stale', Stale),
    ],
)
def test_what_has_named_ports_is_told_why_its_node_was_refused(what, kind):
    change = Register(replace(ONE, ports=(NamedPort("http", 80, default=True),)), (READY,), Cause.DESIRED)
    ported = Unit(3, change, operations(change, book(stands=False)))
    refused = blame(compose([ported], {"node": Op(b"n")}), [Fault(0, what)])
    assert refused.keys() == {3}
    assert isinstance(error_of(ported, refused[3]), kind)


def test_the_body_is_a_json_list_of_the_operations():
    units = [Unit(0, Register(ONE, (), Cause.DESIRED), (service_op(ONE, 0),))]
    assert [list(each) for each in json.loads(compose(units, {}).body)] == [["Service"]]


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ('failed to set service "s1" on node "v-00", index is stale', Stale),
        ('failed to delete check "x" on node "v-00", index is stale', Stale),
        ("Missing node registration", Stale),
        ("Missing service registration", Stale),
        ("Permission denied: token with AccessorID 'x' lacks permission 'service:write' on \"web\"", Denied),
        ("rpc error making call: ACL not found", Denied),
        ("Invalid Service Meta for node v-00 and serviceID s2: Key contains invalid characters", Invalid),
        ("Must provide service name (Service.Service) when service ID is provided", Invalid),
    ],
)
def test_what_consul_says_of_an_operation_is_what_its_change_is_told(what, kind):
    error = error_of(unit(0, "a"), Fault(0, what))
    assert type(error) is kind
    assert what in error.reason.message


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=30))
def test_an_instance_occurs_once_in_a_wave_and_its_changes_keep_their_order(rows):
    changes = [
        Register(replace(ONE, node=node, id=name, port=at), (), Cause.EDITED) for at, (node, name) in enumerate(rows)
    ]
    made = waves(changes)
    assert sorted(at for wave in made for at, _ in wave) == list(range(len(changes)))
    for wave in made:
        assert len({(change.node, change.id) for _, change in wave}) == len(wave)
    turns = {at: turn for turn, wave in enumerate(made) for at, _ in wave}
    for first in range(len(rows)):
        for second in range(first + 1, len(rows)):
            if rows[first] == rows[second]:
                assert turns[first] < turns[second]
