"""How the demo looks: headings, the commands that it runs, and what they answered; readable without colours too."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from demo.world import Instance

_COLOURS = {"passing": "green", "warning": "yellow", "critical": "bold red"}


class Show:
    """Writes to the terminal."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._numbers = itertools.count(1)

    def step(self, title: str) -> None:
        """The heading of a step."""
        self._console.print()
        self._console.print(Text(f"== {next(self._numbers)}. {title}", style="bold cyan"))

    def command(self, *words: str, answer: str) -> None:
        """A command as one would type it, and its answer."""
        self.typed(" ".join(words))
        self._console.print(Text(answer))

    def typed(self, line: str) -> None:
        """A command as one would type it."""
        self._console.print(Text(f"$ {line}", style="bold"))

    def text(self, line: str) -> None:
        """A sentence."""
        self._console.print(Text(line))

    def proved(self, line: str) -> None:
        """What has just been found to be true."""
        self._console.print(Text("ok: ", style="bold green") + Text(line))

    def failed(self, line: str) -> None:
        """What was not true."""
        self._console.print(Text("FAILED: ", style="bold red") + Text(line))

    def instances(self, instances: Sequence[Instance]) -> None:
        """Instances as a table, which is never cut to the terminal's width: names are there to be copied."""
        rows = [("POD OR ENDPOINT", "NODE", "ADDRESS", "TAGS")]
        rows += [(i.name, i.node, f"{i.address}:{i.port}", ",".join(i.tags)) for i in instances]
        widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
        checks = [Text("CHECKS"), *map(_checks, instances)]
        for row, last in zip(rows, checks, strict=True):
            cells = "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self._console.print(Text(cells) + last)


def _checks(instance: Instance) -> Text:
    parts = [Text(f"{name} {status}", style=_COLOURS.get(status, "")) for name, status in instance.checks.items()]
    return Text(", ").join(parts) if parts else Text("none")
