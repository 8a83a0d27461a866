"""The chart by its own README alone: its very commands for installing, for the definitions, and for taking all out."""

import re
from collections.abc import Iterator

import pytest

from e2e.e2e_world import CHART, CONSUL, NAMESPACE, RELEASE, World, app_manifests, eventually


def commands(section: str) -> str:
    """The first block of commands of a section, as a script."""
    text = (CHART / "README.md").read_text()
    found = re.search(rf"^## {section}$.*?^```sh$(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, section
    return found[1]


def as_here(script: str, image: str) -> str:
    """What a reader has of his own: where the image is, and where Consul is."""
    repository, _, tag = image.rpartition(":")
    own = {
        "registry.example.com/consul-registrar": f"{repository} --set image.tag={tag},image.pullPolicy=Never",
        "http://consul-server.consul:8500": CONSUL,
    }
    for theirs, ours in own.items():
        assert theirs in script
        script = script.replace(theirs, ours)
    return script


@pytest.fixture
def fresh(bare: World) -> Iterator[World]:
    """Nothing of ours is there, and nothing stays."""
    bare.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    yield bare
    bare.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found", "--wait")


def test_the_chart_is_installed_and_taken_out_by_its_readme_alone(fresh: World) -> None:
    said = fresh.run("bash", "-euc", as_here(commands("Install"), fresh.image))
    assert "condition met" in said
    assert re.search(r"Phase:\s+Succeeded", said)
    fresh.apply(*app_manifests("readme", gate=False))
    eventually(lambda: len(fresh.found("readme")) == 3)
    assert fresh.run("bash", "-euc", commands("Upgrade")).count("serverside-applied") == 2
    fresh.run("bash", "-euc", commands("Uninstall"))
    assert not fresh.found("readme", passing=False)
    assert "consul-registrar.dev" not in fresh.kubectl("get", "crd", "-o", "name")
    fresh.kubectl("delete", "deployment", "readme")
