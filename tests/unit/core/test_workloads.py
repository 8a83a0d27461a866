# ruff: noqa: ARG002 - fakes take what the real ones take
"""Registrations by annotation: what is made of annotations, and the loop around it with an API server in memory."""

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consul_registrar.annotated import (
    MADE_FOR,
    REGISTER,
    Malformed,
    Workload,
    WorkloadKey,
    is_made_for,
    made,
    stands,
    workload_of,
)
from consul_registrar.kube import CustomObject, Forbidden, Invalid, KubeError, Unavailable
from consul_registrar.model import Reason
from consul_registrar.workloads import Workloads
from unit.core.instant import instantly

KEY = WorkloadKey("Deployment", "shop", "web")
GROUP = "consul-registrar.dev"


def workload(uid: str = "uid-1", key: WorkloadKey = KEY, **annotations: str) -> Workload:
    given = {f"{GROUP}/{name.replace('_', '-')}": text for name, text in annotations.items()}
    return Workload(key, uid, 1, given, {"matchLabels": {"app": "web"}})


# --- what is made ---------------------------------------------------------------------------------------------------


def test_the_port_alone_makes_a_registration_of_the_workloads_pods() -> None:
    body = made(workload(register="http"))
    assert body["spec"] == {"pods": {"selector": {"matchLabels": {"app": "web"}}}, "service": {"port": "http"}}
    assert (body["metadata"]["namespace"], body["metadata"]["name"]) == ("shop", "web")
    (owner,) = body["metadata"]["ownerReferences"]
    assert (owner["apiVersion"], owner["kind"], owner["name"], owner["uid"]) == (
        "apps/v1",
        "Deployment",
        "web",
        "uid-1",
    )
    assert workload_of(body) == KEY
    assert is_made_for(body, "uid-1")
    assert not is_made_for(body, "uid-2")


def test_each_further_annotation_sets_its_field() -> None:
    spec = made(
        workload(
            register="8080",
            service_name="web-api",
            service_tags="a, b,, a",
            service_meta="x=1, y=a=b",
            consul="one,two",
            checks='[{"name": "up", "http": {"path": "/up"}}]',
        )
    )["spec"]
    assert spec["service"] == {"port": 8080, "name": "web-api", "tags": ["a", "b"], "meta": {"x": "1", "y": "a=b"}}
    assert spec["consulRefs"] == [{"name": "one"}, {"name": "two"}]
    assert spec["checks"] == [{"name": "up", "http": {"path": "/up"}}]


@pytest.mark.parametrize(
    ("annotations", "says"),
    [
        ({"register": " "}, "register: must be the port"),
        ({"register": "0"}, "register: spec.service.port"),
        ({"register": "Not_A_Port"}, "register: spec.service.port"),
        ({"register": "²"}, "register: spec.service.port"),
        ({"register": "http", "service_tags": "a" * 513}, "service-tags: spec.service.tags"),
        ({"register": "http", "service_meta": "k8s-pod=x"}, "service-meta: spec.service.meta"),
        ({"register": "http", "service_meta": "x"}, "service-meta: must be key=value"),
        ({"register": "http", "checks": "{}"}, "checks: must be a JSON list"),
        ({"register": "http", "checks": "[1]"}, "checks: spec.checks"),
        ({"register": "http", "checks": '[{"name": "up", "tcp": {"port": "80"}}]'}, "checks: spec.checks[0].tcp.port"),
        ({"register": "http", "service_name": "consul"}, "service-name: spec.service.name"),
    ],
)
def test_what_is_wrong_is_said_of_the_annotation_with_what_must_be(annotations: dict[str, str], says: str) -> None:
    with pytest.raises(Malformed) as caught:
        made(workload(**annotations))
    assert caught.value.reason.code == "AnnotationInvalid"
    assert caught.value.reason.message.startswith(f"annotation {GROUP}/{says}")


@pytest.mark.parametrize("depth", [200, 500, 900, 1000, 5_000, 100_000])
def test_checks_that_are_nested_however_deeply_are_said_to_be_wrong(depth: int) -> None:
    with pytest.raises(Malformed, match=f"annotation {GROUP}/checks: "):
        made(workload(register="http", checks="[" * depth + "]" * depth))


_NAMES = ["register", "service_name", "service_tags", "service_meta", "consul", "checks"]


@given(st.dictionaries(st.sampled_from(_NAMES), st.text(max_size=40)))
def test_whatever_annotations_hold_it_is_made_or_said_and_nothing_else(annotations: dict[str, str]) -> None:
    with contextlib.suppress(Malformed):
        assert is_made_for(made(workload(**annotations)), "uid-1")


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(max_size=2), inner, max_size=3), max_leaves=8))  # fmt: skip
def test_what_others_add_makes_no_difference(wanted: Any) -> None:
    assert stands({"x": wanted}, {"x": wanted, "theirs": 1})
    assert stands([wanted], ["theirs", wanted])
    assert not stands({"x": wanted, "y": 1}, {"x": wanted})


# --- the loop -------------------------------------------------------------------------------------------------------


@dataclass
class FakeRegistrar:
    """An API server of one registration for each name."""

    bodies: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    workloads: dict[WorkloadKey, Workload] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    errors: list[KubeError] = field(default_factory=list)
    tell: Any = None
    created: int = 0

    async def workload(self, key: WorkloadKey) -> Workload | None:
        return self.workloads.get(key)

    async def body(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        return self.bodies.get((namespace, name))

    async def apply(self, body: Mapping[str, Any], uid: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.calls.append("applied" if uid else "made")
        self.created += not uid
        where = (body["metadata"]["namespace"], body["metadata"]["name"])
        self.bodies[where] = copy.deepcopy(dict(body))
        self.bodies[where]["metadata"]["uid"] = uid or f"made-{self.created}"
        self.tell(self.bodies[where])

    async def delete(self, namespace: str, name: str, uid: str) -> None:
        self.calls.append("deleted")
        del self.bodies[namespace, name]

    async def event_workload(self, found: Workload, reason: Reason, *, warning: bool) -> None:
        self.events.append(reason.code)


class Nowhere:
    def put(self, obj: CustomObject) -> None: ...
    def remove(self, uid: str) -> None: ...
    def vanished(self, uid: str) -> None: ...


class World:
    def __init__(self) -> None:
        self.api = FakeRegistrar()
        self.workloads = Workloads(self.api)
        self.registrations = self.workloads.beside(Nowhere())
        self.api.tell = self.tell
        self.version = 0

    def tell(self, body: Mapping[str, Any], generation: int = 1) -> None:
        self.version += 1
        uid, name = body["metadata"]["uid"], body["metadata"]["name"]
        self.registrations.put(
            CustomObject("ServiceRegistration", uid, "shop", name, self.version, generation, False, body)
        )

    def apply(self, found: Workload) -> None:
        self.api.workloads[found.key] = found
        self.workloads.put(found)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.workloads.run())
        try:
            await asyncio.sleep(0.01)
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def passes(seconds: float = 5) -> None:
    await asyncio.sleep(seconds)


@instantly
async def test_it_is_made_once_and_then_all_is_silent() -> None:
    world = World()
    async with world.running():
        world.apply(workload(register="http"))
        await passes()
        for version in range(2, 5):
            world.apply(replace(workload(register="http"), version=version))
        world.tell(world.api.bodies["shop", "web"], generation=2)
        await passes()
    assert world.api.calls == ["made"]


@instantly
async def test_a_new_leader_begins_with_what_is_annotated_and_what_was_made() -> None:
    world = World()
    world.apply(workload(register="http"))
    async with world.running():
        await passes()
    other = World()
    other.api.bodies, other.api.workloads = world.api.bodies, {KEY: workload()}
    other.tell(world.api.bodies["shop", "web"])
    async with other.running():
        await passes()
    assert (world.api.calls, other.api.calls) == (["made"], ["deleted"])


@instantly
async def test_an_edit_of_ours_is_put_back_and_one_of_theirs_stays() -> None:
    world = World()
    async with world.running():
        world.apply(workload(register="http"))
        await passes()
        world.api.bodies["shop", "web"]["spec"]["suspend"] = True
        world.tell(world.api.bodies["shop", "web"], generation=2)
        await passes()
        assert world.api.calls == ["made"]
        world.api.bodies["shop", "web"]["spec"]["service"]["port"] = 1
        world.tell(world.api.bodies["shop", "web"], generation=3)
        await passes()
    assert world.api.calls == ["made", "applied"]


@instantly
async def test_what_is_left_out_of_the_annotations_is_applied_anew() -> None:
    world = World()
    async with world.running():
        world.apply(workload(register="http", service_tags="a"))
        await passes()
        world.apply(workload(register="http"))
        await passes()
    assert world.api.calls == ["made", "applied"]


@instantly
async def test_the_annotation_gone_it_is_deleted_but_only_on_a_fresh_read() -> None:
    world = World()
    async with world.running():
        world.apply(workload(register="http"))
        await passes()
        world.workloads.vanished("uid-1")
        await passes()
        assert world.api.calls == ["made"]
        world.apply(workload(register="http"))
        await passes()
        world.apply(workload())
        await passes()
    assert world.api.calls == ["made", "deleted"]


@instantly
async def test_what_a_deleted_workload_owned_is_left_to_kubernetes() -> None:
    world = World()
    async with world.running():
        world.apply(workload(register="http"))
        await passes()
        world.api.workloads.clear()
        world.workloads.remove("uid-1")
        await passes()
    assert world.api.calls == ["made"]


@pytest.mark.parametrize("owner", [None, "uid-of-another"])
@instantly
async def test_what_is_somebody_elses_is_left_alone_and_said_once(owner: str | None) -> None:
    theirs: dict[str, Any] = {"metadata": {"namespace": "shop", "name": "web", "uid": "theirs"}, "spec": {}}
    if owner:
        theirs["metadata"] |= {"annotations": {MADE_FOR: "StatefulSet"}, "ownerReferences": [{"uid": owner}]}
    world = World()
    world.api.bodies["shop", "web"] = theirs
    async with world.running():
        world.apply(workload(register="http"))
        await passes(200)
        world.apply(workload())
        await passes(200)
    assert (world.api.calls, world.api.events) == ([], ["RegistrationNotOurs"])
    assert world.api.bodies["shop", "web"] == theirs


@instantly
async def test_that_of_a_former_workload_of_the_same_name_is_waited_for() -> None:
    world = World()
    async with world.running():
        world.apply(workload(register="http"))
        await passes()
        world.apply(workload(uid="uid-2", register="http"))
        await passes()
        assert world.api.calls == ["made"]
        world.api.bodies.clear()
        await passes()
    assert (world.api.calls, world.api.events) == (["made", "made"], [])


@instantly
async def test_what_is_wrong_is_said_once_and_again_when_it_comes_back() -> None:
    world = World()
    async with world.running():
        for _ in range(2):
            world.apply(workload(register=""))
            await passes()
            world.apply(replace(workload(register=""), version=7))
            await passes()
            world.apply(workload(register="http"))
            await passes()
    assert world.api.events == ["AnnotationInvalid"] * 2
    assert world.api.calls == ["made"]


@instantly
async def test_what_the_api_server_refuses_is_said_and_what_it_fails_is_tried_again() -> None:
    world = World()
    world.api.errors = [Unavailable("no answer"), Forbidden("not allowed"), Invalid("a rule")]
    async with world.running():
        world.apply(workload(register="http"))
        await passes(100)
        assert (world.api.calls, world.api.events) == ([], ["RegistrationRefused"])
        world.apply(workload(register="8080"))
        await passes(100)
    assert world.api.calls == ["made"]


@instantly
async def test_an_event_that_fails_unexpectedly_ends_nothing() -> None:
    world = World()
    post, world.api.event_workload = world.api.event_workload, fails  # type: ignore[method-assign,assignment]
    async with world.running():
        world.apply(workload(register=""))
        await passes()
        world.api.event_workload = post  # type: ignore[method-assign]
        world.apply(workload(register="http"))
        await passes(100)
    assert world.api.calls == ["made"]


async def fails(*_: object, **__: object) -> None:
    raise OSError("no answer")


@instantly
async def test_who_does_not_lead_does_nothing() -> None:
    world = World()
    world.apply(workload(register="http"))
    await passes()
    assert world.api.calls == []
    assert REGISTER in world.api.workloads[KEY].annotations
