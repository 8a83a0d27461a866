"""Decides what runs for the demo and where its files are: the local cluster, as `make cluster` starts it, and beside it
the operator as a process of its own, logged in by the cluster's kubeconfig.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from devcluster.net import choose_port
from devcluster.process import Home, Process, Program, await_true, end_recorded, recorded

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER = REPOSITORY / "build" / "cluster"
STATE = REPOSITORY / "build" / "demo"
NAME = "demo"
"""The cluster's name in Consul."""

LOCALHOST = "127.0.0.1"
_ENDS_WITHIN = 5.0


class StageError(Exception):
    """Something does not run; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs: the environment that commands need, and the operator."""

    environment: dict[str, str]
    operator: Process

    @property
    def consul(self) -> str:
        """The URL of Consul's HTTP API."""
        return self.environment["CONSUL_HTTP_ADDR"]

    @property
    def dns(self) -> tuple[str, int]:
        """Where Consul answers DNS."""
        return self.environment["CONSUL_DNS_HOST"], int(self.environment["CONSUL_DNS_PORT"])

    @property
    def ui(self) -> str:
        """The address of Consul's web UI."""
        return self.environment["CONSUL_UI"]

    def run(self, *command: str) -> str:
        """Run a command as a user would; raises StageError with what it said."""
        path = f"{CLUSTER / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, **self.environment, "PATH": path}
        done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StageError(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.rstrip()


def set_up() -> Stage:
    """Start what doesn't run yet; what runs is taken as it is."""
    _cluster("up")
    stage = _stage()
    stage.run("kubectl", "apply", "-f", "crds/")
    stage.run("kubectl", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    if not _operator_runs():
        stage.operator.start()
    return stage


def tear_down() -> None:
    """End the operator and the cluster, also what a failed or interrupted start has left, and remove their files."""
    for _, identity in recorded(STATE):
        identity.send(signal.SIGTERM)
    await_true(lambda: not _operator_runs(), within=_ENDS_WITHIN)
    end_recorded(STATE)
    _cluster("down")
    shutil.rmtree(STATE, ignore_errors=True)


def log() -> Path:
    """The file of the operator's log."""
    return STATE / "logs" / "operator.log"


def _operator_runs() -> bool:
    return any(identity.is_alive() for _, identity in recorded(STATE))


def _cluster(command: str) -> None:
    """A command of the local cluster; it says what it does by itself."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "dev")}
    done = subprocess.run([sys.executable, "-m", "devcluster", command], env=environment, check=False)
    if done.returncode != 0:
        raise StageError("the local cluster is not as it should be (see above); `make demo-down` clears everything")


def _stage() -> Stage:
    environment: dict[str, str] = json.loads((CLUSTER / "environment.json").read_text())
    if "CONSUL_HTTP_TOKEN" in environment:
        raise StageError("a local cluster with ACLs is running; end it with `make cluster-down`, then run this again")
    port = choose_port(LOCALHOST, 8080)
    command = (
        str(Path(sys.executable).with_name("consul-registrar")),
        "run",
        f"--cluster-name={NAME}",
        f"--health-address={LOCALHOST}:{port}",
    )
    operator = Program(
        "operator",
        command,
        ready=lambda: _is_ready(port),
        environment={**environment, "PYTHONPATH": str(REPOSITORY / "operator")},
    )
    return Stage(environment, Process(operator, Home(STATE, tethered=False)))


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{LOCALHOST}:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
