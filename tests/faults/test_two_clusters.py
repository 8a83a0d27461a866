"""G12: two clusters write to one Consul. Both have the same namespace, registration, service and Pod names; what tells
them apart is the cluster's name, and that is one cluster's alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from fault_world import CONNECTIONS, LEASE, MODES, Arena, Mode, some
from operator_world import Operator, World, always, connection, defined, eventually, pod, truth

from devcluster import Cluster, Options
from killpoints import explain, watching

pytestmark = [pytest.mark.goal("G12")]
PODS = ("web-0", "web-1", "web-2")


@dataclass(frozen=True)
class Side:
    """One of the two: its cluster, the name that it goes by, and its namespace."""

    name: str
    world: World
    service: str
    mode: Mode

    def rows(self) -> dict[str, int]:
        """Its instances in Consul: UID to the index of their last change."""
        rows = self.world.consul(f"/v1/catalog/service/{self.service}")
        mine = [row for row in rows if row["ServiceMeta"]["k8s-cluster"] == self.name]
        return {row["ServiceMeta"]["k8s-pod-uid"]: row["ModifyIndex"] for row in mine}

    def stands(self) -> None:
        """Exactly its Pods are in Consul, and all of them run."""
        wanted = {p["metadata"]["uid"] for p in self.world.pods("web").values()}
        assert len(wanted) == len(PODS)
        assert self.rows().keys() == wanted

    def open(self) -> None:
        spec = {
            "consulRefs": [{"name": self.mode}],
            "service": {"name": self.service},
            "pods": {"selector": {"matchLabels": {"app": "web"}}},
        }
        kind = {"apiVersion": "consul-registrar.dev/v1alpha1", "kind": "ServiceRegistration"}
        self.world.cluster.api.request(
            "POST", self.world.registrations, kind | {"metadata": {"name": "web"}, "spec": spec}
        )
        for name in PODS:
            self.world.cluster.api.request("POST", self._pods, pod(name, "web"))

    def close(self) -> None:
        self.world.cluster.api.request("DELETE", self.world.registrations)
        eventually(lambda: not self.rows())
        self.world.cluster.api.request("DELETE", f"/api/v1/namespaces/{self.world.namespace}")

    def replace_pod(self, name: str) -> None:
        self.world.cluster.api.request("DELETE", f"{self._pods}/{name}", {"gracePeriodSeconds": 0})
        self.world.cluster.api.request("POST", self._pods, pod(name, "web"))

    @property
    def _pods(self) -> str:
        return f"/api/v1/namespaces/{self.world.namespace}/pods"


@dataclass(frozen=True)
class _Elsewhere(World):
    """A namespace of a cluster without a Consul of its own: that of the other one is asked."""

    consul_of: Cluster

    def consul(self, path: str) -> object:
        return self.consul_of.consul.server.request("GET", path)


@pytest.fixture(scope="module")
def other(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Another Kubernetes, whose connections lead to the first one's Consul."""
    with defined(Options(nodes=1, agents=0), tmp_path_factory.mktemp("other")) as two:
        agent = cluster.consul.agents["node-1"].http_addr
        for made in (
            connection("agent", mode="Agent", addresses=[agent]),
            connection("catalog", mode="Catalog", addresses=[cluster.consul.http_addr], virtualNodes=2),
        ):
            two.api.request("POST", CONNECTIONS, made)
        yield two


@pytest.fixture
def neighbour(other: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The other cluster's operator, of another name."""
    one = Operator(other, tmp_path_factory.mktemp("neighbour"), name="other")
    one.start()
    yield one
    one.kill()


@pytest.fixture
def sides(arena: Arena, other: Cluster, mode: Mode) -> tuple[Side, Side]:
    """The same namespace in both."""
    web = arena.shop(mode)
    other.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": web.world.namespace}})
    far = _Elsewhere(other, web.world.namespace, arena.cluster)
    return Side("test", web.world, web.name("web"), mode), Side("other", far, web.name("web"), mode)


@pytest.mark.parametrize("mode", some(MODES, "catalog"))
def test_two_clusters_of_the_same_contents_never_touch_each_other(
    arena: Arena, other: Cluster, neighbour: Operator, sides: tuple[Side, Side]
) -> None:
    here, there = sides
    far_sight = replace(truth(arena.cluster), kubernetes=truth(other).kubernetes)
    with watching(far_sight) as oracle:
        for side in sides:
            side.open()
        for side in sides:
            eventually(side.stands)
        for quiet, busy, operator in ((there, here, arena.operator), (here, there, neighbour)):
            before = quiet.rows()
            busy.replace_pod(PODS[0])
            eventually(busy.stands)
            operator.kill()
            busy.replace_pod(PODS[1])
            busy.world.cluster.api.request("DELETE", LEASE)
            operator.start()
            eventually(busy.stands)
            always(lambda before=before, quiet=quiet: quiet.rows() == before, during=1)
        before = there.rows()
        arena.oracle.excuse(here.service)
        here.close()
        assert there.rows() == before
        assert not oracle.wrong, explain(oracle.wrong)
        oracle.excuse(there.service)
        there.close()


@pytest.mark.parametrize("mode", some(MODES, "agent"))
def test_a_second_cluster_of_the_same_name_is_refused_and_writes_nothing(
    arena: Arena, other: Cluster, sides: tuple[Side, Side], tmp_path_factory: pytest.TempPathFactory
) -> None:
    here, there = sides
    here.open()
    eventually(here.stands)
    before = here.rows()
    impostor = Operator(other, tmp_path_factory.mktemp("impostor"), name=here.name)
    impostor.start()
    try:
        there.open()
        there.world.says("web", "ClusterNameTaken")
        always(lambda: here.rows() == before, during=3)
    finally:
        impostor.kill()
    there.world.kubectl("patch", "sreg", "web", "--type=merge", '-p={"metadata":{"finalizers":null}}')
    other.api.request("DELETE", f"/api/v1/namespaces/{there.world.namespace}")
    arena.oracle.excuse(here.service)
    here.close()
