"""`python -m chartgen generate`: what is made of other files; `kustomize`: the base, for which Helm is needed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from chartgen import render, schema, values
from chartgen.render import CHART

REPOSITORY = CHART.parents[2]
KUSTOMIZE = REPOSITORY / "manifests" / "kustomize"
_BEGIN, _END = "<!-- values: made by `make generate` -->\n", "<!-- end of values -->\n"


def generate() -> None:
    """Copies of the definitions, parts of the schema of its values, and their table in its README."""
    definitions = sorted((REPOSITORY / "crds").iterdir())
    for file in definitions:
        shutil.copyfile(file, CHART / "crds" / file.name)
    together = "".join(file.read_text(encoding="utf-8") for file in definitions)
    (KUSTOMIZE / "crds.yaml").write_text(together, encoding="utf-8")
    found = values.described((CHART / "values.yaml").read_text(encoding="utf-8"))
    _rewrite(CHART / "values.schema.json", lambda text: schema.completed(text, found))
    table = values.table(found)
    _rewrite(CHART / "README.md", lambda text: _between(text, table))


def _between(text: str, table: str) -> str:
    head, rest = text.split(_BEGIN)
    return f"{head}{_BEGIN}\n{table}\n{_END}{rest.split(_END)[1]}"


def kustomize() -> None:
    """The base, rendered."""
    (KUSTOMIZE / "base.yaml").write_text(render.kustomize_base(), encoding="utf-8")


def _rewrite(file: Path, change: Callable[[str], str]) -> None:
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    {"generate": generate, "kustomize": kustomize}[sys.argv[1]]()
