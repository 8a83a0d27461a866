"""What Helm prints after an install: the next steps, by commands that fit what was installed."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from chart_world import Installation, helm
from rendering import ADDRESSES, NAME, NAMESPACE, RELEASE, one, rendered

from chartgen.render import CHART
from consul_registrar.api import ServiceRegistrationSpec

Notes = Callable[..., str]


@pytest.fixture(scope="module")
def notes(installed: Installation) -> Notes:
    """The notes for some values and what must be set; Helm prints them only where an API server has the definitions."""

    def printed(**values: Any) -> str:
        given = {"clusterName": "east", "connection": {"name": "east", "spec": {"addresses": ADDRESSES}}} | values
        arguments = ("install", RELEASE, str(CHART), "--dry-run=client", f"--namespace={NAMESPACE}")
        return helm(installed.cluster, *arguments, values=given).partition("\nNOTES:\n")[2]

    return printed


def test_the_commands_name_what_was_installed(notes: Notes) -> None:
    said, objects = notes(), rendered(connection__name="east")
    assert one(objects, "Deployment", NAME)
    assert f"kubectl -n {NAMESPACE} rollout status deployment/{NAME}" in said
    assert one(objects, "ConsulConnection", "east")
    assert "kubectl wait --for=condition=Ready cconn/east" in said
    assert f"helm -n {NAMESPACE} test {RELEASE}" in said


def test_the_registration_in_them_is_one(notes: Notes) -> None:
    (manifest,) = re.findall(r"<<'EOF'\n(.*?)\n +EOF", notes(), re.DOTALL)
    assert ServiceRegistrationSpec.model_validate(yaml.safe_load(manifest)["spec"])


def test_who_made_no_connection_is_told_to_apply_one(notes: Notes) -> None:
    said = notes(connection={"create": False, "name": "west"})
    assert 'apply one of your own, named "west"' in said
    assert "cconn/west" not in said


def test_the_status_page_is_named_only_where_there_is_one(notes: Notes) -> None:
    assert "port-forward" not in notes()
    (name, port) = re.findall(r"port-forward service/(\S+) 8081:(\d+)", notes(statusPage={"enabled": True}))[0]
    service = one(rendered(statusPage={"enabled": True}), "Service", name)
    assert [each["port"] for each in service["spec"]["ports"]] == [int(port)]
