"""What we write to Kubernetes, and the reads that must be fresh: status, finalizers, Secrets.

Decided here: how a write is made safe against others writing the same object. Whether and what to write, and when to
try again, is the callers'. Events are in `events.py`.
"""

import base64
import binascii
import logging
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

import msgspec

from consul_registrar.api import GROUP
from consul_registrar.kube.client import KubeClient
from consul_registrar.kube.codec import JsonObject, version_of
from consul_registrar.kube.errors import Conflict, Forbidden, Invalid, NotFound
from consul_registrar.kube.records import PODS
from consul_registrar.kube.resources import CustomObject, Kind, codec_of
from consul_registrar.kube.service_records import SERVICE_NAME, SERVICES, SLICES
from consul_registrar.model import GATE, Gate, Pod
from consul_registrar.services import EndpointSlice, KubernetesService

_log = logging.getLogger(__name__)

#: How often a finalizer is tried against others who change the list at the same time.
_ATTEMPTS = 5


def merge_patch(previous: JsonObject, wanted: JsonObject) -> dict[str, object]:
    """The merge patch (RFC 7386) that makes `previous` into `wanted`: nulls for what goes, `{}` if equal."""
    patch: dict[str, object] = {key: None for key in previous if key not in wanted}
    for key, value in wanted.items():
        before = previous.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            inner = merge_patch(before, value)
            if inner:
                patch[key] = inner
        elif before != value or key not in previous:
            patch[key] = value
    return patch


async def patch_status(client: KubeClient, path: str, previous: JsonObject, wanted: JsonObject) -> bool:
    """Make the status of the object at `path` what is wanted; says whether anything had to be written.

    `previous` is the status as it was read last. Last writer wins; only the leader writes. Raises `KubeError`;
    `NotFound`: the object went meanwhile.
    """
    patch = merge_patch(previous, wanted)
    if patch:
        await client.merge_patch(path, {"status": patch}, subresource="status")
    return bool(patch)


class _Meta(msgspec.Struct):
    uid: str = ""
    resourceVersion: str = ""  # noqa: N815 - the wire's names
    deletionTimestamp: str | None = None  # noqa: N815
    finalizers: list[str] | None = None


class _Object(msgspec.Struct):
    metadata: _Meta


async def add_finalizer(
    client: KubeClient, path: str, uid: str, finalizer: str, seen: tuple[int, Sequence[str]] | None = None
) -> bool:
    """Add a finalizer, unless the object has it; whether it has it now. Raises `KubeError`.

    It has not where the object is being deleted, or is not that of the UID any more. `seen`: version and finalizers of
    the object as it was seen last; while it is of that version it isn't read again.
    """
    if seen is not None and await _is_added(client, path, uid, finalizer, *seen):
        return True
    meta = await _edit_finalizers(client, path, uid, finalizer, _addition)
    return meta is not None and (finalizer in (meta.finalizers or ()) or meta.deletionTimestamp is None)


async def _is_added(
    client: KubeClient, path: str, uid: str, finalizer: str, version: int, finalizers: Sequence[str]
) -> bool:
    """Whether the object was as it was seen, so that the finalizer could be added to what it had."""
    operations: Operations = [
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": str(version)},
        {"op": "add", "path": "/metadata/finalizers", "value": list(dict.fromkeys([*finalizers, finalizer]))},
    ]
    try:
        await client.json_patch(path, operations)
    except (NotFound, Conflict, Invalid):  # a test that fails is answered with 422
        return False
    return True


async def remove_finalizer(client: KubeClient, path: str, uid: str, finalizer: str) -> None:
    """Remove a finalizer; that it, or the object, is gone already is fine. Raises `KubeError`."""
    await _edit_finalizers(client, path, uid, finalizer, _removal)


Operations = list[dict[str, object]]


def _addition(meta: _Meta, finalizer: str) -> Operations:
    if finalizer in (meta.finalizers or ()) or meta.deletionTimestamp:  # then the API server takes none any more
        return []
    if not meta.finalizers:  # there may be no list to test, so the version stands for "still none"
        return [
            {"op": "test", "path": "/metadata/resourceVersion", "value": meta.resourceVersion},
            {"op": "add", "path": "/metadata/finalizers", "value": [finalizer]},
        ]
    return [{"op": "add", "path": "/metadata/finalizers/-", "value": finalizer}]


def _removal(meta: _Meta, finalizer: str) -> Operations:
    if finalizer not in (meta.finalizers or ()):
        return []
    place = f"/metadata/finalizers/{(meta.finalizers or []).index(finalizer)}"
    return [{"op": "test", "path": place, "value": finalizer}, {"op": "remove", "path": place}]


async def _edit_finalizers(
    client: KubeClient, path: str, uid: str, finalizer: str, edit: Callable[[_Meta, str], Operations]
) -> _Meta | None:
    """Edit the finalizers; returns what the object was like before that, None where there is no such object."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            meta = msgspec.json.decode(await client.get(path), type=_Object).metadata
            if meta.uid != uid:
                return None
            operations = edit(meta, finalizer)
            if operations:
                same_object = {"op": "test", "path": "/metadata/uid", "value": uid}
                await client.json_patch(path, [same_object, *operations])
        except NotFound:
            return None
        except (Conflict, Invalid) as error:  # a test that fails is answered with 422
            if attempt == _ATTEMPTS:
                raise
            _log.debug("finalizers of %s changed meanwhile, reading again: %s", path, error)
        else:
            return meta
    return None


async def take_annotation(client: KubeClient, path: str, uid: str, name: str, value: str) -> bool:
    """Remove an annotation that has this value; whether it was there to be removed. Raises `KubeError`."""
    place = "/metadata/annotations/" + name.replace("~", "~0").replace("/", "~1")
    operations: Operations = [
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "test", "path": place, "value": value},
        {"op": "remove", "path": place},
    ]
    try:
        await client.json_patch(path, operations)
    except (NotFound, Conflict, Invalid):  # a test that fails is answered with 422
        return False
    return True


async def answer_gate(client: KubeClient, pod: Pod, gate: Gate, now: str) -> int:
    """Set the condition of our readiness gate, of that Pod and no successor; nothing else of its status is touched.

    `now` (RFC 3339) is taken where the status changes. Returns the Pod's resourceVersion after that, 0 where it went
    meanwhile. Raises `KubeError`.
    """
    condition = {"type": GATE, "status": gate.status, "reason": gate.reason, "message": gate.message}
    if pod.gate is None or pod.gate.status != gate.status:
        condition["lastTransitionTime"] = now
    path = f"/api/v1/namespaces/{quote(pod.namespace)}/pods/{quote(pod.name)}"
    body = {"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}}
    try:
        answer = await client.strategic_patch(path, body, subresource="status")
    except (NotFound, Invalid):  # "uid is immutable" is how a successor of the same name is told
        known = await fresh_pod(client, pod.namespace, pod.name)
        if known is not None and known.uid == pod.uid:
            raise
        return 0
    return version_of(msgspec.json.decode(answer, type=_Object).metadata.resourceVersion)


class _Deletable(msgspec.Struct):
    deletionTimestamp: str | None = None  # noqa: N815 - the wire's name


class _Definition(msgspec.Struct):
    metadata: _Deletable


async def definition_leaves(client: KubeClient, kind: Kind) -> bool:
    """Whether the kind's definition (CRD) is deleted, or being deleted: then its objects go since it does.

    Where the operator may not read it, nobody can say, and the objects' deletion is taken for what it looks like.
    Raises `KubeError`.
    """
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind.plural}.{GROUP}"
    try:
        found = msgspec.json.decode(await client.get(path), type=_Definition)
    except NotFound:
        return True
    except Forbidden as error:
        _log.debug("can't see whether the definition of %s is being deleted: %s", kind.plural, error)
        return False
    return found.metadata.deletionTimestamp is not None


async def fresh_pod(client: KubeClient, namespace: str, name: str) -> Pod | None:
    """The Pod as the API server has it now (a quorum read); None where it has none. Raises `KubeError`.

    A Pod of the same name may be another one: compare the UID.
    """
    try:
        return PODS.obj(await client.get(f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(name)}"))
    except NotFound:
        return None


async def fresh_service(client: KubeClient, namespace: str, name: str) -> KubernetesService | None:
    """As `fresh_pod`, for a Service."""
    try:
        return SERVICES.obj(await client.get(f"/api/v1/namespaces/{quote(namespace)}/services/{quote(name)}"))
    except NotFound:
        return None


async def fresh_endpoint_slices(client: KubeClient, namespace: str, service: str) -> tuple[EndpointSlice, ...]:
    """All EndpointSlices of a Service as the API server has them now, in one quorum read. Raises `KubeError`."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{quote(namespace)}/endpointslices"
    return SLICES.page(await client.get(path, {"labelSelector": f"{SERVICE_NAME}={service}"})).items


async def fresh_object(client: KubeClient, kind: Kind, namespace: str, name: str) -> CustomObject | None:
    """A custom resource as the API server has it now; None where it has none, or lacks the kind. Raises `KubeError`."""
    try:
        return codec_of(kind).obj(await client.get(kind.path(quote(namespace), quote(name))))
    except NotFound:
        return None


async def namespace_uid(client: KubeClient, name: str) -> str:
    """The UID of a namespace. Raises `KubeError`."""
    return msgspec.json.decode(await client.get(f"/api/v1/namespaces/{quote(name)}"), type=_Object).metadata.uid


class _SecretMeta(msgspec.Struct, rename="camel"):
    uid: str = ""
    resource_version: str = ""


class _Secret(msgspec.Struct):
    data: dict[str, str] | None = None
    metadata: _SecretMeta = msgspec.field(default_factory=_SecretMeta)


async def read_secret(client: KubeClient, namespace: str, name: str, key: str) -> tuple[str, str]:
    """The text of one key of a Secret, and what names the Secret's version. Never logged, nor part of an error.

    Raises `NotFound` where Secret or key are missing, `Invalid` where the value is no text, else `KubeError`.
    """
    secret = f"Secret {namespace}/{name}"
    try:
        raw = await client.get(f"/api/v1/namespaces/{quote(namespace)}/secrets/{quote(name)}")
    except NotFound:
        raise NotFound(f"{secret} does not exist") from None
    found = msgspec.json.decode(raw, type=_Secret)
    encoded = (found.data or {}).get(key)
    if encoded is None:
        raise NotFound(f"{secret} has no key {key!r}")
    try:
        value = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Invalid(f"{secret}: the value of key {key!r} is not text") from None
    return value, f"{found.metadata.uid}/{found.metadata.resource_version}"
