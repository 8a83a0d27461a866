"""Makes a registration for each workload that is annotated, keeps it as the annotations say, and takes it back.

    the workload                     the registration of its name      then
    ------------------------------   -------------------------------   --------------------------------------
    is annotated                     there is none                     made, owned by the workload
    …                                ours, otherwise than applied      applied anew: what annotations say wins
    …                                ours, edited elsewhere            nothing: that is people's
    …                                somebody else's                   nothing; RegistrationNotOurs
    is annotated wrongly             any                               nothing; AnnotationInvalid
    isn't annotated (any more)       ours                              deleted
    is gone                          ours                              nothing: Kubernetes deletes what it owned

What is made is decided in `annotated.py`. All is decided by a fresh read of the registration; nothing is removed but on
a fresh read of the workload, too.
"""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from consul_registrar.annotated import (
    APPLIED,
    REGISTER,
    Malformed,
    Workload,
    WorkloadKey,
    is_made_for,
    made,
    stands,
    workload_of,
)
from consul_registrar.kube import Conflict, CustomObject, Forbidden, Invalid, KubeError, Store
from consul_registrar.model import Reason
from consul_registrar.queue import Queue

logger = logging.getLogger(__name__)

#: Workloads that are worked on at a time.
_AT_ONCE = 4
#: Seconds until another look at what somebody must change first, or at a registration that is being deleted.
_LOOKS_AGAIN = 30.0
_IS_GONE = 1.0


class Registrar(Protocol):
    """The API server. All but `event_workload` raise KubeError."""

    async def workload(self, key: WorkloadKey) -> Workload | None: ...
    async def body(self, namespace: str, name: str) -> Mapping[str, Any] | None: ...
    async def apply(self, body: Mapping[str, Any], uid: str) -> None: ...
    async def delete(self, namespace: str, name: str, uid: str) -> None: ...
    async def event_workload(self, workload: Workload, reason: Reason, *, warning: bool) -> None: ...


class Workloads:
    """The annotated workloads; takes all of them from their reflectors, and registrations from `beside`."""

    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar
        self._annotated: dict[WorkloadKey, Workload] = {}
        self._keys: dict[str, WorkloadKey] = {}
        self._made: dict[str, WorkloadKey] = {}
        self._said: dict[WorkloadKey, Reason] = {}
        self._queue: Queue[WorkloadKey] = Queue()
        self._running = False

    # what arrives

    def put(self, obj: Workload) -> None:
        """A workload is new, or has changed; most changes are of its status, and concern nobody."""
        before = self._annotated.get(obj.key)
        if REGISTER in obj.annotations and not obj.deleting:
            self._annotated[obj.key] = obj
            self._keys[obj.uid] = obj.key
            if before is None or _asks(before) != _asks(obj):
                self._look(obj.key)
        elif before is not None:
            self._forget(obj.uid)

    def remove(self, uid: str) -> None:
        """A workload is gone; what it owned goes with it."""
        self._forget(uid)

    vanished = remove

    def _forget(self, uid: str) -> None:
        key = self._keys.pop(uid, None)
        known = self._annotated.get(key) if key else None
        if key is not None and known is not None and known.uid == uid:
            del self._annotated[key]
            self._said.pop(key, None)
            self._look(key)

    def beside(self, store: Store[CustomObject]) -> Store[CustomObject]:
        """The store of registrations, with an eye on those that were made: what people do to them may be undone."""
        return _Beside(store, self)

    def see(self, obj: CustomObject) -> None:
        """A registration is new, or has changed."""
        key = workload_of(obj.body)
        if key is not None:
            self._made[obj.uid] = key
            self._look(key)
        elif (other := self._made.pop(obj.uid, None)) is not None:
            self._look(other)

    def lose(self, uid: str) -> None:
        """A registration is gone."""
        key = self._made.pop(uid, None)
        if key is not None:
            self._look(key)

    def _look(self, key: WorkloadKey) -> None:
        if self._running:
            self._queue.add(key)

    # what is done

    async def run(self) -> None:
        """Work until cancelled, beginning with all that are annotated and all that was made."""
        self._running = True
        try:
            for key in {*self._annotated, *self._made.values()}:
                self._queue.add(key)
            await self._queue.run(self._serve, _AT_ONCE)
        finally:
            self._running = False

    async def _serve(self, key: WorkloadKey) -> None:
        try:
            await self._say(key, await self._tried(key))
        except Exception:
            logger.exception("%s: unexpected error", key)
            self._queue.retry(key)

    async def _tried(self, key: WorkloadKey) -> Reason | None:
        """What is to be said once it was tried to see to it."""
        try:
            said = await self._see_to(key)
        except KubeError as error:
            return self._failed(key, error)
        self._queue.forget(key)
        return said

    async def _see_to(self, key: WorkloadKey) -> Reason | None:
        workload = self._annotated.get(key)
        if workload is not None:
            return await self._make(workload)
        await self._take_back(key)
        return None

    async def _make(self, workload: Workload) -> Reason | None:
        """Make the registration what the annotations say; why that isn't done."""
        try:
            wanted = made(workload)
        except Malformed as error:
            return error.reason
        key = workload.key
        have = await self._registrar.body(key.namespace, key.name)
        if have is not None and not is_made_for(have, workload.uid):
            return await self._not_ours(key, have)
        if have is not None and have["metadata"].get("deletionTimestamp"):
            self._queue.add_after(key, _IS_GONE)
        elif have is None or not _is_applied(wanted, have):
            await self._registrar.apply(wanted, have["metadata"]["uid"] if have else "")
            logger.info("%s: registration %s", key, "made" if have is None else "applied anew")
        return None

    async def _not_ours(self, key: WorkloadKey, have: Mapping[str, Any]) -> Reason | None:
        if have["metadata"].get("deletionTimestamp") or workload_of(have) == key:
            self._queue.add_after(key, _IS_GONE)  # that of a workload of the same name before goes
            return None
        self._queue.add_after(key, _LOOKS_AGAIN)
        message = (
            f"the ServiceRegistration {key.name!r} was not made for this {key.kind}, so it is left alone: delete it, "
            f"or take the annotation {REGISTER} away"
        )
        return Reason("RegistrationNotOurs", message)

    async def _take_back(self, key: WorkloadKey) -> None:
        """Delete what was made for a workload that is there and isn't annotated any more."""
        have = await self._registrar.body(key.namespace, key.name)
        if have is None or workload_of(have) != key:
            return
        workload = await self._registrar.workload(key)
        if workload is None or REGISTER in workload.annotations or not is_made_for(have, workload.uid):
            return
        await self._registrar.delete(key.namespace, key.name, have["metadata"]["uid"])
        logger.info("%s: registration deleted, the annotation %s is gone", key, REGISTER)

    def _failed(self, key: WorkloadKey, error: KubeError) -> Reason | None:
        """What the API server refuses is somebody's to mend; the rest is tried again."""
        if isinstance(error, Invalid):
            message = f"the API server refuses what the annotations ask for: {error}"
            return Reason("RegistrationRefused", message)
        at_least = _LOOKS_AGAIN if isinstance(error, Forbidden) else 0.0
        wait = self._queue.retry(key, at_least)
        level = logging.DEBUG if isinstance(error, Conflict) else logging.WARNING
        logger.log(level, "%s: trying again in %.1f s: %s", key, wait, error)
        return self._said.get(key)

    async def _say(self, key: WorkloadKey, reason: Reason | None) -> None:
        """An Event on the workload and a log line, when there is something new to say."""
        workload = self._annotated.get(key)
        if reason is None or workload is None:
            self._said.pop(key, None)
        elif self._said.get(key) != reason:
            self._said[key] = reason
            logger.warning("%s: %s: %s", key, reason.code, reason.message)
            await self._registrar.event_workload(workload, reason, warning=True)


class _Beside:
    """Hands registrations on, and lets `Workloads` see them when more than their status has changed."""

    def __init__(self, store: Store[CustomObject], workloads: Workloads) -> None:
        self._store = store
        self._workloads = workloads
        self._seen: dict[str, object] = {}

    def put(self, obj: CustomObject) -> None:
        self._store.put(obj)
        metadata: Any = obj.body.get("metadata") or {}
        looks = (obj.generation, obj.deleting, metadata.get("annotations"), metadata.get("ownerReferences"))
        if self._seen.get(obj.uid) != looks:
            self._seen[obj.uid] = looks
            self._workloads.see(obj)

    def remove(self, uid: str) -> None:
        self._store.remove(uid)
        self._lose(uid)

    def vanished(self, uid: str) -> None:
        self._store.vanished(uid)
        self._lose(uid)

    def _lose(self, uid: str) -> None:
        self._seen.pop(uid, None)
        self._workloads.lose(uid)


def _asks(workload: Workload) -> object:
    return workload.uid, workload.annotations, workload.selector


def _is_applied(wanted: Mapping[str, Any], have: Mapping[str, Any]) -> bool:
    annotations = have["metadata"].get("annotations") or {}
    same = annotations.get(APPLIED) == wanted["metadata"]["annotations"][APPLIED]
    return same and stands(wanted["spec"], have.get("spec"))
