"""The operator as a whole in mode Catalog: the same promises, without agents."""

from collections.abc import Iterator

import pytest
from operator_world import EXAMPLES, Operator, World, always, deployment, eventually, statuses

from devcluster import Cluster

CONNECTIONS = "/apis/consul-registrar.dev/v1alpha1/consulconnections"


@pytest.fixture(scope="module")
def catalog(cluster: Cluster) -> Iterator[str]:
    """The example connection, led to this cluster's server: four virtual nodes."""
    text = (EXAMPLES / "01-connection-catalog.yaml").read_text()
    manifest = text.replace("http://127.0.0.1:8500", cluster.consul.http_addr)
    assert manifest != text
    cluster.kubectl("apply", "-f", "-", stdin=manifest)
    yield "catalog"
    cluster.kubectl("delete", "cconn", "catalog", "--timeout=180s")  # other modules have one of that name, too


def registration(name: str, **spec: object) -> dict:
    kind = {"apiVersion": "consul-registrar.dev/v1alpha1", "kind": "ServiceRegistration", "metadata": {"name": name}}
    pods = {"selector": {"matchLabels": {"app": name}}}
    return kind | {"spec": {"consulRefs": [{"name": "catalog"}], "pods": pods, **spec}}


@pytest.fixture
def web(world: World, catalog: str) -> World:
    world.apply(deployment("cat", 5), registration("cat"))
    world.passing("cat", 5)
    return world


@pytest.mark.shows("cconn.spec.addresses", mode="catalog")
def test_pods_stand_on_virtual_nodes_that_are_marked_as_ours(web: World) -> None:
    rows = web.health("cat").values()
    assert all(row["Node"]["Node"].startswith("test-catalog-0") for row in rows)
    assert all(row["Node"]["Meta"]["managed-by"] == "consul-registrar" for row in rows)
    assert web.says("cat", "Registered")["status"] == "True"


@pytest.mark.shows("sreg.spec.consulRefs[].name", "sreg.spec.pods.selector.matchLabels", mode="catalog")
def test_readiness_is_mirrored_and_a_pod_that_terminates_is_gone(web: World) -> None:
    first, second = sorted(web.pods("cat"))[:2]
    web.annotate(first, ready="false")
    eventually(lambda: statuses(web.health("cat")[first]) == {"readiness": "critical"})
    web.kubectl("delete", "pod", second, "--wait=false")
    eventually(lambda: second not in web.health("cat"))
    web.annotate(first, ready=None)
    web.passing("cat", 5)


def test_what_is_removed_or_edited_in_the_catalog_is_right_again(web: World, cluster: Cluster) -> None:
    removed, edited = list(web.catalog("cat").values())[:2]
    server = cluster.consul.server
    server.request("PUT", "/v1/catalog/deregister", {"Node": removed["Node"], "ServiceID": removed["ServiceID"]})
    spoiled = {"ID": edited["ServiceID"], "Service": "cat", "Port": 1, "Meta": edited["ServiceMeta"]}
    register = {"Node": edited["Node"], "Address": edited["Address"], "SkipNodeUpdate": True, "Service": spoiled}
    server.request("PUT", "/v1/catalog/register", register)
    eventually(lambda: {row["ServicePort"] for row in web.catalog("cat").values()} == {8080})
    web.passing("cat", 5)


def test_a_new_name_and_fewer_pods_leave_nothing_behind(web: World) -> None:
    web.patch("cat", {"service": {"name": "cat-renamed"}})
    eventually(lambda: len(web.health("cat-renamed")) == 5 and web.health("cat") == {})
    web.kubectl("scale", "deployment", "cat", "--replicas=1")
    eventually(lambda: len(web.health("cat-renamed")) == 1)
    web.kubectl("delete", "sreg", "cat")
    assert web.health("cat-renamed") == {}


def test_a_restart_writes_nothing(web: World, operator: Operator) -> None:
    def rows() -> dict[str, int]:
        return {name: row["ModifyIndex"] for name, row in web.catalog("cat").items()}

    before = rows()
    operator.kill()
    operator.start()
    eventually(lambda: 'leader_election_master_status{name="consul-registrar"} 1.0' in operator.get("/metrics"))
    always(lambda: rows() == before, during=3)


def test_tcp_checks_say_that_nobody_runs_them_without_consul_esm(world: World, catalog: str, cluster: Cluster) -> None:
    world.apply(deployment("probed", 1), registration("probed", checks=[{"name": "port", "tcp": {}}]))
    eventually(lambda: len(world.health("probed")) == 1)

    def says() -> bool:
        found = cluster.api.request("GET", f"{CONNECTIONS}/catalog")["status"]["conditions"]
        return any(c["reason"] == "EsmMissing" for c in found)

    eventually(says)
