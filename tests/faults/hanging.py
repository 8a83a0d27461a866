"""Writes that hang on their way: where, what causes them, and what they are about."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import pytest
from fault_world import CONSUL_WRITES, MODES, Shop
from operator_world import eventually, pod

from killpoints import Claim, Rule, faults, kind_is

Where = Literal["before", "after", "late"]
WHERE: tuple[Where, ...] = ("before", "after", "late")
"""Before it reached Consul; after it took effect; or lost as it seems, and in effect long after it was done again."""

DIGESTS = 0.7
"""Seconds for which a write hangs on after everything else was done, so that the operator has heard of that."""
LATE = 2
"""How many writes are late: one of each agent, or two transactions; the next tries pass."""


def daily(*chosen: str, among: Sequence[Where] = WHERE) -> pytest.MarkDecorator:
    """In both modes, and in each place among these; those that are named, as <mode>-<where>, every day."""
    names = [f"{mode}-{where}" for mode in MODES for where in among]
    cases = [pytest.param(n, marks=() if n in chosen else pytest.mark.exhaustive) for n in names]
    return pytest.mark.parametrize("hang", cases, indirect=True)


class Hang:
    """A shop, and a place where its writes can be made to hang."""

    def __init__(self, web: Shop, where: Where) -> None:
        self.web, self.where = web, where

    @contextmanager
    def on(self, cause: Callable[[], object]) -> Iterator[Rule]:
        """The writes that `cause` leads to hang for the length of the block; then all take effect. Once the rule is
        removed no more of them do.
        """
        network, gate = self.web.arena.network, faults.Gate(self.where)
        times = LATE if self.where == "late" else None
        rule = network.inject(kind_is(*CONSUL_WRITES[self.web.mode]), gate, times=times)
        cause()
        eventually(lambda: gate.hanging)
        yield rule
        time.sleep(DIGESTS)
        gate.open()
        eventually(lambda: self.where != "late" or gate.passed == gate.hanging)


def also(web: Shop, app: str, **service: object) -> None:
    """One more registration of the Pods of `web`."""
    pods = {"selector": {"matchLabels": {"app": "web"}}}
    web.create(web.world.registrations, web.registration(app, pods=pods, service={"name": web.name(app), **service}))
    web.claims[app] = Claim(web.name(app), web.world.namespace, {"app": "web"})


def single(web: Shop, *names: str) -> None:
    """A registration of Pods of their own: no ReplicaSet makes good for what happens to them."""
    web.create(web.world.registrations, web.registration("db"))
    for name in names:
        web.create(web.pods, pod(name, "db"))
    web.claim("db")
    web.settled()
