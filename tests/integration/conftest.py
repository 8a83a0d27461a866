"""Fixtures for tests of the operator as a whole; its parts have fixtures of their own beside them.

One cluster for the session, one operator for each module, one namespace for each test. The helpers are in
`operator_world.py`.
"""

import secrets
from collections.abc import Iterator

import pytest
from listener import Listener, listening
from operator_world import EXAMPLES, Operator, World, defined, eventually, operating

from devcluster import Cluster, Options


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes minutes, since Consul does; -m 'not slow' leaves it out")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes, each with a Consul agent, and the custom resources."""
    with defined(Options(nodes=3), tmp_path_factory.mktemp("cluster")) as one:
        one.kubectl("apply", "-f", str(EXAMPLES / "01-connection-agent-on-each-node.yaml"))
        yield one


@pytest.fixture(scope="module")
def operator(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The operator, running. A test may stop, kill and start it, and leaves it running."""
    with operating(cluster, tmp_path_factory.mktemp("operator")) as one:
        yield one


@pytest.fixture
def world(cluster: Cluster, operator: Operator) -> Iterator[World]:
    """A namespace for one test, and Consul; nothing of it is left behind."""
    yield from _namespace(cluster, operator)


@pytest.fixture
def neighbour(cluster: Cluster, operator: Operator) -> Iterator[World]:
    """Another namespace."""
    yield from _namespace(cluster, operator)


def _namespace(cluster: Cluster, operator: Operator) -> Iterator[World]:
    made = World(cluster, f"test-{secrets.token_hex(3)}")
    cluster.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": made.namespace}})
    yield made
    if not operator.process.is_alive():
        operator.start()
    eventually(lambda: cluster.api.request("DELETE", made.registrations))  # hundreds of Pods keep the API server busy
    cluster.api.request("DELETE", f"/api/v1/namespaces/{made.namespace}")
    eventually(lambda: not cluster.api.request("GET", made.registrations)["items"])


@pytest.fixture(scope="module", params=["default", "catalog"], ids=["agent", "catalog"])
def connection(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[str]:
    """A connection of each mode: the agents on the nodes, and the server's catalog."""
    if request.param == "catalog":
        text = (EXAMPLES / "01-connection-catalog.yaml").read_text()
        cluster.kubectl("apply", "-f", "-", stdin=text.replace("http://127.0.0.1:8500", cluster.consul.http_addr))
    yield request.param
    if request.param == "catalog":
        cluster.kubectl("delete", "cconn", "catalog", "--timeout=180s")  # other modules have one of that name, too


@pytest.fixture
def listener() -> Iterator[Listener]:
    """An HTTP server for checks; it passes them until it is told otherwise."""
    with listening(Listener()) as one:
        yield one


@pytest.fixture
def one_agent(cluster: Cluster) -> Iterator[str]:
    """The example connection to one fixed agent, led to an agent of this cluster; its Consul node."""
    node = "node-2"
    text = (EXAMPLES / "01-connection-one-agent.yaml").read_text()
    manifest = text.replace("http://127.0.0.1:8500", cluster.consul.agents[node].http_addr)
    assert manifest != text
    cluster.kubectl("apply", "-f", "-", stdin=manifest)
    yield node
    cluster.kubectl("delete", "cconn", "one-agent", "--ignore-not-found", "--timeout=180s")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=1, help="rounds of what is done by chance")
    parser.addoption("--seed", type=int, default=1, help="that of the first round; the next has the next one")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "round_seed" in metafunc.fixturenames:
        first, rounds = metafunc.config.getoption("seed", 1), metafunc.config.getoption("rounds", 1)
        metafunc.parametrize("round_seed", range(first, first + rounds))
