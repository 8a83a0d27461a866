"""Decides how a program is started, watched and ended; which programs there are is decided elsewhere.

A process is known by its PID together with its start time, so that a recycled PID is never signalled. Each running
process has a file in the state folder that says so; another invocation of the command line finds it there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from devcluster import tether

POLL = 0.03
"""Seconds between two looks at something awaited."""

READY_WITHIN = 240.0
"""Seconds within which a part must be ready; generous, since machines that build and test at once are slow."""

TAIL_LINES = 20

_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="devcluster-starter")
"""Starts every process: the kernel ties a tethered one to the thread that started it, so that thread must stay."""


class StartError(Exception):
    """A part did not start; the message ends with the tail of its log."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of this machine, told apart from a later one with the same PID."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> Identity:
        """The identity of a child that was not reaped yet."""
        stat = _stat(pid)
        if stat is None:
            raise ProcessLookupError(pid)
        return cls(pid, stat[0])

    def is_alive(self) -> bool:
        """Whether it runs; a zombie has ended, whoever may still have to reap it."""
        return _stat(self.pid) == (self.start_time, True)

    def send(self, number: signal.Signals) -> None:
        """Signal this very process, or nothing when it has ended."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.is_alive():
                signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)


def _stat(pid: int) -> tuple[int, bool] | None:
    """The start time of a process and whether it is more than a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return int(fields[19]), fields[0] not in "ZX"


@dataclass(frozen=True, slots=True)
class Program:
    """What to start: a name for its files, the command line, and how to see that it is ready."""

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict)
    stop_within: float = 10.0
    """Seconds that it has to end when asked to, before it is killed."""


@dataclass(frozen=True, slots=True)
class Home:
    """What the processes of one cluster share: the state folder, their ties to the starter, inherited descriptors."""

    state: Path
    tethered: bool
    inherited: tuple[int, ...] = ()

    @property
    def logs(self) -> Path:
        """The folder of the log files."""
        return self.state / "logs"

    @property
    def processes(self) -> Path:
        """The folder of the files that say which processes run."""
        return self.state / "processes"


class Process:
    """A program that can be started, stopped, killed, paused and started again."""

    def __init__(self, program: Program, home: Home) -> None:
        self.program = program
        self._home = home
        self._child: subprocess.Popen[bytes] | None = None
        self._identity: Identity | None = None

    @property
    def name(self) -> str:
        """The name that its log and its other files carry."""
        return self.program.name

    @property
    def log(self) -> Path:
        """The file that its output goes to, appended to over restarts."""
        return self._home.logs / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """The PID while it runs."""
        return self._identity.pid if self._identity and self.is_alive() else None

    def is_alive(self) -> bool:
        """Whether the program runs (a paused one does)."""
        if self._child is not None:
            self._child.poll()
        return self._identity is not None and self._identity.is_alive()

    def start(self, wait: bool = True) -> None:
        """Start the program and wait until it is ready."""
        if self.is_alive():
            return
        _starter.submit(self._spawn).result()
        if wait:
            self.wait_ready()

    def wait_ready(self, within: float = READY_WITHIN) -> None:
        """Return when the program is ready; raise with its log's tail when it ended or took too long."""
        deadline = time.monotonic() + within
        while not self.program.ready():
            if not self.is_alive():
                raise StartError(f"{self.name} ended while starting:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} was not ready after {within:.0f} s:\n{self.tail()}")
            time.sleep(POLL)

    def stop(self) -> None:
        """Ask the program to end (SIGTERM), and kill it when it does not."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        if not self._gone(self.program.stop_within):
            self.kill()
        self._forget()

    def kill(self) -> None:
        """End the program at once (SIGKILL), as a crash or a power failure would."""
        self._signal(signal.SIGKILL)
        if not self._gone(10.0):
            raise RuntimeError(f"{self.name} survived SIGKILL")
        self._forget()

    def pause(self) -> None:
        """Freeze the program (SIGSTOP): its connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused program go on."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop the program and start it again, with the same data, addresses and ports."""
        self.stop()
        self.start()

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of the log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _spawn(self) -> None:
        self._home.logs.mkdir(parents=True, exist_ok=True)
        self._home.processes.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            child = subprocess.Popen(
                self._command_line(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.program.environment},
                pass_fds=self._home.inherited,
                start_new_session=True,
            )
        self._child = child
        self._identity = Identity.of(child.pid)
        self._file.write_text(json.dumps({"pid": child.pid, "start_time": self._identity.start_time}))

    def _command_line(self) -> list[str]:
        if not self._home.tethered:
            return list(self.program.command)
        return [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *self.program.command]

    @property
    def _file(self) -> Path:
        return self._home.processes / f"{self.name}.json"

    def _signal(self, number: signal.Signals) -> None:
        if self._identity is not None:
            self._identity.send(number)

    def _gone(self, within: float) -> bool:
        return await_true(lambda: not self.is_alive(), within)

    def _forget(self) -> None:
        if self._child is not None:
            self._child.wait()
        self._file.unlink(missing_ok=True)


def await_true(condition: Callable[[], bool], within: float) -> bool:
    """Whether a condition came true in time."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def recorded(state: Path) -> Iterator[tuple[str, Identity]]:
    """The processes that the files of a state folder name, whoever started them."""
    for file in sorted(Home(state, tethered=False).processes.glob("*.json")):
        with suppress(ValueError, KeyError):
            record = json.loads(file.read_text())
            yield file.stem, Identity(int(record["pid"]), int(record["start_time"]))


def end_recorded(state: Path) -> None:
    """Kill every process that a state folder names, and return when they are gone."""
    identities = [identity for _, identity in recorded(state)]
    for identity in identities:
        identity.send(signal.SIGKILL)
    if not await_true(lambda: not any(identity.is_alive() for identity in identities), within=10.0):
        raise RuntimeError(f"processes of {state} survived SIGKILL")
