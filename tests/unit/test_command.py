"""The command as a person meets it: what is missing is said once, and it ends."""

import os
import subprocess
import sys
from pathlib import Path

WITHOUT_PACKAGES = "import sys; sys.modules['opentelemetry'] = None; from consul_registrar.cli import main; main()"
WHAT_IS_LOADED = """
import sys
from consul_registrar.cli import main
try:
    main()
finally:
    print(*sys.modules)
"""


def test_without_a_way_to_log_in_it_says_what_is_missing_and_ends(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("consul-registrar"), "run", "--cluster-name=x"]
    environment = {"HOME": str(tmp_path), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("no way to log in to Kubernetes") == 1


def _ran(tmp_path: Path, program: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", program, "run", "--cluster-name=x", *arguments]
    environment = {"HOME": str(tmp_path), "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_traces_without_their_packages_end_it_with_what_to_install(tmp_path: Path) -> None:
    done = _ran(tmp_path, WITHOUT_PACKAGES, CONSUL_REGISTRAR_TRACES="true")
    assert done.returncode == 1
    assert "pip install 'consul-registrar[traces]'" in done.stderr
    assert "--build-arg EXTRA=traces" in done.stderr
    assert "Traceback" not in done.stderr


def test_traces_whose_variables_are_wrong_end_it_with_what_must_be(tmp_path: Path) -> None:
    done = _ran(tmp_path, WHAT_IS_LOADED, "--traces", OTEL_EXPORTER_OTLP_ENDPOINT="collector:4318")
    assert done.returncode == 1
    assert "OTEL_EXPORTER_OTLP_ENDPOINT must be a URL, as http://collector:4318" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_traces_nothing_of_opentelemetry_is_loaded_whatever_its_variables_say(tmp_path: Path) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    off = _ran(tmp_path, WHAT_IS_LOADED, "--traces=false", **endpoint)
    assert "no way to log in to Kubernetes" in off.stderr
    assert "consul_registrar.tracing" in off.stdout
    assert "opentelemetry" not in off.stdout
    assert "opentelemetry" in _ran(tmp_path, WHAT_IS_LOADED, "--traces", **endpoint).stdout
