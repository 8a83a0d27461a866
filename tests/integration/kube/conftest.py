import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import kopf
import pytest
from kube_faults import Proxy, install, proxy_to

from consul_registrar.kube import REGISTRATION, KubeClient
from devcluster.build import ensure_tools
from devcluster.cluster import Cluster, Options
from devcluster.kube import ApiError


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real API server and etcd, nothing else: Pods stay as the tests write them."""
    ensure_tools(say=print)
    cluster = Cluster.lay_out(Options(nodes=0, agents=0), tmp_path_factory.mktemp("kube") / "state")
    try:
        cluster.control_plane.etcd.start()
        cluster.control_plane.apiserver.start()
        install(cluster)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def access(plane: Cluster) -> kopf.ConnectionInfo:
    return kopf.ConnectionInfo(server=plane.api_url, token=plane.token, ca_path=plane.api.certificate)


@pytest.fixture
async def client(access: kopf.ConnectionInfo) -> AsyncIterator[KubeClient]:
    """Straight to the API server, for what a test itself does."""

    async def login() -> kopf.ConnectionInfo:
        return access

    async with KubeClient(login) as made:
        yield made


@pytest.fixture
async def proxy(access: kopf.ConnectionInfo) -> AsyncIterator[Proxy]:
    async with proxy_to(access) as made:
        yield made


@pytest.fixture
async def proxied(proxy: Proxy) -> AsyncIterator[KubeClient]:
    """Through the proxy: the client under test."""
    async with KubeClient(proxy.login) as made:
        yield made


@pytest.fixture
async def namespace(plane: Cluster) -> AsyncIterator[str]:
    """A namespace for one test alone; no registration is left in it."""
    name = f"test-{secrets.token_hex(4)}"
    await asyncio.to_thread(plane.kubectl, "create", "namespace", name)
    yield name
    await asyncio.to_thread(_clear, plane, name)


def _clear(plane: Cluster, namespace: str) -> None:
    """Some tests delete the definitions, which waits for ever for what has a finalizer, in whatever namespace."""
    registrations = REGISTRATION.collection(namespace)
    with suppress(ApiError):  # without definitions there are no registrations
        for one in plane.api.request("GET", registrations)["items"]:
            path = f"{registrations}/{one['metadata']['name']}"
            plane.api.request("PATCH", path, {"metadata": {"finalizers": None}}, "application/merge-patch+json")
        plane.api.request("DELETE", registrations)
