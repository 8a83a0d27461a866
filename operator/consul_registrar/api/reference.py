"""The reference pages of the custom resources: their CRDs as Markdown tables; pure.

Decides how a field is shown: path, type, default, bounds, description. The fields are the models', so a page says
nothing that the API server doesn't enforce. Flags and metrics are shown by `cli/reference.py`, which writes all pages.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from consul_registrar.api.base import GROUP, VERSION

MADE = "<!-- Made by `make generate`. Don't edit. -->\n\n"
_RULES = "x-kubernetes-validations"
_HEAD = ("Field", "Type", "Default", "Bounds", "Description")


def cell(text: str) -> str:
    """A text as it may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def code(text: str) -> str:
    """A literal in a table; nothing for nothing."""
    return f"`{cell(text)}`" if text else ""


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(definition: dict[str, Any]) -> str:
    """The page of one custom resource."""
    names, version = definition["spec"]["names"], definition["spec"]["versions"][0]
    root = version["schema"]["openAPIV3Schema"]
    spec, status = root["properties"]["spec"], root["properties"]["status"]
    scope = "cluster-scoped" if definition["spec"]["scope"] == "Cluster" else "namespaced"
    facts = (
        f"`apiVersion: {GROUP}/{VERSION}`, `kind: {names['kind']}`, {scope}, short name `{names['shortNames'][0]}`, "
        f"category `{names['categories'][0]}`. `kubectl explain {names['singular']}.spec` shows the same.\n"
    )
    parts = [
        f"# {names['kind']}\n\n{MADE}{root['description']}\n",
        facts,
        "## Spec\n\n" + table(_HEAD, _rows("spec", spec)),
        "## Rules\n\nThe API server refuses what breaks one of these, with this message.\n\n"
        + table(("At", "Message"), _rules(root)),
        "## Status\n\n" + table(_HEAD, _rows("status", status)),
        "## Columns\n\n" + table(("Column", "Shown", "Path", "Meaning"), _columns(version["additionalPrinterColumns"])),
    ]
    return "\n".join(parts)


def _rows(path: str, node: dict[str, Any], *, required: bool = False) -> Iterator[Sequence[str]]:
    description = node.get("description", "")
    if "." in path:
        shown = f"{description} **Required.**" if required else description
        yield (code(path), _type(node), code(_default(node)), _bounds(node), cell(shown))
    inner = node.get("items", node)
    below = f"{path}[]" if "items" in node else path
    for name, child in inner.get("properties", {}).items():
        yield from _rows(f"{below}.{name}", child, required=name in inner.get("required", ()))


def _type(node: dict[str, Any]) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if "items" in node:
        keys = ", ".join(node.get("x-kubernetes-list-map-keys", ()))
        kind = f", by {keys}" if keys else ", a set" if node.get("x-kubernetes-list-type") == "set" else ""
        return f"list of {_type(node['items'])}{kind}"
    if "additionalProperties" in node:
        return f"map of {_type(node['additionalProperties'])}"
    return str(node.get("format") or node["type"])


def _default(node: dict[str, Any]) -> str:
    match node.get("default"):
        case None:
            return ""
        case bool(value):
            return str(value).lower()
        case [{"name": name}]:
            return f"[{{name: {name}}}]"
        case value:
            return str(value)


def _bounds(node: dict[str, Any]) -> str:
    found = [*_choices(node), *_sizes(node)]
    return cell("; ".join(found))


def _choices(node: dict[str, Any]) -> Iterator[str]:
    if "enum" in node:
        yield ", ".join(f"`{value}`" for value in node["enum"])
    if "minimum" in node or "maximum" in node:
        yield _range(node.get("minimum"), node.get("maximum"), "")
    if "pattern" in node:
        yield f"`{node['pattern']}`"


def _sizes(node: dict[str, Any]) -> Iterator[str]:
    for noun, what in (("Length", "characters"), ("Items", "items"), ("Properties", "entries")):
        low, high = node.get(f"min{noun}"), node.get(f"max{noun}")
        if low is not None or high is not None:
            yield _range(low, high, f" {what}")


def _range(low: int | None, high: int | None, what: str) -> str:
    if low == high:
        return f"exactly {low}{what}"
    if low is None:
        return f"at most {high}{what}"
    return f"at least {low}{what}" if high is None else f"{low} to {high}{what}"


def _rules(root: dict[str, Any]) -> Iterator[Sequence[str]]:
    yield from _messages("the object", root)
    yield from _rules_below("spec", root["properties"]["spec"])


def _rules_below(path: str, node: dict[str, Any]) -> Iterator[Sequence[str]]:
    yield from _messages(f"`{path}`", node)
    for name, child in node.get("properties", {}).items():
        yield from _rules_below(f"{path}.{name}", child)
    for suffix, key in (("[]", "items"), ("[*]", "additionalProperties")):
        if key in node:
            yield from _rules_below(path + suffix, node[key])


def _messages(where: str, node: dict[str, Any]) -> Iterator[Sequence[str]]:
    for rule in node.get(_RULES, ()):
        yield (where, cell(rule["message"]))


def _columns(columns: Sequence[dict[str, Any]]) -> Iterator[Sequence[str]]:
    for column in columns:
        shown = "with `-o wide`" if column.get("priority") else "always"
        yield (column["name"], shown, code(column["jsonPath"]), cell(column["description"]))
