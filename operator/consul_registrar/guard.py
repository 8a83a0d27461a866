"""The quarantine of one connection: which removals by absence may pass, which wait, and which are held (law 6).

What is absent (not in a list, not selected any more) is evidence only while it holds, and much that is absent at once
is rather a mistake: an API server restored from an older backup, a selector with a typo, a list that came back empty.
So absences are judged together, over a sliding window:

    younger than the settling time                           waits: what belongs together arrives together
    few                                                      passes
    too many of all instances of this Consul                 held, like every later one of these
    all instances of a registration, at least so many        held
    held, and the time of `release: After` is over           drained at the set rate
    held, and the hash of the held set approved              drained at the set rate

A removal that passes is confirmed by a fresh read before it is made (`reconcile.py`). What is gone never comes here.
Once held, a removal stays held until it is released or withdrawn: evidence that was in doubt doesn't gain by others
coming back. Knows no clock: the time, in seconds, is an argument. Each question costs the same however many are held.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from consul_registrar.changes import Cause
from consul_registrar.model import Key, RegistrationKey

#: Seconds that an absence waits before it is judged: a list's sweep, or an edit's expansion, is over by then.
SETTLE = 1.5
#: Seconds over which absences are added up, so that many small steps are seen as what they are.
WINDOW = 60.0
_SHOWN = 10
_PROBES = 3


@dataclass(frozen=True, slots=True)
class Terms:
    """When to hold. `share`: of all instances, 0 to 1; `after`: seconds, None: only by approval; `rate`: a second."""

    share: float = 0.2
    at_least: int = 3
    after: float | None = 300.0
    rate: float = 10.0


@dataclass(frozen=True, slots=True)
class Passes:
    """It may be removed, once a fresh read has confirmed it."""


@dataclass(frozen=True, slots=True)
class Waits:
    """It is too early to say, or (`held`) its turn to be drained has not come; ask again in so many seconds."""

    again: float
    held: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """It is not removed for now; `again`: seconds until that may change by itself, None: never.

    `probe`: it is one of the first to be held. A fresh read of it tells at once whether the evidence is any good.
    """

    again: float | None
    probe: bool = False


Judgement = Passes | Waits | Held


@dataclass(frozen=True, slots=True)
class Absence:
    """What is asked about: `instances` of one subject, `subjects` of its registration standing in all, and where."""

    key: Key
    cause: Cause
    name: str
    instances: int
    subjects: int
    standing: int


@dataclass(frozen=True, slots=True)
class HeldSet:
    """What is held now. `digest` names exactly these subjects: an approval of it is an approval of nothing else."""

    subjects: int
    digest: str
    shown: tuple[str, ...]


NOTHING = HeldSet(0, "", ())


@dataclass(slots=True)
class _Claim:
    """One absence on its way. `held`: since when; `due`: when its turn to be drained comes; `approved`: by a person."""

    absence: Absence
    since: float
    held: float | None = None
    due: float | None = None
    approved: bool = False


@dataclass(slots=True)
class Guard:
    """All absences of one connection."""

    terms: Terms = field(default_factory=Terms)
    _claims: dict[Key, _Claim] = field(default_factory=dict)
    _waiting: int = 0
    _unselected: Counter[RegistrationKey] = field(default_factory=Counter)
    _removed: deque[tuple[float, int]] = field(default_factory=deque)
    _removed_sum: int = 0
    _next: float = 0.0
    _held: set[Key] = field(default_factory=set)
    _seen: HeldSet | None = None

    def judge(self, absence: Absence, now: float) -> Judgement:
        """Whether a removal may be made now. To be asked again until it passes or is withdrawn."""
        claim = self._claim(absence, now)
        fresh = claim.held is None
        if claim.due is None and claim.held is None:
            if now < claim.since + SETTLE:
                return Waits(claim.since + SETTLE - now)
            if not self._too_much(absence, now):
                return Passes()
            self._hold(claim, now)
        if claim.due is None and self._overdue(claim, now):
            self._release(claim, now)
        elif claim.due is not None and not claim.approved and not self._overdue(claim, now):
            self._take_back(claim)
        if claim.due is None:
            return Held(self._remaining(claim, now), probe=fresh and len(self._held) <= _PROBES)
        return Passes() if now >= claim.due else Waits(claim.due - now, held=True)

    def withdraw(self, key: Key) -> None:
        """It is not absent any more, or was never confirmed to be."""
        claim = self._claims.pop(key, None)
        if claim is not None:
            self._count(claim.absence, -1)
            self._unhold(key)

    def removed(self, key: Key, now: float) -> None:
        """It was removed. One that passed counts on for a while: many small steps are one large one."""
        claim = self._claims.get(key)
        self.withdraw(key)
        if claim is not None and claim.held is None:
            self._removed.append((now, claim.absence.instances))
            self._removed_sum += claim.absence.instances

    def approve(self, digest: str, now: float) -> tuple[Key, ...]:
        """Release what is held, if `digest` names exactly that; returns what is released."""
        if not digest or digest != self.held().digest:
            return ()
        released = tuple(sorted(self._held, key=_order))
        for key in released:
            self._claims[key].approved = True
            self._release(self._claims[key], now)
        return released

    @property
    def holding(self) -> int:
        """How many subjects are held and not released."""
        return len(self._held)

    def held(self) -> HeldSet:
        """What is held and not released. Costs as much as there is, but only where that has changed."""
        if not self._held:
            return NOTHING
        if self._seen is None:
            keys = sorted(self._held, key=_order)
            shown = tuple(f"{key.registration}: {self._claims[key].absence.name}" for key in keys[:_SHOWN])
            self._seen = HeldSet(len(keys), _digest(keys), shown)
        return self._seen

    # judging

    def _too_much(self, absence: Absence, now: float) -> bool:
        self._forget_before(now - WINDOW)
        at_once = self._waiting + self._removed_sum
        of_all = absence.standing + self._removed_sum
        many = at_once >= self.terms.at_least and at_once > self.terms.share * of_all
        return many or self._takes_all(absence)

    def _takes_all(self, absence: Absence) -> bool:
        """Whether an edit would leave nothing of a registration whose Pods live."""
        leaving = self._unselected[absence.key.registration]
        return absence.cause is Cause.UNSELECTED and leaving >= max(absence.subjects, self.terms.at_least)

    def _overdue(self, claim: _Claim, now: float) -> bool:
        remaining = self._remaining(claim, now)
        return remaining is not None and remaining <= 0

    def _remaining(self, claim: _Claim, now: float) -> float | None:
        if self.terms.after is None or claim.held is None:
            return None
        return claim.held + self.terms.after - now

    # book-keeping

    def _claim(self, absence: Absence, now: float) -> _Claim:
        """What is known of it, with the absence as it is now."""
        claim = self._claims.get(absence.key)
        if claim is None:
            claim = self._claims[absence.key] = _Claim(absence, now)
        else:
            self._count(claim.absence, -1)
            claim.absence = absence
        self._count(absence, +1)
        return claim

    def _count(self, absence: Absence, by: int) -> None:
        self._waiting += by * absence.instances
        if absence.cause is Cause.UNSELECTED:
            self._unselected[absence.key.registration] += by
            if not self._unselected[absence.key.registration]:
                del self._unselected[absence.key.registration]

    def _hold(self, claim: _Claim, now: float) -> None:
        claim.held = now
        self._held.add(claim.absence.key)
        self._seen = None

    def _release(self, claim: _Claim, now: float) -> None:
        """Its turn comes after all that were released before it."""
        claim.due = max(now, self._next)
        self._next = claim.due + 1 / self.terms.rate
        self._unhold(claim.absence.key)

    def _take_back(self, claim: _Claim) -> None:
        """The terms have changed: what time has released would not be released now."""
        claim.due = None
        self._held.add(claim.absence.key)
        self._seen = None

    def _unhold(self, key: Key) -> None:
        if key in self._held:
            self._held.discard(key)
            self._seen = None

    def _forget_before(self, moment: float) -> None:
        while self._removed and self._removed[0][0] < moment:
            self._removed_sum -= self._removed.popleft()[1]


def _order(key: Key) -> tuple[str, str, str]:
    return (*key.registration, key.subject or "")


def _digest(keys: Iterable[Key]) -> str:
    """Twelve hex digits for a set of subjects; length-delimited, so that no two sets look alike."""
    text = "".join(f"{len(part)}:{part}" for key in keys for part in _order(key))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
