"""How the programs of the local cluster are pinned, built and kept, with a stand-in for Go."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from devcluster import build, tools
from devcluster.build import BuildError, ensure_tools
from devcluster.tools import ETCD, HYPERKUBE, KWOK, TOOLS, Tool

GO = """#!/bin/sh
if [ "$1" = env ]; then echo go1.99.0; exit; fi
while [ "$1" != -o ]; do shift; done
echo "$3" >> {log}
echo "$3" >&2
mkdir -p "$(dirname "$2")" "$GOCACHE" "$GOMODCACHE"
echo "built" > "$2"
exit {status}
"""


@pytest.fixture
def fake_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """Put a Go on PATH that exits with the given status; its log names what it was asked to build."""
    programs, log = tmp_path / "bin", tmp_path / "log"
    programs.mkdir()
    log.touch()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "SCRATCH_GIB", 0)

    def install(status: int) -> Path:
        (programs / "go").write_text(GO.format(log=log, status=status))
        (programs / "go").chmod(0o755)
        return log

    return install


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_every_tool_is_pinned_by_its_module(tool: Tool) -> None:
    assert tool.version.startswith("v")
    assert tool.go_version >= (1, 25)
    assert (tool.source / "go.sum").stat().st_size > 0


def test_an_edit_of_the_module_is_another_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "etcd"
    module.mkdir()
    (module / "go.mod").write_text(f"module tool\n\ngo 1.26\n\nrequire {ETCD.module} v9.9.9\n")
    monkeypatch.setattr(tools, "SOURCES", tmp_path)
    before = ETCD.folder
    (module / "go.sum").write_text("a checksum")
    assert before.name.startswith("etcd-v9.9.9-")
    assert ETCD.folder != before


def test_other_linker_flags_are_another_tool() -> None:
    assert replace(ETCD, linker_flags="").folder != ETCD.folder


def test_a_missing_tool_is_built_and_the_caches_of_the_build_go(fake_go: Callable[[int], Path]) -> None:
    fake_go(0)
    said: list[str] = []
    ensure_tools(said.append, [HYPERKUBE])
    assert HYPERKUBE.path("kubectl").read_text() == "built\n"
    assert not (tools.cache() / "build").exists()
    assert "up to" in said[0]


def test_callers_at_the_same_time_build_once(fake_go: Callable[[int], Path]) -> None:
    log = fake_go(0)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(ensure_tools, lambda _: None, [ETCD, KWOK]) for _ in range(4)]:
            done.result()
    assert log.read_text().splitlines() == [ETCD.package, KWOK.package]


def test_a_build_that_fails_says_why_and_leaves_no_tool(fake_go: Callable[[int], Path]) -> None:
    fake_go(1)
    with pytest.raises(BuildError, match=ETCD.package):
        ensure_tools(lambda _: None, [ETCD])
    assert not ETCD.is_built
    fake_go(0)
    ensure_tools(lambda _: None, [ETCD])
    assert ETCD.is_built


def test_a_disk_too_small_is_refused_before_anything_is_built(
    fake_go: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = fake_go(0)
    monkeypatch.setattr(build, "SCRATCH_GIB", 10**6)
    with pytest.raises(BuildError, match="XDG_CACHE_HOME"):
        ensure_tools(lambda _: None, [ETCD])
    assert log.read_text() == ""
