"""How spans leave: what is bounded, counted and said when no collector takes them; what is refused at the start."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link

from consul_registrar import tracing
from consul_registrar.metrics import REGISTRY
from consul_registrar.otel import export, variables
from consul_registrar.otel.export import Bounded, Told
from consul_registrar.tracing import Impossible

OUTCOMES = ("exported", "failed", "dropped")
SECRET = "planted-5ecret"


class Collector(SpanExporter):
    """Takes spans, or doesn't, and says why in the log, as the real exporter does."""

    def __init__(self) -> None:
        self.up = True
        self.took: list[str] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if not self.up:
            logging.getLogger(__name__).warning("refused, retrying")
            logging.getLogger(__name__).error("given up")
            return SpanExportResult.FAILURE
        self.took += [span.name for span in spans]
        return SpanExportResult.SUCCESS


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def told(collector: Collector) -> Iterator[Told]:
    one = Told(collector)
    yield one
    one.shutdown()


@pytest.fixture
def counted() -> Callable[[], dict[str, float]]:
    """What was counted since the test began."""

    def now() -> dict[str, float]:
        found = {
            each: REGISTRY.get_sample_value("consul_registrar_spans_total", {"outcome": each}) for each in OUTCOMES
        }
        return {outcome: value or 0.0 for outcome, value in found.items()}

    before = now()
    return lambda: {outcome: value - before[outcome] for outcome, value in now().items()}


def spans(count: int) -> list[ReadableSpan]:
    return [ReadableSpan(f"span-{number}") for number in range(count)]


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


LOST = "spans are lost, which is said once until they arrive again: "


def test_that_spans_are_lost_is_said_once_and_that_they_arrive_again_once_nothing_is_lost_any_more(
    collector: Collector, told: Told, counted: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    told.export(spans(2))
    collector.up = False
    for _ in range(3):
        told.export(spans(2))
    assert said(caplog) == [("WARNING", f"{LOST}refused, retrying")], "OpenTelemetry's own lines are kept back"
    collector.up = True
    told.export(spans(1))
    told.lost("dropped", 1, "too many")
    told.export(spans(1))
    assert len(caplog.records) == 1
    told.export(spans(1))
    assert said(caplog)[1:] == [("INFO", "spans arrive again, after 7 were lost")]
    collector.up = False
    told.export(spans(1))
    assert said(caplog)[2:] == [("WARNING", f"{LOST}refused, retrying")]
    assert counted() == {"exported": 5, "failed": 7, "dropped": 1}


class Stuck(Collector):
    """Holds what it was given first until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.holds, self.go = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.holds.set()
        self.go.wait()
        return super().export(spans)


def test_beyond_the_limit_spans_are_dropped_counted_and_said_once_and_nobody_waits(
    counted: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    limit = 512  # as many as leave together
    stuck = Stuck()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Bounded(Told(stuck), limit))
    tracer = provider.get_tracer("test")
    for _ in range(limit):
        tracer.start_span("sent").end()
    stuck.holds.wait()
    for _ in range(limit):
        tracer.start_span("waits").end()
    for _ in range(10):
        tracer.start_span("dropped").end()
    assert counted() == {"exported": 0, "failed": 0, "dropped": 10}
    assert said(caplog) == [("WARNING", f"{LOST}512 are waiting to be sent (OTEL_BSP_MAX_QUEUE_SIZE)")]
    stuck.go.set()
    provider.shutdown()
    assert counted() == {"exported": 2 * limit, "failed": 0, "dropped": 10}
    assert set(stuck.took) == {"sent", "waits"}


def test_the_series_are_there_from_the_start(told: Told) -> None:
    for outcome in OUTCOMES:
        assert REGISTRY.get_sample_value("consul_registrar_spans_total", {"outcome": outcome}) is not None


# what the variables say


REFUSED = [
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "must be http/protobuf"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "must be http/protobuf"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "must be a URL"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "must be a URL"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "grpc://collector:4317", "must be a URL"),
    ("OTEL_EXPORTER_OTLP_HEADERS", SECRET, "must be name=value"),
    ("OTEL_EXPORTER_OTLP_HEADERS", f"a=b,={SECRET}", "must be name=value"),
    ("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={SECRET}%0Ab", "must be name=value"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", f"authorization=Bearer {SECRET};", "must be name=value"),
    ("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={SECRET}%E2%82%AC", "must be name=value"),
    ("OTEL_TRACES_EXPORTER", "console", "must be otlp"),
    ("OTEL_TRACES_SAMPLER", "sometimes", "must be one of always_on, always_off, parentbased_always_on"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "many", "must be a number above 0"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "must be a number above 0"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "100", "OpenTelemetry can't be set up"),
]


@pytest.mark.parametrize(("name", "value", "must"), REFUSED)
def test_a_variable_that_is_not_as_it_must_be_is_refused_at_the_start_without_its_value(
    name: str, value: str, must: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Impossible, match=must) as error, export.sending("prod", "me"):
        pass
    assert SECRET not in str(error.value) + caplog.text


@pytest.mark.parametrize("value", ["half", "1.5", "-1"])
def test_a_ratio_must_be_one(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", value)
    with pytest.raises(Impossible, match="OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1"):
        variables.check(os.environ)


def test_what_the_standard_allows_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "grpc://for-other-signals",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector.example/v1/traces",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20bWU6cGFzcw==, x-scope-orgid=shop,",
        "OTEL_BSP_MAX_QUEUE_SIZE": "4096",
    }.items():
        monkeypatch.setenv(name, value)
    variables.check(os.environ)


def test_a_log_names_the_collector_without_who_logs_in_there() -> None:
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"https://me:{SECRET}@collector:4318/base"}
    assert variables.endpoint(given) == "https://collector:4318"
    assert variables.endpoint({}) == "http://localhost:4318"


def test_spans_say_whose_they_are_and_the_variables_go_before(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = export._resource("prod", "pod-1").attributes
    assert (ours["service.name"], ours["service.instance.id"]) == ("consul-registrar", "pod-1")
    assert ours["k8s.cluster.name"] == "prod"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.cluster.name=east,deployment.environment.name=live")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "registrar")
    told = export._resource("prod", "pod-1").attributes
    assert (told["service.name"], told["k8s.cluster.name"]) == ("registrar", "east")
    assert told["deployment.environment.name"] == "live"


@pytest.mark.parametrize(("limit", "links"), [("", 256), ("3", 3)])
def test_the_largest_batch_is_linked_to_all_that_it_carries_unless_a_variable_says_otherwise(
    limit: str, links: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit:
        monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", limit)
    provider = export._provider("prod", "me")
    tracer = provider.get_tracer("test")
    to = Link(tracer.start_span("reconcile").get_span_context())
    span: Any = tracer.start_span("consul.write", links=[to] * 256)
    assert len(span.links) == links
    provider.shutdown()


def test_outside_the_block_nothing_is_recorded() -> None:
    with export.sending("prod", "me"):
        assert tracing.requests()
    assert not tracing.requests()
