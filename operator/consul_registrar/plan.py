"""What to do about the difference between what should stand in Consul and what does.

Decides the changes for one subject of one registration in one Consul, and their order; never looks at what another
owner has. Which instance should stand is decided in `desired.py`; whether a removal is confirmed, in `reconcile.py`.

    want      standing                     changes
    -------   --------------------------   ---------------------------------------------------------
    present   nothing                      register with all checks
    present   the same                     none
    present   other fields                 register, its running checks left alone
    present   other check definitions      register with all checks; drop the checks that it no longer has
    present   a check is missing           register with that check
    present   the same, an old token       register with all checks
    present   another readiness            feed it
    present   nobody's, to be adopted      … all of the above first, then deregister that
    present   also elsewhere               … all of the above first, then deregister the other (make before break);
                                           what is new begins with the health of what it replaces
    absent    something                    deregister; if it is unready, feed its readiness first
    orphaned  something                    register without owner, checks left alone but that of the dead man's switch
    ceded     something                    deregister: another registration has the same standing there
    kept      anything                     none
"""

from collections.abc import Sequence
from dataclasses import replace

from consul_registrar import model
from consul_registrar.changes import Cause, Change, Deregister, DropCheck, Feed, Register
from consul_registrar.checks import is_readiness
from consul_registrar.dead_man import follows
from consul_registrar.desired import Absent, Ceded, Kept, Orphaned, Present, Want
from consul_registrar.model import Check, Instance
from consul_registrar.names import folded
from consul_registrar.probes import Readiness

_OWNERSHIP = (
    model.META_MANAGED_BY,
    model.META_CLUSTER,
    model.META_CONNECTION,
    model.META_NAMESPACE,
    model.META_REGISTRATION,
    model.META_HASH,
    model.META_TAGS,
)


_HASHES = {model.META_HASH, model.META_TAGS, model.META_NONCE}


def plan(
    want: Want, standing: Sequence[Instance], strangers: Sequence[Instance] = (), *, edited: bool = False
) -> tuple[Change, ...]:
    """The changes that turn `standing` into what is wanted, in the order in which they must be made.

    `strangers`: what is nobody's and may be adopted, where it is the same. `edited`: something else was asked for
    before.
    """
    match want:
        case Present(instance):
            known = [_with_tags_in_doubt(i) for i in standing] if edited and instance.tag_override else standing
            return _arrive(instance, known, [i for i in strangers if _same_place(i, instance)])
        case Absent(cause, unready=unready):
            feeds = [feed for i in standing for feed in _unready(i)] if unready else []
            return (*feeds, *(Deregister(i, cause) for i in standing))
        case Orphaned():
            return tuple(change for i in standing for change in _let_go(i))
        case Ceded():
            return tuple(Deregister(i, Cause.REPLACED) for i in standing)
        case Kept():
            return ()


def _unready(i: Instance) -> list[Feed]:
    """Until it is removed callers are kept away: a removal by absence may have to wait, health never does."""
    stale = (c for c in i.checks if is_readiness(c.id) and c.status is not model.Health.CRITICAL)
    return [Feed(i, replace(c, probe=Readiness(), status=model.Health.CRITICAL)) for c in stale]


def allowed(changes: tuple[Change, ...], policy: str) -> tuple[Change, ...]:
    """The changes that a connection's policy lets pass: Sync all, UpsertOnly no removal, Observe none."""
    match policy:
        case "Observe":
            return ()
        case "UpsertOnly":
            return tuple(c for c in changes if not isinstance(c, Deregister))
        case _:
            return changes


def apart(want: Want, changes: tuple[Change, ...]) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """What an absence has to do with health, which nothing bars, and the rest."""
    if not isinstance(want, Absent):
        return (), changes
    health = tuple(c for c in changes if isinstance(c, Feed))
    return health, changes[len(health) :]


def _arrive(wanted: Instance, standing: Sequence[Instance], adopted: Sequence[Instance]) -> tuple[Change, ...]:
    same = [i for i in standing if (i.node, i.id) == (wanted.node, wanted.id)]
    others = [i for i in standing if (i.node, i.id) != (wanted.node, wanted.id)]
    first = _update(wanted, same[0]) if same else _create(wanted, others, adopted)
    leave = [Deregister(i, Cause.REPLACED) for i in others]
    return (*first, *leave, *(Deregister(i, Cause.ADOPTED) for i in adopted))


def _create(wanted: Instance, others: Sequence[Instance], adopted: Sequence[Instance]) -> tuple[Change, ...]:
    """A new instance. One that takes another's place begins with that one's health: the callers' view has no gap.

    What was registered by hand may call its checks otherwise: then its worst check speaks for all.
    """
    known = {check.name: check.status for other in (*adopted, *others) for check in other.checks}
    else_ = model.worst([i.health for i in adopted]) if adopted and not others else None
    cause = Cause.ADOPTED if adopted and not others else Cause.DESIRED
    if not known and all(c.status for c in wanted.checks):  # as a rule, and copies are what a cold start costs most
        return (Register(wanted, wanted.checks, cause),)
    checks = tuple(replace(c, status=c.status or known.get(c.name, else_)) for c in wanted.checks)
    return (Register(replace(wanted, checks=checks), checks, cause),)


def _same_place(one: Instance, other: Instance) -> bool:
    return (folded(one.service), one.address, one.port) == (folded(other.service), other.address, other.port)


def _update(wanted: Instance, have: Instance) -> tuple[Change, ...]:
    wanted = _with_tags_of_others(wanted, have)
    statuses = {c.id: c.status for c in have.checks}
    define = wanted.checks if have.outdated else _to_define(wanted, have)
    changes: list[Change] = []
    if define or have.outdated or not same_fields(wanted, have):
        changes.append(Register(wanted, define, _cause(wanted, have)))
    kept = {c.id for c in wanted.checks}
    changes += [DropCheck(wanted, c.id) for c in have.checks if c.id not in kept]
    defined = {c.id for c in define}
    changes += [Feed(wanted, c) for c in wanted.checks if c.id not in defined and _is_wrong(c, statuses.get(c.id))]
    return tuple(changes)


def _with_tags_of_others(wanted: Instance, have: Instance) -> Instance:
    """Where others may edit the tags they stay as they are, unless other ones are asked for than were last."""
    asked = wanted.meta_value(model.META_TAGS)
    left_alone = wanted.tag_override and have.tag_override and have.meta_value(model.META_TAGS) == asked
    return replace(wanted, tags=have.tags) if left_alone else wanted


def _cause(wanted: Instance, have: Instance) -> Cause:
    if not _same_fields(wanted, have):
        return Cause.EDITED
    return Cause.ROTATED if have.outdated else Cause.DRIFT


def _is_wrong(check: Check, status: model.Health | None) -> bool:
    return isinstance(check.probe, Readiness) and check.status != status


def _to_define(wanted: Instance, have: Instance) -> tuple[Check, ...]:
    """The checks to (re)define: all when a definition differs, else those that are missing.

    Only differing definitions are defined anew: to define a check again starts its probe from nothing. But what an
    older version's hash stood for can't be compared, and a write for another reason ends it.
    """
    mine = wanted.meta_value(model.META_HASH)
    if _comparable_hash(wanted, have) != mine:
        return wanted.checks
    known = {c.id for c in have.checks}
    missing = tuple(c for c in wanted.checks if c.id not in known)
    if have.meta_value(model.META_HASH) == mine:
        return missing
    return wanted.checks if missing or not _same_fields(wanted, have) else missing


def _comparable_hash(wanted: Instance, have: Instance) -> str:
    """What stands, as far as it can be compared: the hash of an older version is accepted as it is (law 9)."""
    mine, theirs = wanted.meta_value(model.META_HASH), have.meta_value(model.META_HASH)
    version = mine.partition("-")[0].rstrip("r")
    return theirs if theirs.partition("-")[0].rstrip("r") == version or not theirs else mine


def same_fields(wanted: Instance, have: Instance) -> bool:
    """Whether the service itself is as wanted; its checks apart."""
    same_checks = _comparable_hash(wanted, have) == wanted.meta_value(model.META_HASH)
    return same_checks and _same_fields(wanted, have)


def _with_tags_in_doubt(i: Instance) -> Instance:
    """An older version didn't note which tags it was asked for: after an edit they may be others."""
    return i if i.meta_value(model.META_TAGS) else replace(i, meta=(*i.meta, (model.META_TAGS, "unknown")))


def _same_fields(wanted: Instance, have: Instance) -> bool:
    """Where others may edit the tags it is compared which ones were asked for; an older version didn't note it."""
    asked = have.meta_value(model.META_TAGS) in {"", wanted.meta_value(model.META_TAGS)}
    return asked and _fields(wanted) == _fields(have)


def _fields(i: Instance) -> tuple[object, ...]:
    meta = tuple(pair for pair in i.meta if pair[0] not in _HASHES)
    tags = () if i.tag_override else i.tags
    return (i.service, i.address, i.port, tags, meta, i.tag_override, i.weights, i.tagged, i.ports)


def _let_go(i: Instance) -> tuple[Change, ...]:
    """It stays as it stands, but hangs no more on whether the operator lives."""
    drops = (DropCheck(i, check.id, Cause.ORPHANED) for check in i.checks if follows(check.id))
    return (*drops, Register(_orphan(i), (), Cause.ORPHANED))


def _orphan(i: Instance) -> Instance:
    """The instance without an owner. Where it came from stays readable, so that it can be adopted."""
    origin = "/".join(i.meta_value(key) for key in _OWNERSHIP[1:5])
    meta = dict(pair for pair in i.meta if pair[0] not in _OWNERSHIP) | {model.META_ORPHANED: origin[:512]}
    return replace(i, meta=tuple(sorted(meta.items())), checks=(), outdated=False)
