"""The cluster of the session, Consul in it, and the chart installed."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.build import ensure_tools
from devcluster.tools import HELM, HYPERKUBE
from e2e.e2e_world import EXAMPLES, REPOSITORY, Traffic, World, app_manifests, eventually
from realnode.node import Node

IMAGE = os.environ.get("IMAGE", "localhost/consul-registrar:dev")


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster with the image loaded: the one given, one made with kind, or the project's own node."""
    ensure_tools(print, (HYPERKUBE, HELM))
    if os.environ.get("KUBECONFIG"):
        yield Path(os.environ["KUBECONFIG"])
    elif os.environ.get("CLUSTER") == "kind":
        yield from _kind(tmp_path_factory.mktemp("kind") / "kubeconfig")
    else:
        yield from _own_node()


def _kind(kubeconfig: Path) -> Iterator[Path]:
    name = f"consul-registrar-{secrets.token_hex(3)}"
    subprocess.run(["kind", "create", "cluster", "--name", name, "--kubeconfig", kubeconfig], check=True)
    try:
        subprocess.run(["kind", "load", "docker-image", IMAGE, "--name", name], check=True)
        yield kubeconfig
    finally:
        subprocess.run(["kind", "delete", "cluster", "--name", name], check=True)


def _own_node() -> Iterator[Path]:
    node = Node(REPOSITORY / "build" / "realnode")
    node.up()
    try:
        node.load(Path(os.environ.get("IMAGE_TAR", REPOSITORY / "build" / "image" / "consul-registrar.tar")))
        yield node.kubeconfig
    finally:
        node.down()


@pytest.fixture(scope="session")
def bare(kubeconfig: Path) -> World:
    """The cluster with Consul and nothing of ours."""
    world = World(kubeconfig, IMAGE)
    world.kubectl("apply", "-f", str(EXAMPLES / "consul-dev.yaml"))
    world.kubectl("rollout", "status", "-n", "consul", "deployment/consul", "--timeout=180s")
    return world


@pytest.fixture(scope="module")
def world(bare: World) -> Iterator[World]:
    """The cluster with the chart installed, for the tests of one module."""
    bare.install("readinessGate.enabled=true")
    yield bare
    bare.run("helm", "uninstall", "consul-registrar", "--namespace", "consul-registrar", "--wait")


@pytest.fixture
def app(world: World) -> Iterator[str]:
    """A Deployment of three, its registration, and the name of both."""
    name = f"app-{secrets.token_hex(3)}"
    world.apply(*app_manifests(name))
    world.kubectl("rollout", "status", f"deployment/{name}", "--timeout=180s")
    eventually(lambda: len(world.found(name)) == 3)
    yield name
    world.kubectl("delete", "sreg,deployment", name, "--timeout=120s")
    eventually(lambda: not world.found(name, passing=False))


@pytest.fixture
def traffic(world: World, app: str) -> Iterator[Traffic]:
    """Somebody who calls the app all the while."""
    one = Traffic(world, app)
    one.start()
    yield one
    one.stop()
