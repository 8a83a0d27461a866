"""Decides how spans leave: as OTLP over HTTP, by a thread of their own, from a queue that is bounded.

A collector that doesn't answer costs spans and nothing else: they are counted, and that they are lost is said once.
Where to, how many are sampled and how many may wait is said by OpenTelemetry's variables (`variables.py`).
"""

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from consul_registrar import __version__, metrics, tracing
from consul_registrar.otel import variables
from consul_registrar.otel.spans import Spans
from consul_registrar.tracing import Impossible

logger = logging.getLogger(__name__)

#: Seconds that the last spans may take to leave, when all else has ended.
_PARTING = 3.0


@contextmanager
def sending(cluster: str, identity: str) -> Iterator[None]:
    """Record spans while inside, and send them. Raises Impossible where a variable isn't as it must be."""
    with _quiet("opentelemetry.util.re"):  # a malformed header would be logged, its value and all
        variables.check(os.environ)
        provider = _provider(cluster, identity)
    logger.info("traces are sent to %s", variables.endpoint(os.environ))
    try:
        with tracing.recording(Spans(provider.get_tracer("consul_registrar", __version__))):
            yield
    finally:
        parting = threading.Thread(target=provider.shutdown, daemon=True)
        parting.start()
        parting.join(_PARTING)


def _provider(cluster: str, identity: str) -> TracerProvider:
    limit = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or variables.QUEUE)
    # A batch has as many links as it carries changes; OpenTelemetry would cut them off at 128.
    links = None if os.environ.get("OTEL_SPAN_LINK_COUNT_LIMIT") else SpanLimits.UNSET
    try:
        resource, limits = _resource(cluster, identity), SpanLimits(max_links=links)
        provider = TracerProvider(resource=resource, span_limits=limits, shutdown_on_exit=False)
        provider.add_span_processor(Bounded(Told(OTLPSpanExporter()), limit))
    except Exception as error:
        raise Impossible(f"OpenTelemetry can't be set up: {type(error).__name__}: {error}") from error
    return provider


def _resource(cluster: str, identity: str) -> Resource:
    """What all spans have in common; the variables go before."""
    ours = Resource(
        {
            "service.name": "consul-registrar",
            "service.version": __version__,
            "service.instance.id": identity,
            "k8s.cluster.name": cluster,
        }
    )
    return Resource.create(ours.merge(OTELResourceDetector().detect()).attributes)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    spoken = logging.getLogger(name)
    spoken.disabled = True
    try:
        yield
    finally:
        spoken.disabled = False


class _Kept(logging.Filter):
    """Keeps to itself what OpenTelemetry says of each try to send, but for the first of each batch."""

    first = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.first = self.first or record.getMessage()
        return False


class Told(SpanExporter):
    """Counts what becomes of spans; says when they begin to be lost, and when they arrive again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._said = _Kept()
        self._log = logging.getLogger(type(exporter).__module__)
        self._log.addFilter(self._said)
        self._count = {outcome: metrics.spans.labels(outcome).inc for outcome in ("exported", "failed", "dropped")}
        self._lost = self._lost_before = 0
        self._loses = False
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hand on; in the exporting thread."""
        self.taken += len(spans)
        self._said.first = ""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self._count["exported"](len(spans))
            self._arrived()
        else:
            self.lost("failed", len(spans), self._said.first)
        return result

    def lost(self, outcome: str, count: int, why: str) -> None:
        """So many spans are gone for good."""
        self._count[outcome](count)
        self._lost += count
        if not self._loses:
            self._loses = True
            logger.warning("spans are lost, which is said once until they arrive again: %s", why)

    def _arrived(self) -> None:
        """All is well once nothing was lost between two batches that arrived."""
        if self._loses and self._lost == self._lost_before:
            self._loses = False
            logger.info("spans arrive again, after %d were lost", self._lost)
            self._lost = 0
        self._lost_before = self._lost

    def shutdown(self) -> None:
        self._exporter.shutdown()
        self._log.removeFilter(self._said)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class Bounded(BatchSpanProcessor):
    """Drops what comes while `limit` spans wait; OpenTelemetry's own queue would drop the oldest, and count none."""

    def __init__(self, exporter: Told, limit: int) -> None:
        super().__init__(exporter, max_queue_size=limit)
        self._told = exporter
        self._limit = limit
        self._queued = 0

    def on_end(self, span: ReadableSpan) -> None:
        if self._queued - self._told.taken >= self._limit:
            self._told.lost("dropped", 1, f"{self._limit} are waiting to be sent (OTEL_BSP_MAX_QUEUE_SIZE)")
            return
        self._queued += 1
        super().on_end(span)
