"""Decides which tools a cluster needs, in which versions, and where they are kept; `build.py` builds them.

A tool is a Go module under `dev/tools/` that pins one program with go.mod and go.sum. Its binary is kept in the user's
cache under a name that holds the version and a hash of everything that decides what is built, so an edit of
the module is a new tool and checkouts of several versions share the cache.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent / "tools"


@dataclass(frozen=True, slots=True)
class Tool:
    """One binary to build: `package` in the module `dev/tools/<name>`, whose version is that of `module`."""

    name: str
    module: str
    package: str
    build_seconds: int
    """How long a first build took on two cores, for the forecast."""
    linker_flags: str = "-s -w"
    programs: tuple[str, ...] = ()
    """The names that the binary answers to, where it holds several programs."""

    @property
    def source(self) -> Path:
        """The folder of the Go module."""
        return SOURCES / self.name

    @property
    def version(self) -> str:
        """The pinned version, as go.mod names it."""
        found = re.search(rf"^(?:require)?\s+{re.escape(self.module)} (v\S+)", self._go_mod, re.MULTILINE)
        if found is None:
            raise ValueError(f"{self.source / 'go.mod'} does not require {self.module}")
        return found[1]

    @property
    def go_version(self) -> tuple[int, ...]:
        """The lowest version of Go that builds it."""
        found = re.search(r"^go (\d+(?:\.\d+)*)$", self._go_mod, re.MULTILINE)
        if found is None:
            raise ValueError(f"{self.source / 'go.mod'} names no version of Go")
        return tuple(int(part) for part in found[1].split("."))

    @property
    def folder(self) -> Path:
        """Where the binary is kept."""
        return cache() / "tools" / f"{self.name}-{self.version}-{self._hash}"

    @property
    def is_built(self) -> bool:
        """Whether there is nothing to do; folders appear in one step, whole."""
        return self.folder.is_dir()

    def path(self, program: str | None = None) -> Path:
        """The path of the binary, or of one of its programs."""
        return self.folder / (program or self.name)

    @property
    def _go_mod(self) -> str:
        return (self.source / "go.mod").read_text()

    @property
    def _hash(self) -> str:
        digest = hashlib.sha256(f"{self.package} {self.linker_flags}".encode())
        for file in sorted(self.source.iterdir()):
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
        return digest.hexdigest()[:12]


def cache() -> Path:
    """The folder that outlives checkouts: the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "consul-registrar"


ETCD = Tool("etcd", module="go.etcd.io/etcd/server/v3", package="go.etcd.io/etcd/server/v3", build_seconds=80)

HYPERKUBE = Tool(
    "hyperkube",
    module="k8s.io/kubernetes",
    package=".",
    build_seconds=300,
    # Without a version Kubernetes calls itself v0.0.0, and clients and feature gates judge it by that.
    linker_flags="-s -w -X k8s.io/component-base/version.gitVersion={version} "
    "-X k8s.io/client-go/pkg/version.gitVersion={version}",
    programs=(
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "kubectl",
    ),
)

CONSUL = Tool("consul", module="github.com/hashicorp/consul", package="github.com/hashicorp/consul", build_seconds=250)

KWOK = Tool("kwok", module="sigs.k8s.io/kwok", package="sigs.k8s.io/kwok/cmd/kwok", build_seconds=40)

HELM3 = Tool(
    "helm",
    module="helm.sh/helm/v3",
    package="helm.sh/helm/v3/cmd/helm",
    build_seconds=75,
    # Without the last two it renders for Kubernetes 1.20 unless told otherwise, and judges a chart's APIs by that.
    linker_flags="-s -w -X helm.sh/helm/v3/internal/version.version={version} "
    "-X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=36",
)

HELM4 = Tool(
    "helm4",
    module="helm.sh/helm/v4",
    package="helm.sh/helm/v4/cmd/helm",
    build_seconds=75,
    linker_flags="-s -w -X helm.sh/helm/v4/internal/version.version={version}",
    programs=("helm",),
)

HELM = HELM4 if os.environ.get("HELM") == "4" else HELM3
"""What renders and installs the chart; with `HELM=4` in the environment that is Helm 4."""

PROMQL = Tool("promql", module="github.com/prometheus/prometheus", package=".", build_seconds=80)
"""Evaluates alerts and the dashboard's expressions with Prometheus' own engine (`dev/tools/promql/main.go`)."""

TOOLS = (ETCD, HYPERKUBE, CONSUL, KWOK, HELM)

COREDNS = Tool("coredns", module="github.com/coredns/coredns", package=".", build_seconds=60)
HTTP_ECHO = Tool(
    "http-echo", module="github.com/hashicorp/http-echo", package="github.com/hashicorp/http-echo", build_seconds=10
)
NODE_TOOLS = (COREDNS, HTTP_ECHO)
"""What runs in Pods; only the node with real Pods needs them (`dev/realnode`)."""
