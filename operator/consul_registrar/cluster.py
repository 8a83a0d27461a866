"""The API server as the loop needs it: fresh reads, finalizers, statuses, Events, in the core's own types.

Decides nothing; when to call is `gather.py`'s, `lifecycle.py`'s and `reports.py`'s matter.
"""

from collections.abc import Mapping
from typing import Any, Literal

from consul_registrar import objects, times
from consul_registrar.annotated import Workload, WorkloadKey
from consul_registrar.api import GROUP, VERSION
from consul_registrar.api.access import SecretKeyRef
from consul_registrar.consuls import Unusable
from consul_registrar.gather import Unconfirmed
from consul_registrar.kube import (
    CONNECTION,
    REGISTRATION,
    Invalid,
    KubeClient,
    KubeError,
    NotFound,
    Regarding,
    add_finalizer,
    answer_gate,
    apply_registration,
    definition_leaves,
    delete_registration,
    fresh_body,
    fresh_endpoint_slices,
    fresh_object,
    fresh_pod,
    fresh_service,
    fresh_workload,
    namespace_uid,
    patch_status,
    post_event,
    read_secret,
    regarding,
    remove_finalizer,
    take_annotation,
)
from consul_registrar.model import Gate, Hidden, Pod, Reason, RegistrationKey
from consul_registrar.objects import FINALIZER, Connection, Registration
from consul_registrar.services import Backends, KubernetesService, together


class Cluster:
    """Reads and writes single objects. Everything but events raises KubeError."""

    def __init__(self, client: KubeClient, instance: str) -> None:
        self._client = client
        self._instance = instance
        self._uid = ""

    # gather.Fresh

    async def pod(self, namespace: str, name: str) -> Pod | None:
        try:
            return await fresh_pod(self._client, namespace, name)
        except KubeError as error:
            raise Unconfirmed(str(error)) from error

    async def registration(self, key: RegistrationKey) -> Registration | None:
        try:
            found = await fresh_object(self._client, REGISTRATION, key.namespace, key.name)
        except KubeError as error:
            raise Unconfirmed(str(error)) from error
        return objects.registration(found.body) if found else None

    async def service(self, namespace: str, name: str) -> KubernetesService | None:
        try:
            return await fresh_service(self._client, namespace, name)
        except KubeError as error:
            raise Unconfirmed(str(error)) from error

    async def backends(self, namespace: str, name: str) -> Backends:
        try:
            return together(await fresh_endpoint_slices(self._client, namespace, name))
        except KubeError as error:
            raise Unconfirmed(str(error)) from error

    async def definition_leaves(self) -> bool:
        try:
            return await definition_leaves(self._client, REGISTRATION)
        except KubeError as error:
            raise Unconfirmed(str(error)) from error

    # lifecycle.Finalizers

    async def add(self, registration: Registration) -> bool:
        meta = registration.meta
        seen = (meta.version, meta.finalizers)
        return await add_finalizer(self._client, _path(registration.key), meta.uid, FINALIZER, seen)

    async def remove(self, registration: Registration) -> None:
        await remove_finalizer(self._client, _path(registration.key), registration.meta.uid, FINALIZER)

    # reports.Publisher

    async def write(self, registration: Registration, wanted: Mapping[str, Any]) -> None:
        try:
            await patch_status(self._client, _path(registration.key), registration.status, wanted)
        except NotFound:
            return  # it went meanwhile; an event tells

    async def event(self, registration: Registration, reason: Reason, *, warning: bool) -> None:
        namespace, name = registration.key
        await self._post(REGISTRATION.name, namespace, name, registration.meta, reason, warning=warning)

    # gates.Answers

    async def answer(self, pod: Pod, gate: Gate) -> int:
        return await answer_gate(self._client, pod, gate, times.now())

    async def event_pod(self, pod: Pod, reason: Reason) -> None:
        about = regarding(pod)
        await post_event(self._client, about, reason, action="AnswerGate", instance=self._instance, type="Warning")

    # workloads.Registrar

    async def workload(self, key: WorkloadKey) -> Workload | None:
        return await fresh_workload(self._client, key)

    async def body(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        return await fresh_body(self._client, namespace, name)

    async def apply(self, body: Mapping[str, Any], uid: str) -> None:
        await apply_registration(self._client, body, uid)

    async def delete(self, namespace: str, name: str, uid: str) -> None:
        await delete_registration(self._client, namespace, name, uid)

    async def event_workload(self, workload: Workload, reason: Reason, *, warning: bool) -> None:
        about = Regarding("apps/v1", *workload.key, workload.uid, workload.version)
        kind: Literal["Normal", "Warning"] = "Warning" if warning else "Normal"
        await post_event(self._client, about, reason, action="Register", instance=self._instance, type=kind)

    # connection_status.Publisher

    async def write_connection(self, connection: Connection, wanted: Mapping[str, Any]) -> None:
        try:
            await patch_status(self._client, CONNECTION.path("", connection.name), connection.status, wanted)
        except NotFound:
            return

    async def event_connection(self, connection: Connection, reason: Reason, *, warning: bool) -> None:
        await self._post(CONNECTION.name, "", connection.name, connection.meta, reason, warning=warning)

    async def hold_connection(self, connection: Connection) -> None:
        await add_finalizer(self._client, CONNECTION.path("", connection.name), connection.meta.uid, FINALIZER)

    async def release_connection(self, connection: Connection) -> None:
        await remove_finalizer(self._client, CONNECTION.path("", connection.name), connection.meta.uid, FINALIZER)

    async def use_up(self, connection: Connection, annotation: str) -> bool:
        path, value = CONNECTION.path("", connection.name), connection.meta.annotations[annotation]
        return await take_annotation(self._client, path, connection.meta.uid, annotation, value)

    # credentials.ReadSecret

    async def secret(self, ref: SecretKeyRef) -> str:
        """The text of one key. Raises Unusable where it can't be had."""
        try:
            value, _ = await read_secret(self._client, ref.namespace, ref.name, ref.key)
        except (NotFound, Invalid) as error:
            raise Unusable(Reason("SecretNotFound", str(error))) from error
        except KubeError as error:
            raise Unusable(Reason("SecretUnreadable", f"Secret {ref.namespace}/{ref.name}: {error}")) from error
        return value

    # secret_values.Read

    async def header(self, namespace: str, name: str, key: str) -> Hidden | Reason:
        """The value of one key, with what tells it from others."""
        try:
            value, version = await read_secret(self._client, namespace, name, key)
        except (NotFound, Invalid) as error:
            return Reason("SecretNotFound", str(error))
        except KubeError as error:
            return Reason("SecretUnreadable", f"Secret {namespace}/{name}: {error}")
        return Hidden(value.strip(), version)

    # credentials.ReadUid

    async def uid(self) -> str:
        """What tells this cluster from every other: the UID of its kube-system. Raises Unusable where it isn't read."""
        if not self._uid:
            try:
                self._uid = await namespace_uid(self._client, "kube-system")
            except KubeError as error:
                message = f"the UID of the namespace kube-system, by which this cluster claims its name: {error}"
                raise Unusable(Reason("ClusterUidUnreadable", message)) from error
        return self._uid

    async def _post(
        self, kind: str, namespace: str, name: str, meta: objects.Meta, reason: Reason, *, warning: bool
    ) -> None:
        about = Regarding(f"{GROUP}/{VERSION}", kind, namespace, name, meta.uid, meta.version)
        await post_event(
            self._client,
            about,
            reason,
            action="Reconcile",
            instance=self._instance,
            type="Warning" if warning else "Normal",
        )


def _path(key: RegistrationKey) -> str:
    return REGISTRATION.path(key.namespace, key.name)
