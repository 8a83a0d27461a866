"""The command line: `python -m demo up`, `down`, `kind`, `kind-down`; `make demo` and `make demo-down` run them."""

from __future__ import annotations

import sys
import time

import click

from demo import quickstart
from demo.show import Show
from demo.stage import CLUSTER, StageError, log, set_up, tear_down
from demo.story import Story
from demo.world import NotTrueError
from devcluster.build import BuildError
from devcluster.process import StartError

_LOGS = "The operator's log: {operator}\nThe cluster's logs: {cluster}\n`make demo-down` ends everything."


@click.group(help=__doc__)
def main() -> None:
    """Show what the operator does."""


@main.command()
def up() -> None:
    """Start everything, tell the story, and leave everything running."""
    show = Show()
    started = time.monotonic()
    try:
        show.step("A Kubernetes, a Consul, and the operator")
        stage = set_up()
        show.proved(f"they run (after {time.monotonic() - started:.0f} s); the operator's log is {log()}")
        Story(stage, show).tell()
    except NotTrueError as error:
        _fail(show, f"this is not true: {error}")
    except (StageError, BuildError, StartError, OSError) as error:
        _fail(show, str(error))
    except KeyboardInterrupt:
        _fail(show, "interrupted; what has started keeps running")


@main.command()
def kind() -> None:
    """The README's quickstart on kind, command by command; leaves the cluster running."""
    show = Show()
    try:
        quickstart.run(show)
    except quickstart.QuickstartError as error:
        show.failed(str(error))
        sys.exit(1)


@main.command()
def kind_down() -> None:
    """Delete kind's cluster."""
    try:
        quickstart.end()
    except quickstart.QuickstartError as error:
        Show().failed(str(error))
        sys.exit(1)


@main.command()
def down() -> None:
    """End the operator and the cluster, and leave nothing behind."""
    try:
        tear_down()
    except StageError as error:
        _fail(Show(), str(error))


def _fail(show: Show, message: str) -> None:
    show.failed(message)
    show.text(_LOGS.format(operator=log(), cluster=CLUSTER / "logs"))
    sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m demo")
