"""The documentation says what the code does: generated pages, reasons, links, and manifests that the API takes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from consul_registrar.api import ConsulConnectionSpec, ServiceRegistrationSpec
from consul_registrar.cli import reference
from consul_registrar.kube import errors as kube_errors
from consul_registrar.model import CONNECTING

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "operator" / "consul_registrar"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
PAGES += [page for folder in ("docs", "manifests", "dev", "tests") for page in sorted((ROOT / folder).rglob("*.md"))]

# --- reasons ------------------------------------------------------------------------------------------------------

_CODE = re.compile(r"[A-Z][a-z]+([A-Z][a-z]*)*")
#: Words like codes that stand in functions which make a Reason from a variable, and are none.
_NO_CODES = {"False", "Ready", "Observe"}


def _codes(tree: ast.AST) -> Iterator[str]:
    """Every code that a module can put into a Reason; where it isn't a literal, all that its function names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from _of_call(node.func.id, node.args)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _makes_from_a_variable(node):
            yield from (text for text in _texts(node) if _CODE.fullmatch(text) and text not in _NO_CODES)


def _of_call(name: str, args: list[ast.expr]) -> Iterator[str]:
    at = {"Reason": 0, "Unpublishable": 0, "Row": 4}.get(name.lstrip("_"))
    if at is not None and len(args) > at:
        code = args[at]
        if isinstance(code, ast.Constant) and isinstance(code.value, str):
            yield code.value
        elif isinstance(code, ast.Name) and code.id == "CONNECTING":
            yield CONNECTING


def _makes_from_a_variable(function: ast.AST) -> bool:
    calls = (c for c in ast.walk(function) if isinstance(c, ast.Call) and isinstance(c.func, ast.Name))
    return any(c.func.id == "Reason" and c.args and not isinstance(c.args[0], ast.Constant) for c in calls)


def _texts(function: ast.AST) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _in_code() -> set[str]:
    found = {code for path in SOURCES.rglob("*.py") for code in _codes(ast.parse(path.read_text()))}
    kinds = (kind for kind in vars(kube_errors).values() if isinstance(kind, type))
    return found | {kind.code for kind in kinds if issubclass(kind, kube_errors.KubeError)}


def _explained() -> set[str]:
    """The words of the headings of troubleshooting.md that look like codes; its other headings are sentences."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    headings = re.findall(r"^### (.+)$", text, re.MULTILINE)
    return {code.strip() for heading in headings for code in heading.split(",")}


def test_the_search_for_reasons_finds_every_way_in_which_they_are_written() -> None:
    literal, unpublishable, row, constant = "PodGone", "PortNotFound", "ConsulNoLeader", "AgentConnecting"
    by_variable, of_kubernetes = {"Observed", "UpsertOnly", "AgentDown", "SomeAgentsUnwell"}, "KubernetesForbidden"
    assert {literal, unpublishable, row, constant, of_kubernetes, *by_variable} <= _in_code()


def test_every_reason_has_a_section() -> None:
    assert sorted(_in_code() - _explained()) == []


def test_no_section_is_about_a_reason_that_is_no_more() -> None:
    assert sorted(_explained() - _in_code()) == []


# --- generated pages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(reference.pages()))
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / "reference" / name).read_text() == reference.pages()[name], "run `make generate`"


def test_nothing_else_lies_among_the_generated_pages() -> None:
    assert {path.name for path in (ROOT / "docs" / "reference").iterdir()} == {*reference.pages(), "fields.md"}


def test_every_variable_of_consul_that_is_read_is_shown() -> None:
    read = set(re.findall(r'"(CONSUL_[A-Z_]+)"', (SOURCES / "settings.py").read_text()))
    assert set(reference.VARIABLES) == read


def test_every_flag_has_a_variable_and_a_meaning() -> None:
    rows = [line for line in reference.flags().splitlines() if line.startswith("| `--")]
    assert rows
    assert all("`CONSUL_REGISTRAR_" in row and not row.endswith("|  |") for row in rows)


def test_every_field_has_a_description() -> None:
    for page in ("serviceregistration.md", "consulconnection.md"):
        rows = [line for line in reference.pages()[page].splitlines() if line.startswith("| `spec.")]
        assert [row for row in rows if row.endswith("|  |")] == []


# --- pages written by hand ------------------------------------------------------------------------------------------


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-")


def _anchors(page: Path) -> set[str]:
    return {_anchor(heading) for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)}


def _without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", _without_code(page.read_text())):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in _anchors(there), f"{page.name}: {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        targets = re.findall(r"\]\(([^)#:]+\.md)", page.read_text())
        ahead += [there for target in targets if (there := (page.parent / target).resolve()) not in seen]
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in seen] == []


def _manifests() -> Iterator[tuple[str, dict[str, object]]]:
    for page in PAGES:
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
            for manifest in yaml.safe_load_all(block):
                if isinstance(manifest, dict) and "kind" in manifest:
                    yield page.name, manifest


_MODELS = {"ServiceRegistration": ServiceRegistrationSpec, "ConsulConnection": ConsulConnectionSpec}


def test_every_manifest_that_is_shown_is_valid() -> None:
    shown = [(page, manifest) for page, manifest in _manifests() if manifest["kind"] in _MODELS]
    assert shown
    for _, manifest in shown:
        _MODELS[str(manifest["kind"])].model_validate(manifest["spec"])
