"""The README's quickstart on kind, run as it is written there: `make demo CLUSTER=kind`.

Decides which of the README's lines are its commands; what they do is theirs. The end-to-end tests run the same ones,
save those that make the cluster and load the image.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from demo.show import Show

REPOSITORY = Path(__file__).resolve().parents[2]
NEEDED = ("docker", "kind", "kubectl", "helm")
CLUSTER = "kind"
"""What kind calls a cluster that was given no name."""


class QuickstartError(Exception):
    """A command failed, or a program is missing; the message says which."""


def commands() -> list[str]:
    """The commands of the README's section on kind, one a line."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = re.search(r"## Quickstart on kind\n(.*?)\n## ", readme, re.DOTALL)
    if section is None:
        raise QuickstartError("the README has no section 'Quickstart on kind'")
    blocks = re.findall(r"```sh\n(.*?)```", section[1], re.DOTALL)
    return [line for line in "".join(blocks).replace("\\\n", " ").splitlines() if line.strip()]


def run(show: Show) -> None:
    """Run them all, and show what came of it. Raises QuickstartError."""
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing:
        raise QuickstartError(f"not installed: {', '.join(missing)}")
    for command in [*commands(), "kubectl get sreg,cconn"]:
        show.step(" ".join(command.split()))
        _run(command)


def end() -> None:
    """Delete the cluster. Raises QuickstartError."""
    _run(f"kind delete cluster --name {CLUSTER}")


def _run(command: str) -> None:
    done = subprocess.run(["bash", "-euc", command], cwd=REPOSITORY, check=False)
    if done.returncode:
        raise QuickstartError(f"{command}: ended with {done.returncode}")
