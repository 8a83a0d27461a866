"""The operator, put together: every part made once, and run until it is told to stop.

Decides the order of the start: caches are filled completely before anything is decided, and nothing is removed from
Consul on the word of a list that isn't complete. What the parts do is their own.
"""

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import Any

from consul_registrar import lean  # noqa: F401 - before anything that imports aiohttp

# isort: split
from consul_registrar import health, kube, logs, metrics, times, token_status, tracing
from consul_registrar.acceptance import Acceptance
from consul_registrar.arrivals import Connections, Namespaces, Nodes, Pods, Registrations, endpoints_in, pods_beside
from consul_registrar.audit import Audit
from consul_registrar.cache import Cache
from consul_registrar.changes import Change
from consul_registrar.cluster import Cluster
from consul_registrar.connection_status import ConnectionStatus
from consul_registrar.consul import ConsulError, Recorded
from consul_registrar.consuls import Consuls
from consul_registrar.credentials import ConsulConnections
from consul_registrar.gates import Gates
from consul_registrar.gather import Gatherer
from consul_registrar.lifecycle import Lifecycle
from consul_registrar.model import Key, Reason, RegistrationKey
from consul_registrar.objects import Registration
from consul_registrar.outlook import Outlook
from consul_registrar.quarantine import Quarantine
from consul_registrar.queue import Ended, Queue
from consul_registrar.reaping import Reaped
from consul_registrar.reconcile import Reconciler
from consul_registrar.reports import Reports
from consul_registrar.secret_values import SecretValues
from consul_registrar.service_arrivals import EndpointSlices, Services
from consul_registrar.settings import Settings, default_connection, direct_tokens, split_address
from consul_registrar.sources import Sources, Stores
from consul_registrar.standby import Standby
from consul_registrar.together import together
from consul_registrar.workloads import Workloads

logger = logging.getLogger(__name__)

#: Subjects that are worked on at a time; most of that time they wait for Consul's answer. Of so many, a batch's worth
#: waits for each node: what a batch writes to few nodes wakes few queries.
_CONCURRENCY = 2048
#: The same for a process that doesn't lead; its looks wait for nothing.
_LOOKS = 1
#: Subjects beyond which those that are due are a crowd, which goes before statuses: a batch's worth.
_CROWD = 64
#: Objects that are made before garbage is looked for among them. Nearly all that are made go by themselves, or stay.
_GARBAGE = 50_000
_CLOSED = "the handler is closed"


def _identity() -> str:
    """This process's alone: a Pod's name may come back, with a StatefulSet or after a crash of its container."""
    return f"{os.environ.get('HOSTNAME') or socket.gethostname()}-{secrets.token_hex(4)}"


class Operator:
    """One operator process."""

    def __init__(
        self, settings: Settings, client: kube.KubeClient, leadership: kube.Leadership, login: kube.Login
    ) -> None:
        self._settings = settings
        self._queue: Queue[Key] = Queue(waited=tracing.waited(metrics.queue_waited), worked=metrics.queue_worked)
        self._down: dict[str, Reason | None] = {}
        self._cache = Cache()
        self._acceptance = Acceptance(self._cache)
        self._reaped = Reaped()
        self._cluster = Cluster(client, os.environ.get("HOSTNAME", "consul-registrar"))
        self._leadership = leadership
        self._consuls = self._connect()
        self._outlook = Outlook(self._consuls.registry, self._cache.registrations.get, self._is_crowded)
        self._reports = Reports(
            self._cache,
            self._acceptance,
            self._consuls,
            self._reaped,
            self._cluster,
            self._outlook,
            now=times.now,
            text=times.text,
            crowded=self._is_crowded,
        )
        self._quarantine = Quarantine(self._consuls, clock=time.monotonic)
        self._connection_status = ConnectionStatus(
            self._cache, self._consuls, self._quarantine, self._queue, self._cluster, times.now
        )
        self._secrets = SecretValues(self._cluster.header, self._cache.registrations.get, self._secrets_changed)
        gatherer = Gatherer(self._settings.cluster, self._cache, self._acceptance, self._cluster, self._secrets)
        self._gates = Gates(
            self._cache, self._consuls, gatherer, self._reports, self._cluster, enabled=settings.readiness_gate
        )
        self._reconciler = self._decide(gatherer)
        self._lifecycle = Lifecycle(
            self._cache,
            self._consuls,
            self._queue,
            self._reports,
            self._cluster,
            gatherer,
            age=lambda t: time.time() - times.epoch(t),
            clock=time.monotonic,
            doubt=self._doubt,
        )
        self._standby = Standby(self._cache, self._queue, self._lifecycle, self._reconciler, self._secrets)
        self._workloads = Workloads(self._cluster)
        self._sources = Sources(client, login, settings, self._stores())
        self._show_metrics()

    def _connect(self) -> Consuls:
        connections = ConsulConnections(
            self._settings.cluster,
            self._cluster.secret,
            self._cluster.uid,
            self._found,
            self._agent_changed,
            direct_tokens(self._settings),
            self._leadership.may_write,
            self._wrote,
            self._audited,
            self._recorded_token,
        )
        return Consuls(self._cache, connections.serve, self._count, self._connection_changed)

    def _decide(self, gatherer: Gatherer) -> Reconciler:
        return Reconciler(
            gatherer,
            self._consuls,
            self._queue,
            self._reports,
            self._reaped,
            self._quarantine,
            doubt=self._doubt,
            epoch=time.time,
        )

    def _stores(self) -> Stores:
        workloads = self._workloads if self._settings.annotated_workloads else None
        registrations = Registrations(
            self._cache, self._queue, self._acceptance, self._reports, load_reaped=self._load_reaped
        )
        return Stores(
            pods=Pods(self._cache, self._queue, self._gates.look),
            namespaces=Namespaces(self._cache, self._queue, self._acceptance),
            nodes=Nodes(self._cache, self._queue, self._consuls),
            services=Services(self._cache, self._queue),
            slices=EndpointSlices(self._cache, self._queue),
            registrations=workloads.beside(registrations) if workloads else registrations,
            connections=self._connections(),
            workloads=workloads,
        )

    def _connections(self) -> Connections:
        default = default_connection(self._settings)
        return Connections(
            self._cache,
            self._consuls,
            users=self._connection_changed,
            look=self._connection_status.look,
            fallback={default.name: default} if default else {},
        )

    def _is_crowded(self) -> bool:
        return self._queue.unfinished > _CROWD

    # what happens elsewhere and concerns the queue

    def _doubt(self) -> None:
        """What lists and watches delivered is contradicted by a fresh read."""
        self._sources.doubt()

    def _found(self, keys: AbstractSet[Key], *, routine: bool = False) -> None:
        """Consul holds something for these keys. What lies outside our scope is none of ours."""
        scope, add = self._settings.namespaces, self._queue.add_routine if routine else self._queue.add
        for key in keys:
            if not scope or key.registration.namespace in scope:
                add(key)

    def _agent_changed(self, connection: str, node: str) -> None:
        """The agent of a Kubernetes node ("": the one fixed agent) has become ready, or isn't any more.

        That concerns what is on that node, and what may stand anywhere; all, where the connection itself has changed.
        """
        down = self._consuls.down(connection)
        same = connection in self._down and self._down[connection] == down
        self._down[connection] = down
        if node:
            pods_beside(self._cache, self._queue, self._consuls, node)
        if node and same:
            endpoints_in(self._cache, self._queue, connection)
        else:
            self._connection_changed(connection)

    def _connection_changed(self, name: str) -> None:
        for key in self._acceptance.users(name):
            self._queue.add(Key(key))
            self._reports.touch(key)

    def _secrets_changed(self, users: AbstractSet[RegistrationKey]) -> None:
        for key in users:
            self._queue.add(Key(key))

    def _recorded_token(self, connection: str) -> Recorded | None:
        known = self._cache.connections.get(connection)
        return token_status.recorded(known.status) if known else None

    def _load_reaped(self, registration: Registration) -> None:
        self._reaped.load(registration.key, registration.status.get("reaped") or (), times.epoch)

    def _wrote(self, connection: str, operation: str, cause: str, error: ConsulError | None, node: str) -> None:
        self._audit(connection).record_other(operation, cause, error, node)

    def _audited(self, connection: str, change: Change, error: ConsulError | None) -> None:
        self._audit(connection).record(change, error, 1)

    def _audit(self, connection: str) -> Audit:
        return Audit(connection, lambda *what: self._count(connection, *what))

    def _count(self, connection: str, operation: str, cause: str, outcome: str) -> None:
        metrics.written(connection, operation, cause, outcome)()

    # running

    async def run(self) -> None:
        """Run until cancelled."""
        host, port = split_address(self._settings.health_address)
        runner = await health.serve(host, port, self._sources.unready, self._refresh_metrics)
        try:
            async with self._status_page(), asyncio.TaskGroup() as group:
                self._sources.start(group)
                await self._sources.filled_but_for_pods()
                group.create_task(self._consuls.run())  # reads what they hold while Pods are still listed
                await self._caches_filled()
                group.create_task(self._serve_terms())
        finally:
            await runner.cleanup()

    def _status_page(self) -> AbstractAsyncContextManager[None]:
        """The status page where it is asked for; else not even its code is loaded."""
        if not self._settings.status_page_address:
            return nullcontext()
        from consul_registrar import status_page

        known = status_page.Known(
            self._settings.cluster,
            self._cache,
            self._consuls,
            self._quarantine,
            self._leadership.may_write,
            self._sources.unready,
        )
        hosts = frozenset(self._settings.status_page_hosts)
        return status_page.serving(*split_address(self._settings.status_page_address), known, hosts)

    async def _serve_terms(self) -> None:
        """Lead whenever we may; in between stand by, with caches kept warm."""
        try:
            while True:
                await together(self._leadership.acquire(), self._queue.run(self._standby.look, _LOOKS))
                await self._serve_one_term()
        finally:
            await self._leadership.release()

    async def _serve_one_term(self) -> None:
        """Work until the term is lost; nothing is in flight any more afterwards."""
        self._standby.hand_over()
        try:
            await together(self._lead(), self._leadership.hold())
        finally:
            await self._consuls.stop_writing()

    async def _lead(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queue.run(tracing.reconciling(self._work, self._cache.pod), _CONCURRENCY))
            group.create_task(self._lifecycle.run())
            group.create_task(self._reports.run())
            group.create_task(self._outlook.run(self._reports.touch))
            group.create_task(self._gates.run())
            if self._settings.annotated_workloads:
                group.create_task(self._workloads.run())
            group.create_task(self._connection_status.run())
            group.create_task(self._secrets.run())

    async def _caches_filled(self) -> None:
        await self._sources.filled()
        self._standby.begin()
        gc.freeze()  # what is there by now stays: no look for garbage need pass over it again
        gc.set_threshold(_GARBAGE)  # what comes stays too, as a rule: by default it is looked through time and again
        logger.info(
            "caches filled: %d Pods, %d nodes, %d registrations, %d connections",
            len(self._cache.pods()),
            len(self._cache.nodes),
            len(self._cache.registrations),
            len(self._cache.connections),
        )

    async def _work(self, key: Key) -> Ended:
        if key.subject is None:
            return await metrics.registrations_reconciled.measure(self._lifecycle.reconcile(key.registration))
        work = self._reconciler.reconcile(key.registration, key.subject)
        ended = await metrics.instances_reconciled.measure(work)
        self._gates.look(key.subject)
        return ended

    # how it is

    def _show_metrics(self) -> None:
        metrics.REGISTRY.register(
            metrics.Registrations(
                self._reports.tallies, self._cache.registrations.values, each=self._settings.registration_metrics
            )
        )
        metrics.REGISTRY.register(metrics.Connections(self._cache.connections.values))
        metrics.REGISTRY.register(metrics.ConsulWatches(self._consuls.staleness))
        metrics.REGISTRY.register(metrics.WorkQueue(metrics.QUEUE, self._queue.numbers))
        metrics.REGISTRY.register(metrics.RemovalsHeld(self._quarantine.holding))

    def _refresh_metrics(self) -> None:
        metrics.leading.labels("consul-registrar").set(self._leadership.may_write())
        self._sources.measure()


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What uvloop calls a fatal error is none: data that comes in over TLS after we have closed the connection."""
    if _CLOSED in str(context.get("exception")):
        logger.debug("data came in over a connection that was closed")
    else:
        loop.default_exception_handler(context)


async def run(settings: Settings) -> None:
    """Run one operator until SIGTERM or SIGINT.

    Raises LoginFailed where there is no way to log in, and tracing.Impossible where traces are asked for in vain.
    """
    identity = _identity()
    with _traced(settings, identity):
        await _run(settings, identity)


def _traced(settings: Settings, identity: str) -> AbstractContextManager[None]:
    """Spans where they are asked for; else nothing of OpenTelemetry is loaded."""
    if not settings.traces:
        return nullcontext()
    try:
        from consul_registrar.otel.export import sending
    except ImportError as error:
        raise tracing.Impossible(
            f"--traces needs packages that aren't installed ({error.name}): pip install 'consul-registrar[traces]', or "
            "an image that was built with --build-arg EXTRA=traces"
        ) from error
    return sending(settings.cluster, identity)


async def _run(settings: Settings, identity: str) -> None:
    await kube.login()  # what is missing is said once, before anything waits for it to come
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_tell)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    logs.heed_signals(loop, settings.log_level)
    # The lease has connections of its own: it must not wait behind a crowd of other requests.
    async with kube.KubeClient(kube.login) as client, kube.KubeClient(kube.login) as apart:
        leadership = kube.Leadership(apart, *settings.lease_place, identity=identity)
        running = asyncio.create_task(Operator(settings, client, leadership, kube.login).run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
        logger.info("stopping")
        for task in (running, stopping):
            task.cancel()
        outcomes = await asyncio.gather(running, stopping, return_exceptions=True)
    if isinstance(outcomes[0], Exception):
        raise outcomes[0]
