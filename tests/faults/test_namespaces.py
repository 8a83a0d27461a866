"""G2: an operator of many namespaces has watches of each: they end one by one or all at once, and nothing is lost."""

import secrets
from collections.abc import Iterator

import pytest
from fault_world import MODES, Arena, Mode, Shop, playing, some
from operator_world import World, eventually, pod

from devcluster import Cluster
from killpoints import Oracle, explain, faults
from killpoints.calls import Request

NAMESPACES = 20
TURNS = 2

pytestmark = [pytest.mark.goal("G2")]


@pytest.fixture(scope="module")
def names(cluster: Cluster) -> list[str]:
    made = [f"many-{number:02d}-{secrets.token_hex(2)}" for number in range(NAMESPACES)]
    for name in made:
        cluster.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return made


@pytest.fixture(scope="module")
def many(cluster: Cluster, seer: Oracle, names: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """An operator of these namespaces alone."""
    only = f"--namespaces={','.join(names)}"
    with playing(cluster, seer, tmp_path_factory.mktemp("many"), arguments=(only,)) as arena:
        yield arena


@pytest.fixture(scope="module", params=some(MODES, "catalog"))
def shops(many: Arena, names: list[str], request: pytest.FixtureRequest) -> Iterator[list[Shop]]:
    """A service of two Pods in each of the namespaces."""
    mode: Mode = request.param
    many.oracle.left.clear()
    made = [Shop(many, mode, World(many.cluster, name)) for name in names]
    for one in made:
        one.create(one.world.registrations, one.registration("web"))
        for number in range(2):
            one.create(one.pods, pod(f"web-{number}", "web"))
        one.claim("web")
    settled(made)
    yield made
    many.network.heal()
    for one in made:
        one.unregister("web")
        for name in one.world.pods("web"):
            one.kill_pod(name, at_once=True)
    settled(made)


def settled(shops: list[Shop]) -> None:
    """All is as claimed in each of them, and nothing living has left."""
    for one in shops:
        one.settled()
    wrong = shops[0].arena.oracle.wrong
    assert not wrong, explain(wrong)


def is_watch(request: Request) -> bool:
    return request.kind.startswith("watch ")


def change(one: Shop, turn: int) -> None:
    """A Pod is replaced under its name, and the registration is edited."""
    one.kill_pod(f"web-{turn}", at_once=True)
    one.create(one.pods, pod(f"web-{turn}", "web"))
    one.tag("web", f"v{turn}")


def test_streams_of_many_namespaces_that_all_end_again_and_again_lose_nothing(many: Arena, shops: list[Shop]) -> None:
    """What happens in each namespace happens right before, right after, or while no stream can be opened."""
    for turn in range(TURNS):
        barred = many.network.inject(lambda r: r.kind.startswith("list "), faults.refused, times=NAMESPACES)
        for number, one in enumerate(shops):
            if number in {NAMESPACES // 4, NAMESPACES // 2}:
                many.network.cut(is_watch)
            change(one, turn)
        many.network.cut(is_watch)
        many.network.remove(barred)
    settled(shops)


def test_a_namespace_whose_streams_cannot_be_opened_holds_up_no_other(many: Arena, shops: list[Shop]) -> None:
    barred = f"/namespaces/{shops[0].world.namespace}/"
    lost = many.network.inject(lambda r: barred in r.path and not r.is_write, faults.refused, times=None)
    many.network.cut(is_watch)
    for one in shops:
        change(one, 0)
    settled(shops[1:])
    eventually(lambda: lost.hits > 2)
    many.network.heal()
    settled(shops[:1])
