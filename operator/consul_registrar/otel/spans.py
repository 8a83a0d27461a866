"""Decides what spans say: their names, attributes, links and states.

Names are those of OpenTelemetry's semantic conventions where there is one, else `consul_registrar.…`. Nothing of a
header, a body or a URL's query is ever told. Which code is in a span is decided where `tracing.py` is called.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from types import SimpleNamespace
from typing import TypeVar

import aiohttp
from opentelemetry.context import Context
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_FULL
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import Attributes

from consul_registrar import tracing
from consul_registrar.changes import Change, operation_of
from consul_registrar.consul import ConsulError
from consul_registrar.model import Key, Pod, Reason
from consul_registrar.queue import Ended

POD_NAME, POD_UID, NAMESPACE = "k8s.pod.name", "k8s.pod.uid", "k8s.namespace.name"
REGISTRATION, SUBJECT = "consul_registrar.registration", "consul_registrar.subject"
WAITED = "consul_registrar.queue.wait"
CAUSE, OPERATION, OUTCOME = "consul_registrar.cause", "consul_registrar.operation", "consul_registrar.outcome"
REASON, INSTANCE = "consul_registrar.reason", "consul_registrar.instance"
CONNECTION, LANE = "consul_registrar.connection", "consul_registrar.lane"
SIZE, FAILED = "consul_registrar.batch.size", "consul_registrar.batch.failed"

T = TypeVar("T")
_NOWHERE = Context()
_current: ContextVar["_Open | None"] = ContextVar("span", default=None)
_waited: ContextVar[float] = ContextVar("waited", default=0.0)


@dataclass(slots=True, eq=False)
class _Open(tracing.Span):
    """A span that is recorded, until it ends. `reason`: why it has failed, as far as is known."""

    span: Span
    reason: Reason | None = None


class Spans:
    """Records spans with one tracer. What OpenTelemetry itself holds for the current span is left alone."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def waited(self, measure: tracing.Measure) -> tracing.Measure:
        """The queue begins the task of a key right after it has told this; a task begins with what is set here."""

        def told(seconds: float) -> None:
            _waited.set(seconds)
            measure(seconds)

        return told

    def reconciling(self, work: tracing.Work, pod: Callable[[str], Pod | None]) -> tracing.Work:
        """A root span for each key. One that is cut off, since the term has ended, has no outcome."""

        async def traced(key: Key) -> StrEnum:
            with self._within("reconcile", None) as opened:
                if opened is None:
                    return await work(key)
                opened.span.set_attributes(_about(key, pod) | {WAITED: _waited.get()})
                ended = await work(key)
                opened.span.set_attribute(OUTCOME, ended.value)
                if ended is Ended.ERROR:
                    _fail(opened)
                return ended

        return traced

    def became(self, connection: str, result: object) -> None:
        """An event for each Consul, of which a registration may name several."""
        opened = _recorded()
        if opened is None:
            return
        came = type(result).__name__
        about = {CONNECTION: connection, OUTCOME: came}
        reason = getattr(getattr(result, "outcome", None), "reason", None)
        if isinstance(reason, Reason):
            about[REASON] = reason.code
            opened.reason = reason if came == "Failed" else opened.reason
        opened.span.add_event("consul", about)

    def asked(self, change: Change) -> _Open | None:
        """Of several changes the last one's cause is that of the reconciliation; links tell of each."""
        opened = _recorded()
        if opened is not None:
            opened.span.set_attribute(CAUSE, change.cause.value)
        return opened

    async def writing(
        self, sending: Awaitable[Sequence[T]], connection: str, lane: str, waiting: Sequence[tracing.Waits]
    ) -> Sequence[T]:
        """A span beneath the first reconciliation that waits, linked to all: so it is sampled when any of them is."""
        asking = [(one.span.span, one.change) for one in waiting if isinstance(one.span, _Open)]
        if not asking:
            return await sending
        links = [_link(span, change) for span, change in asking]
        with self._within("consul.write", asking[0][0], links) as opened:
            answers = await sending
            if opened is not None:
                opened.span.set_attributes({CONNECTION: connection, LANE: lane, SIZE: len(waiting)})
                _judge(opened, answers)
            return answers

    def requests(self) -> aiohttp.TraceConfig:
        """Spans of requests, by aiohttp's own hooks: they are called in the task that asks."""
        hooks = aiohttp.TraceConfig()
        hooks.on_request_start.append(self._begin)
        hooks.on_request_end.append(_answered)
        hooks.on_request_exception.append(_broke)
        return hooks

    async def _begin(
        self, _: aiohttp.ClientSession, request: SimpleNamespace, said: aiohttp.TraceRequestStartParams
    ) -> None:
        above = _recorded()
        request.span = above and self._start(said.method, above.span, SpanKind.CLIENT, _request(said))

    @contextmanager
    def _within(self, name: str, above: Span | None, links: Sequence[Link] = ()) -> Iterator[_Open | None]:
        """Whatever happens inside is in the span; None where sampling leaves it out."""
        span = self._start(name, above, links=links)
        opened = _Open(span) if span.is_recording() else None
        token = _current.set(opened)
        try:
            yield opened
        except Exception as error:
            span.set_attribute(ERROR_TYPE, type(error).__qualname__)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            _current.reset(token)
            span.end()

    def _start(
        self,
        name: str,
        above: Span | None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] = (),
    ) -> Span:
        context = _NOWHERE if above is None else set_span_in_context(above, _NOWHERE)
        return self._tracer.start_span(name, context, kind, attributes, links)


def _recorded() -> _Open | None:
    """Tasks outlive the span in which they were begun; what they do then is in none."""
    opened = _current.get()
    return opened if opened is not None and opened.span.is_recording() else None


def _about(key: Key, pod: Callable[[str], Pod | None]) -> dict[str, str | float]:
    about: dict[str, str | float] = {NAMESPACE: key.registration.namespace, REGISTRATION: key.registration.name}
    if key.subject is None:
        return about
    about[SUBJECT] = key.subject
    known = pod(key.subject)
    return about if known is None else about | {POD_NAME: known.name, POD_UID: known.uid}


def _link(span: Span, change: Change) -> Link:
    about = {OPERATION: operation_of(change), CAUSE: change.cause.value, INSTANCE: change.id}
    return Link(span.get_span_context(), about)


def _judge(opened: _Open, answers: Sequence[object]) -> None:
    """The reason is that of the first change that wasn't applied."""
    errors = [answer for answer in answers if isinstance(answer, ConsulError)]
    opened.span.set_attributes({OUTCOME: _outcome(len(errors), len(answers)), FAILED: len(errors)})
    if errors:
        opened.reason = errors[0].reason
        _fail(opened)


def _outcome(failed: int, all_of_them: int) -> str:
    if not failed:
        return "applied"
    return "failed" if failed == all_of_them else "partly"


def _fail(opened: _Open) -> None:
    reason = opened.reason
    if reason is not None:
        opened.span.set_attribute(ERROR_TYPE, reason.code)
    opened.span.set_status(StatusCode.ERROR, f"{reason.code}: {reason.message}" if reason else None)


def _request(said: aiohttp.TraceRequestStartParams) -> Attributes:
    """Neither the user's name and password nor a query is told of a URL."""
    url = said.url.with_user(None).with_query(None)
    about: dict[str, str | int] = {HTTP_REQUEST_METHOD: said.method, URL_FULL: str(url)}
    return about | {SERVER_ADDRESS: url.host or "", SERVER_PORT: url.port or 0}


async def _answered(_: aiohttp.ClientSession, request: SimpleNamespace, said: aiohttp.TraceRequestEndParams) -> None:
    span: Span | None = request.span
    if span is not None:
        span.set_attribute(HTTP_RESPONSE_STATUS_CODE, said.response.status)
        _end(span, str(said.response.status) if said.response.status >= 400 else "")


async def _broke(_: aiohttp.ClientSession, request: SimpleNamespace, said: aiohttp.TraceRequestExceptionParams) -> None:
    span: Span | None = request.span
    if span is not None:
        _end(span, type(said.exception).__qualname__)


def _end(span: Span, error: str) -> None:
    if error:
        span.set_attribute(ERROR_TYPE, error)
        span.set_status(StatusCode.ERROR)
    span.end()
