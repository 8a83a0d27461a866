"""The CustomResourceDefinitions, made from the models: `python -m consul_registrar.api.crd crds/`.

Decides how a model's JSON schema becomes a structural schema as the API server wants it; bounds, patterns and rules
come with the models. CI fails when the files differ from what this prints.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from consul_registrar.api.base import GROUP, VERSION, Model, Rule, cel
from consul_registrar.api.connection import TRANSITIONS, ConsulConnectionSpec
from consul_registrar.api.registration import OBJECT_RULES, ServiceRegistrationSpec
from consul_registrar.api.status import NOBODY_LOOKED, ConsulConnectionStatus, ServiceRegistrationStatus

_DROPPED = {"title", "additionalProperties", "$defs", "const"}
_RULES = "x-kubernetes-validations"


def _models(model: type[Model], found: dict[str, type[Model]]) -> dict[str, type[Model]]:
    """All models below this one, by the name that pydantic gives them in `$defs`."""
    found[model.__name__] = model
    for candidate in Model.__subclasses__():
        found[candidate.__name__] = candidate
    return found


def _schema(model: type[Model]) -> dict[str, Any]:
    raw = model.model_json_schema(by_alias=True)
    return _convert(raw, raw.get("$defs", {}), _models(model, {}))


def _convert(node: dict[str, Any], defs: dict[str, Any], models: dict[str, type[Model]]) -> dict[str, Any]:
    """One node of a JSON schema as a node of a structural schema: references inlined, nulls gone, rules added."""
    node = _inlined(_without_null(_inlined(node, defs)), defs)
    result = {key: value for key, value in node.items() if key not in _DROPPED}
    if "const" in node:
        result |= {"type": "string", "enum": [node["const"]]}
    if result.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
        return result
    if node.get("type") == "object":
        _convert_object(node, result, defs, models)
    if "items" in node:
        result["items"] = _convert(node["items"], defs, models)
    return result


def _convert_object(
    node: dict[str, Any], result: dict[str, Any], defs: dict[str, Any], models: dict[str, type[Model]]
) -> None:
    if "properties" in node:
        result["properties"] = {name: _convert(child, defs, models) for name, child in node["properties"].items()}
        rules = models[node["title"]].rules
        if rules:
            result[_RULES] = [*_as_extras(rules)[_RULES], *result.get(_RULES, [])]
    elif isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _convert(node["additionalProperties"], defs, models)
        if "maxProperties" not in result and "maxLength" in result:
            result["maxProperties"] = result.pop("maxLength")


def _as_extras(rules: tuple[Rule, ...]) -> dict[str, Any]:
    return cel(*((rule.cel, rule.message) for rule in rules))


def _inlined(node: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    if reference is None:
        return node
    target = defs[reference.rsplit("/", 1)[-1]]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def _without_null(node: dict[str, Any]) -> dict[str, Any]:
    """`X | None` as X: in Kubernetes an optional field is one that may be left out."""
    variants = [v for v in node.get("anyOf", []) if v.get("type") != "null"]
    cleaned = {key: value for key, value in node.items() if key != "anyOf"}
    if cleaned.get("default", ...) is None:
        del cleaned["default"]
    if len(variants) == 1:
        cleaned = {**variants[0], **cleaned}
    return cleaned


def _useful_defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """Without defaults that only say "empty": the API server would write them into every object."""
    cleaned = {key: value for key, value in schema.items() if key != "default" or value not in ([], {}, "")}
    if "properties" in cleaned:
        cleaned["properties"] = {k: _useful_defaults(v) for k, v in cleaned["properties"].items()}
        if isinstance(cleaned.get("default"), dict):
            del cleaned["default"]
    if isinstance(cleaned.get("items"), dict):
        cleaned["items"] = _useful_defaults(cleaned["items"])
    return cleaned


def _column(name: str, path: str, kind: str = "string", priority: int = 0, description: str = "") -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return column | ({"priority": priority} if priority else {})


def _condition(kind: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


def _definition(
    kind: str,
    plural: str,
    scope: str,
    short: str,
    extras: dict[str, Any],
    spec: dict[str, Any],
    status: dict[str, Any],
    columns: list[dict[str, Any]],
) -> dict[str, Any]:
    root: dict[str, Any] = {
        "type": "object",
        "description": _ABOUT[kind],
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this representation."},
            "kind": {"type": "string", "description": "Kind of the object."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": root | extras},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": names | {"shortNames": [short], "categories": ["consul"]},
            "versions": [version],
        },
    }


class _Plain(yaml.SafeDumper):
    """YAML without anchors: people read these files."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _status(schema: dict[str, Any]) -> dict[str, Any]:
    """Born with a generation that nothing has, so that nobody takes an object for ready that nobody has looked at.

    Flux does (kstatus) where an object has neither observedGeneration nor conditions.
    """
    return {**_without_defaults(schema), "default": dict(NOBODY_LOOKED)}


def _without_defaults(schema: Any) -> Any:
    """For status: only the operator writes it, so there is nothing to fill in below."""
    if isinstance(schema, list):
        return [_without_defaults(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {k: _without_defaults(v) for k, v in schema.items() if k != "default"}


_ABOUT = {
    "ServiceRegistration": "Keeps a service in Consul true to the Pods that it selects, or to addresses outside.",
    "ConsulConnection": "One Consul to register services in.",
}
_READY = [
    _column("Ready", _condition("Ready", "status"), description="Whether all is as the spec says."),
]
_WHY = [
    _column("Reason", _condition("Ready", "reason"), priority=1, description="Why."),
    _column("Message", _condition("Ready", "message"), priority=1, description="Why, in a sentence."),
    _column("Age", ".metadata.creationTimestamp", kind="date", description="When it was created."),
]


def service_registration() -> dict[str, Any]:
    """The CRD of ServiceRegistration."""
    columns = [
        *_READY,
        _column("Service", ".status.consulService", description="Name of the service in Consul."),
        _column("Registered", ".status.instances.summary", description="Instances registered, of those desired."),
        _column("Passing", ".status.instances.passing", kind="integer", description="Instances that are healthy."),
        *_WHY,
    ]
    spec = _useful_defaults(_schema(ServiceRegistrationSpec))
    status = _status(_schema(ServiceRegistrationStatus))
    return _definition(
        "ServiceRegistration", "serviceregistrations", "Namespaced", "sreg", OBJECT_RULES, spec, status, columns
    )


def consul_connection() -> dict[str, Any]:
    """The CRD of ConsulConnection."""
    columns = [
        *_READY,
        _column("Mode", ".spec.mode", description="How it is written to."),
        _column("Datacenter", ".status.datacenter", description="Datacenter."),
        _column("Instances", ".status.instances", kind="integer", description="Instances that stand there."),
        _column("Version", ".status.version", priority=1, description="Version of Consul."),
        _column("Leader", ".status.leader", priority=1, description="Address of the server that leads."),
        *_WHY,
    ]
    spec = _useful_defaults(_schema(ConsulConnectionSpec))
    spec[_RULES] = [*spec.get(_RULES, []), *TRANSITIONS[_RULES]]
    status = _status(_schema(ConsulConnectionStatus))
    return _definition("ConsulConnection", "consulconnections", "Cluster", "cconn", {}, spec, status, columns)


def main(folder: str) -> None:
    """Write both CRDs into a folder."""
    for definition in (service_registration(), consul_connection()):
        path = Path(folder) / f"{GROUP}_{definition['spec']['names']['plural']}.yaml"
        text = yaml.dump(definition, Dumper=_Plain, sort_keys=False, width=110, allow_unicode=True)
        path.write_text("---\n# Made by `make generate` from operator/consul_registrar/api/. Don't edit.\n" + text)


if __name__ == "__main__":
    main(*sys.argv[1:])
