# ruff: noqa: ARG002 - fakes take what the real ones take
"""The loop with nothing real around it: a Consul in memory, an API server of two dictionaries."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from consul_registrar import tracing
from consul_registrar.acceptance import Acceptance
from consul_registrar.arrivals import Namespaces, Nodes, Pods, Registrations
from consul_registrar.cache import Cache
from consul_registrar.changes import Change
from consul_registrar.consul.errors import ConsulError
from consul_registrar.consul.registry import RegistryStatus
from consul_registrar.consuls import Consuls
from consul_registrar.gates import Gates
from consul_registrar.gather import Gatherer, Unconfirmed
from consul_registrar.kube import CustomObject, KubeError
from consul_registrar.lifecycle import Lifecycle
from consul_registrar.model import Gate, Hidden, Instance, Key, Node, Pod, Reason, RegistrationKey
from consul_registrar.names import folded
from consul_registrar.objects import Registration, registration
from consul_registrar.outlook import Outlook
from consul_registrar.quarantine import Quarantine
from consul_registrar.queue import Ended, Queue
from consul_registrar.reaping import Reaped
from consul_registrar.reconcile import Reconciler
from consul_registrar.reports import Reports
from consul_registrar.secret_values import SecretValues
from consul_registrar.service_arrivals import EndpointSlices, Services
from consul_registrar.services import Backends, EndpointSlice, KubernetesService, together
from consul_registrar.standby import Standby
from laws.worlds import Consul
from unit.core.build import connection
from unit.core.instant import elapsed


class FakeRegistry:
    """One Consul with one node for all; it acknowledges what it takes, fails as it is told."""

    batch = 8
    room = 32

    def __init__(self, name: str) -> None:
        self.name = name
        self.consul = Consul(())
        self.written: list[Change] = []
        self.errors: list[ConsulError] = []
        self.here: str | Reason = "agent-1"
        self.ready = True
        self.reaped_subjects: set[str] = set()
        self.unanswered: ConsulError | None = None
        self.rereads = 0
        self.looks = 0

    @property
    def held(self) -> list[Instance]:
        return list(self.consul.held.values())

    def reap(self, subject: str) -> None:
        for where, instance in list(self.consul.held.items()):
            if instance.subject == subject:
                del self.consul.held[where]
        self.reaped_subjects.add(subject)

    def heard(self) -> float | None:
        return None

    def standing(self) -> int:
        return len(self.consul.held)

    def registrations(self) -> set[RegistrationKey]:
        return {i.owner.key for i in self.consul.standing if i.owner is not None}

    def status(self) -> RegistryStatus:
        return RegistryStatus(self.ready, Reason("Connected" if self.ready else "Unreachable", "so it is"))

    def lane(self, node: str) -> str:
        return node

    def place(self, node: Node | None, identity: str, standing: Sequence[Instance]) -> str | Reason:
        return self.here

    def instances(self, key: RegistrationKey, subject: str) -> tuple[Instance, ...]:
        return tuple(
            i for i in self.consul.standing if i.owner is not None and (i.owner.key, i.subject) == (key, subject)
        )

    def subjects(self, key: RegistrationKey) -> set[str]:
        return {i.subject for i in self.consul.standing if i.owner is not None and i.owner.key == key}

    def reaped(self, key: RegistrationKey, subject: str) -> bool:
        return subject in self.reaped_subjects

    async def out_of_reach(self, key: RegistrationKey) -> Sequence[str]:
        return [] if self.ready else ["agent-1"]

    async def reread(self) -> None:
        self.rereads += 1
        if self.unanswered is not None:
            raise self.unanswered

    async def strangers(self, service: str) -> Sequence[Instance]:
        if self.unanswered is not None:
            raise self.unanswered
        return [i for i in self.held if i.owner is None and folded(i.service) == folded(service)]

    async def foreign(self, service: str) -> Sequence[tuple[str, str]]:
        self.looks += 1
        if self.unanswered is not None:
            raise self.unanswered
        return [(i.node, i.id) for i in self.held if i.owner is None and folded(i.service) == folded(service)]

    def set_nodes(self, nodes: Any) -> None:
        pass

    async def apply(self, node: str, changes: Sequence[Change]) -> Sequence[ConsulError | None]:
        return [self._take(change) for change in changes]

    def _take(self, change: Change) -> ConsulError | None:
        if self.errors:
            return self.errors.pop(0)
        self.written.append(change)
        self.consul.take(change)
        self.reaped_subjects.discard(change.instance.subject)
        return None


@dataclass
class FakeCluster:
    """What a fresh read finds, and what was written."""

    pods: dict[tuple[str, str], Pod] = field(default_factory=dict)
    registrations: dict[RegistrationKey, Registration] = field(default_factory=dict)
    services: dict[tuple[str, str], KubernetesService] = field(default_factory=dict)
    slices: dict[str, EndpointSlice] = field(default_factory=dict)
    answers: bool = True
    reads: int = 0
    defined: bool = True
    statuses: list[tuple[float, Any]] = field(default_factory=list)
    events: list[tuple[str, bool]] = field(default_factory=list)
    finalizers: list[str] = field(default_factory=list)
    takes_finalizers: asyncio.Event = field(default_factory=asyncio.Event)
    finalizer_errors: list[KubeError] = field(default_factory=list)
    secrets: dict[tuple[str, str, str], Hidden | Reason] = field(default_factory=dict)
    secret_reads: int = 0
    answers_given: list[tuple[float, str, str]] = field(default_factory=list)
    gate_errors: list[KubeError] = field(default_factory=list)
    answered: Callable[[Pod], None] = lambda _: None

    def _read(self) -> None:
        self.reads += 1
        if not self.answers:
            raise Unconfirmed

    async def pod(self, namespace: str, name: str) -> Pod | None:
        self._read()
        return self.pods.get((namespace, name))

    async def registration(self, key: RegistrationKey) -> Registration | None:
        self._read()
        return self.registrations.get(key)

    async def service(self, namespace: str, name: str) -> KubernetesService | None:
        self._read()
        return self.services.get((namespace, name))

    async def backends(self, namespace: str, name: str) -> Backends:
        self._read()
        return together(s for s in self.slices.values() if (s.namespace, s.service) == (namespace, name))

    async def definition_leaves(self) -> bool:
        self._read()
        return not self.defined

    async def add(self, found: Registration) -> bool:
        await self.takes_finalizers.wait()
        if self.finalizer_errors:
            raise self.finalizer_errors.pop(0)
        self.finalizers.append("added")
        return found.key in self.registrations

    async def remove(self, found: Registration) -> None:
        self.finalizers.append("removed")

    async def write(self, found: Registration, wanted: Any) -> None:
        if not self.answers:
            raise OSError("no answer")
        self.statuses.append((elapsed(), wanted))

    async def event(self, found: Registration, reason: Reason, *, warning: bool) -> None:
        self.events.append((reason.code, warning))

    async def answer(self, found: Pod, gate: Gate) -> int:
        if self.gate_errors:
            raise self.gate_errors.pop(0)
        self.answers_given.append((elapsed(), gate.status, gate.reason))
        written = replace(found, gate=gate, version=found.version + 1)
        asyncio.get_running_loop().call_later(0.5, self.answered, written)
        return written.version

    async def event_pod(self, found: Pod, reason: Reason) -> None:
        self.events.append((reason.code, True))

    async def header(self, namespace: str, name: str, key: str) -> Hidden | Reason:
        self.secret_reads += 1
        return self.secrets.get((namespace, name, key), Reason("SecretNotFound", f"Secret {namespace}/{name}"))

    @property
    def ready(self) -> tuple[str, str]:
        """Status and reason of the condition Ready as written last."""
        condition = self.statuses[-1][1]["conditions"][0]
        return condition["status"], condition["reason"]


class World:
    """All parts of the loop. Time begins with the world and is the loop's."""

    def __init__(self, **connections: Any) -> None:
        self.cluster = FakeCluster()
        self.cluster.takes_finalizers.set()
        self.cache = Cache()
        self.queue: Queue[Key] = Queue(jitter=lambda: 0.0, waited=tracing.waited(lambda _: None))
        self.acceptance = Acceptance(self.cache)
        self.reaped = Reaped()
        self.registries: dict[str, FakeRegistry] = {}
        self.connecting: set[str] = set()
        self.crowded = False
        self.consuls = Consuls(self.cache, self._serve, lambda *_: None, lambda _: None)
        self.outlook = Outlook(self.consuls.registry, self.cache.registrations.get, lambda: self.crowded)
        self.reports = Reports(
            self.cache,
            self.acceptance,
            self.consuls,
            self.reaped,
            self.cluster,
            self.outlook,
            now=lambda: f"{elapsed():.0f}",
            text=str,
            crowded=lambda: self.crowded,
        )
        self.secrets = SecretValues(self.cluster.header, self.cache.registrations.get, self._secrets_changed)
        gatherer = Gatherer("prod", self.cache, self.acceptance, self.cluster, self.secrets)
        self.quarantine = Quarantine(self.consuls, elapsed)
        self.doubts: list[float] = []
        self.reconciler = Reconciler(
            gatherer,
            self.consuls,
            self.queue,
            self.reports,
            self.reaped,
            self.quarantine,
            doubt=lambda: self.doubts.append(elapsed()),
            epoch=elapsed,
        )
        self.age = 0.0
        self.lifecycle = Lifecycle(
            self.cache,
            self.consuls,
            self.queue,
            self.reports,
            self.cluster,
            gatherer,
            age=lambda _: self.age,
            clock=elapsed,
            doubt=lambda: self.doubts.append(elapsed()),
        )
        self.standby = Standby(self.cache, self.queue, self.lifecycle, self.reconciler, self.secrets)
        self.gates = Gates(self.cache, self.consuls, gatherer, self.reports, self.cluster, enabled=True)
        self.pods = Pods(self.cache, self.queue, self.gates.look)
        self.cluster.answered = self.run_pod
        self.namespaces = Namespaces(self.cache, self.queue, self.acceptance)
        self.nodes = Nodes(self.cache, self.queue, self.consuls)
        self.services = Services(self.cache, self.queue)
        self.slices = EndpointSlices(self.cache, self.queue)
        self.registrations = Registrations(
            self.cache, self.queue, self.acceptance, self.reports, load_reaped=lambda _: None
        )
        for name, spec in (connections or {"default": {}}).items():
            self.connect(name, **spec)

    def connect(self, name: str, *, connecting: bool = False, **spec: Any) -> None:
        if connecting:
            self.connecting.add(name)
        found = connection(name, **spec)
        self.cache.connections[name] = found
        self.registries.setdefault(name, FakeRegistry(name))
        self.consuls.put(name, found.spec)

    @property
    def consul(self) -> FakeRegistry:
        return self.registries["default"]

    def apply(self, body: Any) -> RegistrationKey:
        """As `kubectl apply`: the API server has it, and tells."""
        found = registration(body)
        self.cluster.registrations[found.key] = found
        told = CustomObject(
            kind="ServiceRegistration",
            uid=found.meta.uid,
            namespace=found.key.namespace,
            name=found.key.name,
            version=found.meta.version,
            generation=found.meta.generation,
            deleting=found.deleting,
            body=body,
        )
        self.registrations.put(told)
        return found.key

    def _secrets_changed(self, users: Any) -> None:
        for key in users:
            self.queue.add(Key(key))

    def run_pod(self, pod: Pod) -> None:
        self.cluster.pods[pod.namespace, pod.name] = pod
        self.pods.put(pod)

    def reconsider(self) -> None:
        """As when a Consul can be written to again."""
        for key in self.cache.registrations:
            self.queue.add(Key(key))

    def expose(self, service: KubernetesService, *slices: EndpointSlice) -> None:
        """A Service and its endpoints are there, or have changed; the API server has them, and tells."""
        self.cluster.services[service.namespace, service.name] = service
        self.services.put(service)
        for each in slices:
            self.cluster.slices[each.uid] = each
            self.slices.put(each)

    async def _serve(self, name: str, spec: Any, take: Callable[[Any], None]) -> None:
        if name not in self.connecting:
            take(self.registries[name])
        await asyncio.Event().wait()

    async def _work(self, key: Key) -> Ended:
        if key.subject is None:
            return await self.lifecycle.reconcile(key.registration)
        ended = await self.reconciler.reconcile(key.registration, key.subject)
        self.gates.look(key.subject)
        return ended

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        parts = (
            self.secrets.run(),
            self.consuls.run(),
            self.queue.run(tracing.reconciling(self._work, self.cache.pod), 8),
            self.lifecycle.run(),
            self.reports.run(),
            self.outlook.run(self.reports.touch),
            self.gates.run(),
        )
        async with self._at_work(*parts):
            yield

    @asynccontextmanager
    async def standing_by(self) -> AsyncIterator[None]:
        """As a process that doesn't lead; a term begins afterwards."""
        async with self._at_work(self.consuls.run(), self.queue.run(self.standby.look, 1)):
            yield
        self.standby.hand_over()

    @asynccontextmanager
    async def _at_work(self, *parts: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            await asyncio.sleep(0.01)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
