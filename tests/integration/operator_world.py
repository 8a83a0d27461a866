"""The operator as a whole, and the world that it changes: tests start it as a process, act through the API server, and
ask Consul and the API server alone what has become true. Nothing here imports the operator.
"""

import http.client
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml

from demo.dns import Answer, DnsError, ask
from devcluster import Cluster, Options, running
from devcluster.consul import ConsulError
from devcluster.kube import ApiError, KubectlError
from devcluster.net import choose_port
from devcluster.process import Home, Process, Program
from killpoints import Site
from killpoints import World as Truth

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "manifests" / "examples"
CRDS = REPOSITORY / "crds"
GROUP = "consul-registrar.dev"
RESOURCES = f"/apis/{GROUP}/v1alpha1"
MERGE = "application/merge-patch+json"
STEER = "dev.consul-registrar.dev/"
PATIENCE = 180.0
"""Seconds; more than the two minutes after which an agent pushes again what it failed to push. Machines that build and
test at once are slow, and how fast things are is for benchmarks to say.
"""

T = TypeVar("T")

_NOT_YET = (
    AssertionError, ApiError, ConsulError, DnsError, KubectlError, KeyError, IndexError, StopIteration, TypeError,
    ValueError, OSError, http.client.HTTPException,
)  # fmt: skip


def eventually(look: Callable[[], T], within: float = PATIENCE) -> T:
    """What `look` returns once that is true, or None where it asserts by itself and has nothing to return."""
    deadline = time.monotonic() + within
    while True:
        try:
            found = look()
        except _NOT_YET as error:
            seen: object = error
            if time.monotonic() > deadline:
                raise AssertionError(f"not true after {within:.0f} s: {error!r}") from error
        else:
            if found is None or found:
                return found
            seen = found
        if time.monotonic() > deadline:
            raise AssertionError(f"not true after {within:.0f} s; seen last: {seen!r}")
        time.sleep(0.05)


def always(look: Callable[[], object], during: float) -> None:
    """`look` stays true for a while: for what must not happen."""
    deadline = time.monotonic() + during
    while time.monotonic() < deadline:
        assert look()
        time.sleep(0.05)


def truth(cluster: Cluster) -> Truth:
    """Where the oracle asks: straight, past everything that a test puts in between."""
    trust = ssl.create_default_context(cafile=str(cluster.control_plane.api.certificate))
    shown = {"X-Consul-Token": cluster.consul.token} if cluster.consul.token else {}
    return Truth(
        consul=[Site(server.http_addr, shown) for server in cluster.consul.servers],
        kubernetes=Site(cluster.api_url, {"Authorization": f"Bearer {cluster.token}"}, trust),
        uid_key="k8s-pod-uid",
    )


class Operator:
    """The real process `consul-registrar run`, logged in as the cluster's administrator.

    Another `kubeconfig` than the cluster's leads through a proxy; another `program` is a build of its own. `variables`:
    further ones of its environment.
    """

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        name: str = "test",
        arguments: tuple[str, ...] = (),
        *,
        kubeconfig: Path | None = None,
        program: tuple[str, ...] = (str(Path(sys.executable).with_name("consul-registrar")),),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._address = cluster.block.control_plane
        self._port = choose_port(self._address, 8080)
        command = (
            *program,
            "run",
            f"--cluster-name={name}",
            f"--health-address={self._address}:{self._port}",
            *arguments,
        )
        environment = {"KUBECONFIG": str(kubeconfig or cluster.kubeconfig), "PYTHONPATH": str(REPOSITORY / "operator")}
        environment |= variables or {}
        program = Program("operator", command, ready=self.is_ready, environment=environment)
        self.process = Process(program, Home(folder, tethered=True))

    @property
    def log(self) -> str:
        """All that it has said, over restarts; without the colours of a terminal."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.process.log.read_text(errors="replace"))

    def start(self) -> None:
        """Start it and wait until it says that it knows the cluster."""
        self.process.start()

    def stop(self) -> None:
        """End it as Kubernetes does (SIGTERM)."""
        self.process.stop()

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self.process.kill()

    def restart(self) -> None:
        self.process.restart()

    @contextmanager
    def running(self) -> Iterator[Self]:
        """It runs while the block does, which may stop and start it; afterwards it is gone, whatever has happened."""
        try:
            self.start()
            yield self
        finally:
            self.kill()

    def is_ready(self) -> bool:
        try:
            return self.get("/readyz") == "ok\n"
        except OSError:
            return False

    def get(self, path: str) -> str:
        """What /healthz, /readyz or /metrics say; an unready answer raises."""
        with urllib.request.urlopen(f"http://{self._address}:{self._port}{path}", timeout=5) as answer:
            return answer.read().decode()

    def measured(self, name: str) -> float:
        """A series without labels, as /metrics tells of it."""
        return float(re.search(rf"^{name} (\S+)$", self.get("/metrics"), re.MULTILINE)[1])


@dataclass(frozen=True)
class World:
    """One namespace of the cluster, and Consul, as anybody sees them."""

    cluster: Cluster
    namespace: str

    # Kubernetes

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def apply(self, *manifests: dict[str, Any]) -> str:
        return self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def example(self, file: str) -> str:
        """Apply one of the example files as it is."""
        return self.kubectl("apply", "-f", str(EXAMPLES / file))

    def pods(self, app: str) -> dict[str, dict[str, Any]]:
        """The running Pods with this label, by name; those that terminate are left out."""
        found = self.cluster.api.request("GET", f"/api/v1/namespaces/{self.namespace}/pods?labelSelector=app%3D{app}")
        return {
            pod["metadata"]["name"]: pod
            for pod in found["items"]
            if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        }

    def registration(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.api.request("GET", f"{self.registrations}/{name}")
        return found

    @property
    def registrations(self) -> str:
        """The path of the registrations of this namespace at the API server."""
        return f"{RESOURCES}/namespaces/{self.namespace}/serviceregistrations"

    def condition(self, name: str, kind: str = "Ready") -> dict[str, Any]:
        """A condition that speaks of the registration as it is now."""
        found = self.registration(name)
        condition = next(c for c in found["status"]["conditions"] if c["type"] == kind)
        assert condition["observedGeneration"] == found["metadata"]["generation"], "status is older than the spec"
        return condition

    def says(self, name: str, reason: str, kind: str = "Ready", message: str | None = None) -> dict[str, Any]:
        """Wait until a condition has this reason, and this message where one is given (counts come one by one)."""

        def look() -> dict[str, Any]:
            condition = self.condition(name, kind)
            assert (condition["reason"], message or condition["message"]) == (reason, condition["message"])
            return condition

        return eventually(look)

    def registered(self, name: str, count: int) -> dict[str, Any]:
        """Wait until status says that so many instances are desired, registered and passing: by then the operator has
        heard of all that it wrote for them, which Consul shows earlier.
        """
        return self.says(name, "Registered", message=f"{count} of {count} instances registered, {count} passing")

    def exists(self, name: str) -> bool:
        found = self.cluster.api.request("GET", self.registrations)
        return name in {one["metadata"]["name"] for one in found["items"]}

    def patch(self, name: str, spec: dict[str, Any]) -> None:
        """Merge into a registration's spec."""
        self.cluster.api.request("PATCH", f"{self.registrations}/{name}", {"spec": spec}, MERGE)

    def annotate(self, pod: str, **annotations: str | None) -> None:
        """Steer a Pod by annotations of the local cluster; `_` stands for `-`, None removes one."""
        given = {STEER + key.replace("_", "-"): value for key, value in annotations.items()}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}"
        self.cluster.api.request("PATCH", path, {"metadata": {"annotations": given}}, MERGE)

    # Consul

    def consul(self, path: str) -> Any:
        return self.cluster.consul.server.request("GET", path)

    def health(self, service: str, *, passing: bool = False) -> dict[str, dict[str, Any]]:
        """What the health API says of a service, by the name of Pod or endpoint."""
        rows = self.consul(f"/v1/health/service/{service}{'?passing' if passing else ''}")
        return {_name(row["Service"]["Meta"], row["Service"]["ID"]): row for row in rows}

    def catalog(self, service: str) -> dict[str, dict[str, Any]]:
        """What the catalog says of a service, by the name of Pod or endpoint."""
        rows = self.consul(f"/v1/catalog/service/{service}")
        return {_name(row["ServiceMeta"], row["ServiceID"]): row for row in rows}

    def passing(self, service: str, count: int) -> dict[str, dict[str, Any]]:
        """Wait until a service has so many instances, all of them healthy."""

        def look() -> dict[str, dict[str, Any]]:
            rows = self.health(service)
            healthy = self.health(service, passing=True)
            assert len(rows) == len(healthy) == count, {n: statuses(row) for n, row in rows.items()}
            return healthy  # read later: what of `rows` was critical has become healthy in between

        return eventually(look)

    def agent_checks(self, row: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The checks of an instance as the agent runs them, by their names."""
        agent = self.cluster.consul.agents[row["Node"]["Node"]]
        checks = agent.request("GET", "/v1/agent/checks").values()
        return {check["Name"]: check for check in checks if check["ServiceID"] == row["Service"]["ID"]}

    def dns(self, name: str, kind: str = "A") -> Answer:
        server = self.cluster.consul.server
        return ask(server.address, server.dns_port, name, kind)


def _name(meta: dict[str, str], instance_id: str) -> str:
    return meta.get("k8s-pod") or meta.get("k8s-endpoint") or instance_id


def statuses(row: dict[str, Any]) -> dict[str, str]:
    """The checks of an instance: name to status; without those of its node."""
    return {check["Name"]: check["Status"] for check in row["Checks"] if check["ServiceID"]}


def call(row: dict[str, Any], path: str = "/") -> tuple[int, str]:
    """Call an instance where Consul says that it is."""
    service = row["Service"]
    request = f"http://{service['Address']}:{service['Port']}{path}"
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def deployment(name: str, replicas: int, **container: Any) -> dict[str, Any]:
    """A Deployment whose Pods have the label app=<name> and one port, http, unless the container says otherwise."""
    ports = [{"name": "http", "containerPort": 8080}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "main", "ports": ports, **container}]},
            },
        },
    }


def registration(name: str, **spec: Any) -> dict[str, Any]:
    """A registration of the Pods with the label app=<name>, unless the spec says otherwise."""
    if not spec.keys() & {"pods", "endpoints", "kubernetesService"}:
        spec["pods"] = {"selector": {"matchLabels": {"app": name}}}
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "ServiceRegistration",
        "metadata": {"name": name},
        "spec": spec,
    }


def published(name: str, connection: str, **spec: Any) -> dict[str, Any]:
    """A registration in one connection, under a name of its own there."""
    service = {"name": f"{name}-{connection}"} | spec.pop("service", {})
    return registration(name, consulRefs=[{"name": connection}], service=service, **spec)


def connection(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": f"{GROUP}/v1alpha1", "kind": "ConsulConnection", "metadata": {"name": name}, "spec": spec}


def pod(name: str, app: str, **annotations: str) -> dict[str, Any]:
    """A Pod of its own, steered by annotations of the local cluster."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app": app},
            "annotations": {STEER + key: value for key, value in annotations.items()},
        },
        "spec": {"containers": [{"name": "main", "image": "main", "ports": [{"name": "http", "containerPort": 8080}]}]},
    }


def define(cluster: Cluster) -> None:
    """Apply the custom resources' definitions; returns when clients find them, which is after they are established."""
    cluster.kubectl("apply", "-f", str(CRDS))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", f"--timeout={PATIENCE:.0f}s")

    def are_found() -> None:
        cluster.kubectl("get", "serviceregistrations,consulconnections", "--all-namespaces")

    eventually(are_found)


@contextmanager
def defined(options: Options, folder: Path) -> Iterator[Cluster]:
    """A cluster that knows the custom resources."""
    with running(options, folder / "state") as one:
        define(one)
        yield one


@contextmanager
def operating(cluster: Cluster, folder: Path, *arguments: str, **variables: str) -> Iterator[Operator]:
    """An operator that runs; after the block it has met nothing that it was not made for."""
    without_consul_variables()
    with Operator(cluster, folder, arguments=arguments, variables=variables).running() as one:
        yield one
    assert "Traceback" not in one.log
    assert "InternalError" not in one.log


def without_consul_variables() -> None:
    """What a developer's shell says of some Consul is not meant for the operator under test."""
    for name in [name for name in os.environ if name.startswith("CONSUL_")]:
        del os.environ[name]
