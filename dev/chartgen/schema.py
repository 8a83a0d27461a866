"""Decides what of values.schema.json isn't written by hand: the connection's spec, made of its definition (CRD), and
what is said of each value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from chartgen.values import Value
from consul_registrar.api import crd

_KEPT = {
    "type", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "required",
    "anyOf", "properties", "additionalProperties", "items",
}  # fmt: skip


def completed(text: str, values: Iterable[Value]) -> str:
    """The schema with the connection's spec as it is now, and what values.yaml says of each value, for editors."""
    schema = json.loads(text)
    for value in values:
        node = schema
        for step in value.key.split("."):
            node = node.get("properties", {}).get(step, {})
        if value.about and node:
            node["description"] = value.about
    version = crd.consul_connection()["spec"]["versions"][0]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema["$defs"]["ConsulConnectionSpec"] = closed(spec)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def closed(node: dict[str, Any]) -> dict[str, Any]:
    """A node of a structural schema that refuses what it doesn't name, as the API server warns of it.

    What spans fields (CEL) is left to the API server.
    """
    result = {key: value for key, value in node.items() if key in _KEPT}
    if "properties" in node:
        result["properties"] = {name: closed(child) for name, child in node["properties"].items()}
        result["additionalProperties"] = False
    if isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = closed(node["additionalProperties"])
    if "items" in node:
        result["items"] = closed(node["items"])
    return result
