"""Registrations made from the CRD's schema by chance, in both modes, against a real API server and a real Consul.

One round of each for every day; `make specs ROUNDS=20 SEED=7` for more.
"""

from collections.abc import Iterator
from random import Random

import pytest
from operator_world import Operator, World

from devcluster import Cluster
from specs import edits, random_run
from specs.shop import CONNECTIONS, Shop, connections


@pytest.fixture(scope="module", autouse=True)
def both_modes(cluster: Cluster, operator: Operator) -> Iterator[None]:
    made = connections(cluster)
    for each in made:
        cluster.api.request("POST", CONNECTIONS, each)
    yield
    for each in made:
        cluster.kubectl("delete", "cconn", each["metadata"]["name"], "--timeout=180s")


@pytest.fixture
def shop(world: World, round_seed: int) -> Shop:
    return Shop(world, Random(round_seed))


def test_what_is_edited_is_as_if_it_had_always_been_so(shop: Shop) -> None:
    assert edits.play(shop, pairs=10) > 10


def test_whatever_comes_changes_and_goes_nothing_is_wrong_and_nothing_is_left(shop: Shop, operator: Operator) -> None:
    assert random_run.play(shop, operator, steps=60) > 0
