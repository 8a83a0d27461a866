"""Spans of a test, kept in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from consul_registrar import tracing
from consul_registrar.otel.spans import Spans


@dataclass(frozen=True)
class Recorded:
    """What was recorded, in the order in which it ended."""

    kept: InMemorySpanExporter

    def named(self, name: str, **attributes: Any) -> list[ReadableSpan]:
        """Spans of a name with these attributes; `__` stands for `.`."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        spans = (span for span in self.kept.get_finished_spans() if span.name == name)
        return [span for span in spans if wanted.items() <= dict(span.attributes or {}).items()]

    def one(self, name: str, **attributes: Any) -> ReadableSpan:
        (span,) = self.named(name, **attributes)
        return span

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.kept.get_finished_spans()]


@contextmanager
def recording(sampler: Any = None) -> Iterator[Recorded]:
    """Record what happens inside."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with tracing.recording(Spans(provider.get_tracer("test"))):
        yield Recorded(kept)


def about(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def links(span: ReadableSpan) -> dict[int, dict[str, Any]]:
    """The attributes of its links, by the span that each leads to."""
    return {link.context.span_id: dict(link.attributes or {}) for link in span.links}


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None
