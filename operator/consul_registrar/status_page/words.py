"""What the page says in words: one sentence for the whole, and labels that a reader without colours understands."""

from consul_registrar.overview import Counts, Overview, State

LABELS = {
    State.BAD: "Not ready",
    State.UNHEALTHY: "Unhealthy",
    State.PENDING: "In progress",
    State.IDLE: "Idle",
    State.GOOD: "In sync",
}
CONNECTION_LABELS = LABELS | {
    State.BAD: "Unreachable",
    State.UNHEALTHY: "Needs a look",
    State.PENDING: "Connecting",
    State.GOOD: "Reachable",
}
OPERATIONS = {
    "register": "registered",
    "deregister": "removed",
    "feed": "updated the health of",
    "drop-check": "dropped a check of",
    "claim": "claimed the cluster's name",
    "put-node": "made the node",
    "remove-node": "removed the empty node",
    "put-heartbeat": "made the heartbeat at",
    "remove-heartbeat": "removed the heartbeat at",
}
#: What an audit line's cause means to somebody who hasn't read docs/observability.md.
CAUSES = {
    "desired": "it was missing",
    "edited": "edited",
    "drift": "drift repaired",
    "reaped": "tried again after it was reaped",
    "token-rotated": "token rotated",
    "readiness": "readiness changed",
    "gone": "the Pod has gone",
    "vanished": "it doesn't exist any more",
    "unselected": "not selected any more",
    "replaced": "replaced by another",
    "adopted": "adopted",
    "ports-lost": "put back, since a server dropped its ports",
    "needed": "something is to stand there",
    "needless": "nothing hangs on it any more",
    "emptied": "nothing stands there",
    "claimed": "nobody held it",
    "taken-over": "taken over",
    "registration-deleted": "its registration was deleted",
    "orphaned": "left behind, as asked",
}


def number(value: int) -> str:
    """With a thin space between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def many(count: int, one: str, several: str = "") -> str:
    """A count with its noun."""
    return f"{number(count)} {one if count == 1 else several or one + 's'}"


def verdict(seen: Overview) -> tuple[State, str, str]:
    """How it all stands: its state, a sentence, and a second one that says what that rests on."""
    if seen.replica.unready:
        return State.PENDING, "This replica doesn't know the cluster yet", seen.replica.unready
    for state, findings in _findings(seen).items():
        if said := [sentence for count, sentence in findings if count]:
            return state, " and ".join(said), _base(seen.counts)
    if not seen.total:
        return State.IDLE, "Nothing is registered yet", "No ServiceRegistration exists where this operator looks."
    return State.GOOD, "Consul holds exactly what it should", _base(seen.counts)


def _findings(seen: Overview) -> dict[State, list[tuple[int, str]]]:
    """What may be wrong, the worst first: how often it is, and the words for that."""
    down = sum(one.state is State.BAD for one in seen.connections)
    held = sum(one.held.subjects for one in seen.connections if one.held)
    bad, ailing, pending = (seen.states[one] for one in (State.BAD, State.UNHEALTHY, State.PENDING))
    is_held = f"{many(held, 'removal')} {_is(held)} held"
    return {
        State.BAD: [
            (down, f"{many(down, 'Consul')} can't be written to"),
            (bad, f"{many(bad, 'registration')} {_is(bad)} not ready"),
            (held if bad else 0, is_held),
        ],
        State.UNHEALTHY: [(held, is_held), (ailing, f"{many(ailing, 'registration')} {_has(ailing)} failing checks")],
        State.PENDING: [(pending, f"{many(pending, 'registration')} {_is(pending)} in progress")],
    }


def _base(counts: Counts) -> str:
    """More may stand than is desired: what is held, or was just deselected."""
    surplus = f", {number(counts.desired)} desired" if counts.registered > counts.desired else ""
    of = "" if surplus else f" of {number(counts.desired)}"
    return f"{number(counts.registered)}{of} instances registered{surplus}, {number(counts.passing)} passing"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _has(count: int) -> str:
    return "has" if count == 1 else "have"
