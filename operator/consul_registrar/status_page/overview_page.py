"""The page about everything: how it all stands, the Consuls, what is held, the registrations, the last changes."""

from functools import lru_cache

from consul_registrar.objects import APPROVE_REMOVALS
from consul_registrar.overview import ROWS, ConnectionRow, Counts, Held, Overview, RegistrationRow, State
from consul_registrar.status_page.elements import Child, Html, el
from consul_registrar.status_page.frame import bar, changes, document, fact, path, pill, row, table, time, why
from consul_registrar.status_page.words import CONNECTION_LABELS, LABELS, many, number, verdict

_MARKS = {State.GOOD: "✓", State.BAD: "!", State.UNHEALTHY: "!", State.PENDING: "…", State.IDLE: "–"}


def overview(seen: Overview, asked: str = "") -> str:
    """The page about everything."""
    state, sentence, base = verdict(seen)
    if not seen.replica.leads:
        base = f"{base}. This replica stands by: another one leads and writes."
    return document(
        seen.replica,
        sentence,
        "",
        _hero(state, sentence, base, seen.counts),
        _tiles(seen),
        [_held(one.name, one.held) for one in seen.connections if one.held],
        _connections(seen),
        _registrations(seen, asked),
        changes(seen.changes, "", seen.replica),
        data="api/overview",
    )


def _hero(state: State, sentence: str, base: str, counts: Counts) -> Html:
    return el(
        "section",
        {"class": f"hero {state}"},
        el("div", {"class": "mark", "aria-hidden": "true"}, _MARKS[state]),
        el("div", {"role": "status"}, el("h1", None, sentence), el("p", None, base)),
        bar(counts, "wide"),
    )


def _tiles(seen: Overview) -> Html:
    counts, states = seen.counts, seen.states
    held = sum(one.held.subjects for one in seen.connections if one.held)
    reachable, consuls = sum(one.looks.ready for one in seen.connections), len(seen.connections)
    ready = seen.total - states[State.BAD] - states[State.PENDING]
    tiles = [
        _tile("Registrations ready", ready, seen.total, State.BAD if states[State.BAD] else None),
        _tile("Instances registered", counts.registered, counts.desired),
        _tile("Instances passing", counts.passing, counts.registered, _ailing(counts)),
        _tile("Removals held", held, None, State.UNHEALTHY if held else None),
        _tile("Consuls reachable", reachable, consuls, State.BAD if reachable < consuls else None),
    ]
    return el("dl", {"class": "tiles"}, tiles)


def _ailing(counts: Counts) -> State | None:
    return State.BAD if counts.critical else State.UNHEALTHY if counts.warning else None


def _tile(label: str, value: int, of: int | None, state: State | None = None) -> Html:
    whole = el("span", {"class": "of"}, f" / {number(of)}") if of is not None else None
    return el("div", {"class": f"tile {state or ''}"}, el("dt", None, label), el("dd", None, number(value), whole))


def _held(connection: str, held: Held) -> Html:
    command = f"kubectl annotate consulconnection {connection} {APPROVE_REMOVALS}={held.digest}"
    more = held.subjects - len(held.shown)
    names = [*held.shown, *([f"and {number(more)} more"] if more else [])]
    return el(
        "section",
        {"class": "card callout", "data-key": f"held {connection}"},
        el("h2", None, f"{many(held.subjects, 'removal')} held in “{connection}”"),
        el("p", None, "Too much was absent at once to be removed on sight. What comes back is withdrawn from here."),
        el("ul", {"class": "names"}, [el("li", None, name) for name in names]),
        el("p", None, "To remove exactly these now:"),
        el("pre", {"tabindex": 0}, el("code", None, command)),
    )


def _connections(seen: Overview) -> Html:
    rest = seen.connections_total - len(seen.connections)
    none = el("p", {"class": "muted"}, "There is no ConsulConnection yet.") if not seen.connections else None
    more = el("p", {"class": "muted"}, f"{many(rest, 'more Consul')} not shown.") if rest else None
    cards = el("div", {"class": "grid"}, [_connection(one) for one in seen.connections])
    return el("section", {"aria-labelledby": "consuls"}, el("h2", {"id": "consuls"}, "Consul"), none, cards, more)


def _connection(one: ConnectionRow) -> Html:
    looks = one.looks
    facts = [
        ("Mode", f"{one.mode}, {one.policy}" if one.mode else ""),
        ("Instances", number(looks.instances)),
        ("Agents ready" if one.mode == "Agent" else "", f"{number(looks.agents_ready)} of {number(looks.agents)}"),
        ("Datacenter", looks.datacenter),
        ("Consul's leader", looks.leader),
        ("Version", looks.version),
        ("Cluster's name", {"held": "claimed", "refused": "refused"}.get(one.claim, "")),
    ]
    return el(
        "article",
        {"class": f"card consul {one.state}", "data-key": f"connection {one.name}"},
        el("h3", None, one.name, " ", pill(one.state, CONNECTION_LABELS[one.state])),
        el("p", {"class": "muted"}, looks.reason.message),
        el("dl", {"class": "facts"}, [fact(label, value) for label, value in facts if label and value]),
    )


def _registrations(seen: Overview, asked: str) -> Html:
    search = el(
        "form",
        {"class": "search", "role": "search", "data-live": True},
        el("label", {"for": "q", "class": "hidden"}, "Filter by namespace, name, service or reason"),
        el(
            "input",
            {"id": "q", "name": "q", "type": "search", "value": asked, "placeholder": "Filter…", "maxlength": 100},
        ),
    )
    columns = ["State", "Registration", "Instances", "Why", "Since"]
    rows = [_registration(one) for one in seen.registrations]
    return el(
        "section",
        {"aria-labelledby": "registrations"},
        el(
            "div",
            {"class": "heading"},
            el("h2", {"id": "registrations"}, "Registrations"),
            _how_many(seen, asked),
            search,
        ),
        table(columns, rows, "registrations") if rows else _nothing(seen),
    )


def _how_many(seen: Overview, asked: str) -> Html:
    shown = len(seen.registrations)
    text = f"{number(seen.matching)} of {number(seen.total)} match" if asked else number(seen.total)
    if shown < seen.matching:
        text = f"{text}; the first {number(shown)} are shown, what needs attention first"
    return el("p", {"class": "muted count", "role": "status"}, text)


def _nothing(seen: Overview) -> Html:
    if seen.total:
        return el("p", {"class": "card muted"}, "Nothing matches.")
    example = (
        "apiVersion: consul-registrar.dev/v1alpha1\nkind: ServiceRegistration\nmetadata: {name: web, namespace: shop}\n"
        "spec:\n  pods: {selector: {matchLabels: {app: web}}}"
    )
    about = "This puts every Pod with the label app=web into Consul:"
    return el(
        "div", {"class": "card empty"}, el("p", None, about), el("pre", {"tabindex": 0}, el("code", None, example))
    )


@lru_cache(maxsize=2 * ROWS)
def _registration(one: RegistrationRow) -> Html:
    """Nearly all rows are as they were when the page was asked for before."""
    service = el("span", {"class": "muted service"}, f"as {one.service}") if one.service not in {one.name, ""} else None
    name = [el("span", {"class": "muted"}, f"{one.namespace}/"), one.name]
    cells: list[tuple[str, Child]] = [
        ("state", pill(one.state, LABELS[one.state])),
        ("name", [el("a", {"href": path(one)}, name), service]),
        ("instances", _standing(one.counts)),
        ("why", why(one.reason, one.message) if one.state is not State.GOOD else None),
        ("since", time(one.since)),
    ]
    return row(f"{one.namespace}/{one.name}", cells)


def _standing(counts: Counts) -> Html:
    ailing = [(counts.critical, "critical"), (counts.warning, "warning")]
    said = ", ".join(f"{number(count)} {health}" for count, health in ailing if count)
    of = f"{number(counts.registered)} / {number(counts.desired)}"
    parts = [bar(counts), el("span", {"class": "number"}, of), el("span", {"class": "muted"}, said)]
    return el("div", {"class": "standing"}, parts)
