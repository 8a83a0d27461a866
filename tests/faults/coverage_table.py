"""Which reliability goal is tested by which test, and in how many runs: writes COVERAGE.md.

The goals are marks on the tests. The runs of a test are those that passed when it was played whole the last time: by
`make test-faults`, or by a part of it (`pytest tests/faults/test_views.py -m ""`). A selection of them counts where it
had more. What was counted here (build/faults.json) goes before what the table says; who wasn't played keeps its number.
That the table names exactly the tests that there are is itself a test (`test_coverage.py`).
"""

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
TABLE = HERE / "COVERAGE.md"
RUNS = HERE.parents[1] / "build" / "faults.json"

GOALS = {
    "G1": "killed before and after each external write",
    "G2": "events that never arrive; what happens while nobody looks",
    "G3": "old lists, old watches, an API server that is frozen, a Consul out of a snapshot",
    "G4": "answers: refused, reset, torn, timed out, applied late, 4xx, 5xx, partial",
    "G5": "Consul's servers lose their leader or their quorum",
    "G6": "agents restart, forget, leave, are replaced",
    "G7": "one operation of many is refused for good",
    "G9": "everything is slow; probes hang; hundreds of Pods go at once",
    "G11": "two that lead at once; a leader that sleeps past its term",
    "G12": "two clusters on one Consul, of different names and of one",
    "G13": "what is wanted changes while a write hangs",
    "I3": "nothing living ever leaves: that the oracle can see it",
}

HEAD = """# What the fault tests cover

Written by `make test-faults`, and checked by `test_coverage.py`. A run is one play of a scenario with one fault or one
kill in it; a test that finds its own kill points counts those that it reached. After every test the oracle must have
seen no instance leave whose Pod lived, and no ghost and no missing instance is left at the end.

| goal | what | test | runs |
| --- | --- | --- | --- |
"""


def goals_by_test() -> dict[str, set[str]]:
    """The fault tests, as file::function, with the goals that they stand for."""
    found: dict[str, set[str]] = {}
    for file in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(file.stem)
        for name, goals in _marked(module):
            found[f"{file.name}::{name}"] = goals
    return found


def _marked(module: ModuleType) -> Iterator[tuple[str, set[str]]]:
    """The functions of a module that have the mark `goal`, or all of them where the module has it."""
    common = list(getattr(module, "pytestmark", ()))
    for name, value in vars(module).items():
        if name.startswith("test_"):
            marks = [*common, *getattr(value, "pytestmark", ())]
            goals = {mark.args[0] for mark in marks if mark.name == "goal"}
            if goals:
                yield name, goals


def rows() -> Iterator[tuple[str, str, int]]:
    """The rows of the table as it stands: goal, test and runs."""
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0] in GOALS:
            yield cells[0], cells[2], int(cells[3])


def known_runs() -> dict[str, int]:
    """The runs of each test, as far as they were ever counted."""
    counted: dict[str, int] = json.loads(RUNS.read_text()) if RUNS.exists() else {}
    return {test: runs for _, test, runs in rows()} | counted


def merged(before: Mapping[str, int], counted: Mapping[str, int], *, whole: bool) -> dict[str, int]:
    """What is known after a session: `whole` if it played all runs of the tests that it counted."""
    return {**before, **{test: runs if whole else max(runs, before.get(test, 0)) for test, runs in counted.items()}}


def write(runs: Mapping[str, int]) -> None:
    """The table, with the runs of each test."""
    lines = [
        f"| {goal} | {what} | `{test}` | {runs.get(test, 0)} |"
        for goal, what in GOALS.items()
        for test, goals in goals_by_test().items()
        if goal in goals
    ]
    total = sum(runs.get(test, 0) for test in goals_by_test())
    TABLE.write_text(HEAD + "\n".join(lines) + f"\n\n{total} runs in all.\n")


if __name__ == "__main__":
    write(known_runs())
