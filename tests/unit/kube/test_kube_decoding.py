"""What the wire may hold, nulls above all, and how a stream is cut into lines."""

import json
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consul_registrar.kube import NODES, PODS, Forbidden, Gone, Throttled, Unavailable
from consul_registrar.kube.client import KubeClient
from consul_registrar.kube.codec import Bookmark, Deleted, Put, token_of
from consul_registrar.kube.errors import Invalid, KubeError, error_of, message_of, seconds_of
from consul_registrar.kube.lines import LineSplitter
from consul_registrar.kube.resources import REGISTRATION, codec_of
from consul_registrar.kube.writes import merge_patch
from consul_registrar.model import GATE, ContainerPort, Gate, Pod


def pod(**parts: object) -> Pod:
    return PODS.obj(json.dumps(parts).encode())


FULL = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "web-1",
        "namespace": "shop",
        "uid": "u-1",
        "resourceVersion": "42",
        "labels": {"app": "web"},
        "annotations": {"a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
        "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
    },
    "spec": {
        "nodeName": "node-1",
        "containers": [
            {
                "name": "main",
                "ports": [{"name": "http", "containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}],
            },
            {"name": "bare"},
        ],
        "initContainers": [
            {"name": "setup", "ports": [{"name": "never", "containerPort": 1}]},
            {"name": "proxy", "restartPolicy": "Always", "ports": [{"name": "mesh", "containerPort": 15000}]},
        ],
    },
    "status": {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "hostIP": "192.0.2.1",
        "conditions": [{"type": "Initialized", "status": "False"}, {"type": "Ready", "status": "True"}],
        "containerStatuses": [{"restartCount": 2}, {"restartCount": 1}, {}],
    },
}


def test_a_pod_is_cut_down_to_what_a_registration_can_use() -> None:
    assert pod(**FULL) == Pod(
        uid="u-1",
        namespace="shop",
        name="web-1",
        version=42,
        labels={"app": "web"},
        annotations={"a": "b"},
        node="node-1",
        phase="Running",
        ip="10.0.0.1",
        host_ip="192.0.2.1",
        deleting=False,
        ready=True,
        restarts=3,
        ports=(ContainerPort("http", 80), ContainerPort("", 53, "UDP"), ContainerPort("mesh", 15000)),
    )


def gated(*conditions: tuple[str, ...], gates: tuple[str, ...] = (GATE,)) -> Pod:
    """A Pod with these gates, and conditions of type, status, and maybe reason and time of the last transition."""
    names = ("type", "status", "reason", "lastTransitionTime")
    told = [dict(zip(names, condition, strict=False)) for condition in conditions]
    return pod(spec={"readinessGates": [{"conditionType": g} for g in gates]}, status={"conditions": told})


OTHER = "example.com/other"
UNDER_WAY = ("Ready", "False", "ReadinessGatesNotReady", "2026-01-01T00:00:00Z")
THROUGH = (GATE, "True", "Registered", "2026-01-01T00:00:05Z")


@pytest.mark.parametrize(
    ("found", "ready"),
    [
        (gated(), False),
        (gated(("ContainersReady", "True")), True),
        (gated(("ContainersReady", "True"), UNDER_WAY), True),
        (gated(("ContainersReady", "True"), UNDER_WAY, THROUGH), True),
        (gated(("ContainersReady", "True"), ("Ready", "False"), (GATE, "False")), True),
        (gated(("ContainersReady", "True"), ("Ready", "False"), (GATE, "True")), True),
        (gated(("ContainersReady", "True"), ("Ready", "True"), THROUGH), True),
        (gated(("ContainersReady", "False"), ("Ready", "True"), THROUGH), False),
        (gated(("ContainersReady", "True"), gates=(GATE, OTHER)), False),
        (gated(("ContainersReady", "True"), (OTHER, "False"), gates=(GATE, OTHER)), False),
        (gated(("ContainersReady", "True"), (OTHER, "True"), gates=(GATE, OTHER)), True),
        (gated(("ContainersReady", "True"), (OTHER, "True"), UNDER_WAY, gates=(OTHER,)), False),
        (gated(("ContainersReady", "True"), ("Ready", "False"), gates=()), False),
        (gated(("Ready", "True"), gates=()), True),
    ],
)
def test_with_our_gate_ready_means_containers_and_every_other_gate(found: Pod, *, ready: bool) -> None:
    assert found.ready is ready


def test_a_pod_whose_node_is_not_heard_of_is_unready_also_with_our_gate() -> None:
    """The node controller sets Ready False, and gives it a time, but no reason."""
    containers = ("ContainersReady", "True")
    assert not gated(containers, THROUGH, ("Ready", "False", "", "2026-01-01T00:10:00Z")).ready
    assert gated(containers, THROUGH, ("Ready", "False", "", "2026-01-01T00:00:00Z")).ready


def test_the_gate_is_read_only_where_it_is_declared() -> None:
    assert gated(THROUGH).gate == Gate("True", "Registered")
    assert gated().gate == Gate()
    assert gated(THROUGH, gates=()).gate is None
    assert gated(THROUGH, gates=(OTHER,)).gate is None


def nulled(value: object) -> list[object]:
    """Every copy of a document in which one member is null."""
    if isinstance(value, dict):
        here = [{**value, key: None} for key in value]
        return here + [{**value, key: inner} for key in value for inner in nulled(value[key])]
    if isinstance(value, list):
        return [[*value[:i], inner, *value[i + 1 :]] for i, item in enumerate(value) for inner in nulled(item)]
    return []


def possible(document: dict) -> bool:
    """The API server validates that labels and annotations are strings."""
    meta = document["metadata"] or {}
    return None not in {**(meta.get("labels") or {}), **(meta.get("annotations") or {})}.values()


@pytest.mark.parametrize("document", [document for document in nulled(FULL) if possible(document)])
def test_null_may_stand_anywhere(document: dict) -> None:
    pod(**document)


def test_an_empty_pod_is_not_ready_and_has_nothing() -> None:
    assert pod() == Pod("", "", "", 0, {}, {}, "", "", "", "", False, False, 0, ())


def test_a_terminating_pod_is_gone() -> None:
    assert pod(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}).gone


def test_what_repeats_is_kept_once() -> None:
    one, other = pod(**FULL), pod(**FULL)
    assert one.ports is other.ports
    assert one.node is other.node
    assert next(iter(one.labels.values())) is next(iter(other.labels.values()))


def test_the_first_address_of_a_type_is_the_nodes() -> None:
    addresses = [
        {"type": "InternalIP", "address": "192.0.2.1"},
        {"type": "InternalIP", "address": "2001:db8::1"},
        {"type": "Hostname", "address": "node-1"},
        {"type": None, "address": None},
    ]
    node = NODES.obj(json.dumps({"metadata": {"name": "node-1"}, "status": {"addresses": addresses}}).encode())
    assert node.addresses == {"InternalIP": "192.0.2.1", "Hostname": "node-1"}


@pytest.mark.parametrize("codec", [PODS, NODES, codec_of(REGISTRATION)])
def test_an_empty_list_has_no_items(codec) -> None:
    raw = b'{"metadata": {"resourceVersion": "7", "continue": null}, "items": null}'
    page = codec.page(raw)
    assert (page.items, page.version, token_of(raw)) == ((), 7, "")


def test_items_of_a_custom_list_are_whole_objects() -> None:
    items = b'[{"metadata": {"uid": "u", "generation": 3}}]'
    raw = b'{"metadata": {"resourceVersion": "7", "continue": "t"}, "items": %b}' % items
    page = codec_of(REGISTRATION).page(raw)
    assert token_of(raw) == "t"
    assert (page.items[0].uid, page.items[0].generation) == ("u", 3)
    assert page.items[0].body["kind"] == "ServiceRegistration"


def event(type_: str, **obj: object):
    return PODS.event(json.dumps({"type": type_, "object": obj}).encode())


def test_events_are_what_they_say() -> None:
    assert isinstance(event("ADDED", **FULL), Put)
    assert isinstance(event("MODIFIED", **FULL), Put)
    assert event("DELETED", **FULL) == Deleted("u-1", 42, deleting=False)
    assert event("BOOKMARK", metadata={"resourceVersion": "99"}, spec={"containers": None}) == Bookmark(99)
    assert event("SOMETHING") is None


@pytest.mark.parametrize(("code", "kind"), [(410, Gone), (429, Throttled), (500, Unavailable), (403, Forbidden)])
def test_an_error_in_a_watch_is_the_error_of_its_code(code: int, kind: type[KubeError]) -> None:
    assert isinstance(event("ERROR", kind="Status", status="Failure", code=code, message="why"), kind)


def test_an_error_without_a_code_is_worth_another_try() -> None:
    found = event("ERROR", message=None)
    assert isinstance(found, KubeError)
    assert found.retry


def test_an_undecodable_line_is_said_to_be_one() -> None:
    with pytest.raises(msgspec.DecodeError):
        PODS.event(b"{")


@pytest.mark.parametrize(
    ("body", "message"), [(b'{"message": "no"}', "no"), (b"<html>", "<html>"), (b"", ""), (b'{"message": null}', None)]
)
def test_the_message_of_an_error_is_read_from_whatever_it_is(body: bytes, message: str | None) -> None:
    assert message_of(body) == (message if message is not None else body.decode())


def test_a_status_that_is_not_listed_is_never_repeated_unchanged() -> None:
    assert isinstance(error_of(415, "type"), Invalid)


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, None), ("3", 3.0), ("Wed, 21 Oct", None), ("3600", 60.0), ("inf", 60.0)]
)
def test_retry_after_is_a_minute_at_most_or_nothing(header: str | None, seconds: float | None) -> None:
    assert seconds_of(header) == seconds


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 200)))
def test_lines_are_the_same_however_the_stream_is_cut(lines: list[bytes], cuts: list[int]) -> None:
    lines = [line.replace(b"\n", b"") for line in lines]
    stream = b"".join(line + b"\n" for line in lines)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    splitter, found = LineSplitter(), []
    for start, end in pairwise(edges):
        found += splitter.feed(stream[start:end])
    assert found == [line for line in lines if line]


_JSON = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=8,
)
_OBJECTS = st.dictionaries(st.sampled_from("abc"), _JSON, max_size=3)


def merged(target: object, patch: object) -> object:
    """RFC 7386, as it stands there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@given(_OBJECTS, _OBJECTS)
def test_a_merge_patch_makes_one_into_the_other(previous: dict, wanted: dict) -> None:
    assert merged(previous, merge_patch(previous, wanted)) == wanted
    assert merge_patch(wanted, wanted) == {}


def test_a_client_is_made_outside_of_a_loop() -> None:
    async def login():
        raise AssertionError

    KubeClient(login)
