"""Prometheus metrics, in the names that operators of controllers know (controller-runtime, client-go's workqueue).

Decides names and labels: none is unbounded. Measuring is done where things happen.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from consul_registrar.model import RegistrationKey
from consul_registrar.tally import Tally

REGISTRY = CollectorRegistry()

writes = Counter(
    "consul_registrar_writes_total",
    "Writes to Consul, by what was done, why and with what outcome.",
    ["connection", "operation", "cause", "outcome"],
    registry=REGISTRY,
)
reconciles = Counter("controller_runtime_reconcile_total", "Reconciliations.", ["controller"], registry=REGISTRY)
reconcile_seconds = Histogram(
    "controller_runtime_reconcile_time_seconds",
    "How long one reconciliation takes, waiting for Consul included.",
    ["controller"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)


def _reconciled(controller: str) -> Callable[[], AbstractContextManager[object]]:
    """Counts and times one reconciliation. The series are looked up once: that costs as much as a small one."""
    count, seconds = reconciles.labels(controller), reconcile_seconds.labels(controller)

    def begin() -> AbstractContextManager[object]:
        count.inc()
        return seconds.time()

    return begin


registration_reconciled = _reconciled("registration")
instance_reconciled = _reconciled("instance")
gates_answered = Counter(
    "consul_registrar_readiness_gates_answered_total",
    "Answers to readiness gates of Pods, by outcome: True or False as written, gone, forbidden, failed.",
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


class Registrations(Collector):
    """Each registration's instances by state; as many series as there are registrations, times six."""

    def __init__(self, tallies: Callable[[], Mapping[RegistrationKey, Tally]]) -> None:
        self._tallies = tallies

    def describe(self) -> Iterator[Metric]:
        yield _family()

    def collect(self) -> Iterator[Metric]:
        family = _family()
        for key, tally in list(self._tallies().items()):
            total = tally.summary().total
            for state in ("desired", "registered", "passing", "warning", "critical", "withheld"):
                family.add_metric([key.namespace, key.name, state], getattr(total, state))
        yield family


class WorkQueue(Collector):
    """The work queue, in client-go's names. `numbers` gives its depth, and how many keys were added and retried."""

    def __init__(self, name: str, numbers: Callable[[], tuple[int, int, int]]) -> None:
        self._name = name
        self._numbers = numbers

    def describe(self) -> Iterator[Metric]:
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        depth, adds, retries = self._numbers()
        ready = GaugeMetricFamily("workqueue_depth", "Keys that are ready to be worked on.", labels=["name"])
        ready.add_metric([self._name], depth)
        yield ready
        yield self._counter("workqueue_adds", "Keys that were put on the queue.", adds)
        yield self._counter("workqueue_retries", "Keys that were put off after a failure.", retries)

    def _counter(self, name: str, about: str, value: int) -> Metric:
        family = CounterMetricFamily(name, about, labels=["name"])
        family.add_metric([self._name], value)
        return family


def _family() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "consul_registrar_registration_instances",
        "Instances of a registration, by state.",
        labels=["namespace", "name", "state"],
    )


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
