"""Deployments, StatefulSets and DaemonSets, as far as they ask for a registration; and the registrations made for them.

Decided here: how they are read and how a made registration is written safely. What is made is decided elsewhere.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast
from urllib.parse import quote

import msgspec

from consul_registrar.annotated import Workload, WorkloadKey
from consul_registrar.api import GROUP
from consul_registrar.kube.client import KubeClient
from consul_registrar.kube.codec import Codec, JsonObject, Page, version_of
from consul_registrar.kube.errors import Conflict, NotFound
from consul_registrar.kube.intake import Store
from consul_registrar.kube.reflector import Reflector
from consul_registrar.kube.resources import REGISTRATION

#: Our field manager for registrations that are made: what it doesn't own is people's.
MANAGER = "consul-registrar-annotations"

_PLURALS = {"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets"}


class _Meta(msgspec.Struct, rename="camel"):
    uid: str | None = None
    name: str | None = None
    namespace: str | None = None
    resource_version: str | None = None
    deletion_timestamp: str | None = None
    annotations: dict[str, str] | None = None


class _Spec(msgspec.Struct):
    selector: dict[str, object] | None = None


class _Wire(msgspec.Struct):
    metadata: _Meta | None = None
    spec: _Spec | None = None


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str | None = None


class _List(msgspec.Struct):
    metadata: _ListMeta | None = None
    items: list[_Wire] | None = None


def _workload(kind: str, wire: _Wire) -> Workload:
    meta, spec = wire.metadata or _Meta(), wire.spec or _Spec()
    ours = {key: text for key, text in (meta.annotations or {}).items() if key.startswith(f"{GROUP}/")}
    return Workload(
        WorkloadKey(kind, meta.namespace or "", meta.name or ""),
        uid=meta.uid or "",
        version=version_of(meta.resource_version),
        annotations=ours,
        selector=spec.selector or {},
        deleting=meta.deletion_timestamp is not None,
    )


def _page(kind: str, raw: bytes) -> Page[Workload]:
    wire = msgspec.json.decode(raw, type=_List)
    meta = wire.metadata or _ListMeta()
    items = tuple(_workload(kind, item) for item in wire.items or ())
    return Page(items, version_of(meta.resource_version))


def _obj(kind: str, raw: bytes | msgspec.Raw) -> Workload:
    return _workload(kind, msgspec.json.decode(raw, type=_Wire))


#: Each kind with its codec.
WORKLOADS: dict[str, Codec[Workload]] = {
    kind: Codec(kind, page=partial(_page, kind), obj=partial(_obj, kind)) for kind in _PLURALS
}


def watch_workloads(
    client: KubeClient, store: Store[Workload], namespaces: Sequence[str], resync: float
) -> list[Reflector[Workload]]:
    """What feeds the store with all three kinds; no namespaces: of the whole cluster. `resync` in seconds."""
    return [
        Reflector(client, workloads_path(kind, namespace), codec, store, resync=resync)
        for kind, codec in WORKLOADS.items()
        for namespace in namespaces or ("",)
    ]


def workloads_path(kind: str, namespace: str = "") -> str:
    """The path of all workloads of a kind, or of those in a namespace."""
    inside = f"/namespaces/{quote(namespace)}" if namespace else ""
    return f"/apis/apps/v1{inside}/{_PLURALS[kind]}"


async def fresh_workload(client: KubeClient, key: WorkloadKey) -> Workload | None:
    """The workload as the API server has it now; None where it has none. Raises `KubeError`."""
    if key.kind not in _PLURALS:
        return None
    try:
        return WORKLOADS[key.kind].obj(await client.get(f"{workloads_path(key.kind, key.namespace)}/{quote(key.name)}"))
    except NotFound:
        return None


async def fresh_body(client: KubeClient, namespace: str, name: str) -> JsonObject | None:
    """A registration's whole object as the API server has it now; None where it has none. Raises `KubeError`."""
    try:
        raw = await client.get(REGISTRATION.path(quote(namespace), quote(name)))
    except NotFound:
        return None
    return cast("JsonObject", msgspec.json.decode(raw))


async def apply_registration(client: KubeClient, body: Mapping[str, Any], uid: str) -> None:
    """Apply a registration by our own field manager; `uid` is that of the one that stands, "" where there is none.

    What is there already is taken over field by field. A new one is never forced: where somebody has made one of that
    name meanwhile and says otherwise, that is a `Conflict`. Raises `KubeError`.
    """
    metadata = body["metadata"]
    path = REGISTRATION.path(quote(metadata["namespace"]), quote(metadata["name"]))
    same = {**body, "metadata": {**metadata, "uid": uid}} if uid else body
    await client.apply(path, same, MANAGER, force=bool(uid))


async def delete_registration(client: KubeClient, namespace: str, name: str, uid: str) -> None:
    """Delete that very registration; that it is gone, or another one has its name, is fine. Raises `KubeError`."""
    try:
        await client.delete(REGISTRATION.path(quote(namespace), quote(name)), {"preconditions": {"uid": uid}})
    except (NotFound, Conflict):
        return
