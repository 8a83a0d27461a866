"""The custom resources, through kopf: every event of theirs reaches a store in the core's loop.

kopf watches and delivers, but never tells of an object deleted while its watch was cut, and ends on some errors. So

- the collections are also listed completely: at the start (then `synced` is set), after every start of kopf, and every
  `RESYNC` seconds; `intake.py` merges both sources and sweeps;
- kopf is started again when it ends, whatever ended it;
- kopf is started only while the resources are installed: it never notices when they appear later.

Handlers return nothing and leave the patch alone, so kopf writes nothing to the objects. What is done about them is
decided elsewhere.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import kopf
import msgspec

from consul_registrar.api import GROUP, VERSION
from consul_registrar.backoff import Backoff
from consul_registrar.kube.client import KubeClient, Login
from consul_registrar.kube.codec import Codec, Deleted, Event, JsonObject, Page, Put, version_of
from consul_registrar.kube.embedded import run_kopf
from consul_registrar.kube.errors import KubeError, NotFound
from consul_registrar.kube.intake import Intake, StaleList, Store
from consul_registrar.kube.listing import complete_list

_log = logging.getLogger(__name__)

API_VERSION = f"{GROUP}/{VERSION}"

#: Seconds between complete lists while all is well: how long a missed deletion can go unnoticed at most.
RESYNC = 300.0
#: Seconds between two lists at least, however often somebody has read otherwise.
_SPACING = 2.0
#: Seconds after a start of kopf at which to list as well: deletions between our list and kopf's are seen by neither.
_AFTER_START = (5.0, 30.0)
#: Seconds after which kopf is believed to run well, and the next end of it is not the last one's repetition.
_LASTED = 60.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A custom resource of ours."""

    name: str
    plural: str
    namespaced: bool

    def collection(self, namespace: str = "") -> str:
        """The path of all its objects, or of those in a namespace."""
        inside = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        return f"/apis/{API_VERSION}{inside}/{self.plural}"

    def path(self, namespace: str, name: str) -> str:
        """The path of one object; the namespace of a cluster-scoped one is ignored."""
        return f"{self.collection(namespace)}/{name}"


REGISTRATION = Kind("ServiceRegistration", "serviceregistrations", namespaced=True)
CONNECTION = Kind("ConsulConnection", "consulconnections", namespaced=False)


@dataclass(frozen=True, slots=True)
class CustomObject:
    """A custom resource as it was delivered; `body` is the whole object, undecoded, and must not be changed."""

    kind: str
    uid: str
    namespace: str
    name: str
    version: int
    generation: int
    deleting: bool
    body: JsonObject


def custom_object(kind: Kind, body: JsonObject) -> CustomObject:
    """The record of a body from the API server."""
    meta = cast("JsonObject", body.get("metadata") or {})
    generation = meta.get("generation")
    return CustomObject(
        kind=kind.name,
        uid=str(meta.get("uid") or ""),
        namespace=str(meta.get("namespace") or ""),
        name=str(meta.get("name") or ""),
        version=version_of(meta.get("resourceVersion")),
        generation=generation if isinstance(generation, int) else 0,
        deleting=meta.get("deletionTimestamp") is not None,
        body=body,
    )


def codec_of(kind: Kind) -> Codec[CustomObject]:
    """How lists and single objects of the kind are read. Items of a list lack their kind, so it is added."""

    def page(raw: bytes) -> Page[CustomObject]:
        wire = msgspec.json.decode(raw, type=dict[str, object])
        meta = cast("JsonObject", wire.get("metadata") or {})
        items = cast("Sequence[JsonObject]", wire.get("items") or ())
        objects = (custom_object(kind, {"apiVersion": API_VERSION, "kind": kind.name, **item}) for item in items)
        return Page(tuple(objects), version_of(meta.get("resourceVersion")))

    def obj(raw: bytes | msgspec.Raw) -> CustomObject:
        return custom_object(kind, msgspec.json.decode(raw, type=dict[str, object]))

    return Codec(kind.name, page, obj)


class CustomResources:
    """Feeds one store for each kind. No namespaces: registrations of the whole cluster."""

    def __init__(
        self,
        client: KubeClient,
        login: Login,
        *,
        registrations: Store[CustomObject],
        connections: Store[CustomObject],
        namespaces: Sequence[str] = (),
        resync: float = RESYNC,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.synced = asyncio.Event()
        self._client = client
        self._login = login
        self._namespaces = tuple(namespaces)
        self._resync = resync
        self._clock = clock
        self._heard = clock()
        self._intakes = {REGISTRATION: Intake(registrations), CONNECTION: Intake(connections)}
        self._installed = asyncio.Event()
        self._missing = asyncio.Event()
        self._list_now = asyncio.Event()

    def staleness(self) -> float:
        """Seconds since the last event or complete list; at most `resync` and a little, while all is well."""
        return self._clock() - self._heard

    def doubt(self) -> None:
        """A fresh read has contradicted what was delivered: list again soon."""
        self._list_now.set()

    async def run(self) -> None:
        """List and watch for ever; returns only when cancelled, after kopf has stopped."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_listing(), name="list custom resources")
            tasks.create_task(self._keep_watching(), name="watch custom resources")

    async def _keep_listing(self) -> None:
        backoff = Backoff(0.5, 30.0, random.random)
        while True:
            self._list_now.clear()
            began = self._clock()
            if await self._list():
                backoff.reset()
                await _set_within(self._list_now, self._resync)
                await asyncio.sleep(began + _SPACING - self._clock())
            else:
                await asyncio.sleep(backoff())

    async def _list(self) -> bool:
        """List both kinds completely; says whether that went well."""
        try:
            await self._see_installed()
            for kind, intake in self._intakes.items():
                await complete_list(self._client, self._paths(kind), codec_of(kind), intake)
        except NotFound as error:
            self._note_missing(error)
        except (KubeError, StaleList, msgspec.DecodeError) as error:
            _log.warning("can't list the custom resources, trying again: %s", error)
        except Exception:
            _log.exception("can't list the custom resources, trying again")
        else:
            self._note_listed()
            return True
        return False

    def _paths(self, kind: Kind) -> list[str]:
        return [kind.collection(namespace) for namespace in (self._namespaces if kind.namespaced else ()) or ("",)]

    async def _see_installed(self) -> None:
        """Raises `NotFound` unless the API server tells clients of both kinds: what it doesn't, kopf can't find."""
        known = await self._client.get(f"/apis/{API_VERSION}")
        names = {resource.name for resource in msgspec.json.decode(known, type=_Discovery).resources}
        missing = [kind.plural for kind in self._intakes if kind.plural not in names]
        if missing:
            raise NotFound(f"{API_VERSION} lacks {', '.join(missing)}")

    def _note_missing(self, error: NotFound) -> None:
        if not self._missing.is_set():
            _log.error("the custom resource definitions of %s are not installed (apply crds/): %s", GROUP, error)
        self._missing.set()
        self._installed.clear()

    def _note_listed(self) -> None:
        if self._missing.is_set():
            _log.info("the custom resource definitions of %s are installed now", GROUP)
        self._missing.clear()
        self._installed.set()
        self._heard = self._clock()
        self.synced.set()

    async def _keep_watching(self) -> None:
        backoff = Backoff(1.0, 30.0, random.random)
        while True:
            await self._installed.wait()
            began = self._clock()
            await self._watch_once()
            self._list_now.set()
            if self._clock() - began > _LASTED:
                backoff.reset()
            await asyncio.sleep(backoff())

    async def _watch_once(self) -> None:
        """Run kopf until it ends, or until the resources are found missing."""
        kopf_runs = asyncio.create_task(run_kopf(self._registry(), self._namespaces), name="kopf")
        beside = [asyncio.create_task(self._list_after_start()), asyncio.create_task(self._missing.wait())]
        try:
            await asyncio.wait([kopf_runs, beside[1]], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (kopf_runs, *beside):
                task.cancel()
            outcome, *_ = await asyncio.gather(kopf_runs, *beside, return_exceptions=True)
        if not self._missing.is_set():
            _log.warning("kopf has ended and is started again: %r", outcome)

    async def _list_after_start(self) -> None:
        for seconds in _AFTER_START:
            await asyncio.sleep(seconds)
            self._list_now.set()

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        loop = asyncio.get_running_loop()

        @kopf.on.login(registry=registry, backoff=5)
        async def log_in(**_: object) -> kopf.ConnectionInfo:
            return await self._login()

        for kind in self._intakes:
            hand_over = partial(self._receive, kind)

            @kopf.on.event(GROUP, VERSION, kind.plural, registry=registry)
            async def deliver(event: kopf.RawEvent, hand_over: _HandOver = hand_over, **_: object) -> None:
                loop.call_soon_threadsafe(hand_over, event["type"], cast("JsonObject", event["object"]))

        return registry

    def _receive(self, kind: Kind, event_type: str | None, body: JsonObject) -> None:
        """Take in one of kopf's events; `event_type` is None for an object of its own list. In the core's loop."""
        self._heard = self._clock()
        self._intakes[kind].take(_event(event_type, custom_object(kind, body)))


_HandOver = Callable[[str | None, JsonObject], None]


def _event(event_type: str | None, obj: CustomObject) -> Event[CustomObject]:
    return Deleted(obj.uid, obj.version, obj.deleting) if event_type == "DELETED" else Put(obj)


class _Resource(msgspec.Struct):
    name: str


class _Discovery(msgspec.Struct):
    resources: list[_Resource]


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
