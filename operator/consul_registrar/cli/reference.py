"""The reference pages of docs/: `python -m consul_registrar.cli.reference docs/reference`.

Decides which pages there are and how flags, environment variables and metrics are shown; what they are is `main.py`'s
and `metrics.py`'s matter, the custom resources' pages are `api/reference.py`'s. CI fails when a file differs.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from consul_registrar import metrics
from consul_registrar.api import crd
from consul_registrar.api.reference import MADE, cell, code, page, table
from consul_registrar.cli.main import main as command
from consul_registrar.queue import Numbers

#: Consul's own variables, of which `settings.py` makes the connection `default`.
VARIABLES = {
    "CONSUL_HTTP_ADDR": "Address of the one agent (mode Catalog: of a server), with or without a scheme. Must be set.",
    "CONSUL_HTTP_SSL": "`true`: https where the address has no scheme.",
    "CONSUL_CACERT": "File with certificate authorities in PEM.",
    "CONSUL_CLIENT_CERT": "File with the client certificate that is shown to Consul, in PEM.",
    "CONSUL_CLIENT_KEY": "File with its private key.",
    "CONSUL_TLS_SERVER_NAME": "Name to verify in the certificate.",
    "CONSUL_HTTP_TOKEN_FILE": "File with the token; goes before CONSUL_HTTP_TOKEN.",
    "CONSUL_HTTP_TOKEN": "The token itself.",
    "CONSUL_NAMESPACE": "Must not be set: namespaces are of Consul Enterprise, and not supported.",
    "CONSUL_PARTITION": "Must not be set, likewise.",
}


#: OpenTelemetry's, which it reads itself; `otel/variables.py` says what they may hold.
TRACES = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "The collector's address, as http://collector:4318; /v1/traces is added.",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "The whole URL instead; goes before it.",
    "OTEL_EXPORTER_OTLP_HEADERS": "Headers for the collector: name=value, separated by commas, URL-encoded.",
    "OTEL_SERVICE_NAME": "Attribute `service.name` of all spans; without it `consul-registrar`.",
    "OTEL_RESOURCE_ATTRIBUTES": "Further attributes of all spans: name=value, separated by commas, URL-encoded.",
    "OTEL_TRACES_SAMPLER": "Which traces are recorded, as parentbased_traceidratio; without it all.",
    "OTEL_TRACES_SAMPLER_ARG": "The share of them, from 0 to 1.",
    "OTEL_BSP_MAX_QUEUE_SIZE": "Spans that may wait to be sent; without it 2048.",
}


def flags() -> str:
    """The page of the command's flags and environment variables."""
    parts = [f"# Flags and environment variables\n\n{MADE}A flag goes before its variable.\n"]
    for name, sub in sorted(command.commands.items()):
        head = ("Flag", "Variable", "Default", "Values", "Meaning")
        options, about = list(_options(sub)), cell(sub.help or "")
        arguments = "".join(f" {each.human_readable_name}" for each in sub.params if isinstance(each, click.Argument))
        shown = f"\n\n{table(head, iter(options))}" if options else "\n"
        parts.append(f"## consul-registrar {name}{arguments}\n\n{about}{shown}")
    about = (
        "Read only where `--mode` is set: then they make up the connection `default`. A ConsulConnection object of "
        "that name goes before it. Other variables of Consul's are not read."
    )
    rows = ((code(name), cell(meaning)) for name, meaning in VARIABLES.items())
    parts.append(f"## Consul's variables\n\n{about}\n\n{table(('Variable', 'Meaning'), rows)}")
    rows = ((code(name), cell(meaning)) for name, meaning in TRACES.items())
    about = "Read only with `--traces`. OpenTelemetry's other variables for traces and their export hold, too."
    parts.append(f"## OpenTelemetry's variables\n\n{about}\n\n{table(('Variable', 'Meaning'), rows)}")
    parts.append(
        "## Kubernetes\n\nIn a Pod its service account is used, elsewhere `KUBECONFIG` or `~/.kube/config` with its "
        "current context.\n"
    )
    return "\n".join(parts)


def _options(sub: click.Command) -> Iterator[Sequence[str]]:
    for option in sub.params:
        if isinstance(option, click.Option):
            default = "**required**" if option.required else code(str(option.default))
            yield (code(option.opts[0]), code(_variable(option)), default, _values(option), cell(option.help or ""))


def _variable(option: click.Option) -> str:
    return option.envvar if isinstance(option.envvar, str) else ""


def _values(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return ", ".join(code(str(choice)) or "empty" for choice in option.type.choices)
    return option.type.name


def measured() -> str:
    """The page of the metrics."""
    rows = ((code(name), kind, ", ".join(map(code, labels)), cell(text)) for name, kind, labels, text in _metrics())
    return (
        f"# Metrics\n\n{MADE}At `/metrics` of `--health-address`, in Prometheus' text format.\n\n"
        + table(("Name", "Type", "Labels", "Meaning"), rows)
        + "\nA histogram also has `_bucket`, `_sum` and `_count`. Beside these there are those of any process: its\n"
        "CPU, memory, open files and start, as `process_cpu_seconds_total` and `process_resident_memory_bytes`.\n"
    )


def _metrics() -> Iterator[tuple[str, str, Sequence[str], str]]:
    found = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]
    described: list[tuple[Metric, Sequence[str]]] = [(next(iter(m.describe())), _labels(m)) for m in found]
    collectors = (
        metrics.Registrations(dict, tuple, each=True),
        metrics.Connections(tuple),
        metrics.RemovalsHeld(dict),
        metrics.ConsulWatches(dict),
        metrics.WorkQueue("", Numbers),
    )
    described += [(family, _labels(family)) for each in collectors for family in each.describe()]
    for metric, labels in sorted(described, key=lambda each: each[0].name):
        suffix = "_total" if metric.type == "counter" else ""
        yield (metric.name + suffix, metric.type, labels, metric.documentation)


def _labels(metric: object) -> Sequence[str]:
    """The library has no public name for them."""
    return tuple(getattr(metric, "_labelnames", ()))


def pages() -> dict[str, str]:
    """All pages by file name."""
    return {
        "serviceregistration.md": page(crd.service_registration()),
        "consulconnection.md": page(crd.consul_connection()),
        "flags.md": flags(),
        "metrics.md": measured(),
    }


def write(folder: str) -> None:
    """Write all pages into a folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (Path(folder) / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(*sys.argv[1:])
