"""What the annotations of a Deployment, StatefulSet or DaemonSet ask for: the registration that is made for it; pure.

Decides its manifest, whose a registration is, and what is wrong with annotations. When it is applied is decided in
`workloads.py`.

    consul-registrar.dev/register       the port: a number, or the name of a container port; asks for the registration
    consul-registrar.dev/service-name   spec.service.name; default: the workload's name
    consul-registrar.dev/service-tags   spec.service.tags, separated by commas
    consul-registrar.dev/service-meta   spec.service.meta, as key=value, separated by commas
    consul-registrar.dev/consul         names of connections for spec.consulRefs, separated by commas
    consul-registrar.dev/checks         spec.checks, as a JSON list

Only what is said is applied, so every other field of the registration is left to people.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from consul_registrar import objects
from consul_registrar.api import GROUP, VERSION
from consul_registrar.model import Reason

REGISTER = f"{GROUP}/register"
#: On a registration: the kind of the workload that it was made for. Its name is the workload's.
MADE_FOR = f"{GROUP}/made-for"
#: On a registration: what was applied last, so that what is left out of the annotations leaves the registration too.
APPLIED = f"{GROUP}/applied"

API_VERSION = f"{GROUP}/{VERSION}"


class WorkloadKey(NamedTuple):
    """Names a Deployment, StatefulSet or DaemonSet."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment, StatefulSet or DaemonSet, cut down to what asks for a registration of its Pods.

    `annotations`: those of our group alone. `selector`: as it has it, in Kubernetes' form.
    """

    key: WorkloadKey
    uid: str
    version: int
    annotations: Mapping[str, str]
    selector: Mapping[str, object]
    deleting: bool = False


class Malformed(Exception):
    """Annotations that ask for nothing that could be made."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.reason = Reason("AnnotationInvalid", message)


def _listed(text: str) -> list[str]:
    """The parts between commas, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _pairs(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in _listed(text)]
    if not all(separator for _, separator, _ in pairs):
        raise ValueError("must be key=value, separated by commas")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _checks(text: str) -> list[object]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"must be a JSON list in the form of spec.checks: {error}") from error
    if not isinstance(found, list):
        raise ValueError("must be a JSON list in the form of spec.checks")  # noqa: TRY004 - one kind for the caller
    return found


def _port(text: str) -> int | str:
    if not text:
        raise ValueError("must be the port: a number, or the name of a container port")
    return int(text) if text.isascii() and text.isdecimal() else text


#: Where each annotation goes, and how its text is read.
_FIELDS: dict[str, tuple[tuple[str, ...], Callable[[str], object]]] = {
    REGISTER: (("service", "port"), _port),
    f"{GROUP}/service-name": (("service", "name"), str),
    f"{GROUP}/service-tags": (("service", "tags"), _listed),
    f"{GROUP}/service-meta": (("service", "meta"), _pairs),
    f"{GROUP}/consul": (("consulRefs",), lambda text: [{"name": name} for name in _listed(text)]),
    f"{GROUP}/checks": (("checks",), _checks),
}


def made(workload: Workload) -> dict[str, Any]:
    """The registration that the annotations ask for. Raises Malformed with what must be."""
    try:
        return _made(workload)
    except RecursionError as error:  # of all annotations that of the checks alone can nest
        raise Malformed(f"annotation {GROUP}/checks: must not be nested as deeply as this") from error


def _made(workload: Workload) -> dict[str, Any]:
    kind, namespace, name = workload.key
    metadata: dict[str, Any] = {"namespace": namespace, "name": name, "ownerReferences": [_owner(workload)]}
    body: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "ServiceRegistration",
        "metadata": metadata,
        "spec": _spec(workload),
    }
    metadata["annotations"] = {MADE_FOR: kind, APPLIED: _hash(body)}
    _judge(body)
    return body


def _spec(workload: Workload) -> dict[str, Any]:
    spec: dict[str, Any] = {"pods": {"selector": workload.selector}, "service": {}}
    for annotation, (path, read) in _FIELDS.items():
        if annotation in workload.annotations:
            *above, last = path
            place = spec[above[0]] if above else spec
            try:
                place[last] = read(workload.annotations[annotation].strip())
            except ValueError as error:
                raise Malformed(f"annotation {annotation}: {error}") from error
    return spec


def _owner(workload: Workload) -> dict[str, Any]:
    kind, _, name = workload.key
    return {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": workload.uid, "controller": True}


def _hash(body: objects.Json) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def _judge(body: objects.Json) -> None:
    """What the API server would refuse is said in the words of the annotations."""
    metadata = body["metadata"] | {"uid": "", "resourceVersion": "0"}
    found = objects.registration({"metadata": metadata, "spec": body["spec"]}).spec
    if isinstance(found, Reason):
        raise Malformed(f"{_annotation_of(found.message)}{found.message}")


def _annotation_of(message: str) -> str:
    """The annotation that a message about a field of the spec is about, with a colon."""
    for annotation, (path, _) in _FIELDS.items():
        if message.startswith(f"spec.{'.'.join(path)}"):
            return f"annotation {annotation}: "
    return ""


def is_made_for(body: objects.Json, uid: str) -> bool:
    """Whether a registration is the one that was made for the workload with this UID."""
    metadata = body.get("metadata") or {}
    owners = metadata.get("ownerReferences") or ()
    return MADE_FOR in (metadata.get("annotations") or {}) and any(owner.get("uid") == uid for owner in owners)


def workload_of(body: objects.Json) -> WorkloadKey | None:
    """The workload that a registration says it was made for, None where it was made by somebody."""
    metadata = body.get("metadata") or {}
    kind = (metadata.get("annotations") or {}).get(MADE_FOR)
    return WorkloadKey(kind, metadata.get("namespace", ""), metadata.get("name", "")) if kind else None


def stands(wanted: object, have: object) -> bool:
    """Whether all that is wanted is there; what others have added beside it makes no difference."""
    if isinstance(wanted, Mapping):
        return isinstance(have, Mapping) and all(stands(value, have.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(have, list) and all(any(stands(one, other) for other in have) for one in wanted)
    return wanted == have
