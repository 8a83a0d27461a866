"""The reflector against a real API server; a scripted answer only where the real one can't be made to give it."""

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web
from kube_faults import Proxy, Shelf, background, eventually

from consul_registrar.kube import PODS, Gone, KubeClient, Reflector
from consul_registrar.kube.codec import token_of
from consul_registrar.kube.intake import Intake
from consul_registrar.kube.listing import complete_list
from consul_registrar.model import Pod
from devcluster.cluster import Cluster


def pods_of(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def lists(proxy: Proxy) -> list[web.Request]:
    """The complete lists that were asked for; a look at the server's version is none."""
    return [request for request in proxy.requests if request.query.get("limit", "1") != "1"]


def expired() -> web.Response:
    """What a watch says of a version that is too old: one line."""
    return web.Response(text=json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410}}) + "\n")


async def create_pod(client: KubeClient, namespace: str, name: str, **labels: str) -> Pod:
    ports = [{"name": "http", "containerPort": 8080}]
    spec = {"containers": [{"name": "main", "image": "example.invalid/none", "ports": ports}]}
    body = {"metadata": {"name": name, "labels": labels}, "spec": spec}
    return PODS.obj(await client.create(pods_of(namespace), body))


async def delete_pod(client: KubeClient, namespace: str, name: str) -> None:
    await client.delete(f"{pods_of(namespace)}/{name}", {"gracePeriodSeconds": 0})


async def test_pods_that_stand_and_pods_that_come_are_delivered(client: KubeClient, namespace: str) -> None:
    await create_pod(client, namespace, "standing", app="web")
    shelf: Shelf[Pod] = Shelf()
    reflector = Reflector(client, pods_of(namespace), PODS, shelf)
    async with background(reflector.run()):
        await eventually(reflector.synced.is_set)
        assert shelf.names() == {"standing"}

        await create_pod(client, namespace, "coming", app="web")
        await eventually(lambda: shelf.names() == {"standing", "coming"})

        await client.merge_patch(
            f"{pods_of(namespace)}/coming",
            {"status": {"podIP": "10.0.0.9", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}},
            subresource="status",
        )
        await eventually(lambda: any(pod.ready and pod.ip == "10.0.0.9" for pod in shelf.held.values()))

        await delete_pod(client, namespace, "standing")
        await eventually(lambda: shelf.names() == {"coming"})
        assert len(shelf.removed) == 1
        assert shelf.absent == []
    pod = next(iter(shelf.held.values()))
    assert (pod.namespace, pod.labels, pod.ports[0].port) == (namespace, {"app": "web"}, 8080)


async def test_many_pages_are_one_list(client: KubeClient, namespace: str) -> None:
    for number in range(5):
        await create_pod(client, namespace, f"pod-{number}")
    shelf: Shelf[Pod] = Shelf()
    reflector = Reflector(client, pods_of(namespace), PODS, shelf, limit=2)
    async with background(reflector.run()):
        await eventually(reflector.synced.is_set)
        assert shelf.names() == {f"pod-{number}" for number in range(5)}


async def test_a_watch_that_breaks_is_resumed_without_a_list(
    client: KubeClient, proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    shelf: Shelf[Pod] = Shelf()
    reflector = Reflector(proxied, pods_of(namespace), PODS, shelf)
    async with background(reflector.run()):
        await eventually(lambda: proxy.watches() == 1)
        proxy.sever()
        await create_pod(client, namespace, "meanwhile")
        proxy.cut = False
        await eventually(lambda: shelf.names() == {"meanwhile"})
        lists = [
            request for request in proxy.requests if "watch" not in request.query and request.query["limit"] != "1"
        ]
        assert len(lists) == 1


async def test_pods_deleted_while_the_watch_is_cut_and_expired_are_swept(
    plane: Cluster, client: KubeClient, proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    gone, stays = await create_pod(client, namespace, "gone"), await create_pod(client, namespace, "stays")
    shelf: Shelf[Pod] = Shelf()
    reflector = Reflector(proxied, pods_of(namespace), PODS, shelf)
    async with background(reflector.run()):
        await eventually(lambda: shelf.names() == {"gone", "stays"})
        proxy.sever()
        await delete_pod(client, namespace, "gone")
        await forget_history(plane)
        proxy.cut = False
        await eventually(lambda: shelf.names() == {"stays"})
        assert shelf.absent == [gone.uid]
        assert stays.uid not in shelf.removed
        await create_pod(client, namespace, "later")
        await eventually(lambda: shelf.names() == {"stays", "later"})


async def test_what_a_watch_never_told_is_found_by_the_next_list_that_is_due(
    client: KubeClient, proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    gone = await create_pod(client, namespace, "gone")
    shelf: Shelf[Pod] = Shelf()
    reflector = Reflector(proxied, pods_of(namespace), PODS, shelf, resync=0.5)

    async def silent(request: web.Request) -> web.StreamResponse | None:
        if "watch" not in request.query:
            return None
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        await asyncio.Event().wait()
        return answer

    proxy.fault = silent
    async with background(reflector.run()):
        await eventually(lambda: shelf.names() == {"gone"})
        await delete_pod(client, namespace, "gone")
        await create_pod(client, namespace, "unseen")
        await eventually(lambda: shelf.names() == {"unseen"})
        assert shelf.absent == [gone.uid]


async def test_a_list_that_came_back_empty_is_made_good_once_it_is_doubted(
    client: KubeClient, proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    await create_pod(client, namespace, "stays")
    shelf: Shelf[Pod] = Shelf()
    reflector = Reflector(proxied, pods_of(namespace), PODS, shelf)
    scripted = [expired()]

    async def expired_then_empty(request: web.Request) -> web.StreamResponse | None:
        if "watch" in request.query:
            return scripted.pop() if scripted else None
        if scripted or shelf.absent or not shelf.puts:
            return None
        version = (await client.list_page(pods_of(namespace), limit=1)).decode()
        known = json.loads(version)["metadata"]["resourceVersion"]
        return web.json_response({"kind": "PodList", "items": [], "metadata": {"resourceVersion": known}})

    proxy.fault = expired_then_empty
    async with background(reflector.run()):
        await eventually(lambda: shelf.absent)
        await eventually(lambda: reflector._watching is not None)
        reflector.doubt()
        await eventually(lambda: shelf.names() == {"stays"})


async def test_an_unchanged_pod_is_not_delivered_again_by_another_list(
    client: KubeClient, proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    await create_pod(client, namespace, "same")
    shelf: Shelf[Pod] = Shelf()
    reflector = Reflector(proxied, pods_of(namespace), PODS, shelf)
    answers = [expired()]

    async def once(request: web.Request) -> web.StreamResponse | None:
        return answers.pop() if "watch" in request.query and answers else None

    proxy.fault = once
    async with background(reflector.run()):
        await eventually(lambda: proxy.watches() >= 2)
        await create_pod(client, namespace, "new")
        await eventually(lambda: shelf.names() == {"same", "new"})
    assert [pod.name for pod in shelf.puts] == ["same", "new"]
    assert len(lists(proxy)) == 2


async def test_versions_and_tokens_of_a_forgotten_history_are_gone(
    plane: Cluster, client: KubeClient, namespace: str
) -> None:
    for number in range(3):
        await create_pod(client, namespace, f"pod-{number}")
    raw = await client.list_page(pods_of(namespace), limit=1)
    await create_pod(client, namespace, "one-more")
    await forget_history(plane)
    with pytest.raises(Gone):
        await client.list_page(pods_of(namespace), limit=1, token=token_of(raw))
    async with client.watch(pods_of(namespace), str(PODS.page(raw).version)) as lines:
        assert isinstance(PODS.event(await anext(lines)), Gone)


async def forget_history(plane: Cluster) -> None:
    """Compact etcd and restart the API server: neither has anything left of what was before."""
    command = plane.control_plane.apiserver.program.command
    etcd = next(part.partition("=")[2] for part in command if part.startswith("--etcd-servers="))
    async with aiohttp.ClientSession(etcd) as session:
        async with session.post("/v3/kv/range", data=json.dumps({"key": "AA=="})) as answer:
            revision = (await answer.json())["header"]["revision"]
        async with session.post("/v3/kv/compaction", data=json.dumps({"revision": revision})) as answer:
            assert answer.status == 200
    await asyncio.to_thread(plane.control_plane.apiserver.restart)


async def test_a_list_that_breaks_between_its_pages_sweeps_nothing(
    client: KubeClient, proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    for number in range(4):
        await create_pod(client, namespace, f"pod-{number}")
    shelf: Shelf[Pod] = Shelf()
    intake: Intake[Pod] = Intake(shelf)
    await complete_list(proxied, [pods_of(namespace)], PODS, intake, limit=2)
    await delete_pod(client, namespace, "pod-0")

    async def second_page_fails(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=500) if "continue" in request.query else None

    proxy.fault = second_page_fails
    with pytest.raises(Exception, match="pods"):
        await complete_list(proxied, [pods_of(namespace)], PODS, intake, limit=2)
    assert len(shelf.held) == 4

    proxy.fault = None
    await complete_list(proxied, [pods_of(namespace)], PODS, intake, limit=2)
    assert shelf.names() == {"pod-1", "pod-2", "pod-3"}


async def test_a_server_that_answers_and_hangs_up_is_not_hammered(
    proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    async def hang_up(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=200) if "watch" in request.query else None

    proxy.fault = hang_up
    async with background(Reflector(proxied, pods_of(namespace), PODS, Shelf[Pod]()).run()):
        await eventually(lambda: proxy.watches() >= 3)
        await asyncio.sleep(1.5)
        assert len(proxy.requests) < 20


async def test_garbage_on_the_watch_leads_to_another_list(
    client: KubeClient, proxied: KubeClient, proxy: Proxy, namespace: str
) -> None:
    garbage = [web.Response(body=b'{"type": "MODIFIED", "object": {"metadata": []}}\n')]

    async def once(request: web.Request) -> web.StreamResponse | None:
        return garbage.pop() if "watch" in request.query and garbage else None

    proxy.fault = once
    shelf: Shelf[Pod] = Shelf()
    async with background(Reflector(proxied, pods_of(namespace), PODS, shelf).run()):
        await eventually(lambda: proxy.watches() >= 2)
        await create_pod(client, namespace, "after")
        await eventually(lambda: shelf.names() == {"after"})


async def test_silence_leads_to_another_list(proxy: Proxy, namespace: str) -> None:
    async def silent(request: web.Request) -> web.StreamResponse | None:
        if "watch" not in request.query:
            return None
        answer = web.StreamResponse()
        await answer.prepare(request)
        await asyncio.Event().wait()
        return answer

    proxy.fault = silent

    def lists() -> int:
        return sum("watch" not in request.query for request in proxy.requests)

    async with KubeClient(proxy.login, inactivity=0.2) as impatient:
        reflector = Reflector(impatient, pods_of(namespace), PODS, Shelf[Pod]())
        async with background(reflector.run()):
            await eventually(lambda: lists() >= 3)


async def test_leaving_the_selector_is_absence_and_coming_back_is_seen(client: KubeClient, namespace: str) -> None:
    pod = await create_pod(client, namespace, "moves", opt="in")
    shelf: Shelf[Pod] = Shelf()
    reflector = Reflector(client, pods_of(namespace), PODS, shelf, selector="opt=in")
    async with background(reflector.run()):
        await eventually(lambda: shelf.names() == {"moves"})
        await client.merge_patch(f"{pods_of(namespace)}/moves", {"metadata": {"labels": {"opt": "out"}}})
        await eventually(lambda: shelf.absent == [pod.uid])
        await client.merge_patch(f"{pods_of(namespace)}/moves", {"metadata": {"labels": {"opt": "in"}}})
        await eventually(lambda: shelf.names() == {"moves"})
    assert shelf.removed == []


async def test_a_restarted_api_server_is_found_again(plane: Cluster, client: KubeClient, namespace: str) -> None:
    await create_pod(client, namespace, "before")
    shelf: Shelf[Pod] = Shelf()
    reflector = Reflector(client, pods_of(namespace), PODS, shelf)
    async with background(reflector.run()):
        await eventually(lambda: shelf.names() == {"before"})
        await asyncio.to_thread(plane.control_plane.apiserver.restart)
        await create_pod(client, namespace, "after")
        await eventually(lambda: shelf.names() == {"before", "after"})
        assert reflector.staleness() < 60
    assert shelf.removed == shelf.absent == []
