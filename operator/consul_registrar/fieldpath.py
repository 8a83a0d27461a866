"""Per-Pod values in texts: the downward API's field paths, such as `$(metadata.labels['app'])`.

Decides which paths there are, how they are written and what they give. Nothing is ever evaluated as code: a path is
looked up in a fixed table or in labels and annotations. Where texts may stand is the API's business.

    $(metadata.name)  $(metadata.namespace)  $(spec.nodeName)  $(status.podIP)  $(status.hostIP)
    $(metadata.labels['k'])  $(metadata.annotations['k'])  $(node.metadata.labels['k'])
    $(path:-default)    the default where the value is missing
    $$(                 a literal "$("
"""

import re
from collections.abc import Mapping

from consul_registrar.values import record

_FIELD = r"metadata\.name|metadata\.namespace|spec\.nodeName|status\.podIP|status\.hostIP"
_KEYED = r"(?:metadata\.labels|metadata\.annotations|node\.metadata\.labels)\['[A-Za-z0-9._/-]+'\]"
_PATH = rf"(?:{_FIELD}|{_KEYED})"

#: A whole text. Read by Python's `re` and by RE2 in the API server's CEL, so without look-around.
PATTERN = rf"^(?:[^$]|[$]+[^$(]|[$][$]+[(]|[$][(]{_PATH}(?::-[^)]*)?[)])*[$]*$"

_WHOLE = re.compile(PATTERN)
_TOKEN = re.compile(rf"(?P<escaped>[$][$]+[(])|[$][(](?P<path>{_PATH})(?::-(?P<default>[^)]*))?[)]")
_KEY = re.compile(r"(?P<map>.*)\['(?P<key>.*)'\]")


@record(frozen=True, slots=True)
class Values:
    """What the paths are looked up in. Empty strings in `fields` count as missing."""

    fields: Mapping[str, str]
    maps: Mapping[str, Mapping[str, str]]

    def get(self, path: str) -> str | None:
        """The value at a path, None where there is none."""
        keyed = _KEY.fullmatch(path)
        if keyed is None:
            return self.fields.get(path) or None
        return self.maps.get(keyed["map"], {}).get(keyed["key"])


NO_VALUES = Values({}, {})


class MissingValue(LookupError):
    """A path without a default has no value."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def is_template(text: str) -> bool:
    """Whether every `$(` in it begins a known path or is escaped."""
    return _WHOLE.match(text) is not None


def substitute(text: str, values: Values) -> str:
    """The text with its paths replaced.

    Raises MissingValue for the first path that has neither a value nor a default.
    """
    if "$" not in text:
        return text

    def one(match: re.Match[str]) -> str:
        if match["escaped"]:
            return match["escaped"][1:]
        value = values.get(match["path"])
        if value is None:
            value = match["default"]
        if value is None:
            raise MissingValue(match["path"])
        return value

    return _TOKEN.sub(one, text)
