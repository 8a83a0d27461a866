"""The oracle can fail: it catches an operator that removes what lives, and sees what nobody else would."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_world import MODES, Arena, Mode, playing, some
from operator_world import eventually

from devcluster import Cluster
from killpoints import Oracle, explain, faults

BROKEN = (sys.executable, str(Path(__file__).with_name("broken_operator.py")))

pytestmark = [pytest.mark.goal("I3")]


@pytest.fixture(scope="module")
def broken(cluster: Cluster, seer: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with playing(cluster, seer, tmp_path_factory.mktemp("broken"), program=BROKEN) as arena:
        yield arena


@pytest.mark.parametrize("mode", some(MODES, "catalog"))
def test_an_operator_that_believes_an_old_list_is_caught(broken: Arena, mode: Mode) -> None:
    """The scenario of `test_a_list_from_before_the_pods_removes_none_of_them`, which the real one passes."""
    web = broken.shop(mode)
    old = faults.Replay()
    broken.network.inject(lambda r: r.kind == "list pods", old, times=None)
    broken.restart()
    web.open("web", 2)
    web.settled()
    assert not broken.oracle.wrong, explain(broken.oracle.wrong)
    broken.start_on(old)
    eventually(lambda: len(broken.oracle.wrong) == 2)
    broken.network.heal()
    broken.oracle.left.clear()
    broken.restart()
    web.settled()
    web.close()


def test_an_instance_that_is_away_for_no_time_at_all_has_left(broken: Arena) -> None:
    """Removed and registered again behind the operator's back, faster than anybody looks."""
    web = broken.shop("agent")
    web.open("web", 1)
    web.settled()
    (row,) = web.world.catalog(web.name("web")).values()
    agent = broken.cluster.consul.agents[row["Node"]]
    again = {"ID": row["ServiceID"], "Name": row["ServiceName"], "Meta": row["ServiceMeta"], "Port": 8080}
    broken.oracle.left.clear()
    broken.operator.process.pause()
    agent.request("PUT", f"/v1/agent/service/deregister/{row['ServiceID']}")
    agent.request("PUT", "/v1/agent/service/register", again)
    eventually(lambda: len(broken.oracle.wrong) == 1)
    broken.operator.process.resume()
    broken.oracle.left.clear()
    web.close()
