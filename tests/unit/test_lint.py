"""Manifests looked through without a cluster: what is wrong is said with its place, and ends with 1."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from consul_registrar.cli import main

EXAMPLES = sorted((Path(__file__).parents[2] / "manifests/examples").glob("*.yaml"))
API = "consul-registrar.dev/v1alpha1"
PODS = {"selector": {"matchLabels": {"app": "web"}}}


def registration(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "web", "namespace": "shop"}
    return {"apiVersion": API, "kind": "ServiceRegistration", "metadata": metadata, "spec": {"pods": PODS, **spec}}


def connection(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": API, "kind": "ConsulConnection", "metadata": {"name": "default"}, "spec": spec}


CATALOG = connection(mode="Catalog", addresses=["http://consul:8500"])
OTHER = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": {"spec": "none"}}


def linted(tmp_path: Path, *bodies: Any) -> tuple[int, list[str]]:
    file = tmp_path / "web.yaml"
    file.write_text(yaml.safe_dump_all(bodies))
    done = CliRunner().invoke(main, ["lint", str(file)], catch_exceptions=False)
    return done.exit_code, [line.removeprefix(f"{file}: ") for line in done.stdout.splitlines()]


def test_what_is_well_is_not_spoken_of(tmp_path: Path) -> None:
    assert linted(tmp_path, registration(), CATALOG, OTHER, None) == (0, [])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (registration(service={"port": "80"}), "ServiceRegistration web: error: spec.service.port: must be a number"),
        (registration(pods={"selector": {}}), "ServiceRegistration web: error: spec.pods.selector: must have"),
        (registration(colour="red"), "ServiceRegistration web: error: spec.colour: "),
        ({**registration(), "spec": "none"}, "ServiceRegistration web: error: spec: "),
        (
            {**registration(), "metadata": None},
            "ServiceRegistration (without a name): error: metadata.name must be set",
        ),
        ({**registration(), "kind": "Service"}, "Service web: error: kind must be ServiceRegistration or"),
        (
            {**registration(), "apiVersion": "consul-registrar.dev/v1"},
            f"ServiceRegistration web: error: apiVersion must be {API}",
        ),
        (connection(mode="Agents"), "ConsulConnection default: error: spec.mode: "),
        (
            connection(mode="Catalog", addresses=["http://consul:8500"], namespace="team-a"),
            "ConsulConnection default: error: spec.namespace must not be set",
        ),
        ({"kind": "List", "items": [registration(pods={})]}, "ServiceRegistration web: error: spec.pods.selector: "),
    ],
)
def test_what_would_be_refused_is_an_error(tmp_path: Path, body: Any, says: str) -> None:
    code, (line,) = linted(tmp_path, OTHER, body)
    assert (code, line[: len(says)]) == (1, says)


@pytest.mark.parametrize(
    ("check", "beside", "says"),
    [
        ({"tcp": {}, "deregisterCriticalServiceAfter": "2h"}, [], "is rarely needed: Pods are removed when they go"),
        ({"http": {"path": "/up"}}, [CATALOG], "follows redirects all the same"),
    ],
)
def test_what_may_not_be_meant_is_a_note_and_no_error(
    tmp_path: Path, check: dict[str, Any], beside: list[Any], says: str
) -> None:
    code, (line,) = linted(tmp_path, registration(checks=[{"name": "a", **check}]), *beside)
    assert code == 0
    assert "ServiceRegistration web: note: " in line
    assert says in line


def test_what_is_no_yaml_is_an_error_and_the_other_files_are_looked_through(tmp_path: Path) -> None:
    torn = tmp_path / "torn.yaml"
    torn.write_text("{ -")
    done = CliRunner().invoke(main, ["lint", str(torn), "-"], input=yaml.safe_dump(registration(colour="red")))
    assert done.exit_code == 1
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == [str(torn), "<stdin>"]


def test_every_example_is_well() -> None:
    done = CliRunner().invoke(main, ["lint", *map(str, EXAMPLES)], catch_exceptions=False)
    assert done.exit_code == 0, done.stdout
