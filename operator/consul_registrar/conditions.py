"""What status says: conditions and counts, from a registration's tally and the state of its Consuls.

Decides the truth table of `Ready` (first row that holds):

    being deleted                             False / Deleting, or DeregistrationBlocked
    not accepted                              False / its reason
    our finalizer can't be added              False / FinalizerNotAdded
    outcomes are awaited                      Unknown / Reconciling
    suspended                                 True  / Suspended
    a Consul of it can't be reached           False / that Consul's reason
    a subject has a problem                   False / the most frequent reason
    its Service can't be published            False / the reason
    a change is withheld by policy            False / the policy
    desired and not registered                False / Registering
    no Pod is selected                        True  / NoPodsMatched
    Pods are selected, none is to be in yet   True  / WaitingForPods
    its Service has no address yet            True  / the reason
    else                                      True  / Registered

Health never changes it. The clock is an argument. Writing is `kube/`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from consul_registrar.exposure import Lack
from consul_registrar.model import Reason
from consul_registrar.objects import Json, Registration
from consul_registrar.reaping import Record
from consul_registrar.tally import Summary

#: The condition of one Consul of a registration that is there only where it is True.
FOREIGN = "ForeignInstances"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The status of one condition and why. `status` None: Unknown."""

    status: bool | None
    reason: Reason

    @property
    def text(self) -> str:
        return {True: "True", False: "False", None: "Unknown"}[self.status]


@dataclass(frozen=True, slots=True)
class Picture:
    """All that a registration's status is made of.

    `down`: why a Consul of it can't be written to, by connection. `blocked`: why its beginning or its deletion can't go
    on. `awaited`: how many outcomes are not known yet. `resync`: the annotation for which all was read anew last.
    `lack`: why nothing of the Service that it publishes is desired. `foreign`: what it joins (`foreign.py`), by
    the connections where it was looked; None: nothing.
    """

    registration: Registration
    refused: Reason | None
    advice: str
    summary: Summary
    down: Mapping[str, Reason]
    policies: Mapping[str, str]
    reaped: Sequence[Record] = ()
    blocked: Reason | None = None
    awaited: int = 0
    resync: str = ""
    lack: Lack | None = None
    foreign: Mapping[str, Reason | None] = field(default_factory=dict)


def ready(picture: Picture) -> Verdict:
    """The truth table above."""
    registration, summary = picture.registration, picture.summary
    total = summary.total
    if registration.deleting:
        return Verdict(False, picture.blocked or Reason("Deleting", f"{total.registered} instances are being removed"))
    barred = picture.refused or picture.blocked
    if barred is not None:
        return Verdict(False, barred)
    if picture.awaited:
        return Verdict(None, _awaited(picture.awaited))
    if registration.suspended:
        return Verdict(True, Reason("Suspended", f"spec.suspend is set; {total.withheld} changes wait"))
    if picture.down:
        return Verdict(False, _first_down(picture.down))
    if summary.problems:
        return Verdict(False, _most_frequent(summary))
    if picture.lack is not None and picture.lack.problem:
        return Verdict(False, picture.lack.reason)
    if total.withheld:
        return Verdict(False, _withheld(picture.policies, total.withheld))
    if total.registered < total.desired:
        return Verdict(False, Reason("Registering", f"{total.registered} of {total.desired} instances registered"))
    return Verdict(True, picture.lack.reason if picture.lack else _all_is_well(summary))


def accepted(picture: Picture) -> Verdict:
    """Whether the registration is carried out at all."""
    if picture.refused is not None:
        return Verdict(False, picture.refused)
    message = "the spec is valid, its Consuls exist and the service name is its own"
    return Verdict(True, Reason("Accepted", f"{message}; note: {picture.advice}" if picture.advice else message))


def synced(picture: Picture) -> Verdict:
    """Whether Consul holds what it should, and nothing waits."""
    total = picture.summary.total
    if picture.down:
        return Verdict(None, _first_down(picture.down))
    if picture.awaited:
        return Verdict(None, _awaited(picture.awaited))
    if total.registered < total.desired or total.withheld or picture.summary.problems:
        return Verdict(False, Reason("OutOfSync", f"{total.registered} of {total.desired} instances are as desired"))
    return Verdict(True, Reason("InSync", "Consul holds exactly the desired instances"))


def status(picture: Picture, now: str) -> Json:
    """The whole status of a registration; `now` (RFC 3339) is taken only for conditions whose status changes."""
    old = picture.registration.status
    generation = picture.registration.meta.generation
    verdicts = {"Ready": ready(picture), "Accepted": accepted(picture), "Synced": synced(picture)}
    made: dict[str, object] = {
        "observedGeneration": generation,
        "conditions": conditions(old.get("conditions") or [], verdicts, generation, now),
        "instances": _instances(picture.summary),
        "consuls": _consuls(picture, old.get("consuls") or [], now),
    }
    if picture.registration.service:
        made["consulService"] = picture.registration.service
    if picture.summary.reasons:
        made["problems"] = _problems(picture.summary)
    if picture.resync:
        made["resync"] = picture.resync
    if picture.reaped:
        made["reaped"] = [dict(entry) for entry in picture.reaped]
    return made


def conditions(
    old: Sequence[Json], verdicts: Mapping[str, Verdict], generation: int, now: str
) -> list[dict[str, str | int]]:
    """Conditions from verdicts; lastTransitionTime moves only where status changes (Kubernetes API conventions)."""
    before = {condition["type"]: condition for condition in old}
    made = []
    for kind, verdict in verdicts.items():
        known = before.get(kind, {})
        same = known.get("status") == verdict.text
        made.append(
            {
                "type": kind,
                "status": verdict.text,
                "reason": verdict.reason.code,
                "message": verdict.reason.message,
                "lastTransitionTime": known.get("lastTransitionTime", now) if same else now,
                "observedGeneration": generation,
            }
        )
    return made


def says(status: Json, kind: str = "Ready") -> tuple[str, str] | None:
    """Status and reason of a condition in a status, None where it has none."""
    found = next((c for c in status.get("conditions") or () if c["type"] == kind), None)
    return (found["status"], found["reason"]) if found else None


# --- parts ----------------------------------------------------------------------------------------------------------


def _first_down(down: Mapping[str, Reason]) -> Reason:
    name = min(down)
    return Reason(down[name].code, f"Consul {name!r}: {down[name].message}")


def _awaited(count: int) -> Reason:
    return Reason("Reconciling", f"the outcome of {count} instances is not known yet")


def _most_frequent(summary: Summary) -> Reason:
    code = max(summary.problems, key=lambda c: (summary.problems[c], c))
    example = next((f for f in summary.worst if f.reason.code == code), None)
    others = sum(summary.problems.values()) - 1
    more = f" (and {others} more, see status.problems)" if others else ""
    return Reason(code, f"{example.name}: {example.reason.message}{more}" if example else f"{others + 1} problems")


def _withheld(policies: Mapping[str, str], count: int) -> Reason:
    code = {"Observe": "Observed", "UpsertOnly": "UpsertOnly"}
    codes = sorted({code[p] for p in policies.values() if p in code}) or ["Withheld"]
    return Reason(codes[0], f"the connection's policy lets {count} changes wait")


def _all_is_well(summary: Summary) -> Reason:
    total = summary.total
    if not summary.subjects:
        return Reason("NoPodsMatched", "no Pod matches spec.pods.selector in this namespace")
    if not total.desired:
        waits = ", ".join(f"{count} {code}" for code, count in summary.reasons.items())
        return Reason("WaitingForPods", f"no Pod is to be registered yet: {waits or 'all are on their way'}")
    return Reason("Registered", f"{total.registered} of {total.desired} instances registered, {total.passing} passing")


def _instances(summary: Summary) -> dict[str, int | str]:
    total = summary.total
    return {
        "desired": total.desired,
        "registered": total.registered,
        "passing": total.passing,
        "warning": total.warning,
        "critical": total.critical,
        "waiting": total.withheld,
        "summary": f"{total.registered}/{total.desired}",
    }


def _consuls(picture: Picture, old: Sequence[Json], now: str) -> list[dict[str, object]]:
    before = {entry["name"]: entry for entry in old}
    made = []
    for name in sorted({*picture.registration.connections, *picture.summary.consuls}):
        counts = picture.summary.consuls.get(name)
        known = before.get(name, {}).get("conditions") or []
        made.append(
            {
                "name": name,
                "registered": counts.registered if counts else 0,
                "passing": counts.passing if counts else 0,
                "conditions": _of_consul(picture, name, known, now),
            }
        )
    return made


def _of_consul(picture: Picture, name: str, known: Sequence[Json], now: str) -> list[dict[str, object]]:
    """What is said of one Consul; of what it joins as before, until it was looked at."""
    down, joins = picture.down.get(name), picture.foreign.get(name)
    verdicts = {"Reachable": Verdict(down is None, down or Reason("Reachable", "this Consul can be written to"))}
    if joins is not None:
        verdicts[FOREIGN] = Verdict(True, joins)
    made = conditions(known, verdicts, picture.registration.meta.generation, now)
    stays = [dict(one) for one in known if one["type"] == FOREIGN and name not in picture.foreign]
    return made + stays


def _problems(summary: Summary) -> dict[str, object]:
    worst = [
        {"subject": f.name[:320], "reason": f.reason.code, "message": f.reason.message[:2048]} for f in summary.worst
    ]
    return {"counts": summary.reasons, "worst": worst}
