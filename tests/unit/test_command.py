"""The command as a person meets it: what is missing is said once, and it ends."""

import os
import subprocess
import sys
from pathlib import Path


def test_without_a_way_to_log_in_it_says_what_is_missing_and_ends(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("consul-registrar"), "run", "--cluster-name=x"]
    environment = {"HOME": str(tmp_path), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("no way to log in to Kubernetes") == 1
