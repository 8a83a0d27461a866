"""Decides how etcd and Kubernetes' control plane are run; nodes and Pods are kwok's (`kwok.py`)."""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from devcluster.net import Block, choose_port
from devcluster.process import Home, Process, Program
from devcluster.tools import ETCD, HYPERKUBE

SERVICE_NETWORKS = "10.96.0.0/16,fd00:10:96::/112"
"""Of both families; a Service is of IPv4 alone unless it asks for more."""
AUDIT_LOG = "audit.log"

FAST_CLIENT = ("--kube-api-qps=500", "--kube-api-burst=1000")
"""Without it the controllers make some 20 Pods a second."""


@dataclass(frozen=True, slots=True)
class Api:
    """The way to the API server as an administrator, for this package and for tests."""

    address: str
    port: int
    token: str
    kubeconfig: Path
    certificate: Path

    @property
    def url(self) -> str:
        """The base URL."""
        return f"https://{self.address}:{self.port}"

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """Send one request and return the decoded answer; anything but success raises."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        connection = http.client.HTTPSConnection(self.address, self.port, timeout=10, context=context)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status >= 300:
            raise ApiError(response.status, text)
        return json.loads(text) if response.headers.get_content_type() == "application/json" else text

    def is_ready(self) -> bool:
        """Whether the API server says so."""
        try:
            self.request("GET", "/readyz")
        except (OSError, http.client.HTTPException, ApiError):
            return False
        return True

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator and return what it prints."""
        command = [str(HYPERKUBE.path("kubectl")), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class KubectlError(Exception):
    """kubectl failed; the message is what it said."""


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """The running parts of Kubernetes, and the way in."""

    api: Api
    audit_log: Path
    """Who asked for what, one JSON object a line, where the API server keeps it."""
    etcd_url: str
    etcd: Process
    apiserver: Process
    controller_manager: Process
    scheduler: Process

    def start(self) -> None:
        """Start all; what needs the API server waits for it."""
        self.etcd.start(wait=False)
        self.apiserver.start()
        self.controller_manager.start(wait=False)
        self.scheduler.start(wait=False)


def control_plane(home: Home, block: Block, *, audited: bool = False) -> ControlPlane:
    """Lay out the control plane of a cluster: its keys and files are written, nothing is started."""
    files = home.state / "kube"
    files.mkdir(parents=True)
    api = Api(
        address=block.control_plane,
        port=choose_port(block.control_plane, 6443),
        token=secrets.token_hex(16),
        kubeconfig=files / "kubeconfig",
        certificate=files / "certificates" / "apiserver.crt",
    )
    _write_private(files / "service-accounts.pem", _signing_key())
    _write_private(files / "tokens.csv", f"{api.token},admin,admin,system:masters\n")
    _write_private(api.kubeconfig, yaml.safe_dump(_kubeconfig(api), sort_keys=False))
    etcd_url = f"http://{block.control_plane}:{choose_port(block.control_plane, 2379)}"
    peer_url = f"http://{block.control_plane}:{choose_port(block.control_plane, 2380)}"
    return ControlPlane(
        api,
        audit_log=files / AUDIT_LOG,
        etcd_url=etcd_url,
        etcd=Process(_etcd(home.state / "etcd", etcd_url, peer_url), home),
        apiserver=Process(_apiserver(api, files, etcd_url, audited=audited), home),
        controller_manager=Process(_controller_manager(api, files), home),
        scheduler=Process(_scheduler(api), home),
    )


def _etcd(data: Path, url: str, peer_url: str) -> Program:
    command = (
        str(ETCD.path()),
        f"--data-dir={data}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    )
    host, _, port = url.removeprefix("http://").rpartition(":")
    # Asked to end it waits for the API server's watches.
    return Program("etcd", command, ready=lambda: _answers(host, int(port), "/health"), stop_within=2.0)


def _answers(host: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _apiserver(api: Api, files: Path, etcd_url: str, *, audited: bool) -> Program:
    key = files / "service-accounts.pem"
    command = (
        str(HYPERKUBE.path("kube-apiserver")),
        f"--etcd-servers={etcd_url}",
        f"--bind-address={api.address}",
        f"--advertise-address={api.address}",
        f"--secure-port={api.port}",
        f"--cert-dir={api.certificate.parent}",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--token-auth-file={files / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        f"--service-cluster-ip-range={SERVICE_NETWORKS}",
        # The only address there is is a loopback address, which Endpoints may not hold.
        "--endpoint-reconciler-type=none",
        "--disable-admission-plugins=ServiceAccount",
        *(_audit(files) if audited else ()),
    )
    # Asked to end it stops listening at once, and then waits a minute for watches that nobody ends.
    return Program("kube-apiserver", command, ready=api.is_ready, stop_within=2.0)


def _audit(files: Path) -> tuple[str, str]:
    policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"]}
    (files / "audit.yaml").write_text(yaml.safe_dump(policy | {"rules": [{"level": "Metadata"}]}))
    return f"--audit-policy-file={files / 'audit.yaml'}", f"--audit-log-path={files / AUDIT_LOG}"


def _controller_manager(api: Api, files: Path) -> Program:
    command = (
        str(HYPERKUBE.path("kube-controller-manager")),
        f"--kubeconfig={api.kubeconfig}",
        "--secure-port=0",
        "--leader-elect=false",
        f"--service-account-private-key-file={files / 'service-accounts.pem'}",
        "--concurrent-gc-syncs=40",
        *FAST_CLIENT,
    )
    return Program("kube-controller-manager", command, ready=lambda: _has_default_account(api))


def _has_default_account(api: Api) -> bool:
    """The controller manager serves nothing here; its first visible work is the account of each namespace."""
    try:
        api.request("GET", "/api/v1/namespaces/default/serviceaccounts/default")
    except (OSError, http.client.HTTPException, ApiError):
        return False
    return True


def _scheduler(api: Api) -> Program:
    command = (
        str(HYPERKUBE.path("kube-scheduler")),
        f"--kubeconfig={api.kubeconfig}",
        "--secure-port=0",
        "--leader-elect=false",
        *FAST_CLIENT,
    )
    return Program("kube-scheduler", command, ready=lambda: True)


def _kubeconfig(api: Api) -> dict[str, Any]:
    name = "consul-registrar-dev"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": api.url, "certificate-authority": str(api.certificate)}}],
        "users": [{"name": "admin", "user": {"token": api.token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "admin", "namespace": "default"}}],
        "current-context": name,
    }


def _signing_key() -> str:
    """A new P-256 private key as PEM; whoever reads it computes the public half from it."""
    private = secrets.token_bytes(31).rjust(32, b"\0")
    der = bytes.fromhex("30310201010420") + private + bytes.fromhex("a00a06082a8648ce3d030107")
    return f"-----BEGIN EC PRIVATE KEY-----\n{base64.encodebytes(der).decode()}-----END EC PRIVATE KEY-----\n"


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
