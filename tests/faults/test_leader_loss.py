"""G5: Consul's servers lose their leader, or their quorum. What changed meanwhile is in Consul soon after there is a
leader again, and nothing that lives has left.
"""

import time
from collections.abc import Callable, Iterator

import pytest
from fault_world import CONNECTIONS, MODES, Arena, Mode, Shop, playing, shop, some
from operator_world import eventually, truth

from devcluster import Cluster, Options, running
from devcluster.consul import Member
from killpoints import explain, watching

pytestmark = [pytest.mark.goal("G5")]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """An operator on a Consul of three servers and two agents."""
    folder = tmp_path_factory.mktemp("three")
    with (
        running(Options(nodes=2, consul_servers=3), folder / "state") as cluster,
        watching(truth(cluster)) as oracle,
        playing(cluster, oracle, folder) as arena,
    ):
        yield arena


@pytest.fixture(params=MODES)
def web(three: Arena, request: pytest.FixtureRequest) -> Iterator[Shop]:
    mode: Mode = request.param
    eventually(lambda: three.cluster.consul.leader)
    three.oracle.left.clear()
    with shop(three, mode) as made:
        made.open("web", 3)
        made.settled()
        yield made
    assert not three.oracle.wrong, explain(three.oracle.wrong)


def leader(cluster: Cluster) -> Member:
    return eventually(lambda: cluster.consul.leader)


def kill(cluster: Cluster, seconds: float) -> Callable[[], None]:
    """The leader is killed, and comes back."""
    one = leader(cluster)
    one.process.kill()
    return one.process.start


def pause(cluster: Cluster, seconds: float) -> Callable[[], None]:
    """The leader hangs, and goes on as if no time had passed."""
    one = leader(cluster)
    one.process.pause()
    time.sleep(seconds)
    return one.process.resume


def minority(cluster: Cluster, seconds: float) -> Callable[[], None]:
    """Two of three hang: whoever is left has no leader."""
    first = leader(cluster)
    two = (first, next(server for server in cluster.consul.servers if server is not first))
    for one in two:
        one.process.pause()
    time.sleep(seconds)

    def resume() -> None:
        for one in two:
            one.process.resume()

    return resume


def all_of_them(cluster: Cluster, seconds: float) -> Callable[[], None]:
    """All servers are killed, and come back with their data."""
    for one in cluster.consul.servers:
        one.process.kill()
    time.sleep(seconds)

    def start() -> None:
        for one in cluster.consul.servers:
            one.process.start(wait=False)
        for one in cluster.consul.servers:
            one.process.wait_ready()

    return start


LOSSES = {
    "killed": (kill, 0.0),
    "paused": (pause, 5.0),
    "paused for a minute": (pause, 60.0),
    "minority": (minority, 5.0),
    "minority for a minute": (minority, 60.0),
    "all killed": (all_of_them, 3.0),
}


@pytest.mark.parametrize("loss", some(LOSSES, "killed"))
def test_what_changes_while_there_is_no_leader_arrives_once_there_is_one(three: Arena, web: Shop, loss: str) -> None:
    lose, seconds = LOSSES[loss]
    back = lose(three.cluster, seconds)
    web.churn("web", 10, seed=5)
    web.scale("web", 4)
    back()
    leader(three.cluster)
    web.settled()


def test_the_connections_status_names_the_leader_that_there_is(three: Arena, web: Shop) -> None:
    before = leader(three.cluster)
    back = kill(three.cluster, 0)
    eventually(lambda: three.cluster.consul.leader not in {None, before})
    back()  # one that is gone for long is no voter any more, and the next one that goes would leave no quorum

    def another_is_named() -> bool:
        now = leader(three.cluster)
        found = three.cluster.api.request("GET", f"{CONNECTIONS}/{web.mode}")
        return now is not before and found["status"].get("leader") == now.rpc

    eventually(another_is_named)


@pytest.mark.parametrize("seed", some((1, 2, 3)))
def test_the_leader_is_killed_in_the_midst_of_changes_again_and_again(three: Arena, web: Shop, seed: int) -> None:
    for turn in range(3):
        back = kill(three.cluster, 0)
        web.churn("web", 15, seed=10 * seed + turn)
        back()
        leader(three.cluster)
    web.settled()


def test_an_agent_that_hangs_holds_up_only_its_own_node(three: Arena, web: Shop) -> None:
    if web.mode == "catalog":
        pytest.skip("there are no agents in this mode")
    stuck = three.cluster.consul.agents["node-1"]
    stuck.process.pause()
    try:
        web.scale("web", 6)

        def those_of_the_other_node_stand() -> None:
            wanted = {name for name, p in web.world.pods("web").items() if p["spec"]["nodeName"] == "node-2"}
            assert len(web.world.pods("web")) == 6
            assert wanted <= web.world.catalog(web.name("web")).keys()

        eventually(those_of_the_other_node_stand)
    finally:
        stuck.process.resume()
    web.settled()
