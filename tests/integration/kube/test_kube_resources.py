"""The feed of custom resources: kopf and complete lists together, against a real API server."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiohttp import web
from kube_faults import Proxy, Shelf, background, eventually, install

from consul_registrar.api import GROUP
from consul_registrar.kube import CONNECTION, REGISTRATION, CustomObject, CustomResources, KubeClient, fresh_object
from devcluster.cluster import Cluster


@dataclass
class Fed:
    """The feed under test and what it filled."""

    feed: CustomResources
    registrations: Shelf[CustomObject]
    connections: Shelf[CustomObject]

    def specs(self) -> dict[str, object]:
        return {obj.name: obj.body["spec"] for obj in self.registrations.held.values()}


@asynccontextmanager
async def fed(client: KubeClient, proxy: Proxy, *namespaces: str, resync: float = 300.0) -> AsyncIterator[Fed]:
    registrations, connections = Shelf[CustomObject](), Shelf[CustomObject]()
    feed = CustomResources(
        client,
        proxy.login,
        registrations=registrations,
        connections=connections,
        namespaces=namespaces,
        resync=resync,
    )
    async with background(feed.run()):
        yield Fed(feed, registrations, connections)


async def create(client: KubeClient, namespace: str, name: str, **spec: object) -> None:
    await client.create(REGISTRATION.collection(namespace), body_of(name, spec))


def body_of(name: str, spec: dict[str, object]) -> dict[str, object]:
    return {"apiVersion": f"{GROUP}/v1alpha1", "kind": "ServiceRegistration", "metadata": {"name": name}, "spec": spec}


def kopf_watches(proxy: Proxy) -> int:
    """Our own client never watches these collections, so every watch of them is kopf's."""
    return sum(REGISTRATION.plural in request.path and "watch" in request.query for request in proxy.requests)


def complete_lists(proxy: Proxy) -> int:
    """Lists of ours: kopf's page size is the same, but it names itself."""
    return sum(
        REGISTRATION.plural in request.path and request.headers.get("User-Agent") == "consul-registrar"
        for request in proxy.requests
    )


async def test_what_is_created_edited_and_deleted_is_delivered_and_left_unmarked(
    client: KubeClient, proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    await create(client, namespace, "standing", value=1)
    async with fed(proxied, proxy, namespace) as it:
        await eventually(it.feed.synced.is_set)
        assert it.specs() == {"standing": {"value": 1}}

        await eventually(lambda: kopf_watches(proxy) >= 1)
        await create(client, namespace, "coming", value=1)
        await eventually(lambda: "coming" in it.specs())
        await client.merge_patch(REGISTRATION.path(namespace, "coming"), {"spec": {"value": 2}})
        await eventually(lambda: it.specs()["coming"] == {"value": 2})

        for name in ("standing", "coming"):
            obj = await fresh_object(client, REGISTRATION, namespace, name)
            assert obj is not None
            assert not {"annotations", "finalizers", "labels"} & obj.body["metadata"].keys()
            assert "status" not in obj.body

        await client.delete(REGISTRATION.path(namespace, "standing"))
        await eventually(lambda: it.specs().keys() == {"coming"})
        assert len(it.registrations.removed) == 1
        assert not any(request.method in {"PATCH", "POST", "PUT", "DELETE"} for request in proxy.requests)


async def test_an_object_that_waits_for_a_finalizer_is_delivered_as_deleting(
    client: KubeClient, proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    await create(client, namespace, "held")
    where = REGISTRATION.path(namespace, "held")
    async with fed(proxied, proxy, namespace) as it:
        await eventually(lambda: kopf_watches(proxy) >= 1)
        await client.merge_patch(where, {"metadata": {"finalizers": ["example.com/ours"]}})
        await client.delete(where)
        await eventually(lambda: any(obj.deleting for obj in it.registrations.held.values()))
        await client.merge_patch(where, {"metadata": {"finalizers": None}})
        await eventually(lambda: not it.registrations.held)


async def test_cluster_scoped_connections_come_in_their_own_store(
    client: KubeClient, proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    async with fed(proxied, proxy, namespace) as it:
        await eventually(lambda: kopf_watches(proxy) >= 1)
        await client.create(CONNECTION.collection(), body_of(namespace, {}) | {"kind": "ConsulConnection"})
        await eventually(lambda: namespace in it.connections.names())
        await client.delete(CONNECTION.path("", namespace))
        await eventually(lambda: namespace not in it.connections.names())
        assert not it.registrations.held


async def test_the_whole_cluster_is_watched_where_no_namespace_is_named(
    client: KubeClient, proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    async with fed(proxied, proxy) as it:
        await eventually(lambda: kopf_watches(proxy) >= 1)
        await create(client, namespace, f"in-{namespace}")
        await eventually(lambda: f"in-{namespace}" in it.registrations.names())


async def test_kopf_is_started_again_when_an_error_in_its_watch_ends_it(
    client: KubeClient, proxied: KubeClient, proxy: Proxy, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    status = {"kind": "Status", "code": 500, "message": "scripted"}
    errors = [json.dumps({"type": "ERROR", "object": status}) + "\n"]

    async def once(request: web.Request) -> web.StreamResponse | None:
        ours = REGISTRATION.plural in request.path and "watch" in request.query
        return web.Response(text=errors.pop(), content_type="application/json") if ours and errors else None

    proxy.fault = once
    async with fed(proxied, proxy, namespace) as it:
        await eventually(lambda: kopf_watches(proxy) >= 2)
        assert "kopf has ended and is started again" in caplog.text
        await create(client, namespace, "after")
        await eventually(lambda: it.specs().keys() == {"after"})


async def test_objects_deleted_while_kopf_is_down_are_found(
    client: KubeClient, proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    await create(client, namespace, "gone")
    await create(client, namespace, "stays")
    async with fed(proxied, proxy, namespace) as it:
        await eventually(lambda: kopf_watches(proxy) >= 1 and it.registrations.names() == {"gone", "stays"})
        gone = next(obj.uid for obj in it.registrations.held.values() if obj.name == "gone")

        async def end_kopf(request: web.Request) -> web.StreamResponse | None:
            """404 on its watch is what kopf doesn't survive; our own lists go through."""
            return web.Response(status=404) if "watch" in request.query else None

        proxy.fault = end_kopf
        proxy.break_connections()
        await asyncio.sleep(0.2)
        await client.delete(REGISTRATION.path(namespace, "gone"))
        await eventually(lambda: it.specs().keys() == {"stays"})
        assert it.registrations.absent == [gone]

        proxy.fault = None
        await create(client, namespace, "later")
        await eventually(lambda: it.specs().keys() == {"stays", "later"})


async def test_a_deletion_that_kopf_never_hears_of_is_found_by_the_next_complete_list(
    client: KubeClient, proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    """Its watch stays open but mute: what a cut that nobody notices looks like from here."""
    await create(client, namespace, "gone")

    async def mute(request: web.Request) -> web.StreamResponse | None:
        if "watch" not in request.query:
            return None
        answer = web.StreamResponse()
        await answer.prepare(request)
        await asyncio.Event().wait()
        return answer

    proxy.fault = mute
    async with fed(proxied, proxy, namespace, resync=0.5) as it:
        await eventually(lambda: kopf_watches(proxy) >= 1)
        await client.delete(REGISTRATION.path(namespace, "gone"))
        await eventually(lambda: not it.registrations.held)


async def test_missing_definitions_are_told_once_and_found_when_they_appear(
    plane: Cluster,
    client: KubeClient,
    proxied: KubeClient,
    proxy: Proxy,
    namespace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    crds = [f"{kind.plural}.{GROUP}" for kind in (REGISTRATION, CONNECTION)]
    await asyncio.to_thread(plane.kubectl, "delete", "crd", *crds)
    try:
        async with fed(proxied, proxy, namespace) as it:
            await eventually(lambda: "are not installed" in caplog.text)
            asked = len(proxy.requests)
            await eventually(lambda: len(proxy.requests) > asked + 1)  # it looks again and again
            assert not it.feed.synced.is_set()
            assert caplog.text.count("are not installed") == 1
            await asyncio.to_thread(install, plane)
            await eventually(it.feed.synced.is_set)
            await eventually(lambda: kopf_watches(proxy) >= 1)
            await create(client, namespace, "now")
            await eventually(lambda: it.specs().keys() == {"now"})

            await asyncio.to_thread(plane.kubectl, "delete", "crd", *crds)
            await eventually(lambda: not it.registrations.held)
            await eventually(lambda: caplog.text.count("are not installed") == 2)
            watches = kopf_watches(proxy)
            await asyncio.to_thread(install, plane)
            await eventually(lambda: kopf_watches(proxy) > watches)
            await create(client, namespace, "again")
            await eventually(lambda: it.specs().keys() == {"again"})
    finally:
        await asyncio.to_thread(install, plane)


async def test_nothing_runs_on_when_the_feed_is_cancelled(proxied: KubeClient, proxy: Proxy, namespace: str) -> None:
    import threading

    async with fed(proxied, proxy, namespace):
        await eventually(lambda: kopf_watches(proxy) >= 1)
        assert any(thread.name == "kopf" for thread in threading.enumerate())
    assert not any(thread.name == "kopf" for thread in threading.enumerate())
