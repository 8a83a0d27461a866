"""The chart installed for real: Helm against a real API server, and the test in the kubelet's place for its Pods.

The local cluster only simulates Pods. So the operator runs beside it as the process that its container would be: with
the arguments of the rendered Deployment and the token of its ServiceAccount, under exactly the chart's roles. In the
same way the scripts of hook Pods are run.
"""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from operator_world import REPOSITORY, Operator, eventually

from chartgen.render import CHART
from devcluster import Cluster
from devcluster.tools import HELM

NAMESPACE = "consul-registrar"
RELEASE = "consul-registrar"
CLUSTER_NAME = "chart"


def helm(cluster: Cluster, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
    """Run Helm as the cluster's administrator, and return what it prints."""
    command = [str(HELM.path()), f"--kubeconfig={cluster.kubeconfig}", *arguments]
    given = [*command, "--values=-"] if values is not None else command
    done = subprocess.run(given, input=yaml.safe_dump(values), capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, f"{' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    return done.stdout


def account_token(cluster: Cluster, namespace: str, account: str) -> str:
    """A token of a ServiceAccount, as a Pod is given one."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    return str(cluster.api.request("POST", path, {"spec": {}})["status"]["token"])


def account_kubeconfig(cluster: Cluster, folder: Path, namespace: str, account: str) -> Path:
    """A kubeconfig that holds a ServiceAccount's token and nothing else."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": account_token(cluster, namespace, account)}
    file = folder / f"{namespace}-{account}.kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


def deployed_arguments(cluster: Cluster, namespace: str, name: str) -> list[str]:
    """The arguments of the Deployment's container, without the subcommand."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
    arguments = cluster.api.request("GET", path)["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[0] == "run"
    return list(arguments[1:])


def as_deployed(cluster: Cluster, folder: Path, namespace: str, name: str) -> Operator:
    """The operator as its container would run it; only where it listens is another address."""
    arguments = dict(one.split("=", 1) for one in deployed_arguments(cluster, namespace, name))
    cluster_name = arguments.pop("--cluster-name")
    assert arguments.pop("--health-address")
    rest = tuple(f"{flag}={value}" for flag, value in arguments.items())
    kubeconfig = account_kubeconfig(cluster, folder, namespace, name)
    return Operator(cluster, folder, cluster_name, rest, kubeconfig=kubeconfig)


def consul_of(cluster: Cluster) -> dict[str, Any]:
    """The spec of a connection; Consul allows one address 200 connections, and all operators here have the same."""
    return {"addresses": [cluster.consul.server.http_addr], "virtualNodes": 4}


@dataclass
class Installation:
    """One release, under the chart's defaults save what must be set."""

    cluster: Cluster
    folder: Path
    operator: Operator = field(init=False)

    @property
    def values(self) -> dict[str, Any]:
        return {"clusterName": CLUSTER_NAME, "connection": {"spec": consul_of(self.cluster)}}

    def install(self) -> None:
        helm(self.cluster, "install", RELEASE, str(CHART), f"--namespace={NAMESPACE}", values=self.values)
        self.operator = as_deployed(self.cluster, self.folder, NAMESPACE, RELEASE)


def requests(cluster: Cluster, namespace: str, account: str) -> list[dict[str, Any]]:
    """What a ServiceAccount has asked the API server for, as that noted it; the last line may not be whole yet."""
    whole, _, _ = cluster.control_plane.audit_log.read_text().rpartition("\n")
    noted = map(json.loads, whole.splitlines())
    return [one for one in noted if one["user"]["username"] == f"system:serviceaccount:{namespace}:{account}"]


def refused(cluster: Cluster, namespace: str, account: str) -> list[dict[str, Any]]:
    """Those of its requests that it had no right to."""
    return [one for one in requests(cluster, namespace, account) if one["responseStatus"]["code"] == 403]


@contextmanager
def running_scripts(cluster: Cluster, namespace: str, component: str, folder: Path) -> Iterator[list[str]]:
    """Run the scripts of Pods of this component as they come up, until the block ends; what they print is collected.

    A Pod has finished when its script has: Succeeded, or Failed.
    """
    said: list[str] = []
    over = threading.Event()

    def serve() -> None:
        done: set[str] = set()
        while not over.wait(0.1):
            for pod in _running(cluster, namespace, component):
                if pod["metadata"]["uid"] not in done:
                    done.add(pod["metadata"]["uid"])
                    said.append(_run(cluster, pod, folder))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield said
    finally:
        over.set()
        thread.join()


def _running(cluster: Cluster, namespace: str, component: str) -> list[dict[str, Any]]:
    selector = f"labelSelector=app.kubernetes.io%2Fcomponent%3D{component}&fieldSelector=status.phase%3DRunning"
    return list(cluster.api.request("GET", f"/api/v1/namespaces/{namespace}/pods?{selector}")["items"])


def _run(cluster: Cluster, pod: dict[str, Any], folder: Path) -> str:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    spec = pod["spec"]
    place = folder / name
    _mount_account(cluster, place, namespace, spec["serviceAccountName"])
    script = _mount_script(cluster, place, namespace, spec)
    url = urlsplit(cluster.api_url)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY / "operator"),
        "ACCOUNT": str(place),
        "KUBERNETES_SERVICE_HOST": str(url.hostname),
        "KUBERNETES_SERVICE_PORT": str(url.port),
        **{one["name"]: _value(one, pod) for one in spec["containers"][0].get("env", ())},
    }
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    phase = "Failed" if done.returncode else "Succeeded"
    cluster.kubectl("-n", namespace, "annotate", "pod", name, f"dev.consul-registrar.dev/phase={phase}")
    return f"{phase}: {done.stdout}{done.stderr}"


def _mount_account(cluster: Cluster, place: Path, namespace: str, account: str) -> None:
    place.mkdir(exist_ok=True)
    (place / "token").write_text(account_token(cluster, namespace, account))
    (place / "ca.crt").write_text(cluster.api.certificate.read_text())


def _mount_script(cluster: Cluster, place: Path, namespace: str, spec: dict[str, Any]) -> Path:
    volume = next(one["configMap"]["name"] for one in spec["volumes"] if one["name"] == "scripts")
    data = cluster.api.request("GET", f"/api/v1/namespaces/{namespace}/configmaps/{volume}")["data"]
    ((name, text),) = data.items()
    assert spec["containers"][0]["command"] == ["python3", f"/scripts/{name}"]
    (place / name).write_text(text)
    return place / name


def _value(variable: dict[str, Any], pod: dict[str, Any]) -> str:
    """An environment variable's value, by the downward API where it says so."""
    if "value" in variable:
        return str(variable["value"])
    found: Any = pod
    for step in variable["valueFrom"]["fieldRef"]["fieldPath"].split("."):
        found = found[step]
    return str(found)


def secret(cluster: Cluster, namespace: str, name: str, **values: str) -> None:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}
    cluster.api.request("POST", f"/api/v1/namespaces/{namespace}/secrets", body)


def gone(cluster: Cluster, path: str) -> None:
    """Wait until there is no such object."""
    eventually(lambda: "404" in _status(cluster, path))


def _status(cluster: Cluster, path: str) -> str:
    try:
        cluster.api.request("GET", path)
    except Exception as error:
        return str(error)
    return "there"
