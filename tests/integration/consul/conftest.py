from collections.abc import AsyncIterator, Iterator

import pytest
from catalog_world import Catalog
from consul_world import Running, Truth, running, to

from devcluster.build import ensure_tools
from devcluster.consul import Consul, datacenter
from devcluster.net import claim_block
from devcluster.process import Home
from devcluster.tls import Authority
from devcluster.tools import CONSUL


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes minutes, since Consul does; -m 'not slow' leaves it out")


def _consul(home: Home, *, acls: bool, agents: int = 2, tls: Authority | None = None) -> Iterator[Consul]:
    ensure_tools(say=print, tools=(CONSUL,))
    block = claim_block()
    home = Home(home.state, tethered=True, inherited=(block.claim.fileno(),))
    nodes = {f"node-{number}": block.node(number) for number in range(1, agents + 1)}
    made = datacenter(home, block, nodes, acls=acls, on_localhost=False, tls=tls, verify_incoming=tls is not None)
    try:
        made.start()
        yield made
    finally:
        for process in made.processes:
            process.kill()
        block.release()


@pytest.fixture(scope="session")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    """One server and client agents on two nodes, without ACLs."""
    yield from _consul(Home(tmp_path_factory.mktemp("consul"), tethered=True), acls=False)


@pytest.fixture(scope="session")
def guarded_consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    """The same with ACLs: what no token allows is denied."""
    yield from _consul(Home(tmp_path_factory.mktemp("consul-acl"), tethered=True), acls=True)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    ensure_tools(say=print, tools=(CONSUL,))
    return Authority.at(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def closed_consul(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Consul]:
    """One server with ACLs that lets in, by TLS, only who shows a certificate of the authority."""
    home = Home(tmp_path_factory.mktemp("consul-tls"), tethered=True)
    yield from _consul(home, acls=True, agents=0, tls=authority)


@pytest.fixture
def truth(consul: Consul) -> Iterator[Truth]:
    """Consul asked directly about node-1, which is empty at the start and after."""
    made = Truth(consul, "node-1")
    made.wipe()
    yield made
    made.wipe()


@pytest.fixture
async def registry(truth: Truth) -> AsyncIterator[Running]:
    """A registry on the one agent of node-1, ready."""
    async with running(to(truth.agent)) as made:
        await made.is_ready()
        yield made


@pytest.fixture
def catalog(consul: Consul) -> Iterator[Catalog]:
    """The catalog asked directly; nothing of the tests is there at the start and after."""
    made = Catalog(consul)
    made.wipe()
    yield made
    made.wipe()
