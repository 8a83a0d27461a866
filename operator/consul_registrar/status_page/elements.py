"""HTML out of values: what isn't HTML already is escaped, so that nothing has to be escaped by hand."""

from collections.abc import Iterable
from html import escape


class Html(str):
    """Text that is HTML."""

    __slots__ = ()


Child = Html | str | int | None | Iterable["Child"]
_EMPTY = {"img", "input", "link", "meta"}


def el(tag: str, attributes: dict[str, str | int | bool] | None = None, /, *children: Child) -> Html:
    """An element. An attribute that is True stands alone, one that is False is left out."""
    opened = "".join([tag, *(_attribute(name, value) for name, value in (attributes or {}).items())])
    return Html(f"<{opened}>" if tag in _EMPTY else f"<{opened}>{html(children)}</{tag}>")


def html(child: Child) -> Html:
    """Children as HTML, one after the other; None is nothing."""
    if child is None:
        return Html()
    if isinstance(child, Html):
        return child
    if isinstance(child, (str, int)):
        return Html(escape(str(child)))
    return Html("".join(map(html, child)))


def _attribute(name: str, value: str | int | bool) -> str:
    if isinstance(value, bool):
        return f" {name}" if value else ""
    return f' {name}="{escape(str(value))}"'
