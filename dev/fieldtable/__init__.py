"""Which test shows which field of the custom resources against the real Consul: `python -m fieldtable`.

The fields are those of the CRDs. What shows them is said at the tests themselves, by the mark `shows` (see
`Shown`), and read here without running or importing anything. A field that no test shows, and a mark that names no
field, fail `tests/unit/test_field_table.py`.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consul_registrar.api import crd
from consul_registrar.api.reference import cell, code, table

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests" / "integration"
PAGE = ROOT / "docs" / "reference" / "fields.md"
MODES = ("agent", "catalog")
KINDS = {"sreg": crd.service_registration, "cconn": crd.consul_connection}

#: A part that is the same as another: shown there.
SAME = {"cconn.spec.defaults.checks": "sreg.spec.checks"}

_HEAD = """# Every field, and the test that shows it

<!-- Made by `make generate` from the marks at the tests. Don't edit. -->

For each field and each mode the tests under `tests/integration` that show it against a real Consul and a real API
server; or the condition by which a mode says that it can't. *Not shown yet*: no test proves it; help is welcome.
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """One mark: `@pytest.mark.shows("sreg.spec.service.tags", …, mode="agent", condition="CheckNotSupported")`.

    `mode`: one of `MODES`, or both without it. `condition`: the reason by which that mode says that it can't;
    "refused": the API server does.
    """

    field: str
    modes: tuple[str, ...]
    condition: str
    test: str
    line: int


def fields() -> list[str]:
    """Every field that has none below it, as short name of its kind and path."""
    return [path for kind, make in KINDS.items() for path in _leaves(f"{kind}.spec", _spec(make()))]


def _spec(definition: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec


def _leaves(path: str, node: dict[str, Any]) -> Iterator[str]:
    below = node.get("items", node).get("properties", {})
    if path in SAME or not below:
        yield path
        return
    if "items" in node:
        path += "[]"
    for name, child in below.items():
        yield from _leaves(f"{path}.{name}", child)


def marks() -> list[Shown]:
    """Every mark, in the order of files and lines."""
    return [shown for path in sorted(TESTS.rglob("test_*.py")) for shown in _of(path)]


def _of(path: Path) -> Iterator[Shown]:
    name = path.relative_to(TESTS)
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.shows":
                    yield from _read(call, f"{name}::{node.name}")


def _read(call: ast.Call, test: str) -> Iterator[Shown]:
    said = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    modes = (said["mode"],) if "mode" in said else MODES
    for argument in call.args:
        yield Shown(ast.literal_eval(argument), modes, said.get("condition", ""), test, call.lineno)


def by_place() -> dict[tuple[str, str], list[Shown]]:
    """What shows each field in each mode."""
    found: dict[tuple[str, str], list[Shown]] = {}
    known = fields()
    for shown in marks():
        for field in (field for field in known if names(shown.field, field)):
            for mode in shown.modes:
                found.setdefault((field, mode), []).append(shown)
    return found


def names(said: str, field: str) -> bool:
    """Whether a mark is about a field: that, or one above it, of which the test sets all there is."""
    return field == said or field.startswith((f"{said}.", f"{said}["))


def page() -> str:
    """The table."""
    places = by_place()
    parts = [_HEAD]
    for kind, make in KINDS.items():
        own = [field for field in fields() if field.startswith(f"{kind}.")]
        rows = (
            [code(f.removeprefix(f"{kind}.")), *(_cell(f, places.get((f, mode), [])) for mode in MODES)] for f in own
        )
        name = make()["spec"]["names"]["kind"]
        parts.append(f"## {name}\n\n" + table(("Field", "Agent", "Catalog"), rows))
    return "\n".join(parts)


def _cell(field: str, shown: list[Shown]) -> str:
    if field in SAME:
        return f"as {code(SAME[field].partition('.')[2])}, without headers from Secrets"
    return "<br>".join(map(_says, shown)) or "*not shown yet*"


def _says(shown: Shown) -> str:
    file, _, test = shown.test.partition("::")
    how = {"": "", "refused": "refused by the API server: "}.get(shown.condition, f"{code(shown.condition)}: ")
    return f"{how}{cell(test.removeprefix('test_').replace('_', ' '))} ({code(file)})"
