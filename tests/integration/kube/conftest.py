import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator

import kopf
import pytest
from devcluster.build import ensure_tools
from devcluster.cluster import Cluster, Options
from kube_faults import Proxy, proxy_to

from consul_registrar.api import GROUP, VERSION
from consul_registrar.kube import CONNECTION, REGISTRATION, Kind, KubeClient


def definition(kind: Kind) -> dict:
    """A resource of any content: what our own schemas accept is the business of other tests."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": VERSION, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {"kind": kind.name, "plural": kind.plural},
            "versions": [version | {"subresources": {"status": {}}}],
        },
    }


def install(cluster: Cluster) -> None:
    for kind in (REGISTRATION, CONNECTION):
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(definition(kind)))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")


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
async def namespace(plane: Cluster) -> str:
    """A namespace for one test alone."""
    name = f"test-{secrets.token_hex(4)}"
    await asyncio.to_thread(plane.kubectl, "create", "namespace", name)
    return name
