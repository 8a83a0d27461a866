"""The page about one registration: its conditions, what isn't as it should be, and its instances in Consul."""

from consul_registrar.model import Health
from consul_registrar.overview import Detail, InstanceRow, RegistrationRow, Replica, State
from consul_registrar.status_page.elements import Child, Html, el
from consul_registrar.status_page.frame import bar, changes, document, fact, path, pill, row, section, table, time, why
from consul_registrar.status_page.words import LABELS, number

_HEALTH = {Health.PASSING: State.GOOD, Health.WARNING: State.UNHEALTHY, Health.CRITICAL: State.BAD}
_ROOT = "../../"
#: Of a condition that is False by rights.
_GOOD_IF_FALSE = {"RemovalsHeld"}


def detail(seen: Detail) -> str:
    """The page about one registration."""
    one = seen.row
    return document(
        seen.replica,
        f"{one.namespace}/{one.name}",
        _ROOT,
        _back(),
        _headline(one),
        _conditions(seen),
        _problems(seen),
        _instances(seen),
        changes(seen.changes, _ROOT, seen.replica),
        _commands(one),
        data=f"api/{path(one)}",
    )


def missing(replica: Replica) -> str:
    """What is answered where there is no such registration (any more)."""
    sentence = "There is no such registration"
    return document(replica, sentence, _ROOT, _back(), el("section", {"class": "card"}, el("h1", None, sentence)))


def _back() -> Html:
    return el("p", {"class": "crumbs"}, el("a", {"href": _ROOT}, "← All registrations"))


def _headline(one: RegistrationRow) -> Html:
    name = [el("span", {"class": "muted"}, f"{one.namespace}/"), one.name]
    counts = one.counts
    facts = [
        ("Service in Consul", one.service),
        ("Connections", ", ".join(one.connections)),
        ("Registered", f"{number(counts.registered)} of {number(counts.desired)}"),
        ("Passing", number(counts.passing)),
        ("Warning", number(counts.warning)),
        ("Critical", number(counts.critical)),
        ("Waiting", number(counts.waiting) if counts.waiting else ""),
    ]
    return el(
        "section",
        {"class": f"card headline {one.state}"},
        el("h1", None, name, " ", pill(one.state, LABELS[one.state])),
        el("p", {"role": "status"}, why(one.reason, one.message)),
        bar(counts, "wide"),
        el("dl", {"class": "facts"}, [fact(label, value) for label, value in facts if value]),
    )


def _conditions(seen: Detail) -> Html | None:
    rows = [
        row(one.type, [("name", one.type), ("state", pill(_judged(one.type, one.status), one.status)),
                        ("why", why(one.reason, one.message)), ("since", time(one.since))])
        for one in seen.conditions
    ]  # fmt: skip
    return (
        section("conditions", "Conditions", "", table(["Condition", "Status", "Why", "Since"], rows, "conditions"))
        if rows
        else None
    )


def _judged(kind: str, status: str) -> State:
    if status == "Unknown":
        return State.PENDING
    return State.GOOD if (status == "True") is (kind not in _GOOD_IF_FALSE) else State.BAD


def _problems(seen: Detail) -> Html | None:
    if not seen.reasons:
        return None
    counted = ", ".join(f"{number(count)} × {reason}" for reason, count in seen.reasons.items())
    rows = [
        row(f"{one.subject} {number_of}", [("name", one.subject), ("why", why(one.reason, one.message))])
        for number_of, one in enumerate(seen.problems)
    ]
    return section("problems", "What isn't as it should be", counted, table(["Subject", "Why"], rows, "problems"))


def _instances(seen: Detail) -> Html:
    shown = len(seen.instances)
    text = number(seen.standing)
    if shown < seen.standing:
        text = f"{text}; the first {number(shown)} are shown, the unhealthy ones first"
    rows = [_instance(one) for one in seen.instances]
    columns = ["Health", "Instance", "Address", "Consul node", "Connection"]
    none = el("p", {"class": "card muted"}, "Consul holds none.")
    return section("instances", "Instances in Consul", text, table(columns, rows, "instances") if rows else none)


def _instance(one: InstanceRow) -> Html:
    address = f"[{one.address}]" if ":" in one.address else one.address
    cells: list[tuple[str, Child]] = [
        ("state", pill(_HEALTH[one.health], one.health.value)),
        ("name", one.name),
        ("address", f"{address}:{one.port}"),
        ("node", one.node),
        ("connection", one.connection),
    ]
    return row(f"{one.connection} {one.node} {one.name} {one.address}:{one.port}", cells)


def _commands(one: RegistrationRow) -> Html:
    command = f"kubectl -n {one.namespace} describe serviceregistration {one.name}"
    return section("by-hand", "By hand", "", el("pre", {"tabindex": 0}, el("code", None, command)))
