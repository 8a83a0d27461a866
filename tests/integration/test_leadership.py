"""Two replicas: one writes, the other stands by and takes over when the first is killed or leaves."""

from collections.abc import Iterator

import pytest
from operator_world import Operator, World, deployment, eventually, truth

from devcluster import Cluster
from killpoints import watching


@pytest.fixture
def second(cluster: Cluster, operator: Operator, tmp_path: pytest.TempPathFactory) -> Iterator[Operator]:
    one = Operator(cluster, tmp_path)
    one.start()
    yield one
    one.kill()


def leads(operator: Operator) -> bool:
    return 'leader_election_master_status{name="consul-registrar"} 1.0' in operator.get("/metrics")


def registration(name: str) -> dict:
    kind = {"apiVersion": "consul-registrar.dev/v1alpha1", "kind": "ServiceRegistration", "metadata": {"name": name}}
    return kind | {"spec": {"pods": {"selector": {"matchLabels": {"app": name}}}}}


def test_a_standby_takes_over_from_a_killed_leader_without_touching_what_lives(
    cluster: Cluster, world: World, operator: Operator, second: Operator
) -> None:
    eventually(lambda: leads(operator) and not leads(second))
    world.apply(deployment("web", 3), registration("web"))
    world.passing("web", 3)
    with watching(truth(cluster)) as oracle:
        operator.kill()
        world.kubectl("scale", "deployment", "web", "--replicas=5")
        eventually(lambda: leads(second))
        world.passing("web", 5)
        oracle.catch_up()
        assert oracle.left == []
    operator.start()
    assert not leads(operator)


def test_a_leader_that_is_told_to_stop_hands_over(world: World, operator: Operator, second: Operator) -> None:
    eventually(lambda: leads(operator))
    operator.stop()
    assert "the lease is released" in operator.log
    eventually(lambda: leads(second))
    operator.start()
