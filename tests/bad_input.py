"""Every field of the custom resources, each with values that can't be; made from the schemas, so that none is left out.

An example that is valid has to have each field; in it one value is replaced by a bad one, a key of a map is, or what
must be there is left out. What is bad comes from the schema alone: a wrong type, what is too long or too short,
too many or too few, out of range, and texts that are out of place, alone and after what is valid.
"""

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CRDS = Path(__file__).resolve().parents[1] / "crds"
#: Texts that would mean something to somebody on the way: to a shell, a URL, a header, JSON, a filter, a template.
INJECTIONS = (
    "a\r\nX-Injected: yes",
    '"},"Token":"stolen","x":{"',
    "../../v1/agent/leave?x=",
    'x" or Meta["a"] == "b',
    "$(reboot)",
    "${jndi:ldap://x}",
    "{{ .Values.x }}",
    "\u202egnp.exe",
    "na\u00efve \U0001f4a5",
    "a\u0000b",
    "; rm -rf /",
)
#: Durations that no field can be.
NEVER = ("0s", "-5s", "99999h", "5", "1e3s", "5 s", "1d", "5s\n")
_TEXT, _NUMBER, _TRUTH, _LIST, _OBJECT = "text", 1, True, ["text"], {"text": "text"}
_WRONG: dict[str, tuple[object, ...]] = {
    "string": (_NUMBER, _TRUTH, _LIST, _OBJECT),
    "integer": (_TEXT, _TRUTH, 1.5, _LIST),
    "boolean": (_TEXT, _NUMBER, _LIST),
    "array": (_TEXT, _NUMBER, _OBJECT),
    "object": (_TEXT, _NUMBER, _LIST),
}

POD_SPEC: dict[str, Any] = {
    "consulRefs": [{"name": "default"}],
    "suspend": True,
    "service": {
        "name": "web",
        "port": "http",
        "tags": ["v1"],
        "meta": {"tier": "front"},
        "weights": {"passing": 10, "warning": 1},
        "taggedAddresses": {"wan": {"address": "203.0.113.7", "port": 443}},
        "enableTagOverride": True,
    },
    "pods": {
        "selector": {
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["front"]}],
        },
        "register": "Running",
        "address": "PodIP",
        "ipFamily": "IPv4",
        "onTermination": "Critical",
    },
    "checks": [
        {"name": "ready", "readiness": {}, "notes": "a note"},
        {
            "name": "port",
            "tcp": {"port": "http"},
            "interval": "5s",
            "timeout": "1s",
            "deregisterCriticalServiceAfter": "1h",
            "successBeforePassing": 1,
            "failuresBeforeWarning": 1,
            "failuresBeforeCritical": 2,
            "initialStatus": "warning",
        },
        {
            "name": "health",
            "http": {
                "path": "/health",
                "port": 8080,
                "scheme": "https",
                "method": "POST",
                "headers": [
                    {"name": "X-A", "value": "b"},
                    {"name": "X-B", "valueFrom": {"secretKeyRef": {"name": "probe", "key": "token"}}},
                ],
                "body": "text",
                "tlsServerName": "web",
                "tlsSkipVerify": True,
                "followRedirects": True,
            },
        },
        {"name": "rpc", "grpc": {"port": 1, "service": "s", "tls": True, "tlsServerName": "w", "tlsSkipVerify": True}},
        {"name": "udp", "udp": {"port": 53}},
        {"name": "ping", "h2ping": {"port": 1, "tls": False, "tlsServerName": "w", "tlsSkipVerify": True}},
        {"name": "ttl", "ttl": {"ttl": "30s"}},
        {"name": "alias", "alias": {"serviceId": "db-1", "node": "node-1"}},
    ],
    "checksFromProbes": True,
    "deletionPolicy": "Orphan",
}
ENDPOINT_SPEC: dict[str, Any] = {
    "endpoints": [
        {
            "name": "primary",
            "address": "db.example.com",
            "port": 5432,
            "meta": {"role": "primary"},
            "tags": ["own"],
            "weights": {"passing": 3, "warning": 1},
            "checks": ["port"],
        }
    ],
    "checks": [{"name": "port", "tcp": {"port": 5432}}],
}
PORTS_SPEC: dict[str, Any] = {
    "endpoints": [
        {"name": "one", "address": "db.example.com", "ports": {"http": 80, "admin": 81}, "defaultPort": "http"}
    ]
}
AGENT_SPEC: dict[str, Any] = {
    "mode": "Agent",
    "nodeAgents": {"port": 8501, "scheme": "https", "addressType": "InternalIP"},
    "datacenter": "dc1",
    "tls": {
        "ca": {"secretKeyRef": {"namespace": "consul", "name": "ca", "key": "tls.crt"}},
        "serverName": "consul",
        "clientCertificate": {
            "certificate": {"secretKeyRef": {"namespace": "consul", "name": "client", "key": "tls.crt"}},
            "key": {"secretKeyRef": {"namespace": "consul", "name": "client", "key": "tls.key"}},
        },
    },
    "auth": {"token": {"file": "/token"}, "allowPlaintextToken": True},
    "policy": "Sync",
    "sharedNames": "Refuse",
    "serviceNamePattern": "$(metadata.namespace)-*",
    "checkPolicy": {
        "types": ["tcp"],
        "methods": ["GET"],
        "ports": [{"first": 1, "last": 2}],
        "redirects": "Refuse",
        "refusedAddresses": ["Node"],
    },
    "defaults": {key: POD_SPEC["service"][key] for key in ("tags", "meta", "weights")},
    "allowEndpoints": True,
    "allowedNamespaces": {"names": ["shop"], "selector": POD_SPEC["pods"]["selector"]},
    "limits": {"writesPerSecond": 10},
    "removalGuard": {"share": 20, "atLeast": 3, "release": "After", "after": "5m", "rate": 10},
    "deadMan": {"after": "1m"},
    "takeOverFrom": "0-a",
    "namespace": "team-a",
    "partition": "billing",
}
# No namespace is there to read a Secret of.
AGENT_SPEC["defaults"]["checks"] = copy.deepcopy(POD_SPEC["checks"])
del AGENT_SPEC["defaults"]["checks"][2]["http"]["headers"][1]
CATALOG_SPEC: dict[str, Any] = {
    "mode": "Catalog",
    "addresses": ["https://consul:8501"],
    "virtualNodes": 4,
    "tls": {
        "ca": {"file": "/ca.crt"},
        "clientCertificate": {"certificate": {"file": "/tls.crt"}, "key": {"file": "/tls.key"}},
    },
    "auth": {"token": {"secretKeyRef": {"namespace": "consul", "name": "token", "key": "token"}}},
}
SERVICE_SPEC: dict[str, Any] = {
    "kubernetesService": {"name": "web-lb", "publish": "LoadBalancer", "ipFamily": "IPv4"},
    "service": {"ports": {"http": 80, "admin": "admin"}, "defaultPort": "http"},
}
LOGIN_SPEC: dict[str, Any] = {
    "mode": "Catalog",
    "addresses": ["https://consul:8501"],
    "auth": {"kubernetes": {"authMethod": "east", "tokenFile": "/token", "meta": {"cluster": "east"}}},
}
VALID = {
    "ServiceRegistration": (POD_SPEC, ENDPOINT_SPEC, PORTS_SPEC, SERVICE_SPEC),
    "ConsulConnection": (AGENT_SPEC, CATALOG_SPEC, LOGIN_SPEC),
}


@dataclass(frozen=True)
class Bad:
    """One bad value. `text`: it is a text out of place; some fields are for people and take any text."""

    path: str
    spec: Any
    value: Any
    text: bool = False

    def is_named_in(self, message: str) -> bool:
        """By its path; a rule that spans fields names the field."""
        field = self.path.rpartition(".")[2].partition("[")[0]
        return self.path in message or re.search(rf"\b{field}", message) is not None

    def __str__(self) -> str:
        return f"{self.path}={json.dumps(self.value)[:40]}"


def schema(kind: str) -> dict[str, Any]:
    """The schema of spec in the CRD of a kind."""
    found = (yaml.safe_load(path.read_text()) for path in CRDS.glob("*.yaml"))
    crd = next(crd for crd in found if crd["spec"]["names"]["kind"] == kind)
    spec: dict[str, Any] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec


Path_ = tuple[str | int, ...]


def fields(node: dict[str, Any], path: Path_ = ()) -> Iterator[tuple[Path_, dict[str, Any]]]:
    """Every field below a node; -1 stands for an item of a list, "*" for a value of a map."""
    for name, child in node.get("properties", {}).items():
        yield (*path, name), child
        yield from fields(child, (*path, name))
    if "items" in node:
        yield (*path, -1), node["items"]
        yield from fields(node["items"], (*path, -1))
    if isinstance(node.get("additionalProperties"), dict):
        yield (*path, "*"), node["additionalProperties"]
        yield from fields(node["additionalProperties"], (*path, "*"))


def places(value: Any, path: Path_) -> Iterator[Path_]:
    """Where an example has a field, with numbers and keys for -1 and "*"."""
    if not path:
        yield ()
        return
    first, rest = path[0], path[1:]
    keys: Iterator[Any] = iter(())
    if first == -1 and isinstance(value, list):
        keys = iter(range(len(value)))
    elif first == "*" and isinstance(value, dict):
        keys = iter(value)
    elif isinstance(value, dict) and first in value:
        keys = iter((first,))
    for key in keys:
        for more in places(value[key], rest):
            yield (key, *more)


def bad_inputs(kind: str) -> Iterator[Bad]:
    """Each field of a kind, with each value that is bad for it. Raises where no valid example has the field."""
    for path, node in fields(schema(kind)):
        if path[:2] == ("defaults", "checks") and "valueFrom" in path:
            continue  # refused as a whole
        spec, place = _found(kind, path)
        for value, text in _bad_values(node, _at(spec, place)):
            yield Bad(_shown(place), _with(spec, place, value), value, text)
        for name in node.get("required", ()):
            less = {key: value for key, value in _at(spec, place).items() if key != name}
            yield Bad(f"{_shown(place)}.{name}", _with(spec, place, less), None)


def _found(kind: str, path: Path_) -> tuple[Any, Path_]:
    for spec in VALID[kind]:
        for place in places(spec, path):
            return spec, place
    raise LookupError(f"no valid {kind} of tests/bad_input.py has {_shown(path)}")


def _at(spec: Any, place: Path_) -> Any:
    for key in place:
        spec = spec[key]
    return spec


def _with(spec: Any, place: Path_, value: Any) -> Any:
    made = copy.deepcopy(spec)
    at = made
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return made


def _shown(place: Path_) -> str:
    return "spec" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)


def _bad_values(node: dict[str, Any], good: Any) -> Iterator[tuple[Any, bool]]:
    """With whether each is a text out of place. `good`: what is valid there."""
    kind = "port" if node.get("x-kubernetes-int-or-string") else node["type"]
    wrong = [*_WRONG.get(kind, (_TRUTH, 1.5, _LIST, _OBJECT)), *_beyond(node, good)]
    if "additionalProperties" in node:
        yield from _bad_keys(node, good)
    if "enum" in node:
        wrong.append("nonsense")
    elif kind == "string":
        yield from ((text, True) for text in _out_of_place(good))
    elif kind == "port":
        wrong += [-1, 65536, 2**31, "a" * 513, *_out_of_place("http")]
    if any("duration(" in rule["rule"] for rule in node.get("x-kubernetes-validations", ())):
        wrong += NEVER
    yield from ((value, False) for value in wrong)


def _out_of_place(good: str) -> tuple[str, ...]:
    return (*INJECTIONS, *(good + text for text in INJECTIONS))


def _beyond(node: dict[str, Any], good: Any) -> Iterator[Any]:
    """What is past the bounds of a schema."""
    if "minimum" in node:
        yield node["minimum"] - 1
    if "maximum" in node:
        yield node["maximum"] + 1
    if "maxLength" in node and "type" in node:
        yield "a" * (node["maxLength"] + 1)
    if node.get("minLength"):
        yield ""
    if "maxItems" in node:
        yield [node.get("default") or _TEXT] * (node["maxItems"] + 1)
    if node.get("minItems"):
        yield []
    if "maxProperties" in node:
        yield {f"k{at}": value for at, value in enumerate([*good.values()][:1] * (node["maxProperties"] + 1))}
    if node.get("minProperties"):
        yield {}
    if "properties" in node:
        yield good | {"nonsense": 1}


def _bad_keys(node: dict[str, Any], good: dict[str, Any]) -> Iterator[tuple[Any, bool]]:
    (key, value), *rest = good.items()
    yield {"": value, **dict(rest)}, False
    yield {"a" * 400: value, **dict(rest)}, False
    yield from (({text: value, **dict(rest)}, True) for text in _out_of_place(key))
