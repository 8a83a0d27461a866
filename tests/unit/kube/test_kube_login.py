"""Ways to log in: which kubeconfigs kopf's reader can do, and what is said where there is none."""

import os
import subprocess
import sys
from pathlib import Path

import kopf
import kubernetes.config
import pytest
import yaml

from consul_registrar.kube import LoginFailed, login


def kubeconfig(path: Path, user: dict, cluster: dict | None = None, context: str = "one") -> Path:
    document = {
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1:6443"} | (cluster or {})}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)


async def test_no_way_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(LoginFailed, match="no way to log in"):
        await login()


async def test_a_plain_kubeconfig_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", {"token": "t"})))
    info = await login()
    assert (info.server, info.token, info.expiration) == ("https://192.0.2.1:6443", "t", None)


async def test_the_default_place_is_the_home_directory(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    kubeconfig(tmp_path / ".kube" / "config", {"token": "home"})
    assert (await login()).token == "home"


async def test_of_several_kubeconfigs_the_first_context_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = kubeconfig(tmp_path / "first", {"token": "first"})
    second = kubeconfig(tmp_path / "second", {"token": "second"}, context="two")
    monkeypatch.setenv("KUBECONFIG", f"{first}:{second}")
    assert (await login()).token == "first"


async def test_plugins_are_run_and_their_tokens_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    credential = (
        '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "made"}}'
    )
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "echo", "args": [credential]}
    user = {"exec": plugin | {"interactiveMode": "Never"}}
    missing = tmp_path / "missing"
    monkeypatch.setenv("KUBECONFIG", f"{missing}:{kubeconfig(tmp_path / 'config', user)}")
    # The library reads the variable when it is imported, which another test may have done.
    monkeypatch.setattr(kubernetes.config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", os.environ["KUBECONFIG"])
    info = await login()
    assert (info.server, info.scheme, info.token) == ("https://192.0.2.1:6443", "Bearer", "made")
    assert info.expiration is not None


async def test_a_broken_kubeconfig_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("current-context: nowhere\n")
    monkeypatch.setenv("KUBECONFIG", str(broken))
    with pytest.raises(LoginFailed, match="broken"):
        await login()


async def test_what_is_missing_for_a_plugin_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def without(**_: object) -> None:
        raise ImportError

    monkeypatch.setattr(kopf, "login_via_client", without)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", {"exec": {"command": "nothing"}})))
    with pytest.raises(LoginFailed, match="consul-registrar\\[kubeconfig\\]"):
        await login()


def test_the_kubernetes_package_is_not_imported_before_a_plugin_needs_it() -> None:
    probe = "import consul_registrar.kube, sys; sys.exit('kubernetes' in sys.modules)"
    subprocess.run([sys.executable, "-c", probe], check=True)
