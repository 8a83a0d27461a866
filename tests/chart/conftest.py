"""Fixtures for the chart's tests: what it renders, and one cluster that refuses what isn't `restricted`."""

import secrets
from collections.abc import Iterator

import pytest
from chart_world import NAMESPACE, Installation
from operator_world import World, eventually, without_consul_variables

from devcluster import Cluster, Options, running


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes with agents; every request to the API server is noted; the namespace enforces `restricted`."""
    without_consul_variables()
    with running(Options(nodes=2, audited=True), tmp_path_factory.mktemp("cluster") / "state") as one:
        one.kubectl("create", "namespace", NAMESPACE)
        one.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
        yield one


@pytest.fixture(scope="session")
def installed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The chart, installed by Helm under its defaults, and the operator running as its Pod would."""
    one = Installation(cluster, tmp_path_factory.mktemp("operator"))
    one.install()
    with one.operator.running():
        yield one
    assert "Traceback" not in one.operator.log


@pytest.fixture
def world(installed: Installation) -> Iterator[World]:
    """A namespace for one test."""
    made = World(installed.cluster, f"test-{secrets.token_hex(3)}")
    installed.cluster.kubectl("create", "namespace", made.namespace)
    yield made
    made.cluster.api.request("DELETE", made.registrations)
    eventually(lambda: not made.cluster.api.request("GET", made.registrations)["items"])
    made.cluster.api.request("DELETE", f"/api/v1/namespaces/{made.namespace}")
