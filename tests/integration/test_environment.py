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


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Consul that lets nobody in without a client certificate, and lets nobody do anything without a token."""
    options = Options(nodes=1, acls=True, consul_tls=True, client_certificates=True)
    with defined(options, tmp_path_factory.mktemp("guarded")) as one:
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


@pytest.mark.parametrize("mode", ["Agent", "Catalog"])
@pytest.mark.parametrize("given", ["in a file", "by itself"])
def test_token_and_certificates_are_those_that_consuls_variables_name(
    guarded: Cluster, tmp_path: Path, mode: str, given: str
) -> None:
    address = {"Agent": guarded.consul.agents["node-1"].https_addr, "Catalog": guarded.consul.server.https_addr}[mode]
    shown, file = guarded.authority.client("shown"), tmp_path / "token"
    file.write_text(f"{guarded.consul.token}\n")
    token = (
        {"CONSUL_HTTP_TOKEN_FILE": str(file)} if given == "in a file" else {"CONSUL_HTTP_TOKEN": guarded.consul.token}
    )
    variables = {
        "CONSUL_HTTP_ADDR": str(address).removeprefix("https://"),
        "CONSUL_HTTP_SSL": "true",
        "CONSUL_CACERT": str(guarded.authority.certificate),
        "CONSUL_CLIENT_CERT": str(shown.file),
        "CONSUL_CLIENT_KEY": str(shown.key),
    }
    world, name = World(guarded, "default"), f"web-{mode}-{given[:2]}".lower()
    with operating(guarded, tmp_path, f"--mode={mode}", **variables, **token) as operator:
        world.apply(deployment(name, 1), registration(name))
        world.passing(name, 1)
        world.kubectl("delete", "sreg", name, "--timeout=180s")
        eventually(lambda: world.health(name) == {})
        assert guarded.consul.token not in operator.log


def test_a_consul_that_is_shown_no_certificate_says_so(guarded: Cluster, tmp_path: Path) -> None:
    address = {"CONSUL_HTTP_ADDR": str(guarded.consul.server.https_addr), "CONSUL_HTTP_TOKEN": guarded.consul.token}
    world = World(guarded, "default")
    with operating(guarded, tmp_path, "--mode=Catalog", **address, CONSUL_CACERT=str(guarded.authority.certificate)):
        world.apply(deployment("shut-out", 1), registration("shut-out"))
        world.says("shut-out", "TlsFailed")
        assert world.health("shut-out") == {}
    world.kubectl("delete", "deployment", "shut-out")
