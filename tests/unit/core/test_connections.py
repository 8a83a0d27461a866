# ruff: noqa: ARG002 - fakes take what the real ones take
"""When a connection is put to work: once our finalizer holds it, so that what stands there can always be removed."""

from typing import Any

from consul_registrar.arrivals import Connections, endpoints_in
from consul_registrar.cache import Cache
from consul_registrar.kube import CustomObject
from consul_registrar.model import Key
from consul_registrar.objects import FINALIZER
from consul_registrar.queue import Queue
from unit.core.build import of_endpoints, registration


class Consuls:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def put(self, name: str, spec: object) -> None:
        self.told.append(f"put {name}")

    def remove(self, name: str) -> None:
        self.told.append(f"remove {name}")


def seen(version: int = 1, *finalizers: str, **spec: Any) -> CustomObject:
    metadata = {"name": "one", "uid": "u", "resourceVersion": str(version), "finalizers": list(finalizers)}
    body = {"metadata": metadata, "spec": {"mode": "Agent", "nodeAgents": {}, **spec}}
    return CustomObject("ConsulConnection", "u", "", "one", version, 1, deleting=False, body=body)


def arrivals() -> tuple[Connections, Consuls, list[str]]:
    consuls, looks = Consuls(), []
    made = Connections(Cache(), consuls, users=looks.append, look=lambda: looks.append("look"), fallback={})
    return made, consuls, looks


def test_a_new_connection_is_looked_at_at_once_and_put_to_work_once_it_is_held() -> None:
    connections, consuls, looks = arrivals()
    connections.put(seen())
    assert (consuls.told, looks) == ([], ["look"])
    connections.put(seen(2, FINALIZER))
    assert (consuls.told, looks) == (["put one"], ["look", "look", "one"])


def test_a_held_connection_is_put_to_work_anew_only_when_its_spec_changes() -> None:
    connections, consuls, _ = arrivals()
    connections.put(seen(1, FINALIZER))
    connections.put(seen(2, FINALIZER, "another"))
    assert consuls.told == ["put one"]
    connections.put(seen(3, FINALIZER, policy="Observe"))
    connections.remove("u")
    assert consuls.told == ["put one", "put one", "remove one"]


def test_an_agent_that_comes_or_goes_concerns_endpoints_wherever_they_stand() -> None:
    cache, queue = Cache(), Queue[Key]()
    for found in (registration(), registration(of_endpoints(), name="db"), registration("malformed", name="bad")):
        cache.put_registration(found)
    endpoints_in(cache, queue, "another")
    assert len(queue) == 0
    endpoints_in(cache, queue, "default")
    assert list(queue._ready) == [Key(registration(name="db").key)]
