"""The command line: one cluster per state folder, which outlives the command."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from devcluster.build import BuildError, ensure_tools
from devcluster.cluster import DEV, Cluster, Options, link_programs
from devcluster.net import NoAddressesError
from devcluster.process import StartError, end_recorded, recorded
from devcluster.tools import PROMQL, TOOLS

REPOSITORY = DEV.parent

USAGE = """
The cluster is up after {seconds:.0f} s (nodes: {nodes}, Consul agents: {agents}). To use it in this shell:

    eval "$(make -s cluster-env)"
    kubectl get nodes
    consul members

Consul's web UI:  {ui}
Logs:             {logs}
To end it:        make cluster-down
"""


@click.group(help=__doc__)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    default=REPOSITORY / "build" / "cluster",
    show_default=True,
    help="The folder of the cluster's files.",
)
@click.pass_context
def main(context: click.Context, state: Path) -> None:
    """Run a local cluster of real parts."""
    context.obj = state


@main.command()
@click.option("--nodes", default=3, show_default=True, help="How many nodes.")
@click.option("--agents", type=int, help="How many of them have a Consul agent (all if not said).")
@click.option("--servers", default=1, show_default=True, help="How many Consul servers.")
@click.option("--acls", is_flag=True, help="Consul with ACLs, default deny.")
@click.pass_obj
def up(state: Path, nodes: int, agents: int | None, servers: int, acls: bool) -> None:
    """Start the cluster; while it runs this does nothing."""
    ensure_tools(say=_say)
    with _only_command(state):
        alive = {name: identity.is_alive() for name, identity in recorded(state)}
        if alive and all(alive.values()) and _environment_file(state).exists():
            click.echo(f"The cluster is already up; its state is in {state}.")
            return
        if any(alive.values()):
            dead = ", ".join(name for name, is_alive in alive.items() if not is_alive) or "its start"
            raise click.ClickException(f"The cluster is not whole (ended: {dead}). Run `make cluster-down` first.")
        _clear(state)
        _start(state, Options(nodes=nodes, agents=agents, consul_servers=servers, acls=acls, detached=True))


@main.command()
@click.pass_obj
def down(state: Path) -> None:
    """End the cluster and remove all it has written."""
    if not state.exists():
        click.echo("There is no cluster.")
        return
    with _only_command(state):
        end_recorded(state)
        shutil.rmtree(state)
    click.echo("The cluster is down.")


@main.command()
@click.pass_obj
def env(state: Path) -> None:
    """Print shell commands that set KUBECONFIG, CONSUL_HTTP_ADDR, PATH and others."""
    file = _environment_file(state)
    if not file.exists():
        raise click.ClickException("There is no cluster. Start it with `make cluster`.")
    for name, value in json.loads(file.read_text()).items():
        click.echo(f"export {name}={shlex.quote(value)}")
    programs = ":".join(shlex.quote(str(folder)) for folder in (state / "bin", REPOSITORY / ".venv" / "bin"))
    click.echo(f'export PATH={programs}:"$PATH"')


@main.command()
@click.pass_obj
def status(state: Path) -> None:
    """Show the processes of the cluster; fails unless all run."""
    processes = list(recorded(state))
    for name, identity in processes:
        click.echo(f"{name:26} {identity.pid:>8}  {'running' if identity.is_alive() else 'ended'}")
    if not processes:
        click.echo("There is no cluster.")
    sys.exit(0 if processes and all(identity.is_alive() for _, identity in processes) else 1)


@main.command()
def build() -> None:
    """Build the tools that are missing."""
    ensure_tools(_say, (*TOOLS, PROMQL))
    click.echo("All tools are built.")


def _start(state: Path, options: Options) -> None:
    started = time.monotonic()
    cluster = Cluster.lay_out(options, state)
    link_programs(state / "bin")
    cluster.start()
    environment = _environment(cluster)
    _environment_file(state).write_text(json.dumps(environment, indent=2))
    click.echo(
        USAGE.format(
            seconds=time.monotonic() - started,
            nodes=len(cluster.nodes),
            agents=len(cluster.consul.agents),
            ui=environment["CONSUL_UI"],
            logs=state / "logs",
        )
    )


def _environment(cluster: Cluster) -> dict[str, str]:
    server = cluster.consul.server
    token = {"CONSUL_HTTP_TOKEN": cluster.consul.token} if cluster.consul.token else {}
    return {
        "KUBECONFIG": str(cluster.kubeconfig),
        "CONSUL_HTTP_ADDR": cluster.consul.http_addr,
        "CONSUL_UI": f"{cluster.consul.http_addr}/ui",
        "CONSUL_DNS_HOST": server.address,
        "CONSUL_DNS_PORT": str(server.dns_port),
        **token,
    }


def _environment_file(state: Path) -> Path:
    return state / "environment.json"


def _clear(state: Path) -> None:
    """Empty the folder but leave it there, as it is locked."""
    for entry in state.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@contextmanager
def _only_command(state: Path) -> Iterator[None]:
    """Let commands on one state folder wait for each other; the folder itself is the lock."""
    descriptor = _lock(state)
    while not _is_still(state, descriptor):
        os.close(descriptor)
        descriptor = _lock(state)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(state: Path) -> int:
    state.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(state, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _is_still(state: Path, descriptor: int) -> bool:
    """Whether the folder is the one that was locked: who had the lock before may have removed it."""
    return state.exists() and state.stat().st_ino == os.fstat(descriptor).st_ino


def _say(text: str) -> None:
    click.echo(text, err=True)


def _run() -> None:
    try:
        main(prog_name="python -m devcluster")
    except (BuildError, NoAddressesError, StartError) as error:
        _say(f"Error: {error}")
        sys.exit(1)


if __name__ == "__main__":
    _run()
