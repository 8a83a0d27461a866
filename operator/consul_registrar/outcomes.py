"""What became of one subject in one Consul: from what was wanted and what stands there now to what is counted.

Decides what counts as desired, as registered and as a problem. How counts become conditions is decided in
`conditions.py`.
"""

from consul_registrar import model
from consul_registrar.causes import asked
from consul_registrar.desired import Absent, Ceded, Kept, Orphaned, Present, Want
from consul_registrar.facts import Facts
from consul_registrar.model import Health, Instance, Reason
from consul_registrar.services import name_of_address, parts_of
from consul_registrar.tally import Outcome


def name_of(facts: Facts) -> str:
    """What people call the subject: the Pod's or the endpoint's name, or the Service's with its address."""
    if facts.pod is not None:
        return facts.pod.name
    service = facts.exposed.service.name if facts.exposed else _meta(facts, model.META_SERVICE)
    if service:
        return name_of_address(service, parts_of(facts.subject)[1])
    return _meta(facts, model.META_POD) or facts.subject


def _meta(facts: Facts, key: str) -> str:
    return next((i.meta_value(key) for i in facts.standing), "")


def health_of(standing: tuple[Instance, ...]) -> Health | None:
    """The worst health of what stands, None where nothing does."""
    return model.worst([i.health for i in standing]) if standing else None


def outcome(
    facts: Facts, want: Want, standing: tuple[Instance, ...], said: Outcome | None = None, *, withheld: bool
) -> Outcome | None:
    """What is counted after all changes were written (or withheld); None: there is nothing to count.

    `said`: what was counted before. What was asked for then is what stands, where changes are withheld.
    """
    name, there, health = name_of(facts), bool(standing), health_of(standing)
    match want:
        case Present(instance):
            made = said.asked if withheld and said else asked(instance)
            return Outcome(name, desired=True, registered=there, health=health, withheld=withheld, asked=made)
        case Kept(reason, problem):
            # What is refused as a whole adds nothing that would be desired, but what stands still counts.
            due = there or (problem and facts.refused is None)
            return Outcome(name, desired=due, registered=there, health=health, reason=reason, problem=problem)
        case Ceded(reason):
            return Outcome(name, desired=True, registered=there, health=health, reason=reason, problem=True)
        case Absent() | Orphaned() if there:
            return Outcome(name, desired=False, registered=True, health=health, withheld=withheld)
        case Absent() | Orphaned():
            return None


def failure(
    facts: Facts, want: Want, standing: tuple[Instance, ...], reason: Reason, said: Outcome | None = None,
    *, problem: bool = True,
) -> Outcome:  # fmt: skip
    """What is counted where a change could not be written; `problem`: else it only waits for its turn.

    `said`: what was counted before. What was asked for then is what stands.
    """
    due, before = not isinstance(want, Absent | Orphaned), said.asked if said else 0
    return Outcome(name_of(facts), due, bool(standing), health_of(standing), reason, problem, asked=before)


def unreachable(name: str, reason: Reason) -> Outcome:
    """What is counted where there is no Consul to write to."""
    return Outcome(name, desired=True, registered=False, reason=reason, problem=True)


def held(facts: Facts, want: Absent) -> Outcome:
    """What is counted where a removal is held: it still stands, and somebody should know."""
    message = f"{want.reason.message}, but too much is absent at once: its removal from Consul is held"
    reason = Reason("RemovalHeld", message)
    return Outcome(name_of(facts), False, bool(facts.standing), health_of(facts.standing), reason, problem=True)
