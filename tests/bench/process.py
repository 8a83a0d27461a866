"""The operator as a process of its own, and what the kernel says of it."""

import os
import re
import sys
import urllib.request
from pathlib import Path

from devcluster import Cluster
from devcluster.net import choose_port
from devcluster.process import Home, Process, Program

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER_NAME = "bench"
_TICK = os.sysconf("SC_CLK_TCK")


def cpu_of(process: Process) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _as_in_image() -> dict[str, str]:
    """What the image tells the C library about memory."""
    return dict(re.findall(r"(MALLOC_\w+)=(\w+)", (REPOSITORY / "Dockerfile").read_text()))


class Operator:
    """`consul-registrar run`. `source`: the checkout that it is run from."""

    def __init__(self, cluster: Cluster, folder: Path, name: str = "a", source: Path = REPOSITORY) -> None:
        self._address = cluster.block.control_plane
        self._port = choose_port(self._address, 8080)
        script = str(Path(sys.executable).with_name("consul-registrar"))
        profile = os.environ.get("BENCH_PROFILE", "")
        start = (
            (sys.executable, str(Path(__file__).with_name("profiled.py")), profile, script) if profile else (script,)
        )
        command = (*start, "run", f"--cluster-name={CLUSTER_NAME}", f"--health-address={self._address}:{self._port}")
        environment = {"KUBECONFIG": str(cluster.kubeconfig), "PYTHONPATH": str(source / "operator"), **_as_in_image()}
        program = Program(f"operator-{name}", command, ready=self._is_ready, environment=environment)
        self.process = Process(program, Home(folder, tethered=True))

    def _is_ready(self) -> bool:
        try:
            return self.get("/readyz") == "ok\n"
        except OSError:
            return False

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self._address}:{self._port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        return cpu_of(self.process)

    def memory(self) -> float:
        """MiB that it holds now."""
        return self._status("VmRSS")

    def most_memory(self) -> float:
        """MiB that it held at most."""
        return self._status("VmHWM")

    def _status(self, name: str) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024
