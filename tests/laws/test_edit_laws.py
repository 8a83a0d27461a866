"""Editing leads to what a fresh registration would be, for specs made from the CRD's schema."""

from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bad_input import fields
from consul_registrar import objects
from consul_registrar.changes import Change, Register
from consul_registrar.desired import Facts, Present, desired
from consul_registrar.model import Check, ContainerPort, Hidden, Instance, Reason
from consul_registrar.plan import plan
from consul_registrar.probes import Readiness
from laws.worlds import Consul
from specs.chances import Chances, Pool, spec_schema
from unit.core.build import body, node, of_address, of_endpoint, pod
from unit.core.build import facts as of_pod

ENDPOINTS = ("primary", "second")
NAMED_PORTS = ("ports{}", "defaultPort")
PORTS = (8080, "http", "admin", 9)
POOL = Pool(
    {
        "spec.consulRefs": ([{"name": "default"}], [{"name": "default"}, {"name": "other"}]),
        "spec.service.port": PORTS[:3],
        "spec.pods.selector": ({"matchLabels": {"app": "web"}}, {"matchLabels": {"track": "stable"}}),
        "spec.pods.ipFamily": ("IPv4",),
        "spec.endpoints[].name": ENDPOINTS,
        "spec.kubernetesService.name": ("web-lb",),
        "spec.kubernetesService.ipFamily": ("IPv4",),
        "spec.service.ports.*": PORTS[:3],
        "spec.service.meta{}": ("a", "b-1", "C_2"),
        "spec.endpoints[].meta{}": ("a", "role"),
        "spec.service.taggedAddresses{}": ("wan", "other"),
        "spec.checks[].name": ("one", "two", "three"),
        "spec.checks[].http.headers[].valueFrom.secretKeyRef": ({"name": "probe", "key": "token"},),
    }
    | {f"spec.checks[].{kind}.port": PORTS for kind in ("tcp", "http", "grpc", "udp", "h2ping")}
    | {f"spec.{where}.{what}": ("http", "admin") for where in ("service", "endpoints[]") for what in NAMED_PORTS},
    without=frozenset({"spec.checksFromProbes"}),
)
HELD = {("probe", "token"): Hidden("s3cret", "1")}
SEEDS = st.integers(0, 2**32 - 1)
Spec = dict[str, Any]


def subjects(spec: Spec) -> list[Facts]:
    """A Pod, endpoints, and addresses of a Service of every kind: the spec publishes some of them, or none."""
    ports = (ContainerPort("http", 8080, host_port=30080), ContainerPort("admin", 9090, "UDP", host_port=30090))
    labels = {"app": "web", "track": "stable", "weight": "7"}
    known = [
        of_pod(spec, pod=pod(labels=labels, ports=ports), node=node(labels={"zone": "z1"})),
        *(of_endpoint(name, spec) for name in ENDPOINTS),
        *(of_address(address, spec) for address in ("203.0.113.7", "10.96.0.10", "198.51.100.4", "node-1")),
    ]
    return [replace(each, secrets=HELD) for each in known]


def edit(consul: Consul, known: Facts) -> tuple[Change, ...]:
    """What is done to Consul for the facts, and done to what it holds."""
    changes = plan(desired(replace(known, standing=consul.standing)), consul.standing)
    for change in changes:
        consul.take(change)
    return changes


def told(consul: Consul) -> list[Instance]:
    """What stands; what a probe found by itself is not ours."""
    return [replace(i, checks=tuple(map(_told, sorted(i.checks, key=lambda c: c.id)))) for i in consul.standing]


def _told(check: Check) -> Check:
    return check if isinstance(check.probe, Readiness) else replace(check, status=None)


@given(SEEDS)
def test_what_is_edited_and_edited_back_is_as_if_it_had_always_been_so(seed: int) -> None:
    chances = Chances(Random(seed), POOL)
    one = chances.spec()
    other = chances.edited(one) if seed % 2 else chances.spec()
    for here, there in zip(subjects(one), subjects(other), strict=True):
        fresh, edited = Consul(()), Consul(())
        edit(fresh, here)
        if not isinstance(desired(here), Present):
            continue  # what can't be published leaves standing what stood
        edit(edited, here)
        edit(edited, there)
        edit(edited, here)
        assert told(edited) == told(fresh), (one, other)
        assert edit(edited, here) == ()


@given(SEEDS)
def test_what_was_something_else_before_is_as_if_it_had_always_been_so(seed: int) -> None:
    chances = Chances(Random(seed), POOL)
    one = chances.spec()
    other = chances.edited(one)
    for here, there in zip(subjects(one), subjects(other), strict=True):
        fresh, edited = Consul(()), Consul(())
        edit(fresh, there)
        if not isinstance(desired(there), Present):
            continue
        edit(edited, here)
        edit(edited, there)
        assert told(edited) == told(fresh), (one, other)


@given(SEEDS)
def test_an_edit_of_what_is_no_checks_starts_no_probe_anew(seed: int) -> None:
    spec = Chances(Random(seed), POOL).spec()
    service = {"name": "web"} | spec.get("service", {})
    spec = spec | {"service": service | {"tags": ["before"], "enableTagOverride": False}}
    other = spec | {"service": spec["service"] | {"tags": ["after"], "meta": {"new": "value"}}}
    for here, there in zip(subjects(spec), subjects(other), strict=True):
        consul = Consul(())
        edit(consul, here)
        if isinstance(desired(here), Present):
            (change,) = edit(consul, there)
            assert isinstance(change, Register)
            assert change.define == ()


def test_every_field_of_the_schema_is_drawn_and_half_of_what_is_drawn_is_published() -> None:
    drawn: set[tuple[Any, ...]] = set()
    published = 0
    for seed in range(300):
        spec = Chances(Random(seed), replace(POOL, without=frozenset())).spec()
        assert not isinstance(objects.registration(body(spec)).spec, Reason)
        drawn |= set(_places(spec))
        published += any(isinstance(desired(known), Present) for known in subjects(spec))
    wanted = {path for path, _ in fields(spec_schema())}
    assert sorted(map(str, wanted - drawn)) == []
    assert published > 150


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """Where a spec has values, in the words of `bad_input.fields`: of what is a map's, too."""
    yield path
    if isinstance(value, list):
        for each in value:
            yield from _places(each, (*path, -1))
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _places(each, (*path, key))
            yield from _places(each, (*path, "*"))


def test_a_seed_draws_the_same_spec_on_every_machine() -> None:
    drawn = [Chances(Random(7), POOL).spec() for _ in range(2)]
    assert drawn[0] == drawn[1]
