"""Why a change is made, where the difference alone doesn't tell: what was counted before says whether it stood already.

Decides between something new, an edit, and what was undone behind our back; and what an audit line names as evidence.
What to change is decided in `plan.py`.
"""

from dataclasses import replace

from consul_registrar.changes import Cause, Change, Evidence
from consul_registrar.desired import Present, Want
from consul_registrar.facts import Facts
from consul_registrar.model import META_POD_UID, Instance
from consul_registrar.services import parts_of
from consul_registrar.tally import Outcome


def caused(
    changes: tuple[Change, ...], want: Want, facts: Facts, said: Outcome | None, *, reaped: bool
) -> tuple[Change, ...]:
    """The changes with their true causes. `said`: the subject's last outcome; `reaped`: its agent had removed it.

    planned as   nothing stands        something stands
    ----------   -------------------   ------------------------------------
    desired      reaped; it stood:     desired: it takes another's place
                 drift; else desired
    edited                             asked for the same before: drift
    """
    if not isinstance(want, Present):
        return changes
    if not facts.standing:
        stood = said is not None and said.registered
        return _all(changes, Cause.DESIRED, Cause.REAPED if reaped else Cause.DRIFT if stood else Cause.DESIRED)
    same = said is not None and said.registered and said.asked == asked(want.instance)
    return _all(changes, Cause.EDITED, Cause.DRIFT) if same else changes


def edited(want: Want, said: Outcome | None) -> bool:
    """Whether something else was asked for when the subject was looked at last; False where that isn't known."""
    return isinstance(want, Present) and said is not None and said.asked not in {0, asked(want.instance)}


def asked(instance: Instance) -> int:
    """Tells what is asked for from anything else, save the statuses of checks; never 0. Good within one process."""
    i = instance
    checks = tuple((check.id, check.probe) for check in i.checks)
    fields = (i.address, i.port, i.ports, i.tags, i.meta, i.tag_override, i.weights, i.tagged)
    return hash((i.node, i.id, i.service, fields, checks)) or 1


def evidence(facts: Facts) -> Evidence:
    """The versions of the objects that a decision is made on."""
    return Evidence(
        pod=facts.pod.version if facts.pod else None,
        registration=facts.registration.meta.version if facts.registration else None,
        service=facts.exposed.service.version if facts.exposed else None,
    )


def read(fresh: Facts) -> str:
    """What a fresh read has found, for the audit line of what it confirmed."""
    seen = evidence(fresh)
    pod = f"Pod {_at(seen.pod)}, " if _of_a_pod(fresh) else ""
    service = f"Service {_at(seen.service)}, " if parts_of(fresh.subject)[0] else ""
    return f"{pod}{service}registration {_at(seen.registration)}"


def _at(version: int | None) -> str:
    return "absent" if version is None else f"at {version}"


def _of_a_pod(facts: Facts) -> bool:
    return facts.pod is not None or any(i.meta_value(META_POD_UID) for i in facts.standing)


def _all(changes: tuple[Change, ...], planned: Cause, true: Cause) -> tuple[Change, ...]:
    if planned is true:
        return changes
    return tuple(replace(change, cause=true) if change.cause is planned else change for change in changes)
