"""The story of the product: one subject of one registration, from what the cluster holds to what Consul holds.

    gather -> desired -> plan -> quarantine -> write -> report

Level-based: a key says only where to look. All is decided by what is found there now, so it doesn't matter which event
put the key on the queue, how often, or whether some were missed. What should stand is decided in `desired.py`, what to
do about the difference in `plan.py`, which removals are held in `guard.py`, what is said of it in `outcomes.py` and
`conditions.py`; how Consul is read and written is `consul/`'s matter. A registration as a whole (finalizer, deletion)
is `lifecycle.py`'s.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from consul_registrar import model, tracing
from consul_registrar.causes import caused, edited, evidence, read
from consul_registrar.changes import Cause, Change, Deregister, Evidence, Register
from consul_registrar.consul.errors import ConsulError, Overtaken, Paced, asked
from consul_registrar.consul.registry import Registry
from consul_registrar.consuls import Consuls
from consul_registrar.desired import Absent, Ceded, Kept, Present, Want
from consul_registrar.facts import Facts
from consul_registrar.gather import Gatherer, Unconfirmed
from consul_registrar.guard import Held, Passes, Waits
from consul_registrar.logs import about
from consul_registrar.model import Instance, Key, Reason, RegistrationKey
from consul_registrar.outcomes import failure, held, name_of, outcome, unreachable
from consul_registrar.plan import allowed, apart, plan
from consul_registrar.quarantine import Quarantine
from consul_registrar.queue import Ended, Queue
from consul_registrar.reaping import REAPED, Reaped, looks
from consul_registrar.reports import Reports
from consul_registrar.rivals import wanted
from consul_registrar.tally import Outcome
from consul_registrar.values import record
from consul_registrar.writer import Still, always

logger = logging.getLogger(__name__)

_SLOW_RETRY = 30.0  # seconds; for what time alone doesn't mend (a denied token), and where a wake-up would be missed


@record(frozen=True, slots=True)
class Done:
    """What is counted now; `again`: seconds until it must be looked at anew, None: when something changes."""

    outcome: Outcome | None
    again: float | None = None


@record(frozen=True, slots=True)
class Failed:
    """Something could not be written, or not even decided (`outcome` None); `at_least`: seconds until the next try."""

    outcome: Outcome | None
    at_least: float = 0.0


@record(frozen=True, slots=True)
class NoNews:
    """Nothing is known yet that could be acted upon, or said. `again`: seconds until another look."""

    again: float | None = None


@record(frozen=True, slots=True)
class Stands:
    """What was said stands, as a fresh read has confirmed. `again`: seconds until another look."""

    again: float


Result = Done | Failed | NoNews | Stands


@record(frozen=True, slots=True)
class Planned:
    """What is to be done in one Consul, and on which facts. `passing`: the changes that may be written."""

    facts: Facts
    want: Want
    changes: tuple[Change, ...]
    passing: tuple[Change, ...]


class Reconciler:
    """Makes every Consul true for one subject at a time."""

    def __init__(
        self,
        gatherer: Gatherer,
        consuls: Consuls,
        queue: Queue[Key],
        reports: Reports,
        reaped: Reaped,
        quarantine: Quarantine,
        doubt: Callable[[], None],
        epoch: Callable[[], float],
    ) -> None:
        self._gatherer = gatherer
        self._consuls = consuls
        self._queue = queue
        self._reports = reports
        self._reaped = reaped
        self._quarantine = quarantine
        self._doubt = doubt
        self._epoch = epoch

    async def reconcile(self, registration: RegistrationKey, subject: str) -> Ended:
        """Make each Consul that the registration is in, or was in, true for this subject. Never raises."""
        with about(registration):
            names = self._consuls_of(registration, subject)
            if len(names) == 1:  # as a rule; a task of its own would cost as much as all of it
                results = [await self._in_consul(registration, subject, names[0])]
            else:
                results = await asyncio.gather(*(self._in_consul(registration, subject, name) for name in names))
        return self._schedule(Key(registration, subject), results)

    async def _in_consul(self, key: RegistrationKey, subject: str, name: str) -> Result:
        """One Consul's trouble stays its own, ours included."""
        edition = self._reports.edition(key)
        try:
            registry = self._consuls.registry(name)
            result = await self._pass(key, subject, registry) if registry else self._apart(key, subject, name)
        except Unconfirmed as error:
            logger.warning("%s: a removal can't be confirmed, so it waits: %s", subject, error)
            result = Failed(None)
        except Exception as error:
            logger.exception("reconciling %s in Consul %r failed unexpectedly", subject, name)
            result = Failed(unreachable(subject, Reason("InternalError", f"{type(error).__name__}: {error}")))
        self._report(key, subject, name, result, edition)
        tracing.became(name, result)
        return result

    def _consuls_of(self, registration: RegistrationKey, subject: str) -> list[str]:
        return sorted(self._consuls.concerned(registration, subject) | self._reports.consuls(registration))

    def _report(self, key: RegistrationKey, subject: str, name: str, result: Result, edition: int) -> None:
        match result:
            case NoNews() | Failed(outcome=None):
                return
            case Stands():
                self._reports.stands(key, name, subject, edition)
            case Done(outcome=counted) | Failed(outcome=counted):
                self._reports.put(key, name, subject, counted, edition)

    async def _pass(self, key: RegistrationKey, subject: str, registry: Registry) -> Result:
        """The whole way: gather -> desired -> plan -> quarantine -> write -> report."""
        known = self._gatherer.knows_secrets(key)
        try:
            strangers = await self._gatherer.strangers(registry, key, subject)
        except ConsulError as error:
            facts = self._gatherer.facts(key, subject, registry)
            return self._failed(registry, facts, wanted(facts), error)
        planned = self._plan(key, subject, registry, strangers)
        if not isinstance(planned, Planned):
            return planned
        if _comes_too_early(planned) or (not known and isinstance(planned.want, Present | Kept)):
            return NoNews()
        facts, want = planned.facts, planned.want
        health, passing = apart(want, planned.passing)
        try:
            if health:
                await self._write(registry, facts, health, evidence(facts))
            found = await self._quarantined(registry, facts, want if passing else None)
            if not isinstance(found, Evidence):
                return found
            await self._write(registry, facts, passing, found)
        except Overtaken:
            return Failed(None)
        except ConsulError as error:
            return self._failed(registry, facts, want, error)
        self._gatherer.taken(facts)
        if any(isinstance(change, Register | Deregister) for change in planned.passing):
            self._tell_rivals(facts)
            self._tell_registration(registry, facts)
        return self._done(registry, planned)

    async def _write(self, registry: Registry, facts: Facts, changes: tuple[Change, ...], found: Evidence) -> None:
        for change in changes:
            still, of = self._still(registry, facts, change), facts.owner.key if isinstance(change, Register) else None
            await self._consuls.write(registry.name, replace(change, evidence=found), still, of)

    def _still(self, registry: Registry, facts: Facts, change: Change) -> Still:
        """What tells when its turn has come whether a change is wanted: it may have had to wait for long."""
        match change:
            case Deregister(cause=cause) if not cause.final:
                return partial(self._still_leaves, registry, facts, change)
            case Register():
                return partial(self._gatherer.hold, facts)
            case _:
                return always

    def _still_leaves(self, registry: Registry, facts: Facts, change: Change) -> bool:
        """Whether a removal would be planned now, too, by what has arrived since it was confirmed."""
        try:
            planned = self._plan(facts.owner.key, facts.subject, registry, facts.strangers)
        except Exception:
            logger.exception("whether %s is still to be removed can't be told", change.id)
            return False
        about = (type(change), change.node, change.id, change.cause)
        now = planned.passing if isinstance(planned, Planned) else ()
        return any((type(each), each.node, each.id, each.cause) == about for each in now)

    def _plan(
        self, key: RegistrationKey, subject: str, registry: Registry, strangers: tuple[Instance, ...] = ()
    ) -> Planned | NoNews | Done:
        """The first half of it, which changes nothing: gather -> desired -> plan."""
        facts = self._gatherer.facts(key, subject, registry)
        if strangers:
            facts = replace(facts, strangers=strangers)
        if isinstance(facts.place, Reason) and facts.place.code == model.CONNECTING:
            return NoNews(_SLOW_RETRY) if self._consuls.wanted(key, registry.name) else Done(None)
        want = self._left_reaped(registry, facts, wanted(facts))
        changes = self._caused(registry, facts, want)
        return Planned(facts, want, changes, self._passing(facts, changes))

    def look(self, registration: RegistrationKey, subject: str) -> bool:
        """Count what stands as it should, writing nothing; whether it does in each Consul. Never raises."""
        with about(registration):
            results = [self._seen(registration, subject, name) for name in self._consuls_of(registration, subject)]
        seen = [result for result in results if result is not None]
        self._schedule(Key(registration, subject), seen)
        return len(seen) == len(results)

    def _seen(self, key: RegistrationKey, subject: str, name: str) -> Result | None:
        """What is to be said of one Consul; None: there is something to do, and whoever does it will say so."""
        try:
            registry = self._consuls.registry(name)
            result = self._settled(key, subject, registry) if registry else self._apart(key, subject, name)
        except Exception:
            logger.exception("looking at %s in Consul %r failed unexpectedly", subject, name)
            return None
        if result is not None:
            self._report(key, subject, name, result, self._reports.edition(key))
        return result

    def _settled(self, key: RegistrationKey, subject: str, registry: Registry) -> Result | None:
        planned = self._plan(key, subject, registry)
        if not isinstance(planned, Planned):
            return planned
        registration = planned.facts.registration
        asks = registration is not None and (registration.adopts or registration.secrets)  # and nobody was asked
        if planned.passing or asks:
            return None
        self._quarantine.withdraw(registry.name, Key(key, subject))
        return self._done(registry, planned)

    def _tell_rivals(self, facts: Facts) -> None:
        """Whose turn it is may have changed: each waits for what the other has done, or can't do."""
        for rival in facts.rivals:
            self._queue.add(Key(rival.key, facts.subject))

    def _tell_registration(self, registry: Registry, facts: Facts) -> None:
        """A deleted one may go with the last of its instances."""
        registration = facts.registration
        if registration is not None and registration.deleting and not registry.subjects(registration.key):
            self._queue.add(Key(registration.key))
        for key in self._gatherer.overlooked(facts):
            self._queue.add(key)

    def _left_reaped(self, registry: Registry, facts: Facts, want: Want) -> Want:
        """What its agent has removed, as the user asked, is left alone for a while."""
        if not isinstance(want, Present) or facts.standing:
            return want
        where = (facts.owner.key, facts.subject, registry.name)
        gone = registry.reaped(facts.owner.key, facts.subject)
        if not gone and not self._reaped.known(where):
            return want
        seen = looks(facts.registration, facts.pod)
        left = self._reaped.left_alone(where, name_of(facts), seen, self._epoch(), gone=gone)
        return Kept(REAPED, problem=True) if left else want

    def _passing(self, facts: Facts, changes: tuple[Change, ...]) -> tuple[Change, ...]:
        """The changes that may be written: none of a suspended registration, else as the connection's policy says."""
        registration = facts.registration
        if registration is not None and registration.suspended and not registration.deleting:
            return ()
        return allowed(changes, self._consuls.policy(facts.owner.connection))

    def _caused(self, registry: Registry, facts: Facts, want: Want) -> tuple[Change, ...]:
        said = self._reports.outcome(facts.owner.key, registry.name, facts.subject)
        reaped = self._reaped.known((facts.owner.key, facts.subject, registry.name))
        changes = plan(want, facts.standing, facts.strangers, edited=edited(want, said))
        return caused(changes, want, facts, said, reaped=reaped)

    async def _quarantined(self, registry: Registry, facts: Facts, want: Want | None) -> Result | Evidence:
        """What bars a removal now, or the evidence for it. Only absences are ever barred (design chapter 2, law 6)."""
        key = Key(facts.owner.key, facts.subject)
        if not isinstance(want, Absent) or want.monotone:
            self._quarantine.withdraw(registry.name, key)
            return evidence(facts)
        match Passes() if want.asked_for else self._quarantine.judge(registry, facts, want):
            case Waits(again, held=was_held):
                return Done(held(facts, want), again) if was_held else NoNews(again)
            case Held(again, probe):
                if probe:
                    await self._confirmed(facts, want)  # contradicted, it stays held, but what says so is in doubt
                return Done(held(facts, want), again)
            case Passes():
                confirmed = await self._confirmed(facts, want)
                if confirmed:
                    return replace(evidence(facts), confirmed=confirmed)
        return Stands(again=self._quarantine.contradicted(registry.name, key))

    async def _confirmed(self, facts: Facts, want: Absent) -> str:
        """What a fresh read found that confirms an absence, "" where it doesn't.

        What was delivered and is contradicted is in doubt.
        """
        if want.asked_for and facts.registration is not None:
            return "" if await self._gatherer.swept_along(facts.registration) else "the definition stays"
        fresh = await self._gatherer.afresh(facts)
        if isinstance(wanted(fresh), Absent):
            return read(fresh)
        if want.cause is Cause.VANISHED:
            self._doubt()
        return ""

    def _apart(self, key: RegistrationKey, subject: str, name: str) -> Result:
        """There is no such Consul, or it can't even be tried: a problem of those who want to be in it."""
        reason = self._consuls.down(name)
        if not self._consuls.wanted(key, name):
            return Done(None)
        if reason is None or reason.code == model.CONNECTING:
            return NoNews(_SLOW_RETRY)
        return Done(unreachable(self._gatherer.name(subject), reason))

    def _failed(self, registry: Registry, facts: Facts, want: Want, error: ConsulError) -> Failed:
        said = self._reports.outcome(facts.owner.key, registry.name, facts.subject)
        paced = isinstance(error, Paced)
        if not paced and (said is None or said.reason != error.reason):  # each retry anew would only say it again
            logger.warning("%s: %s: %s", name_of(facts), error.reason.code, error.reason.message)
        if isinstance(want, Present) and not error.retry and self._gatherer.refused(facts, want.instance):
            self._tell_rivals(facts)
        standing = registry.instances(facts.owner.key, facts.subject)
        counted = failure(facts, want, standing, error.reason, said, problem=not paced)
        return Failed(counted, asked(error) if error.retry else _SLOW_RETRY)

    def _done(self, registry: Registry, planned: Planned) -> Done:
        facts, want, withheld = planned.facts, planned.want, planned.passing != planned.changes
        if isinstance(want, Absent) and not withheld:
            self._quarantine.removed(registry.name, Key(facts.owner.key, facts.subject))
        standing = registry.instances(facts.owner.key, facts.subject)
        said = self._reports.outcome(facts.owner.key, registry.name, facts.subject)
        counted = outcome(facts, want, standing, said, withheld=withheld)
        again = self._waits_reaped(registry, facts, counted, back=isinstance(want, Present) and bool(standing))
        return Done(counted, _SLOW_RETRY if again is None and _depends(facts, want) else again)

    def _waits_reaped(self, registry: Registry, facts: Facts, counted: Outcome | None, *, back: bool) -> float | None:
        """For how many seconds what its agent removed is left alone, None where none is; `back`: it stands again."""
        where = (facts.owner.key, facts.subject, registry.name)
        if not self._reaped.known(where):
            return None
        well = counted is None or counted.health is model.Health.PASSING
        return self._reaped.found(where, looks(facts.registration, facts.pod), self._epoch(), back=back, well=well)

    def _schedule(self, key: Key, results: Sequence[Result]) -> Ended:
        """The one place where results become the key's future."""
        failures: list[float] = []
        ended = Ended.SUCCESS
        for result in results:
            match result:
                case Failed(at_least=at_least):
                    failures.append(at_least)
                case Done(again=float(again)) | NoNews(again=float(again)) | Stands(again=float(again)):
                    self._queue.add_after(key, again)
                    ended = Ended.REQUEUE_AFTER
        if failures:
            self._queue.retry(key, at_least=max(failures))
            return Ended.ERROR
        self._queue.forget(key)
        return ended


def _comes_too_early(planned: Planned) -> bool:
    """Whether it would be new in Consul while its registration could go without our noticing.

    `lifecycle.py` has our finalizer added, and then all looked at.
    """
    facts, registration = planned.facts, planned.facts.registration
    begins = isinstance(planned.want, Present) and not facts.standing and bool(planned.passing)
    return begins and registration is not None and not registration.held


def _depends(facts: Facts, want: Want) -> bool:
    """Whether another registration has the last word, whose refusal nobody would tell of."""
    disputed = facts.name_taken is not None or any(rival.publishes for rival in facts.rivals)
    return disputed and isinstance(want, Ceded | Kept)
