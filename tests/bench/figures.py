"""What was measured, beside what it may be: a table for people, `build/bench.json` for programs."""

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One budget. `budget` is the most that `value` may be; None: it is only stated. `detail`: how it came about."""

    name: str
    mode: str
    value: float
    unit: str
    budget: float | None = None
    detail: str = ""

    @property
    def holds(self) -> bool | None:
        return None if self.budget is None else self.value <= self.budget

    def as_json(self) -> dict[str, object]:
        value = round(self.value, 3) if math.isfinite(self.value) else None
        return {
            "name": self.name, "mode": self.mode, "value": value, "unit": self.unit, "budget": self.budget,
            "holds": self.holds, "detail": self.detail,
        }  # fmt: skip


@dataclass(slots=True)
class Report:
    """All that one run has to say. `bare`: seconds that the bare loaders took, by what they loaded."""

    machine: dict[str, object]
    sizes: dict[str, int]
    bare: dict[str, float] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, *figures: Figure) -> None:
        self.figures += figures

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "machine": self.machine,
            "sizes": self.sizes,
            "bare": {name: round(seconds, 3) for name, seconds in self.bare.items()},
            "figures": [figure.as_json() for figure in self.figures],
            "failed": self.failed,
        }
        file.write_text(json.dumps(content, indent=2) + "\n")

    def show(self) -> None:
        table = Table("", "what", "mode", "measured", "budget", "how", title="consul-registrar: budgets", box=None)
        for figure in self.figures:
            budget = "" if figure.budget is None else f"≤ {figure.budget:g}"
            measured = f"{figure.value:.4g} {figure.unit}"
            table.add_row(_MARKS[figure.holds], figure.name, figure.mode, measured, budget, figure.detail)
        console = Console(width=190)
        console.print(table)
        for name, why in self.failed.items():
            console.print(f"not measured: {name}: {why}", markup=False)
        console.print(f"{self.machine} sizes {self.sizes} bare loaders {self.bare}", markup=False)


_MARKS = {True: "ok", False: "[bold red]over[/]", None: ""}


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many are no greater than (nearest rank); not a number where there are none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def machine() -> dict[str, object]:
    """What it runs on, as it is now."""
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    load = Path("/proc/loadavg").read_text().split()[:3]
    cores = sum(line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().splitlines())
    return {
        "cores": cores,
        "memory_gib": round(int(memory.split()[1]) / 2**20, 1),
        "load_at_start": [float(each) for each in load],
        "python": platform.python_version(),
    }
