"""What the image's build notes of Debian's packages, by programs that answer as Debian's own do."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "dev" / "image" / "collect.py"

#: `dpkg -S` on Debian 13, where libc6 diverts the loader's name; a path with an architecture, and one without.
OWNERS = """\
diversion by libc6 from: /lib64/ld-linux-x86-64.so.2
diversion by libc6 to: /lib64/ld-linux-x86-64.so.2.usr-is-merged
libc6:amd64: /lib64/ld-linux-x86-64.so.2
ca-certificates: /etc/ssl/certs/ca-certificates.crt
"""


@pytest.fixture
def collect() -> ModuleType:
    spec = importlib.util.spec_from_file_location("collect", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_packages_are_asked_for_and_diversions_are_none(
    collect: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dpkg").write_text(f"#!/bin/sh\ncat <<'EOF'\n{OWNERS}EOF\nexit 1\n")
    (tmp_path / "dpkg-query").write_text('#!/bin/sh\nshift 2\nfor each; do echo "$each 1.0"; done\n')
    for program in tmp_path.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert collect._packages([Path("/bin/python3")]) == {"libc6 1.0", "ca-certificates 1.0"}
