"""What Helm prints after an install: the next steps, by commands that fit what was installed."""

import re
import subprocess
from typing import Any

import yaml
from test_templates import ADDRESSES, NAME, NAMESPACE, RELEASE, one, rendered

from chartgen.render import CHART
from consul_registrar.api import ServiceRegistration
from devcluster.tools import HELM


def notes(**values: Any) -> str:
    """The notes for these values and what must be set."""
    given = {"clusterName": "east", "connection": {"spec": {"addresses": ADDRESSES}}} | values
    command = [
        str(HELM.path()),
        "install",
        RELEASE,
        str(CHART),
        "--dry-run=client",
        "--values=-",
        "--namespace",
        NAMESPACE,
    ]
    done = subprocess.run(command, input=yaml.safe_dump(given), capture_output=True, text=True, check=True)
    return done.stdout.partition("\nNOTES:\n")[2]


def test_the_commands_name_what_was_installed() -> None:
    said, objects = notes(), rendered()
    assert one(objects, "Deployment", NAME)
    assert f"kubectl -n {NAMESPACE} rollout status deployment/{NAME}" in said
    assert one(objects, "ConsulConnection", "default")
    assert "kubectl wait --for=condition=Ready cconn/default" in said
    assert f"helm -n {NAMESPACE} test {RELEASE}" in said


def test_the_registration_in_them_is_one() -> None:
    (manifest,) = re.findall(r"<<'EOF'\n(.*?)\n +EOF", notes(), re.DOTALL)
    assert ServiceRegistration.model_validate(yaml.safe_load(manifest))


def test_who_made_no_connection_is_told_to_apply_one() -> None:
    said = notes(connection={"create": False, "name": "west"})
    assert 'apply one of your own, named "west"' in said
    assert "cconn/west" not in said


def test_the_status_page_is_named_only_where_there_is_one() -> None:
    assert "port-forward" not in notes()
    (name, port) = re.findall(r"port-forward service/(\S+) 8081:(\d+)", notes(statusPage={"enabled": True}))[0]
    service = one(rendered(statusPage={"enabled": True}), "Service", name)
    assert [each["port"] for each in service["spec"]["ports"]] == [int(port)]
