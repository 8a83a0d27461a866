"""Decides where the agent's list and the catalog disagree for good; pure, the clock is an argument.

An agent pushes to the catalog what changes at the agent, and looks at the rest every minute or two. What was removed
or edited in the catalog under its node is therefore wrong for long, unless it is written anew. A difference counts
when it has stood unchanged for `SETTLE` seconds, nothing of ours was acknowledged meanwhile, and another look at both
sides confirms it: before, the push may be on its way. When a repair doesn't help (a token that may write at the agent
but not in the catalog), the next one waits longer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from consul_registrar.consul.wire import CheckRow, Held, ServiceRow, port_of, ports_of, tagged_of, weights_of
from consul_registrar.model import META_HASH, META_NONCE, Instance

SETTLE = 1.0
PATIENCE = 120.0
"""Seconds; the longest an agent takes to look by itself."""

Things = Mapping[str, object]
"""What is wrong, by ID (the instance's own for its row, a check's for that check), with how it looks wrong."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """What the catalog holds of one node."""

    services: Mapping[str, ServiceRow]
    checks: Mapping[str, CheckRow]


def differences(held: Held, catalog: Catalog) -> dict[str, object]:
    """What of an instance stands otherwise in the catalog than at its agent."""
    instance = held.instance
    wrong: dict[str, object] = {}
    row = catalog.services.get(instance.id)
    if row is None or not _same_row(held, row):
        wrong[instance.id] = row
    for check in instance.checks:
        seen = catalog.checks.get(check.id)
        if seen is None or seen.Status != check.status:
            wrong[check.id] = (check.status, seen and seen.Status)
    return wrong


def _same_row(held: Held, row: ServiceRow) -> bool:
    """Tags may be edited in the catalog where the instance says so (`enableTagOverride`).

    Field by field, since this is asked of every instance at each read: making an instance of the row would cost thrice
    as much.
    """
    ours, ports = held.instance, ports_of(row)
    meta = dict(ours.meta) | ({META_NONCE: held.nonce} if held.nonce else {})
    tags = ours.tag_override or sorted(row.Tags or ()) == list(ours.tags)
    theirs = (row.Service, row.Address, port_of(row, ports), ports, row.EnableTagOverride)
    further = (weights_of(row), tagged_of(row))
    return (
        tags
        and (ours.service, ours.address, ours.port, ours.ports, ours.tag_override) == theirs
        and (ours.weights, ours.tagged) == further
        and meta == (row.Meta or {})
    )


def same_service(one: Instance, other: Instance) -> bool:
    """Whether two instances are equal but for their checks."""
    return replace(one, node="", checks=()) == replace(other, node="", checks=())


def shown(held: Instance, wrong: Things) -> Instance:
    """An instance as a plan should see it, so that what is wrong in the catalog is written again.

    It keeps its owner and its fields, so that it can still be removed or orphaned. A wrong row lacks the hash of its
    checks, which no right one does; a wrong check is missing.
    """
    if not wrong:
        return held
    checks = tuple(check for check in held.checks if check.id not in wrong)
    meta = tuple(pair for pair in held.meta if held.id not in wrong or pair[0] != META_HASH)
    return replace(held, meta=meta, checks=checks)


@dataclass(slots=True)
class _Suspect:
    since: dict[str, tuple[float, object]] = field(default_factory=dict)
    not_before: float = 0.0
    repairs: int = 0
    confirmed: dict[str, object] = field(default_factory=dict)

    def ripe_at(self) -> float:
        """When the first thing that isn't confirmed yet may be."""
        waiting = [since for thing, (since, _) in self.since.items() if thing not in self.confirmed]
        return max(min(waiting) + SETTLE, self.not_before) if waiting else math.inf


class Ledger:
    """Since when what has looked wrong, for the instances of one agent."""

    def __init__(self) -> None:
        self._suspects: dict[str, _Suspect] = {}
        self._stubborn: set[str] = set()

    def see(self, instance_id: str, wrong: Things, now: float) -> Things:
        """Note how an instance looks by a read of both sides; returns what is wrong with it for good."""
        if not wrong:
            self.forget(instance_id)
            return {}
        suspect = self._suspects.setdefault(instance_id, _Suspect())
        suspect.since = {thing: _first(suspect.since.get(thing), look, now) for thing, look in wrong.items()}
        suspect.confirmed = {t: look for t, look in suspect.confirmed.items() if t in wrong and wrong[t] == look}
        if now >= suspect.not_before:
            ripe = {t: look for t, (since, look) in suspect.since.items() if now >= since + SETTLE}
            suspect.confirmed |= ripe
        return suspect.confirmed

    def wrong(self, instance_id: str) -> Things:
        """What is wrong with an instance for good."""
        suspect = self._suspects.get(instance_id)
        return suspect.confirmed if suspect else {}

    def wrote(self, instance_id: str, now: float, thing: str = "") -> None:
        """The instance, or one thing of it, was written: what looked wrong stands its test again, longer each time."""
        suspect = self._suspects.setdefault(instance_id, _Suspect())
        suspect.repairs += bool(suspect.confirmed.keys() & {thing} if thing else suspect.confirmed)
        if suspect.repairs >= 2:
            self._stubborn.add(instance_id)
        suspect.not_before = now + min(SETTLE * 2**suspect.repairs, PATIENCE)
        suspect.since = {t: at for t, at in suspect.since.items() if thing and t != thing}
        suspect.confirmed = {t: look for t, look in suspect.confirmed.items() if thing and t != thing}

    def forget(self, instance_id: str) -> None:
        self._suspects.pop(instance_id, None)
        self._stubborn.discard(instance_id)

    def stubborn(self) -> int:
        """How many instances still look wrong after two repairs."""
        return len(self._stubborn)

    def ripe_at(self) -> float:
        """When another look is due; infinity for never."""
        return min((suspect.ripe_at() for suspect in self._suspects.values()), default=math.inf)


def _first(before: tuple[float, object] | None, look: object, now: float) -> tuple[float, object]:
    return before if before is not None and before[1] == look else (now, look)
