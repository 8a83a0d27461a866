"""Starts and ends the node, and reaches into it.

What runs in it says `init.sh`. The node is known by the PID of its first process together with that process's command
line, so that a stale file never ends somebody else's process.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devcluster.build import ensure_tools
from devcluster.tools import ETCD, HYPERKUBE, TOOLS
from realnode.images import PAUSE, ensure_images

HERE = Path(__file__).parent
PODS, SERVICES = "10.250.0.0/24", "10.97.0.0/16"
_PROGRAMS = ("containerd", "runc", "nft", "conntrack", "nsenter", "unshare", "ip", "openssl", "curl", "gcc")
_KEPT_OVER_RUNS = ("containerd", "images", "logs")  # the image store, so that images aren't imported each time

_INIT = ("bash", str(HERE / "init.sh"))
_APART = ("--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child")
_IN_THE_BACKGROUND = 'log=$1; shift; setsid "$@" > "$log" 2>&1 < /dev/null & echo $!'  # it outlives who started it


class NodeError(Exception):
    """The node can't be had, or didn't come up; the message says what to do or where to look."""


@dataclass(frozen=True, slots=True)
class Node:
    """The one node, with its data in a folder."""

    state: Path

    @property
    def kubeconfig(self) -> Path:
        """How an administrator reaches its API server from this machine."""
        return self.state / "etc" / "admin.kubeconfig"

    @property
    def pid(self) -> int | None:
        """Its first process, as this machine sees it, while it runs."""
        try:
            pid = int((self.state / "node.pid").read_text())
            return pid if b"init.sh" in Path(f"/proc/{pid}/cmdline").read_bytes() else None
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None

    def up(self) -> None:
        """Start it afresh, but for its images, and wait until it takes Pods. Raises NodeError."""
        _check_machine()
        if self.pid is not None:
            raise NodeError("the node is up already: end it first")
        ensure_tools(print, (*TOOLS,))
        self.down()
        self._clean()
        ensure_images(self.state / "images")
        _run("bash", str(HERE / "pki.sh"), str(self.state / "etc"))
        self._spawn()
        _link_up(self._known_pid())
        self._await("its API server", lambda: self.kubectl("get", "--raw", "/readyz").returncode == 0)
        self._await("containerd", lambda: self.inside("ctr", "version").returncode == 0)
        for image in sorted((self.state / "images").glob("*.tar")):
            self.load(image)
        self.inside("ctr", "-n", "k8s.io", "images", "label", PAUSE, "io.cri-containerd.pinned=pinned")
        self._await("the node to be ready", self._is_ready)
        self._must("apply", "-f", str(HERE / "conf" / "coredns.yaml"))

    def down(self) -> None:
        """End it with all that runs in it; nothing of it stays on this machine but its folder."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            while Path(f"/proc/{pid}").exists():
                time.sleep(0.05)
        _link_down()
        _remove_groups()
        (self.state / "node.pid").unlink(missing_ok=True)

    def load(self, image: Path) -> None:
        """Import an image from its tar file (OCI layout or `docker save`)."""
        done = self.inside("ctr", "-n", "k8s.io", "images", "import", str(image))
        if done.returncode:
            raise NodeError(f"{image} was not imported: {done.stderr.strip()}")

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the node's namespaces."""
        entered = ["nsenter", "-t", str(self._known_pid()), "-m", "-n", "-p", "-u", *command]
        return subprocess.run(entered, capture_output=True, text=True, check=False)

    def kubectl(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator."""
        command = [str(HYPERKUBE.path("kubectl")), f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)

    def _must(self, *arguments: str) -> None:
        done = self.kubectl(*arguments)
        if done.returncode:
            raise NodeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")

    def _known_pid(self) -> int:
        pid = self.pid
        if pid is None:
            raise NodeError("the node is not up")
        return pid

    def _clean(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        for each in self.state.iterdir():
            if each.name not in _KEPT_OVER_RUNS:
                shutil.rmtree(each) if each.is_dir() else each.unlink()

    def _spawn(self) -> None:
        programs = self.state / "bin"
        programs.mkdir()
        for tool in (ETCD, HYPERKUBE):
            for name in tool.programs or (tool.name,):
                (programs / name).symlink_to(tool.path(name if tool.programs else None))
        outer = subprocess.run(
            ["bash", "-c", _IN_THE_BACKGROUND, "-", str(self.state / "init.log"), "unshare", *_APART, *_INIT],
            env={**os.environ, "STATE": str(self.state), "BIN": str(programs)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        children = Path(f"/proc/{outer}/task/{outer}/children")
        self._await("its first process", lambda: _is_apart(children))
        (self.state / "node.pid").write_text(children.read_text().split()[0])

    def _is_ready(self) -> bool:
        path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        return self.kubectl("get", "node", "crnode", "-o", path).stdout == "True"

    def _await(self, what: str, condition: Callable[[], bool], within: float = 120.0) -> None:
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() > deadline:
                raise NodeError(f"waited {within:.0f} s for {what}; see {self.state}/logs and {self.state}/init.log")
            time.sleep(0.1)


def _is_apart(children: Path) -> bool:
    """Whether the first process is in a network namespace of its own by now."""
    try:
        found = children.read_text().split()
        return bool(found) and _network(found[0]) != _network("self")
    except FileNotFoundError:
        return False


def _network(process: str) -> Path:
    return Path(f"/proc/{process}/ns/net").readlink()


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise NodeError("the node with real Pods needs root: it makes namespaces and control groups")
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        raise NodeError(f"{', '.join(missing)} not found; on Debian `make node-packages` installs what is missing")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NodeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _link_up(pid: int) -> None:
    """The machine reaches the node's API and its Pods, and no other addresses of theirs by another way."""
    for command in (
        ("link", "add", "crn0", "type", "veth", "peer", "name", "crn1"),
        ("link", "set", "crn1", "netns", str(pid)),
        ("addr", "add", "10.251.0.1/30", "dev", "crn0"),
        ("link", "set", "crn0", "up"),
        ("route", "add", PODS, "via", "10.251.0.2", "dev", "crn0"),
        ("route", "add", "unreachable", "10.250.0.0/15", "metric", "9999"),
        ("route", "add", "unreachable", SERVICES, "metric", "9999"),
    ):
        _run("ip", *command)


def _link_down() -> None:
    for command in (
        ("link", "del", "crn0"),
        ("route", "del", "unreachable", "10.250.0.0/15", "metric", "9999"),
        ("route", "del", "unreachable", SERVICES, "metric", "9999"),
    ):
        subprocess.run(["ip", *command], capture_output=True, check=False)


def _remove_groups() -> None:
    """The control groups that the kubelet left, innermost first: one tree, or one in each hierarchy (cgroup v1)."""
    for root in [*Path("/sys/fs/cgroup").glob("crnode"), *Path("/sys/fs/cgroup").glob("*/crnode")]:
        for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        root.rmdir()
