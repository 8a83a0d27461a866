"""The quarantines of all connections: each its own guard, on the terms of its spec, with the clock.

Decides nothing: when a removal by absence passes is decided in `guard.py`; what to do then in `reconcile.py`; what is
said of it in `connection_status.py`.
"""

import random
from collections.abc import Callable

from consul_registrar.backoff import delay
from consul_registrar.consul.registry import Registry
from consul_registrar.consuls import Consuls
from consul_registrar.desired import Absent
from consul_registrar.facts import Facts
from consul_registrar.guard import NOTHING, Absence, Guard, HeldSet, Judgement
from consul_registrar.model import Key
from consul_registrar.outcomes import name_of

#: Seconds until another look at what a fresh read has found though nobody tells of it: at first, and at most. As a rule
#: the watch tells much earlier; but what was left outside of a narrower `--pod-selector` stays there.
_CONTRADICTED = (30.0, 600.0)


class Quarantine:
    """Judges removals by absence. `clock`: monotonic seconds."""

    def __init__(self, consuls: Consuls, clock: Callable[[], float]) -> None:
        self._consuls = consuls
        self._clock = clock
        self._guards: dict[str, Guard] = {}
        self._contradicted: dict[tuple[str, Key], int] = {}

    def judge(self, registry: Registry, facts: Facts, want: Absent) -> Judgement:
        """Whether what is absent may be removed now."""
        key = Key(facts.owner.key, facts.subject)
        absence = Absence(
            key=key,
            cause=want.cause,
            name=name_of(facts),
            instances=len(facts.standing),
            subjects=len(registry.subjects(facts.owner.key)),
            standing=registry.standing(),
        )
        guard = self._guards.setdefault(registry.name, Guard())
        guard.terms = self._consuls.removal_terms(registry.name)
        return guard.judge(absence, self._clock())

    def withdraw(self, connection: str, key: Key) -> None:
        """It is not absent, or not to be removed."""
        self._contradicted.pop((connection, key), None)
        self._withdraw(connection, key)

    def contradicted(self, connection: str, key: Key) -> float:
        """A fresh read has found it, so it stays. The seconds until another look: ever more while that goes on."""
        before = self._contradicted.get((connection, key), 0)
        self._contradicted[connection, key] = before + 1
        self._withdraw(connection, key)
        return delay(before, *_CONTRADICTED, random.random())  # noqa: S311

    def _withdraw(self, connection: str, key: Key) -> None:
        if connection in self._guards:
            self._guards[connection].withdraw(key)

    def removed(self, connection: str, key: Key) -> None:
        """It was removed."""
        self._contradicted.pop((connection, key), None)
        if connection in self._guards:
            self._guards[connection].removed(key, self._clock())

    def approve(self, connection: str, digest: str) -> tuple[Key, ...]:
        """Release what is held, if `digest` names exactly that; returns what is released."""
        guard = self._guards.get(connection)
        return guard.approve(digest, self._clock()) if guard else ()

    def held(self, connection: str) -> HeldSet:
        """What is held there."""
        guard = self._guards.get(connection)
        return guard.held() if guard else NOTHING

    def holding(self) -> dict[str, int]:
        """How much is held, by connection."""
        return {name: self._guards[name].holding if name in self._guards else 0 for name in self._consuls.names()}
