"""Prometheus metrics, in the names that operators of controllers know (controller-runtime, client-go's workqueue).

Decides names and labels: none is unbounded. Measuring is done where things happen.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from consul_registrar.model import RegistrationKey
from consul_registrar.objects import Connection, Registration
from consul_registrar.queue import Ended, Numbers
from consul_registrar.tally import Tally

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

writes = Counter(
    "consul_registrar_writes_total",
    "Writes to Consul, by what was done, why and with what outcome.",
    ["connection", "operation", "cause", "outcome"],
    registry=REGISTRY,
)


@cache  # to look a series up costs as much as to count
def written(connection: str, operation: str, cause: str, outcome: str) -> Callable[[], None]:
    """Counts one write."""
    return writes.labels(connection, operation, cause, outcome).inc


_CONTROLLER = ["controller"]
reconciles = Counter(
    "controller_runtime_reconcile_total",
    "Reconciliations, by what became of them: `success`, `error`, or `requeue_after`: looked at again after a while.",
    [*_CONTROLLER, "result"],
    registry=REGISTRY,
)
reconcile_errors = Counter(
    "controller_runtime_reconcile_errors_total",
    "Reconciliations that are tried again since something failed.",
    _CONTROLLER,
    registry=REGISTRY,
)
reconcile_seconds = Histogram(
    "controller_runtime_reconcile_time_seconds",
    "How long one reconciliation takes, waiting for Consul included.",
    _CONTROLLER,
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
active_workers = Gauge(
    "controller_runtime_active_workers",
    "Reconciliations that are under way; most wait for Consul.",
    _CONTROLLER,
    registry=REGISTRY,
)


class Reconciles:
    """Counts and times the reconciliations of one controller.

    The series are looked up once, and so are there from the start: that costs as much as a small reconciliation.
    """

    def __init__(self, controller: str) -> None:
        self._seconds = reconcile_seconds.labels(controller)
        self._active = active_workers.labels(controller)
        self._errors = reconcile_errors.labels(controller)
        self._ended = {ended: reconciles.labels(controller, ended.value) for ended in Ended}

    async def measure(self, work: Awaitable[Ended]) -> Ended:
        """Wait for one; what is cancelled hasn't ended in any way that counts."""
        self._active.inc()
        began = time.perf_counter()
        try:
            ended = await work
        except Exception:
            self._count(Ended.ERROR)
            raise
        finally:
            self._active.dec()
            self._seconds.observe(time.perf_counter() - began)
        self._count(ended)
        return ended

    def _count(self, ended: Ended) -> None:
        self._ended[ended].inc()
        if ended is Ended.ERROR:
            self._errors.inc()


registrations_reconciled = Reconciles("registration")
instances_reconciled = Reconciles("instance")
gates_answered = Counter(
    "consul_registrar_readiness_gates_answered_total",
    "Answers to readiness gates of Pods, by outcome: True or False as written, gone, forbidden, failed.",
    ["outcome"],
    registry=REGISTRY,
)
spans = Counter(
    "consul_registrar_spans_total",
    "Spans of `--traces`, by outcome: exported; failed: the collector didn't take them; dropped: too many waited.",
    ["outcome"],
    registry=REGISTRY,
)
leading = Gauge(
    "leader_election_master_status", "Whether this process leads (1) or stands by (0).", ["name"], registry=REGISTRY
)
staleness = Gauge(
    "consul_registrar_watch_staleness_seconds",
    "How long ago the API server was last heard of, by what is watched.",
    ["resource"],
    registry=REGISTRY,
)


batch_size = Histogram(
    "consul_registrar_write_batch_size",
    "How many writes left for Consul together.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    registry=REGISTRY,
)
_EVENT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
event_seconds = Histogram(
    "consul_registrar_pod_event_to_consul_seconds",
    "From the arrival of a Pod's event to Consul's answer to the write that it led to; a start's first list included.",
    buckets=_EVENT_BUCKETS,
    registry=REGISTRY,
)
catalog_seconds = Histogram(
    "consul_registrar_pod_event_to_catalog_seconds",
    "From the arrival of a Pod's event until the catalog, which callers read, holds what it led to. In catalog mode "
    "that is Consul's answer; in agent mode it is when the operator reads there what the agent pushed, up to 0.7 s "
    "later.",
    buckets=_EVENT_BUCKETS,
    registry=REGISTRY,
)


class _SincePod:
    """Measures from the arrival of a Pod's event on, once for each version of a Pod."""

    #: Events that led to nothing (yet) and are remembered; beyond that the oldest are forgotten.
    REMEMBERED = 20_000

    def __init__(self, seconds: Histogram) -> None:
        self._seconds = seconds
        self._arrived: dict[int, float] = {}

    def begin(self, version: int, now: float) -> None:
        self._arrived[version] = now
        if len(self._arrived) > self.REMEMBERED:
            del self._arrived[next(iter(self._arrived))]

    def end(self, version: int | None) -> None:
        arrived = self._arrived.pop(version, None) if version is not None else None
        if arrived is not None:
            self._seconds.observe(time.monotonic() - arrived)


_to_answer, _to_catalog = _SincePod(event_seconds), _SincePod(catalog_seconds)


def pod_arrived(version: int) -> None:
    """A Pod that some registration selects has arrived in this version."""
    now = time.monotonic()
    _to_answer.begin(version, now)
    _to_catalog.begin(version, now)


def pod_written(version: int | None) -> None:
    """Consul has acknowledged a write that was decided on a Pod of this version."""
    _to_answer.end(version)


def pod_visible(version: int | None) -> None:
    """The catalog holds what was decided on a Pod of this version."""
    _to_catalog.end(version)


STATES = ("desired", "registered", "passing", "warning", "critical", "withheld")


class Registrations(Collector):
    """Instances by state and registrations by readiness; with `each` also of each registration: seven series more."""

    def __init__(
        self,
        tallies: Callable[[], Mapping[RegistrationKey, Tally]],
        registrations: Callable[[], Iterable[Registration]],
        *,
        each: bool,
    ) -> None:
        self._tallies = tallies
        self._registrations = registrations
        self._each = each

    def describe(self) -> Iterator[Metric]:
        every, readiness, instances, ready = _families()
        yield from (every, readiness, *((instances, ready) if self._each else ()))

    def collect(self) -> Iterator[Metric]:
        every, readiness, instances, ready = _families()
        sums = dict.fromkeys(STATES, 0)
        for key, tally in list(self._tallies().items()):
            total = tally.summary().total
            for state in STATES:
                count = getattr(total, state)
                sums[state] += count
                instances.add_metric([key.namespace, key.name, state], count)
        for state, count in sums.items():
            every.add_metric([state], count)
        found = {one.key: _is_ready(one.status) for one in list(self._registrations())}
        for key, is_ready in found.items():
            ready.add_metric([key.namespace, key.name], is_ready)
        for value in (True, False):
            readiness.add_metric([str(value)], sum(is_ready is value for is_ready in found.values()))
        yield from (every, readiness, *((instances, ready) if self._each else ()))


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    name = "consul_registrar_registration"
    return (
        GaugeMetricFamily("consul_registrar_instances", "Instances of all registrations, by state.", labels=["state"]),
        GaugeMetricFamily(f"{name}s", "Registrations, by whether their condition Ready is True.", labels=["ready"]),
        GaugeMetricFamily(
            f"{name}_instances", "Instances of a registration, by state.", labels=["namespace", "name", "state"]
        ),
        GaugeMetricFamily(
            f"{name}_ready", "Whether a registration's condition Ready is True.", labels=["namespace", "name"]
        ),
    )


def _is_ready(status: Mapping[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ())


class Connections(Collector):
    """Whether each connection is ready; as many series as there are connections."""

    def __init__(self, connections: Callable[[], Iterable[Connection]]) -> None:
        self._connections = connections

    def describe(self) -> Iterator[Metric]:
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        about = "Whether a connection's condition Ready is True."
        family = GaugeMetricFamily("consul_registrar_connection_ready", about, labels=["connection"])
        for one in list(self._connections()):
            family.add_metric([one.name], _is_ready(one.status))
        yield family


class ConsulWatches(Collector):
    """How old what is known of each Consul may be; as many series as there are connections."""

    def __init__(self, staleness: Callable[[], Mapping[str, float]]) -> None:
        self._staleness = staleness

    def describe(self) -> Iterator[Metric]:
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        about = (
            "How long ago Consul was last heard of, by connection: of its watches (of virtual nodes, of agents) that "
            "one which wasn't answered for longest. Up to 65 s while nothing happens: so long a blocking query waits."
        )
        family = GaugeMetricFamily("consul_registrar_consul_staleness_seconds", about, labels=["connection"])
        for connection, seconds in self._staleness().items():
            family.add_metric([connection], seconds)
        yield family


QUEUE = "subjects"
_QUEUE_BUCKETS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100, 1000)  # client-go's, from a microsecond on
_queue_duration = Histogram(
    "workqueue_queue_duration_seconds",
    "How long a key was ready before it was worked on.",
    ["name"],
    buckets=_QUEUE_BUCKETS,
    registry=REGISTRY,
)
_work_duration = Histogram(
    "workqueue_work_duration_seconds",
    "How long working on a key took, waiting for Consul included.",
    ["name"],
    buckets=_QUEUE_BUCKETS,
    registry=REGISTRY,
)
queue_waited = _queue_duration.labels(QUEUE).observe
queue_worked = _work_duration.labels(QUEUE).observe


class WorkQueue(Collector):
    """The work queue as it is, in client-go's names."""

    def __init__(self, name: str, numbers: Callable[[], Numbers]) -> None:
        self._name = name
        self._numbers = numbers

    def describe(self) -> Iterator[Metric]:
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        numbers = self._numbers()
        yield self._gauge("workqueue_depth", "Keys that are ready to be worked on.", numbers.depth)
        yield self._counter("workqueue_adds", "Keys that were put on the queue.", numbers.adds)
        yield self._counter("workqueue_retries", "Keys that were put off after a failure.", numbers.retries)
        about = "For how long the keys that are being worked on have been, all together."
        yield self._gauge("workqueue_unfinished_work_seconds", about, numbers.unfinished)
        about = "For how long that key has been worked on that is being worked on longest."
        yield self._gauge("workqueue_longest_running_processor_seconds", about, numbers.longest)

    def _gauge(self, name: str, about: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, about, labels=["name"])
        family.add_metric([self._name], value)
        return family

    def _counter(self, name: str, about: str, value: int) -> Metric:
        family = CounterMetricFamily(name, about, labels=["name"])
        family.add_metric([self._name], value)
        return family


class RemovalsHeld(Collector):
    """Removals by absence that are held, by connection; as many series as there are connections."""

    def __init__(self, holding: Callable[[], Mapping[str, int]]) -> None:
        self._holding = holding

    def describe(self) -> Iterator[Metric]:
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        about = "Removals by absence that are held, since too much is absent at once."
        family = GaugeMetricFamily("consul_registrar_removals_held", about, labels=["connection"])
        for connection, count in self._holding().items():
            family.add_metric([connection], count)
        yield family
