"""What all pages have in common: the frame around them, and the parts that they are made of.

Needs no script: with one (`assets/page.js`) a page keeps itself up to date. Links are relative, so that it works under
any path, as behind `kubectl proxy`: `root` is the way from the page to the first one, "" from there.
"""

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from consul_registrar.overview import Change, Counts, RegistrationRow, Replica, State
from consul_registrar.status_page.elements import Child, Html, el, html
from consul_registrar.status_page.words import CAUSES, OPERATIONS

_OUTCOMES = {"applied": State.GOOD, "refused": State.BAD, "unknown": State.UNHEALTHY}


def document(replica: Replica, title: str, root: str, *parts: Child, data: str = "") -> str:
    """A whole page. `data`: where the same is as JSON, from the root; "" where that is nowhere."""
    head = el(
        "head",
        None,
        el("meta", {"charset": "utf-8"}),
        el("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        el("meta", {"name": "color-scheme", "content": "light dark"}),
        el("title", None, f"{title} · {replica.cluster} · consul-registrar"),
        el("link", {"rel": "icon", "href": f"{root}assets/icon.svg"}),
        el("link", {"rel": "stylesheet", "href": f"{root}assets/page.css"}),
        el("noscript", None, el("meta", {"http-equiv": "refresh", "content": "5"})),
        el("script", {"src": f"{root}assets/page.js", "defer": True}),
    )
    body = el(
        "body",
        None,
        el("a", {"class": "skip", "href": "#main"}, "Skip to the content"),
        _header(replica, root),
        el("main", {"id": "main"}, parts),
        _footer(replica, f"{root}{data}" if data else ""),
    )
    return f"<!doctype html>\n{el('html', {'lang': 'en'}, head, body)}\n"


def _header(replica: Replica, root: str) -> Html:
    role = ("good", "Leader", "this replica writes") if replica.leads else ("idle", "Standby", "another one leads")
    return el(
        "header",
        {"class": "top"},
        el(
            "a",
            {"class": "brand", "href": root or "./"},
            el("img", {"src": f"{root}assets/icon.svg", "alt": "", "class": "logo"}),
            "consul-registrar",
        ),
        el("span", {"class": "cluster"}, el("span", {"class": "muted"}, "cluster "), replica.cluster),
        el("span", {"class": f"chip {role[0]}", "title": f"{replica.name}: {role[2]}"}, role[1]),
        el("span", {"class": "live", "id": "live", "data-keep": True}),
        el("button", {"id": "pause", "type": "button", "hidden": True, "data-keep": True}, "Pause"),
    )


def _footer(replica: Replica, data: str) -> Html:
    return el(
        "footer",
        None,
        el("span", None, f"{replica.name} · consul-registrar {replica.version}"),
        el("span", None, "Read-only: nothing can be changed here."),
        el("a", {"href": data}, "The same as JSON") if data else None,
    )


def section(name: str, title: str, about: str, content: Child) -> Html:
    """A part under a heading of its own, which names its table too."""
    said = el("p", {"class": "muted count"}, about) if about else None
    heading = el("div", {"class": "heading"}, el("h2", {"id": name}, title), said)
    return el("section", {"aria-labelledby": name, "data-key": name}, heading, content)


def table(columns: Iterable[str], rows: Iterable[Html], name: str) -> Html:
    """Its roles are said, since a phone shows rows as blocks, and blocks are no table to a screen reader."""
    head = el("tr", {"role": "row"}, [el("th", {"role": "columnheader", "scope": "col"}, one) for one in columns])
    return el(
        "table",
        {"class": f"card {name}", "role": "table", "aria-labelledby": name},
        el("thead", {"role": "rowgroup"}, head),
        el("tbody", {"role": "rowgroup"}, html(rows)),
    )


def row(key: str, cells: Iterable[tuple[str, Child]]) -> Html:
    """A row of a table: each cell with its class. `key` tells it from the others."""
    made = [el("td", {"role": "cell", "class": kind}, content) for kind, content in cells]
    return el("tr", {"role": "row", "data-key": key}, made)


def fact(label: str, value: str) -> Html:
    """A value with its name."""
    return el("div", None, el("dt", None, label), el("dd", None, value))


def pill(state: State, text: str) -> Html:
    """A state, in a word."""
    return el("span", {"class": f"pill {state}"}, text)


def time(at: str) -> Html | None:
    """A point in time, in UTC; the script says how long ago it was."""
    return el("time", {"datetime": at}, at[:19].replace("T", " ")) if at else None


def bar(counts: Counts, kind: str = "") -> Html:
    """Shares of what is desired: passing, warning, critical; the rest isn't registered. Widths are attributes: the
    page's policy lets no inline style in.
    """
    whole = max(counts.desired, counts.registered, 1)
    parts, begin = [], 0.0
    for name, count in (("good", counts.passing), ("unhealthy", counts.warning), ("bad", counts.critical)):
        share = 100 * count / whole
        parts.append(el("rect", {"class": name, "x": f"{begin:.2f}", "width": f"{share:.2f}", "height": 10}))
        begin += share
    said = f"{counts.passing} passing, {counts.warning} warning, {counts.critical} critical of {counts.desired} desired"
    shape = {"viewBox": "0 0 100 10", "preserveAspectRatio": "none", "role": "img", "aria-label": said}
    return el("svg", {"class": f"bar {kind}".strip(), **shape}, parts)


def why(reason: str, message: str) -> list[Html]:
    """A reason and its message."""
    return [el("b", None, reason), el("span", {"class": "message"}, f" {message}")]


def path(one: RegistrationRow) -> str:
    """Where a registration's page is, from the root."""
    return f"registrations/{quote(one.namespace)}/{quote(one.name)}"


def changes(changes: Sequence[Change], root: str, replica: Replica) -> Html:
    """The last writes."""
    text = "what this replica wrote, newest first"
    if not changes:
        why = "This replica has written nothing since it started."
        standby = "This replica stands by and writes nothing: the leader's page tells of its changes."
        return section(
            "changes", "Last changes", "", el("p", {"class": "card muted"}, why if replica.leads else standby)
        )
    items = [_change(one, root) for one in changes]
    return section("changes", "Last changes", text, el("ol", {"class": "card changes"}, items))


def _change(one: Change, root: str) -> Html:
    namespace, _, name = one.registration.partition("/")
    link = f"{root}registrations/{quote(namespace)}/{quote(name)}"
    whose = el("a", {"href": link}, one.registration) if name else None
    outcome = pill(_OUTCOMES.get(one.outcome, State.IDLE), one.outcome) if one.outcome != "applied" else None
    return el(
        "li",
        {"data-key": f"{one.time} {one.operation} {one.subject}"},
        time(one.time),
        el(
            "span",
            {"class": "what"},
            [el("b", {"class": one.operation}, OPERATIONS.get(one.operation, one.operation)), " "],
            [one.subject, " ", whose, " ", outcome],
        ),
        el("span", {"class": "muted"}, f"{CAUSES.get(one.cause, one.cause)} · {one.connection}"),
    )
