"""In what operators of earlier releases left behind, the operator of today finds nothing to rewrite (law 9)."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from consul_registrar import __version__, objects
from consul_registrar.consul import catalog_wire, wire
from consul_registrar.consul.answers import Answer
from consul_registrar.dead_man import heartbeat_id
from consul_registrar.desired import Facts, Present, desired
from consul_registrar.kube.records import NODES, PODS
from consul_registrar.kube.service_records import SERVICES, SLICES
from consul_registrar.model import META_NODE, Hidden, Instance, Reason
from consul_registrar.plan import plan
from consul_registrar.services import Exposed, together
from recorded import AGENTS, CATALOG, SWITCH, Recording, recordings

RECORDINGS = recordings()


@pytest.mark.parametrize("version", RECORDINGS)
def test_nothing_is_to_be_rewritten_of_what_a_release_left(version: str) -> None:
    recording = RECORDINGS[version]
    standing = [*_at_agents(recording), *_in_catalog(recording)]
    for instance in standing:
        want = desired(_facts(recording, instance))
        assert isinstance(want, Present), want
        assert plan(want, [instance]) == ()
    assert {i.owner.registration for i in standing if i.owner} == {_name(one) for one in _registrations(recording)}


def test_this_version_is_recorded() -> None:
    assert __version__ in RECORDINGS


def _answer(value: Any) -> Answer:
    return Answer(200, body=json.dumps(value).encode())


def _at_agents(recording: Recording) -> Iterator[Instance]:
    for node, told in recording["agents"].items():
        services = wire.decode_services(_answer(told["services"]))
        checks = wire.decode_checks(_answer(told["checks"]))
        for connection in (AGENTS, SWITCH):
            yield from (held.instance for held in wire.Reader(node, "test", connection).ours(services, checks))


def _in_catalog(recording: Recording) -> Iterator[Instance]:
    for node, told in recording["catalog"].items():
        _, services = catalog_wire.decode_services(_answer(told["services"]))
        checks = catalog_wire.decode_checks(_answer(told["checks"]))
        by_id = {row.ID: row for row in services}
        reader = wire.Reader(node, "test", CATALOG)
        yield from (held.instance for held in reader.ours(by_id, {row.CheckID: row for row in checks}))


def _registrations(recording: Recording) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = recording["registrations"]["items"]
    return found


def _name(one: dict[str, Any]) -> str:
    return str(one["metadata"]["name"])


def _listed(codec: Any, recording: Recording, kind: str) -> Any:
    return codec.page(json.dumps(recording[kind]).encode()).items


def _facts(recording: Recording, instance: Instance) -> Facts:
    """What is known of what an instance stands for; it stands where it is to stand."""
    assert instance.owner is not None
    found = {_name(one): objects.registration(one) for one in _registrations(recording)}
    pods = {pod.uid: pod for pod in _listed(PODS, recording, "pods")}
    nodes = {node.name: node for node in _listed(NODES, recording, "nodes")}
    (service,) = _listed(SERVICES, recording, "services")
    pod = pods.get(instance.subject)
    slices = [each for each in _listed(SLICES, recording, "slices") if each.service == service.name]
    on = pod.node if pod else instance.meta_value(META_NODE)
    return Facts(
        owner=instance.owner,
        subject=instance.subject,
        registration=found[instance.owner.registration],
        refused=None,
        pod=pod,
        node=nodes.get(on),
        place=instance.node,
        standing=(instance,),
        exposed=Exposed(service, together(slices)) if "/" in instance.subject else None,
        heartbeat=heartbeat_id("test", SWITCH) if instance.owner.connection == SWITCH else "",
        secrets=_secrets(recording),
    )


def _secrets(recording: Recording) -> dict[tuple[str, str], Hidden | Reason]:
    """As `kube/writes.py` names their versions."""
    return {
        (_name(one), key): Hidden(value, f"{one['metadata']['uid']}/{one['metadata']['resourceVersion']}")
        for one in recording["secrets"]["items"]
        for key, value in one["data"].items()
    }
