"""Every example, applied as it is, as a new user does, says that it is ready or what it waits for; in either mode."""

from collections.abc import Iterator

import pytest
import yaml
from operator_world import EXAMPLES, RESOURCES, World, connection, defined

from devcluster import Cluster, Options

_BY_FILE = {path.name: [*yaml.safe_load_all(path.read_text())] for path in sorted(EXAMPLES.glob("*.yaml"))}
REGISTERING = {
    file: [one["metadata"]["name"] for one in found if one["kind"] == "ServiceRegistration"]
    for file, found in _BY_FILE.items()
}
#: What the local cluster has not; with it each is shown to be registered in `test_kubernetes_services.py`.
LACKING = {
    "11-kubernetes-service.yaml": "NoEndpoints",  # EndpointSlices stay empty there
    "12-load-balancer.yaml": "LoadBalancerPending",
}


@pytest.fixture(scope="module", params=["Agent", "Catalog"])
def cluster(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """The examples name the connection `default`, so that of the other mode is in another cluster."""
    if request.param == "Agent":
        yield cluster
        return
    with defined(Options(nodes=1), tmp_path_factory.mktemp("catalog")) as other:
        spec = {"addresses": [other.consul.http_addr], "virtualNodes": 2}
        other.api.request("POST", f"{RESOURCES}/consulconnections", connection("default", mode="Catalog", **spec))
        yield other


@pytest.mark.parametrize("file", [file for file, names in REGISTERING.items() if names])
def test_each_example_is_ready_or_says_what_it_waits_for(world: World, file: str) -> None:
    world.example(file)
    for name in REGISTERING[file]:
        says = world.says(name, LACKING.get(file, "Registered"))
        assert says["status"] == "True"
        world.patch(name, {"deletionPolicy": "Deregister"})  # nothing is to outlive the test


def test_each_example_is_listed_and_shows_one_thing() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    assert [file for file in _BY_FILE if f"[{file}]({file})" not in listed and file != "consul-dev.yaml"] == []
    published = {
        one["spec"]["kubernetesService"]["publish"] for one in _registrations() if "kubernetesService" in one["spec"]
    }
    assert published == {"LoadBalancer", "NodePort", "ClusterIP", "ExternalIP"}


def _registrations() -> list[dict]:
    return [one for found in _BY_FILE.values() for one in found if one["kind"] == "ServiceRegistration"]
