"""Decides what OpenTelemetry's variables may say, and refuses the rest at the start, with what must be.

OpenTelemetry itself would only warn, take a default, or log a header's value. What they mean is its own matter.
"""

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from opentelemetry.util.re import parse_env_headers

from consul_registrar.tracing import Impossible

#: Spans that may wait to be sent, where OTEL_BSP_MAX_QUEUE_SIZE doesn't say; OpenTelemetry's own default.
QUEUE = 2048

_OTLP = "OTEL_EXPORTER_OTLP_"
_RATIOS = ("traceidratio", "parentbased_traceidratio")
_SAMPLERS = ("always_on", "always_off", "parentbased_always_on", "parentbased_always_off", *_RATIOS)


def check(environment: Mapping[str, str]) -> None:
    """Raise Impossible for the first that isn't as it must be. A value is told of none that may hold a secret."""
    for suffix, fits, must in (
        ("PROTOCOL", lambda value: value == "http/protobuf", "http/protobuf: there is no other"),
        ("ENDPOINT", _is_address, "a URL, as http://collector:4318"),
        ("HEADERS", _are_headers, "name=value, several separated by commas, with values that are URL-encoded"),
    ):
        _check(environment, _of_traces(environment, suffix), fits, must)
    _check(environment, "OTEL_TRACES_EXPORTER", lambda value: value == "otlp", "otlp: there is no other")
    _check(environment, "OTEL_TRACES_SAMPLER", _SAMPLERS.__contains__, f"one of {', '.join(_SAMPLERS)}")
    if environment.get("OTEL_TRACES_SAMPLER") in _RATIOS:
        _check(environment, "OTEL_TRACES_SAMPLER_ARG", _is_ratio, "a number from 0 to 1")
    _check(environment, "OTEL_BSP_MAX_QUEUE_SIZE", _is_count, "a number above 0")


def _of_traces(environment: Mapping[str, str], suffix: str) -> str:
    """The variable for traces alone goes before the one for all signals."""
    own = f"{_OTLP}TRACES_{suffix}"
    return own if environment.get(own) else f"{_OTLP}{suffix}"


def _check(environment: Mapping[str, str], name: str, fits: Callable[[str], bool], must: str) -> None:
    value = environment.get(name, "")
    if value and not fits(value):
        raise Impossible(f"{name} must be {must}")


def endpoint(environment: Mapping[str, str]) -> str:
    """The collector, to be named in a log: without a user's name and password."""
    parts = urlsplit(environment.get(_of_traces(environment, "ENDPOINT"), "") or "http://localhost:4318")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _is_address(value: str) -> bool:
    parts = urlsplit(value)
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def _are_headers(value: str) -> bool:
    return all(_is_header(part) for part in value.split(",") if part.strip())


def _is_header(text: str) -> bool:
    """What it is parsed into can be sent: a value that can't stands in the error that says so."""
    named, _, _ = text.partition("=")
    parsed = parse_env_headers(text, liberal=True) if "=" in text and named.strip() else {}
    return bool(parsed) and all(each.isascii() and each.isprintable() for pair in parsed.items() for each in pair)


def _is_ratio(value: str) -> bool:
    try:
        return 0 <= float(value) <= 1
    except ValueError:
        return False


def _is_count(value: str) -> bool:
    return value.isdecimal() and int(value) > 0
