"""`make demo CLUSTER=kind`: the README's commands in their order, by programs that only note how they were called."""

import shutil
from pathlib import Path

import pytest

from demo import quickstart
from demo.show import Show


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the programs note their calls; one that finds its name in the file `broken` fails."""
    for program in quickstart.NEEDED:
        file = tmp_path / program
        file.write_text(f'#!/bin/sh\necho "{program} $*" >>{tmp_path}/calls\n! grep -qsx {program} {tmp_path}/broken\n')
        file.chmod(0o755)
    for tool in ("bash", "grep"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "calls"


def test_the_readmes_commands_are_run_one_after_the_other(called: Path) -> None:
    quickstart.run(Show())
    programs = [line.split()[0] for line in called.read_text().splitlines()]
    assert programs == ["kind", "docker", "kind", "kubectl", "helm", "kubectl", "kubectl", "kubectl"]
    assert "install consul-registrar manifests/helm/consul-registrar" in called.read_text()


def test_what_the_commands_apply_is_there() -> None:
    files = [word for line in quickstart.commands() for word in line.split() if word.startswith("manifests/")]
    assert files
    assert all((quickstart.REPOSITORY / file).exists() for file in files)


def test_after_a_command_that_fails_no_other_is_run(called: Path) -> None:
    called.with_name("broken").write_text("helm\n")
    with pytest.raises(quickstart.QuickstartError, match="helm install"):
        quickstart.run(Show())
    assert called.read_text().splitlines()[-1].startswith("helm install")


def test_a_program_that_is_missing_is_named_before_anything_is_done(called: Path) -> None:
    called.with_name("kind").unlink()
    with pytest.raises(quickstart.QuickstartError, match="not installed: kind"):
        quickstart.run(Show())
    assert not called.exists()
