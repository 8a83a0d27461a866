"""What the pages name exists: flags, fields, metrics, annotations, chart values, files, make targets and so on."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "how-to").glob("*.md")]
PAGES += [page for folder in ("manifests", "dev") for page in (ROOT / folder).rglob("*.md")]
VALUES = yaml.safe_load((ROOT / "manifests" / "helm" / "consul-registrar" / "values.yaml").read_text())
_OTHERS = {
    *("--cascade", "--set", "--skip-crds", "--namespace", "--build-arg"),  # of kubectl, Helm and Docker
    *("status.loadBalancer.ingress", "spec.externalIPs", "status.addresses"),  # of Services and Nodes
    *("crds.enabled", "crds.keep", "rbac.additionalPermissions"),  # of other charts
}


def _reference(name: str) -> str:
    return (ROOT / "docs" / "reference" / name).read_text()


FLAGS, METRICS = _reference("flags.md"), _reference("metrics.md")
FIELDS = {
    field.replace("[]", "")
    for page in ("serviceregistration.md", "consulconnection.md")
    for field in re.findall(r"`((?:spec|status)\.[^`]*)`", _reference(page))
}
SOURCES = "".join(path.read_text() for path in (ROOT / "operator").rglob("*.py"))
MAKEFILES = "".join(path.read_text() for path in (ROOT / "Makefile", *ROOT.glob("[dt]e*/**/*.mk")))


def _words(page: Path) -> Iterator[str]:
    """What stands as code within sentences; blocks of code are commands and manifests, which other tests look at."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    yield from re.findall(r"`([^`\n]+)`", text)


def _is_field(path: str) -> bool:
    path = path.replace("[]", "")
    return any(field == path or field.startswith(f"{path}.") for field in FIELDS)


def _is_value(path: str) -> bool:
    """Whether the chart has it; what is empty in its defaults takes anything, of which its schema is the judge."""
    if path.startswith("connection.spec."):
        return _is_field(path.removeprefix("connection."))
    found: Any = VALUES
    for step in path.split("."):
        if not found:
            return True
        if step not in found:
            return False
        found = found[step]
    return True


KINDS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "flag": (r"(--[a-z][a-z-]+)\b.*", lambda name: f"`{name}`" in FLAGS),
    "variable": (r"(CONSUL_[A-Z_]+)", lambda name: name in FLAGS),
    "field": (r"((?:spec|status)(?:\.[A-Za-z]+(?:\[\])?)+)", _is_field),
    "metric": (r"(consul_registrar_[a-z_]+?)(?:_bucket|_sum|_count)?", lambda name: f"`{name}" in METRICS),
    "annotation": (
        r"consul-registrar\.dev/([a-z-]+)(?:=.*)?",
        lambda name: re.search(rf'/{name}["/]', SOURCES) is not None,
    ),
    "chart value": (rf"(?!.*\.yaml$)((?:{'|'.join(VALUES)})(?:\.[A-Za-z]+)+)", _is_value),
    "file": (r"((?:dev|tests|operator|manifests|docs|crds)/[\w./-]+)", lambda name: (ROOT / name).exists()),
    "module": (
        r"((?:[a-z_]+/)*[a-z_]+\.py)",
        lambda name: (ROOT / name).exists() or any(any((ROOT / top).rglob(name)) for top in ("operator", "dev")),
    ),
    "make target": (
        r"make ([a-z0-9-]+).*",
        lambda name: re.search(rf"^{name}:", MAKEFILES, re.MULTILINE) is not None,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_named_exists(kind: str) -> None:
    pattern, exists = KINDS[kind]
    named = [(page, match[1]) for page in PAGES for word in _words(page) if (match := re.fullmatch(pattern, word))]
    assert named, "else nothing is looked at"
    assert [(page.name, name) for page, name in named if name not in _OTHERS and not exists(name)] == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("flag", "--no-such"),
        ("variable", "CONSUL_NO_SUCH"),
        ("field", "spec.service.nosuch"),
        ("metric", "consul_registrar_no_such"),
        ("annotation", "no-such"),
        ("chart value", "metrics.nosuch"),
        ("file", "docs/nosuch.md"),
        ("module", "nosuch.py"),
        ("make target", "nosuch"),
    ],
)
def test_a_name_that_does_not_exist_would_be_found(kind: str, name: str) -> None:
    assert not KINDS[kind][1](name)


def _prose(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)


def _sections(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them of its headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return {
        re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


def _leads_nowhere(page: Path, link: str) -> bool:
    file, _, section = link.partition("#")
    target = page.parent / file if file else page
    return not target.exists() or (bool(section) and section not in _sections(target))


def test_every_link_within_the_repository_leads_somewhere() -> None:
    pages = [*PAGES, ROOT / "AGENTS.md", *(ROOT / "docs").glob("*/*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)\s]+)\)", _prose(page)) if ":" not in link]
    assert len(links) > 100, "else nothing is looked at"
    assert [(page.name, link) for page, link in links if _leads_nowhere(page, link)] == []


@pytest.mark.parametrize("link", ["nosuch.md", "#nosuch", "docs/limits.md#nosuch"])
def test_a_link_that_leads_nowhere_would_be_found(link: str) -> None:
    assert _leads_nowhere(ROOT / "README.md", link)
