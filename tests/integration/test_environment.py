"""Without any ConsulConnection: a flag and Consul's own variables make up the connection `default`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from operator_world import World, defined, deployment, eventually, operating, registration

from devcluster import Cluster, Options


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster without connections."""
    with defined(Options(nodes=1), tmp_path_factory.mktemp("bare")) as one:
        yield one


@pytest.mark.parametrize("mode", ["Agent", "Catalog"])
def test_pods_are_registered_where_consuls_variables_say(bare: Cluster, tmp_path: Path, mode: str) -> None:
    address = {"Agent": bare.consul.agents["node-1"].http_addr, "Catalog": bare.consul.http_addr}[mode]
    world, name = World(bare, "default"), f"web-{mode}".lower()
    with operating(bare, tmp_path, f"--mode={mode}", CONSUL_HTTP_ADDR=address):
        world.apply(deployment(name, 2), registration(name))
        rows = world.passing(name, 2)
        assert {row["Service"]["Meta"]["k8s-connection"] for row in rows.values()} == {"default"}
        on_agent = {row["Node"]["Node"] == "node-1" for row in rows.values()}
        assert on_agent == {mode == "Agent"}
        world.kubectl("delete", "sreg", name, "--timeout=180s")
        eventually(lambda: world.health(name) == {})
