"""A cluster from outside: kubectl and Helm, and Consul through the API server's proxy. Nothing imports the operator."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from devcluster.tools import HELM, HYPERKUBE

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "manifests" / "examples"
CHART = REPOSITORY / "manifests" / "helm" / "consul-registrar"
NAMESPACE, RELEASE = "consul-registrar", "consul-registrar"
CONSUL = "http://consul.consul.svc:8500"
PATIENCE = 120.0
"""Seconds; how fast things are is for benchmarks to say."""

T = TypeVar("T")


class CommandError(Exception):
    """A command failed; the message is what it said."""


def eventually(look: Callable[[], T], within: float = PATIENCE) -> T:
    """What `look` returns, once that is true; the last of it or of its errors where it never is."""
    deadline = time.monotonic() + within
    while True:
        try:
            seen: Any = look()
        except (CommandError, LookupError) as error:
            seen = error
        if seen and not isinstance(seen, Exception):
            return seen  # type: ignore[no-any-return]
        assert time.monotonic() < deadline, f"not true after {within:.0f} s: {seen!r}"
        time.sleep(0.2)


@dataclass(frozen=True, slots=True)
class World:
    """One cluster."""

    kubeconfig: Path
    image: str

    def run(self, *command: str, stdin: str = "", environment: Mapping[str, str] | None = None) -> str:
        """A command's output. Raises CommandError."""
        path = f"{HYPERKUBE.folder}:{HELM.folder}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        known = {"KUBECONFIG": str(self.kubeconfig), "PATH": path, "HOME": "/root", **(environment or {})}
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, env=known, cwd=REPOSITORY
        )
        if done.returncode:
            raise CommandError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        return self.run("kubectl", *arguments, stdin=stdin)

    def get(self, *what: str) -> Any:
        return json.loads(self.kubectl("get", *what, "-o", "json"))

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        self.kubectl("apply", "-f", "-", stdin=text)

    def consul(self, path: str) -> Any:
        """What Consul in the cluster answers to GET."""
        proxied = f"/api/v1/namespaces/consul/services/consul:8500/proxy{path}"
        return json.loads(self.kubectl("get", "--raw", proxied))

    def api_host(self) -> str:
        """The API server's name or address, which it hands on to what it stands before."""
        server = self.kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
        return urlsplit(server).hostname or ""

    def served(self, service: str, path: str) -> str:
        """What one of the release's Services answers to GET."""
        proxied = f"/api/v1/namespaces/{NAMESPACE}/services/{RELEASE}-{service}:http/proxy/{path}"
        return self.kubectl("get", "--raw", proxied)

    def found(self, service: str, *, passing: bool = True) -> set[str]:
        """The names of the Pods behind what Consul answers for a service."""
        rows = self.consul(f"/v1/health/service/{service}{'?passing=1' if passing else ''}")
        return {row["Service"]["Meta"]["k8s-pod"] for row in rows}

    def pods(self, selector: str, namespace: str = "default") -> set[str]:
        """The names of the ready Pods that aren't leaving."""
        items = self.get("pods", "-n", namespace, "-l", selector)["items"]
        return {pod["metadata"]["name"] for pod in items if _serves(pod)}

    def install(self, *values: str, chart: Path = CHART) -> None:
        """The chart as its README says, and wait until the operator is ready."""
        repository, _, tag = self.image.rpartition(":")
        self.run(
            "helm", "upgrade", "--install", RELEASE, str(chart), "--namespace", NAMESPACE, "--create-namespace",
            "--set", "clusterName=e2e", "--set", f"connection.spec.addresses={{{CONSUL}}}",
            "--set", f"image.repository={repository},image.tag={tag},image.pullPolicy=Never",
            *(part for value in values for part in ("--set", value)), "--wait", "--timeout", "180s",
        )  # fmt: skip

    def leader(self) -> str:
        """The Pod of the operator that leads, "" while none does."""
        lease = self.get("lease", "-n", NAMESPACE, RELEASE)
        holder: str = lease["spec"].get("holderIdentity") or ""
        return holder.rpartition("-")[0]


def _serves(pod: Mapping[str, Any]) -> bool:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
    return ready and "deletionTimestamp" not in pod["metadata"]


RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def app_manifests(name: str, *, gate: bool = True) -> list[dict[str, Any]]:
    """Three Pods that serve HTTP, and their registration. A Pod serves for some seconds after it is told to end.

    That is what any load balancer in front of Kubernetes needs: callers learn of the end only after it has begun.
    """
    pod = {
        "terminationGracePeriodSeconds": 20,
        "containers": [
            {
                "name": "main",
                "image": "hashicorp/http-echo:1.0",
                "imagePullPolicy": "IfNotPresent",
                "args": ["-listen=:8080", f"-text={name}"],
                "ports": [{"name": "http", "containerPort": 8080}],
                "securityContext": RESTRICTED,
                "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
                "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
            }
        ],
    }
    if gate:
        pod["readinessGates"] = [{"conditionType": "consul-registrar.dev/registered"}]
    labels = {"app": name}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": labels},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    registration = {
        "apiVersion": "consul-registrar.dev/v1alpha1",
        "kind": "ServiceRegistration",
        "metadata": {"name": name},
        "spec": {"pods": {"selector": {"matchLabels": labels}}},
    }
    return [registration, deployment]


class Traffic:
    """A Pod that calls a service through Consul all the while, and counts what fails."""

    def __init__(self, world: World, service: str) -> None:
        self._world = world
        self._service = service
        self._name = f"traffic-{service}"

    def start(self) -> None:
        """Return when it has sent its first requests."""
        script = (Path(__file__).parent / "traffic.py").read_text()
        container = {
            "name": "main",
            "image": self._world.image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["/opt/consul-registrar/bin/python", "-c", script, CONSUL, self._service],
            "securityContext": RESTRICTED,
        }
        spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
        self._world.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self._name}, "spec": spec})
        eventually(lambda: self.so_far()["sent"] > 20)

    def so_far(self) -> dict[str, Any]:
        """Requests `sent` and `failed`, the `first` failures, and how often there was nobody to call (`empty`)."""
        lines = self._world.kubectl("logs", self._name).splitlines()
        return json.loads(lines[-1])  # type: ignore[no-any-return]

    def goes_on(self) -> dict[str, Any]:
        """What it counts after some more requests than now."""
        sent = self.so_far()["sent"]
        return eventually(lambda: now if (now := self.so_far())["sent"] > sent + 200 else None)  # type: ignore[return-value]

    def stop(self) -> None:
        self._world.kubectl("delete", "pod", self._name, "--wait=false")
