"""The command line: every flag is an environment variable too (CONSUL_REGISTRAR_<FLAG>).

Decides names and defaults of the settings; what they mean is `settings.py`'s and `app.py`'s matter.
"""

import gc
import os
import re
import sys

import click
import uvloop
from pydantic import ValidationError

from consul_registrar import __version__, app, logs, tracing
from consul_registrar.cli.lint import lint
from consul_registrar.kube import LoginFailed
from consul_registrar.settings import EnvironmentInvalid, Settings, default_connection, split_address

#: How seldom Python looks for garbage in cycles, of which we make next to none: each full look stops all work, for
#: longer the more there is. By default it would look at thousands of young Pods over and over while they are listed.
_COLLECT = (20_000, 20, 20)

_CLUSTER_NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


@click.group(context_settings={"auto_envvar_prefix": "CONSUL_REGISTRAR", "help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="consul-registrar")
def main() -> None:
    """Keeps Consul's catalog true to Kubernetes."""


main.add_command(lint)


@main.command(context_settings={"auto_envvar_prefix": "CONSUL_REGISTRAR", "show_default": True})
@click.option(
    "--cluster-name",
    required=True,
    envvar="CONSUL_REGISTRAR_CLUSTER_NAME",
    show_envvar=True,
    help="Name of this Kubernetes cluster in Consul. Ownership is told by it: never change it, never use it twice.",
)
@click.option(
    "--namespaces",
    default="",
    envvar="CONSUL_REGISTRAR_NAMESPACES",
    show_envvar=True,
    help="Comma-separated namespaces to watch; empty: all.",
)
@click.option(
    "--pod-selector",
    default="",
    envvar="CONSUL_REGISTRAR_POD_SELECTOR",
    show_envvar=True,
    help="Label selector that the API server applies to Pods: others are never seen.",
)
@click.option(
    "--mode",
    type=click.Choice(["", "Agent", "Catalog"]),
    default="",
    envvar="CONSUL_REGISTRAR_MODE",
    show_envvar=True,
    help="Make the connection 'default' out of CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN(_FILE), CONSUL_CACERT, …, in this "
    "mode. A ConsulConnection object of that name goes before it.",
)
@click.option(
    "--log-format",
    type=click.Choice(["console", "json"]),
    default="console",
    envvar="CONSUL_REGISTRAR_LOG_FORMAT",
    show_envvar=True,
    help="How log lines look.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    envvar="CONSUL_REGISTRAR_LOG_LEVEL",
    show_envvar=True,
    help="Which log lines there are.",
)
@click.option(
    "--health-address",
    default="0.0.0.0:8080",
    envvar="CONSUL_REGISTRAR_HEALTH_ADDRESS",
    show_envvar=True,
    help="host:port for /healthz, /readyz and /metrics.",
)
@click.option(
    "--status-page-address",
    default="",
    envvar="CONSUL_REGISTRAR_STATUS_PAGE_ADDRESS",
    show_envvar=True,
    help="host:port of the status page, as 127.0.0.1:8081; empty: none. It has no login: who reaches it reads it.",
)
@click.option(
    "--status-page-hosts",
    default="",
    envvar="CONSUL_REGISTRAR_STATUS_PAGE_HOSTS",
    show_envvar=True,
    help="Further names by which browsers may ask for the status page, separated by commas, as that of a proxy before "
    "it. Addresses, localhost and *.svc always may.",
)
@click.option(
    "--lease",
    default="default/consul-registrar",
    envvar="CONSUL_REGISTRAR_LEASE",
    show_envvar=True,
    help="namespace/name of the Lease by which one of several replicas leads.",
)
@click.option(
    "--resync",
    type=click.FloatRange(min=1),
    default=600,
    envvar="CONSUL_REGISTRAR_RESYNC",
    show_envvar=True,
    help="Seconds between complete lists while all is well: an event that never arrived is made good by then.",
)
@click.option(
    "--readiness-gate",
    type=bool,
    default=True,
    envvar="CONSUL_REGISTRAR_READINESS_GATE",
    show_envvar=True,
    help="Answer the readiness gate consul-registrar.dev/registered of Pods that declare it.",
)
@click.option(
    "--annotated-workloads",
    type=bool,
    default=False,
    envvar="CONSUL_REGISTRAR_ANNOTATED_WORKLOADS",
    show_envvar=True,
    help="Make a ServiceRegistration for each Deployment, StatefulSet and DaemonSet that is annotated "
    "consul-registrar.dev/register.",
)
@click.option(
    "--registration-metrics",
    type=bool,
    default=True,
    envvar="CONSUL_REGISTRAR_REGISTRATION_METRICS",
    show_envvar=True,
    help="Measure each registration by itself: seven series a registration. Without it only all of them together.",
)
@click.option(
    "--traces",
    type=bool,
    is_flag=False,
    flag_value=True,
    default=False,
    envvar="CONSUL_REGISTRAR_TRACES",
    show_envvar=True,
    help="Send OpenTelemetry traces: OTLP over HTTP, to where the standard variables OTEL_… say. Takes the packages of "
    "the extra `traces`.",
)
def run(
    cluster_name: str,
    namespaces: str,
    pod_selector: str,
    mode: str,
    log_format: str,
    log_level: str,
    health_address: str,
    status_page_address: str,
    status_page_hosts: str,
    lease: str,
    resync: float,
    readiness_gate: bool,
    annotated_workloads: bool,
    registration_metrics: bool,
    traces: bool,
) -> None:
    """Run the operator until it is told to stop."""
    settings = Settings(
        cluster=_cluster_name(cluster_name),
        namespaces=_listed(namespaces),
        pod_selector=pod_selector,
        log_format=log_format,
        log_level=log_level,
        health_address=_address(health_address, "--health-address"),
        status_page_address=status_page_address and _address(status_page_address, "--status-page-address"),
        status_page_hosts=_listed(status_page_hosts.lower()),
        environment={name: value for name, value in os.environ.items() if name.startswith("CONSUL_")},
        mode=mode,
        lease=lease,
        resync=resync,
        readiness_gate=readiness_gate,
        annotated_workloads=annotated_workloads,
        registration_metrics=registration_metrics,
        traces=traces,
    )
    _check_environment(settings)
    logs.set_up(settings.log_format, settings.log_level)
    gc.set_threshold(*_COLLECT)
    try:
        uvloop.run(app.run(settings))
    except (LoginFailed, tracing.Impossible) as error:
        sys.exit(f"consul-registrar: {error}")
    except OSError as error:
        sys.exit(f"consul-registrar: an address can't be listened on: {error}")


def _listed(names: str) -> tuple[str, ...]:
    return tuple(sorted({name.strip() for name in names.split(",") if name.strip()}))


def _cluster_name(name: str) -> str:
    if not re.fullmatch(_CLUSTER_NAME, name):
        raise click.BadParameter(
            f"must be at most 63 characters out of a-z 0-9 -, not {name!r}", param_hint="--cluster-name"
        )
    return name


def _address(address: str, flag: str) -> str:
    try:
        split_address(address)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=flag) from error
    return address


def _check_environment(settings: Settings) -> None:
    try:
        default_connection(settings)
    except EnvironmentInvalid as error:
        raise click.UsageError(str(error)) from error
    except ValidationError as error:
        findings = "; ".join(str(finding["msg"]) for finding in error.errors())
        raise click.UsageError(f"Consul's environment variables don't make up a connection: {findings}") from error
