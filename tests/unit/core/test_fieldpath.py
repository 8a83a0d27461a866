"""Field paths: which there are, how they are written, what they give; text is never evaluated as code."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consul_registrar.fieldpath import PATTERN, MissingValue, Values, is_template, substitute

VALUES = Values(
    fields={
        "metadata.name": "web-1",
        "metadata.namespace": "shop",
        "spec.nodeName": "node-1",
        "status.podIP": "10.0.0.1",
        "status.hostIP": "",
    },
    maps={
        "metadata.labels": {"app": "web", "empty": "", "evil": "$(metadata.name)", "a.b/c-d_e": "keyed"},
        "metadata.annotations": {"note": "a) b $ c"},
        "node.metadata.labels": {"topology.kubernetes.io/zone": "z1"},
    },
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("$(metadata.name)", "web-1"),
        ("$(metadata.namespace)", "shop"),
        ("$(spec.nodeName)", "node-1"),
        ("$(status.podIP)", "10.0.0.1"),
        ("$(metadata.labels['app'])", "web"),
        ("$(metadata.labels['a.b/c-d_e'])", "keyed"),
        ("$(metadata.annotations['note'])", "a) b $ c"),
        ("$(node.metadata.labels['topology.kubernetes.io/zone'])", "z1"),
        ("<$(metadata.name)|$(metadata.namespace)>", "<web-1|shop>"),
        ("$(metadata.labels['missing']:-none)", "none"),
        ("$(metadata.labels['missing']:-)", ""),
        ("$(metadata.labels['app']:-none)", "web"),
        ("$(status.hostIP:-unknown)", "unknown"),
        ("$(metadata.labels['empty'])", ""),
        ("$(metadata.labels['empty']:-none)", ""),
        ("$$(metadata.name)", "$(metadata.name)"),
        ("$$$(metadata.name)", "$$(metadata.name)"),
        ("costs $5, $", "costs $5, $"),
        ("$$", "$$"),
        ("$a$(metadata.name)$", "$aweb-1$"),
        ("$(metadata.labels['x']:-a:-b)", "a:-b"),
    ],
)
def test_a_text_is_substituted(text: str, expected: str) -> None:
    assert is_template(text)
    assert substitute(text, VALUES) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(metadata.labels['evil'])", "$(metadata.name)"),
        ("$(metadata.labels['missing']:-$(metadata.name)", "$(metadata.name"),
        ("$(metadata.labels['missing']:-${HOME} `id`)", "${HOME} `id`"),
    ],
)
def test_what_a_value_or_a_default_holds_is_never_substituted_again(text: str, expected: str) -> None:
    assert substitute(text, VALUES) == expected


@pytest.mark.parametrize("path", ["metadata.labels['missing']", "status.hostIP", "node.metadata.labels['zone']"])
def test_a_path_without_value_and_default_says_which_it_is(path: str) -> None:
    with pytest.raises(MissingValue) as missing:
        substitute(f"a $({path}) b", VALUES)
    assert missing.value.path == path


@pytest.mark.parametrize(
    "text",
    [
        "$(",
        "$()",
        "$(foo)",
        "$(metadata.name",
        "$( metadata.name )",
        "$(metadata.uid)",
        "$(metadata.labels)",
        "$(metadata.labels[app])",
        "$(metadata.labels['app)",
        '$(metadata.labels["app"])',
        "$(metadata.labels['a b'])",
        "$(metadata.labels[''])",
        "$(metadata.labels['a'].x)",
        "$(node.metadata.annotations['x'])",
        "$(metadataXname)",
        "$(metadata.name:default)",
        "$(__import__('os').system('id'))",
        "$(metadata.labels.__class__)",
        "$(metadata.labels['a']['b'])",
        "ok $(metadata.name) then $(nope)",
        "$(metadata.labels['é'])",
        "$(metadata.name\n)",
    ],
)
def test_an_unknown_path_is_no_template(text: str) -> None:
    assert not is_template(text)


def test_the_pattern_needs_nothing_that_re2_lacks() -> None:
    assert not re.search(r"\(\?[=!<]|\\[1-9]", PATTERN)


_PIECES = st.sampled_from(
    [
        "$", "$", "(", ")", "$(", "$$(", "a", ":-", "\n", "'", "$(metadata.name)", "$(metadata.labels['app'])", "é",
        "$(status.podIP:-", "$(nope)", "metadata.name",
    ]
)  # fmt: skip
_PATH = re.compile(
    r"(metadata\.name(space)?|spec\.nodeName|status\.(podIP|hostIP)"
    r"|(node\.metadata\.labels|metadata\.(labels|annotations))\['[A-Za-z0-9._/-]+'\])(:-[^)]*)?\)"
)


def _scans(text: str) -> bool:
    """The same decision, written as a scanner: runs of dollars, then what follows them."""
    at = 0
    while at < len(text):
        if text[at] != "$":
            at += 1
            continue
        end = at
        while end < len(text) and text[end] == "$":
            end += 1
        if end < len(text) and text[end] == "(" and end - at == 1:
            path = _PATH.match(text, end + 1)
            if path is None:
                return False
            end = path.end()
        elif end < len(text):
            end += 1
        at = end
    return True


@given(st.lists(_PIECES, max_size=12).map("".join))
def test_is_template_agrees_with_a_scanner_of_the_text(text: str) -> None:
    assert is_template(text) == _scans(text)


_WHOLE = [
    ("a", "a"),
    (")", ")"),
    ("$$(", "$("),
    ("$(metadata.name)", "web-1"),
    ("(", "("),
    ("$5", "$5"),
    (":-x)", ":-x)"),
]


@given(st.lists(st.sampled_from(_WHOLE)))
def test_each_path_is_replaced_whatever_stands_around_it(pieces: list[tuple[str, str]]) -> None:
    text, expected = ("".join(parts) for parts in zip(*pieces, strict=True)) if pieces else ("", "")
    assert substitute(text, VALUES) == expected


@given(st.text(alphabet="$(a", max_size=2000))
def test_no_text_takes_long(text: str) -> None:
    assert is_template(text) == _scans(text)
