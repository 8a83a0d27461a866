"""What we write to Kubernetes, against a real API server."""

import asyncio
import base64
import json

import aiohttp
import kopf
import pytest

from consul_registrar.kube import (
    CONNECTION,
    REGISTRATION,
    Invalid,
    KubeClient,
    LoginFailed,
    NotFound,
    Unavailable,
    add_finalizer,
    answer_gate,
    fresh_object,
    fresh_pod,
    namespace_uid,
    patch_status,
    post_event,
    read_secret,
    regarding,
    remove_finalizer,
)
from consul_registrar.kube.resources import CustomObject
from consul_registrar.model import GATE, Gate, Pod, Reason

FINALIZER = "consul-registrar.dev/deregister"
OTHER = "example.com/other"


async def registration(client: KubeClient, namespace: str, name: str = "web") -> CustomObject:
    body = {"apiVersion": "consul-registrar.dev/v1alpha1", "kind": "ServiceRegistration", "metadata": {"name": name}}
    await client.create(REGISTRATION.collection(namespace), body)
    return await read(client, namespace, name)


async def read(client: KubeClient, namespace: str, name: str = "web") -> CustomObject:
    found = await fresh_object(client, REGISTRATION, namespace, name)
    assert found is not None
    return found


def finalizers(obj: CustomObject) -> list[str]:
    return obj.body["metadata"].get("finalizers", [])


async def test_a_status_becomes_what_is_wanted_and_is_not_written_twice(client: KubeClient, namespace: str) -> None:
    await registration(client, namespace)
    where = REGISTRATION.path(namespace, "web")
    first = {"instances": {"desired": 2, "passing": 1}, "problems": {"worst": [{"pod": "a"}]}, "consulService": "web"}
    assert await patch_status(client, where, {}, first)
    second = {"instances": {"desired": 2}, "problems": {"worst": []}}
    assert await patch_status(client, where, first, second)
    seen = await read(client, namespace)
    assert seen.body["status"] == second
    assert not await patch_status(client, where, second, second)
    assert (await read(client, namespace)).version == seen.version


async def test_a_status_of_an_object_that_went_is_not_found(client: KubeClient, namespace: str) -> None:
    with pytest.raises(NotFound):
        await patch_status(client, REGISTRATION.path(namespace, "never"), {}, {"a": 1})


async def test_finalizers_are_added_once_and_removed_beside_those_of_others(client: KubeClient, namespace: str) -> None:
    where, uid = REGISTRATION.path(namespace, "web"), (await registration(client, namespace)).uid
    await add_finalizer(client, where, uid, OTHER)
    await add_finalizer(client, where, uid, FINALIZER)
    await add_finalizer(client, where, uid, FINALIZER)
    assert finalizers(await read(client, namespace)) == [OTHER, FINALIZER]
    await remove_finalizer(client, where, uid, OTHER)
    await remove_finalizer(client, where, uid, OTHER)
    assert finalizers(await read(client, namespace)) == [FINALIZER]
    await remove_finalizer(client, where, uid, FINALIZER)
    assert finalizers(await read(client, namespace)) == []


async def test_an_object_that_is_as_it_was_seen_gets_its_finalizer_without_being_read(
    client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, uid = REGISTRATION.path(namespace, "web"), (await registration(client, namespace)).uid
    await add_finalizer(client, where, uid, OTHER)
    seen = await read(client, namespace)
    with monkeypatch.context() as without_reads:
        without_reads.delattr(KubeClient, "get")
        await add_finalizer(client, where, uid, FINALIZER, (seen.version, finalizers(seen)))
    assert finalizers(await read(client, namespace)) == [OTHER, FINALIZER]


async def test_a_finalizer_goes_beside_those_that_came_after_the_object_was_seen(
    client: KubeClient, namespace: str
) -> None:
    seen = await registration(client, namespace)
    where = REGISTRATION.path(namespace, "web")
    await add_finalizer(client, where, seen.uid, OTHER)
    await add_finalizer(client, where, seen.uid, FINALIZER, (seen.version, finalizers(seen)))
    assert finalizers(await read(client, namespace)) == [OTHER, FINALIZER]


async def test_finalizers_survive_many_writers(client: KubeClient, namespace: str) -> None:
    where, uid = REGISTRATION.path(namespace, "web"), (await registration(client, namespace)).uid
    names = {f"example.com/{number}" for number in range(4)}
    await asyncio.gather(*(add_finalizer(client, where, uid, name) for name in names))
    assert set(finalizers(await read(client, namespace))) == names
    await asyncio.gather(*(remove_finalizer(client, where, uid, name) for name in names))
    assert finalizers(await read(client, namespace)) == []


async def test_a_finalizer_never_reaches_a_successor_of_the_same_name(client: KubeClient, namespace: str) -> None:
    where = REGISTRATION.path(namespace, "web")
    first = await registration(client, namespace)
    await client.delete(where)
    await remove_finalizer(client, where, first.uid, FINALIZER)
    await registration(client, namespace)
    await add_finalizer(client, where, first.uid, FINALIZER)
    assert finalizers(await read(client, namespace)) == []


async def test_an_event_is_found_at_its_object(plane, client: KubeClient, namespace: str) -> None:
    obj = await registration(client, namespace)
    reason = Reason("NoPodsMatched", "ä" * 2000)
    await post_event(client, regarding(obj), reason, action="Reconcile", instance="pod-1", type="Warning")
    events = plane.api.request("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
    event = next(event for event in events if event["reason"] == "NoPodsMatched")
    assert event["regarding"]["uid"] == obj.uid
    assert event["reportingController"] == "consul-registrar.dev/operator"
    assert event["type"] == "Warning"
    assert event["note"].endswith("…")
    assert "NoPodsMatched" in plane.kubectl("-n", namespace, "events", "--for=serviceregistration/web")


async def test_events_of_cluster_scoped_objects_go_to_default(plane, client: KubeClient, namespace: str) -> None:
    body = {"apiVersion": "consul-registrar.dev/v1alpha1", "kind": "ConsulConnection", "metadata": {"name": namespace}}
    await client.create(CONNECTION.collection(), body)
    obj = await fresh_object(client, CONNECTION, "", namespace)
    assert obj is not None
    await post_event(client, regarding(obj), Reason("Ready", "all well"), action="Connect", instance="pod-1")
    events = plane.api.request("GET", "/apis/events.k8s.io/v1/namespaces/default/events")["items"]
    assert any(event["regarding"].get("uid") == obj.uid for event in events)


async def test_an_event_that_cannot_be_posted_is_logged(
    client: KubeClient, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    obj = await registration(client, namespace)
    await post_event(client, regarding(obj), Reason("X", "x"), action="", instance="pod-1")
    assert "is lost" in caplog.text


async def test_fresh_reads_say_none_of_what_is_not_there(client: KubeClient, namespace: str) -> None:
    assert await fresh_pod(client, namespace, "never") is None
    assert await fresh_object(client, REGISTRATION, namespace, "never") is None
    spec = {"containers": [{"name": "main", "image": "example.invalid/none"}]}
    await client.create(f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": "there"}, "spec": spec})
    pod = await fresh_pod(client, namespace, "there")
    assert pod is not None
    assert pod.name == "there"


async def test_secrets_are_read_and_what_is_missing_is_named(client: KubeClient, namespace: str) -> None:
    data = {"token": base64.b64encode(b"s3cret").decode(), "binary": base64.b64encode(b"\xff\xfe").decode()}
    await client.create(f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": "consul"}, "data": data})
    assert (await read_secret(client, namespace, "consul", "token"))[0] == "s3cret"
    with pytest.raises(NotFound, match="has no key 'other'"):
        await read_secret(client, namespace, "consul", "other")
    with pytest.raises(NotFound, match="does not exist"):
        await read_secret(client, namespace, "vault", "token")
    with pytest.raises(Invalid, match="not text"):
        await read_secret(client, namespace, "consul", "binary")


async def test_a_refused_token_is_read_again_once(access: kopf.ConnectionInfo, namespace: str) -> None:
    given: list[str] = []

    async def login() -> kopf.ConnectionInfo:
        given.append("stale" if not given else str(access.token))
        return kopf.ConnectionInfo(server=access.server, ca_path=access.ca_path, token=given[-1])

    async with KubeClient(login) as client:
        await asyncio.gather(*(client.get(f"/api/v1/namespaces/{namespace}") for _ in range(8)))
    assert len(given) == 2


async def test_a_token_that_stays_refused_is_a_failed_login(access: kopf.ConnectionInfo) -> None:
    async def login() -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=access.server, ca_path=access.ca_path, token="wrong")

    async with KubeClient(login) as client:
        with pytest.raises(LoginFailed):
            await client.get("/api/v1/namespaces")


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async def login() -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server="http://127.0.0.1:9")

    async with KubeClient(login) as client:
        with pytest.raises(Unavailable) as caught:
            await client.get("/api")
    assert isinstance(caught.value.__cause__, aiohttp.ClientError)


# --- namespaces ---


async def test_the_uid_of_a_namespace_is_the_api_servers(client, plane):
    told = await asyncio.to_thread(plane.api.request, "GET", "/api/v1/namespaces/kube-system")
    assert await namespace_uid(client, "kube-system") == told["metadata"]["uid"]


async def test_a_namespace_that_does_not_exist_has_no_uid(client):
    with pytest.raises(NotFound):
        await namespace_uid(client, "nowhere")


# --- readiness gates ------------------------------------------------------------------------------------------------

NOW = "2026-02-02T00:00:00Z"
LATER = "2026-02-02T00:00:09Z"


async def gated(client: KubeClient, namespace: str) -> Pod:
    """A Pod with two gates, of which another one is answered already."""
    gates = [{"conditionType": kind} for kind in (GATE, OTHER)]
    spec = {"containers": [{"name": "main", "image": "main"}], "readinessGates": gates}
    await client.create(f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": "web"}, "spec": spec})
    answered = {"status": {"conditions": [{"type": OTHER, "status": "True", "reason": "Theirs"}]}}
    await client.strategic_patch(f"/api/v1/namespaces/{namespace}/pods/web", answered, subresource="status")
    return await read_pod(client, namespace)


async def read_pod(client: KubeClient, namespace: str) -> Pod:
    found = await fresh_pod(client, namespace, "web")
    assert found is not None
    return found


async def conditions(client: KubeClient, namespace: str) -> dict[str, dict[str, str]]:
    body = json.loads(await client.get(f"/api/v1/namespaces/{namespace}/pods/web"))
    return {condition["type"]: condition for condition in body["status"]["conditions"]}


async def test_a_gate_is_answered_and_no_other_condition_is_touched(client: KubeClient, namespace: str) -> None:
    pod = await gated(client, namespace)
    before = await conditions(client, namespace)
    assert await answer_gate(client, pod, Gate("False", "Registering", "soon"), NOW) > pod.version
    first = await read_pod(client, namespace)
    assert first.gate == Gate("False", "Registering", "soon")
    assert await answer_gate(client, first, Gate("False", "NotPassing", "not yet"), LATER) > first.version
    then = await conditions(client, namespace)
    assert then.pop(GATE)["lastTransitionTime"] == NOW
    assert then == before
    await answer_gate(client, await read_pod(client, namespace), Gate("True", "Registered", "now"), LATER)
    assert (await conditions(client, namespace))[GATE]["lastTransitionTime"] == LATER


async def test_an_answer_is_never_given_to_a_successor_of_the_same_name(client: KubeClient, namespace: str) -> None:
    pod = await gated(client, namespace)
    await client.delete(f"/api/v1/namespaces/{namespace}/pods/web", {"gracePeriodSeconds": 0})
    assert await answer_gate(client, pod, Gate("True", "Registered", ""), NOW) == 0
    await gated(client, namespace)
    assert await answer_gate(client, pod, Gate("True", "Registered", ""), NOW) == 0
    assert GATE not in await conditions(client, namespace)
