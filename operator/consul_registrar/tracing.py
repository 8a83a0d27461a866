"""Spans of what the operator does, where they are asked for: a port that costs one look at None where they aren't.

Decides where a span begins and ends: a reconciliation, a batch of writes to one Consul, the HTTP requests beneath both.
What a span says, what it is linked to and how it leaves is decided in `otel/`, which alone knows OpenTelemetry, and
isn't even imported without `--traces`.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Protocol, TypeVar

import aiohttp

from consul_registrar.changes import Change
from consul_registrar.model import Key, Pod

T = TypeVar("T")
Measure = Callable[[float], object]
Work = Callable[[Key], Awaitable[StrEnum]]


class Impossible(Exception):
    """Traces are asked for, and can't be had as things are; the message says what must be."""


class Span:
    """One that is open."""

    __slots__ = ()


class Waits(Protocol):
    """Whoever waits for a change to be written: in which span, None where none is recorded."""

    @property
    def change(self) -> Change: ...
    @property
    def span(self) -> Span | None: ...


class Tracer(Protocol):
    """Makes the spans; its methods are those of this module."""

    def waited(self, measure: Measure) -> Measure: ...
    def reconciling(self, work: Work, pod: Callable[[str], Pod | None]) -> Work: ...
    def requests(self) -> aiohttp.TraceConfig: ...
    def became(self, connection: str, result: object) -> None: ...
    def asked(self, change: Change) -> Span | None: ...
    def writing(
        self, sending: Awaitable[Sequence[T]], connection: str, lane: str, waiting: Sequence[Waits]
    ) -> Awaitable[Sequence[T]]: ...


_tracer: Tracer | None = None


@contextmanager
def recording(tracer: Tracer) -> Iterator[None]:
    """Let it make spans of what happens inside; whatever is to have some is made there, too."""
    global _tracer  # noqa: PLW0603 - one switch for the process, as cheap to ask as can be
    _tracer = tracer
    try:
        yield
    finally:
        _tracer = None


def waited(measure: Measure) -> Measure:
    """What a queue tells how long a key has waited, right before the work on it begins."""
    return measure if _tracer is None else _tracer.waited(measure)


def reconciling(work: Work, pod: Callable[[str], Pod | None]) -> Work:
    """The work on a key, each time in a span. `pod` knows Pods by their UID."""
    return work if _tracer is None else _tracer.reconciling(work, pod)


def requests() -> list[aiohttp.TraceConfig]:
    """For an HTTP session: a span for each request that is made in a span."""
    return [] if _tracer is None else [_tracer.requests()]


def became(connection: str, result: object) -> None:
    """What a reconciliation has come to in one Consul."""
    if _tracer is not None:
        _tracer.became(connection, result)


def asked(change: Change) -> Span | None:
    """A change is asked for; in which span, for the batch to be linked to. None: none is recorded."""
    return None if _tracer is None else _tracer.asked(change)


def writing(
    sending: Awaitable[Sequence[T]], connection: str, lane: str, waiting: Sequence[Waits]
) -> Awaitable[Sequence[T]]:
    """One batch on its way to Consul, for all who wait for it."""
    return sending if _tracer is None else _tracer.writing(sending, connection, lane, waiting)
