"""The command line of the node with real Pods."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from realnode.node import Node, NodeError

STATE = Path(__file__).resolve().parents[2] / "build" / "realnode"


@click.group(help=__doc__)
@click.option("--state", type=click.Path(path_type=Path, resolve_path=True), default=STATE, help="Where its data is.")
@click.pass_context
def main(context: click.Context, state: Path) -> None:
    """Run a Kubernetes of one node with real Pods."""
    context.obj = Node(state)


@main.command()
@click.pass_obj
def up(node: Node) -> None:
    """Start the node afresh and wait until it is ready."""
    started = time.monotonic()
    node.up()
    click.echo(f"The node is ready after {time.monotonic() - started:.0f} s: export KUBECONFIG={node.kubeconfig}")


@main.command()
@click.pass_obj
def down(node: Node) -> None:
    """End the node and all that runs in it."""
    node.down()


@main.command()
@click.argument("images", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.pass_obj
def load(node: Node, images: tuple[Path, ...]) -> None:
    """Import images from tar files."""
    for image in images:
        node.load(image)


if __name__ == "__main__":
    try:
        main()
    except NodeError as error:
        sys.exit(str(error))
