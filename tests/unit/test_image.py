"""What the image's build takes and notes: locked packages, and Debian's, by programs that answer as Debian's own do."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "dev" / "image" / "collect.py"

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


def locked(name: str) -> dict[str, str]:
    """The versions of a lock file."""
    text = (REPOSITORY / "requirements" / f"{name}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.MULTILINE))


def test_an_image_with_traces_is_the_image_and_more_and_what_is_tested_is_what_it_holds() -> None:
    plain, traces, dev = locked("run"), locked("traces"), locked("dev")
    assert plain.items() < traces.items() < dev.items()
    assert not [name for name in plain if name.startswith(("opentelemetry", "protobuf", "googleapis"))]
