"""The readiness gate under the RBAC that the documentation names, without its one rule for it, and switched off."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from operator_world import EXAMPLES, REPOSITORY, Operator, World, always, defined, eventually, pod, registration
from test_readiness_gate import condition, gated, ready, told

from devcluster import Cluster, Options

ROLE = "consul-registrar"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with defined(Options(nodes=1), tmp_path_factory.mktemp("plain")) as one:
        one.kubectl("apply", "-f", str(EXAMPLES / "01-connection-agent-on-each-node.yaml"))
        yield one


def documented() -> dict[str, Any]:
    """The ClusterRole of the documentation."""
    text = (REPOSITORY / "docs" / "how-to" / "access.md").read_text()
    found = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    role: dict[str, Any] = next(one for one in found if isinstance(one, dict) and one.get("kind") == "ClusterRole")
    return role


def grant(cluster: Cluster, *, gates: bool) -> None:
    role = documented()
    if not gates:
        role["rules"] = [rule for rule in role["rules"] if rule["resources"] != ["pods/status"]]
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(role))


@pytest.fixture
def restricted(plain: Cluster, tmp_path: Path) -> Path:
    """A login that may do what the role says and nothing else."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ROLE, "namespace": "default"}}
    plain.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(account))
    subject = f"--serviceaccount=default:{ROLE}"
    binding = plain.kubectl(
        "create", "clusterrolebinding", ROLE, f"--clusterrole={ROLE}", subject, "--dry-run=client", "-oyaml"
    )
    plain.kubectl("apply", "-f", "-", stdin=binding)
    config = yaml.safe_load(plain.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": plain.kubectl("create", "token", ROLE).strip()}
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


def forbidden(operator: Operator) -> int:
    return operator.log.count("ReadinessGateForbidden")


def test_without_the_permission_it_is_said_once_and_nothing_else_suffers(
    plain: Cluster, restricted: Path, tmp_path: Path
) -> None:
    world = World(plain, "default")
    grant(plain, gates=False)
    operator = Operator(plain, tmp_path, kubeconfig=restricted)
    operator.start()
    try:
        world.apply(registration("may"), gated(pod("may-1", "may")), gated(pod("may-2", "may")), pod("free", "may"))
        assert world.passing("may", 3).keys() == {"may-1", "may-2", "free"}
        world.says("may", "Registered")
        eventually(lambda: forbidden(operator) == 1)
        eventually(lambda: "ReadinessGateForbidden" in plain.kubectl("get", "events"))
        eventually(lambda: 'readiness_gates_answered_total{outcome="forbidden"}' in operator.get("/metrics"))
        always(lambda: forbidden(operator) == 1 and not condition(world, "may-1"), during=3)
        grant(plain, gates=True)
        told(world, "may-1", "True", "Registered")
        told(world, "may-2", "True", "Registered")
        ready(world, "may-2")
        assert "may be answered again" in operator.log
        assert forbidden(operator) == 1
        assert (
            "is forbidden" not in operator.log.replace("ReadinessGateForbidden", "").split("may be answered again")[1]
        )
    finally:
        operator.kill()
        world.kubectl("delete", "pods", "--all", "--timeout=180s")


def test_switched_off_it_answers_no_gate_and_registers_all_the_same(plain: Cluster, tmp_path: Path) -> None:
    world = World(plain, "default")
    with Operator(plain, tmp_path, arguments=("--readiness-gate=false",)).running():
        world.apply(registration("off"), gated(pod("off", "off")))
        world.passing("off", 1)
        always(lambda: not condition(world, "off"), during=3)
        assert condition(world, "off", "Ready")["status"] == "False"
