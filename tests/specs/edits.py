"""Editing anything leads to the same state as creating it afresh.

For each pair of specs two registrations: one is A, then B, then A again, the other is B, then A, then B. Whatever was
before, what stands of a spec is what stood where it was the first one; what both specs publish stands all the while.
Many pairs go through this at once, so that the time it takes is that of the slowest.
"""

from collections import defaultdict
from dataclasses import dataclass

from operator_world import eventually

from specs.chances import Spec
from specs.shop import LANES, Shop
from specs.standing import Seen, as_of, at_agents, in_catalog, seeing

_ROUNDS = 3
Told = dict[str, list[str]]
Says = dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Pair:
    """Two specs; `one` begins as the first of them, `other` as the second."""

    one: str
    other: str
    specs: tuple[Spec, Spec]

    def spec_of(self, name: str, stage: int) -> Spec:
        return self.specs[(stage + (name == self.other)) % 2]


def play(shop: Shop, pairs: int) -> int:
    """Take so many pairs of specs through all edits; returns how often a state was compared with a fresh one."""
    shop.furnish()
    made = [_pair(shop, number) for number in range(pairs)]
    with seeing(shop.world.cluster, shop.world.namespace) as seen:
        return _play(shop, made, seen)


def _pair(shop: Shop, number: int) -> Pair:
    one, other = f"p{number}x", f"p{number}y"
    lane = shop.chance.choice(LANES)
    first = shop.spec(one, lane)
    if shop.chance.random() < 0.5:
        return Pair(one, other, (first, shop.chances(one, lane).edited(first)))
    return Pair(one, other, (first, shop.spec(one, shop.chance.choice(LANES))))


def _play(shop: Shop, pairs: list[Pair], seen: Seen) -> int:
    cluster, namespace = shop.world.cluster, shop.world.namespace
    compared, fresh, fresh_says, since, before = 0, {}, {}, 0, set()
    for stage in range(_ROUNDS):
        for pair in pairs:
            for name in (pair.one, pair.other):
                shop.put(name, shop.renamed(pair.spec_of(name, stage), pair.one, name))
        says = shop.settled(shop.specs)
        if stage == 0:
            fresh, fresh_says = eventually(lambda: _arrived(shop)), says
        else:
            compared += _compare(shop, pairs, stage, fresh, fresh_says)
        until, standing = as_of(cluster, namespace)
        after = {each.subject for each in standing}
        missed = seen.missed(since, until, before & after)
        assert not missed, (
            missed,
            [pair for pair in pairs if {pair.one, pair.other} & {name for name, _ in missed[0]}],
        )
        since, before = until, after
    return compared


def _compare(shop: Shop, pairs: list[Pair], stage: int, fresh: Told, fresh_says: Says) -> int:
    """Each registration with the one of its pair that began as it is now, where nothing kept that one back."""
    alike = {}
    for pair in pairs:
        first = {True: (pair.one, pair.other), False: (pair.other, pair.one)}[stage % 2 == 0]
        alike |= dict(zip((pair.one, pair.other), first, strict=True))
    whole = {name: like for name, like in alike.items() if fresh_says[like][0] == "True"}

    def as_fresh() -> None:
        now, says = told(shop), shop.settled(shop.specs)
        assert says == {name: fresh_says[like] for name, like in alike.items()}
        differing = {
            name: set(now[name]) ^ set(fresh[like]) for name, like in whole.items() if now[name] != fresh[like]
        }
        assert not differing, (differing, {name: shop.found()[name]["spec"] for name in differing})

    eventually(as_fresh)
    return len(whole)


def _arrived(shop: Shop) -> Told:
    """What stands of each, once the catalog holds what the agents hold: they tell it a moment later."""
    cluster, namespace = shop.world.cluster, shop.world.namespace
    in_mode = [each for each in in_catalog(cluster, namespace) if each.meta["k8s-connection"] == "agents"]
    assert {each.gist for each in in_mode} == {each.gist for each in at_agents(cluster, namespace)}
    return told(shop)


def told(shop: Shop) -> Told:
    """What stands of each registration, at the agents and in the catalog."""
    cluster, namespace = shop.world.cluster, shop.world.namespace
    found: Told = defaultdict(list)
    for each in (*in_catalog(cluster, namespace), *at_agents(cluster, namespace)):
        found[each.registration].append(each.told())
    return defaultdict(list, {name: sorted(texts) for name, texts in found.items()})
