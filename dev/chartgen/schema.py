"""Decides how the connection's part of values.schema.json is made: from the spec of the definition (CRD)."""

from __future__ import annotations

import json
from typing import Any

from consul_registrar.api import crd

_KEPT = {
    "type", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "required",
    "anyOf", "properties", "additionalProperties", "items",
}  # fmt: skip


def with_connection(text: str) -> str:
    """The schema with the connection's spec as it is now. The rest is written by hand."""
    schema = json.loads(text)
    version = crd.consul_connection()["spec"]["versions"][0]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema["$defs"]["ConsulConnectionSpec"] = closed(spec)
    return json.dumps(schema, indent=2) + "\n"


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
