"""Decides how the table of the chart's values is made from the comments of values.yaml.

A value is described by the comment lines right above its key. A key whose own keys are described is a heading, not a
value; below a described key nothing needs words of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class Value:
    """One row: a key with dots, its default, and what is said of it ("" where nothing is)."""

    key: str
    default: Any
    about: str


def described(text: str) -> list[Value]:
    """All values of a values.yaml, in its order."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return [] if root is None else list(_walk(root, text.splitlines(), yaml.safe_load(text), ""))


def _walk(node: yaml.Node, lines: list[str], values: dict[str, Any], above: str) -> Iterator[Value]:
    for key, child in node.value:
        name = f"{above}{key.value}"
        about = _comment(lines, key.start_mark.line)
        nested = isinstance(child, yaml.MappingNode) and not child.flow_style and child.value
        inner = list(_walk(child, lines, values[key.value], f"{name}.")) if nested else []
        if about or not inner:
            yield Value(name, None if _are_described(inner) else values[key.value], about)
        if _are_described(inner):
            yield from inner


def _are_described(values: list[Value]) -> bool:
    return any(value.about for value in values)


def _comment(lines: list[str], line: int) -> str:
    """The comment lines right above a line, as one."""
    found: list[str] = []
    while line > 0 and (match := re.fullmatch(r"\s*# ?(.*)", lines[line - 1])):
        found.insert(0, match[1])
        line -= 1
    return " ".join(found)


def table(values: list[Value]) -> str:
    """The values as a Markdown table."""
    rows = [f"| `{v.key}` | {_default(v.default)} | {_cell(v.about)} |" for v in values]
    return "\n".join(["| Value | Default | |", "| --- | --- | --- |", *rows]) + "\n"


def _default(value: Any) -> str:
    return "" if value is None else _cell(f"`{json.dumps(value, ensure_ascii=False)}`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
