"""The cluster of the session, Consul in it, and the chart installed."""

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devcluster.build import ensure_tools
from devcluster.tools import HELM, HYPERKUBE
from e2e.e2e_world import EXAMPLES, REPOSITORY, Traffic, World, app_manifests, eventually
from realnode.node import Node

IMAGE = os.environ.get("IMAGE", "localhost/consul-registrar:dev")


@dataclass(frozen=True, slots=True)
class Place:
    """A cluster with the image loaded."""

    kubeconfig: Path
    add: Callable[[Path, str], None] | None
    """Builds the image of another checkout, under a name, and loads it; None in a cluster that isn't ours."""


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The cluster given, one made with kind, or the project's own node."""
    ensure_tools(print, (HYPERKUBE, HELM))
    if os.environ.get("KUBECONFIG"):
        yield Place(Path(os.environ["KUBECONFIG"]), None)
    elif os.environ.get("CLUSTER") == "kind":
        yield from _kind(tmp_path_factory.mktemp("kind") / "kubeconfig")
    else:
        yield from _own_node()


def _kind(kubeconfig: Path) -> Iterator[Place]:
    name = f"consul-registrar-{secrets.token_hex(3)}"
    subprocess.run(["kind", "create", "cluster", "--name", name, "--kubeconfig", kubeconfig], check=True)

    def load(image: str) -> None:
        subprocess.run(["kind", "load", "docker-image", image, "--name", name], check=True)

    def add(tree: Path, image: str) -> None:
        subprocess.run(["docker", "build", "--quiet", "--tag", image, tree], check=True)
        load(image)

    try:
        load(IMAGE)
        yield Place(kubeconfig, add)
    finally:
        subprocess.run(["kind", "delete", "cluster", "--name", name], check=True)


def _own_node() -> Iterator[Place]:
    node = Node(REPOSITORY / "build" / "realnode")
    built = Path("build", "image", "consul-registrar.tar")

    def add(tree: Path, image: str) -> None:
        subprocess.run([tree / "dev" / "image" / "build.sh"], env={**os.environ, "NAME": image}, check=True)
        node.load(tree / built)

    node.up()
    try:
        node.load(Path(os.environ.get("IMAGE_TAR", REPOSITORY / built)))
        yield Place(node.kubeconfig, add)
    finally:
        node.down()


@pytest.fixture(scope="session")
def bare(place: Place) -> World:
    """The cluster with Consul and nothing of ours."""
    world = World(place.kubeconfig, IMAGE)
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
