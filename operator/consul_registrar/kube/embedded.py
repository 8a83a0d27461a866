"""Runs kopf in a thread with a loop of its own, told apart from everything else in the process.

kopf ends by itself on some errors of a watch, cancels every task of its loop when it does, and takes the signals in the
main thread (kopf 1.45, measured): hence the thread. What it is to watch is in the registry, set up by the
caller; when to start it again is the caller's to decide.
"""

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Iterator, Sequence

import kopf

_log = logging.getLogger(__name__)

#: Seconds that kopf gets to stop. Its thread is a daemon: one that hangs doesn't keep the process from ending.
_STOPPING = 20.0


class _ForEver:
    """Delays between attempts of a request, without end: a server's error must not end kopf."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1, 2, 4), itertools.repeat(8.0))


def settings() -> kopf.OperatorSettings:
    """Settings under which kopf only watches: it posts, patches and scans nothing, and never kills the process."""
    made = kopf.OperatorSettings()
    made.scanning.disabled = True
    made.posting.enabled = False
    made.networking.request_timeout = 30
    made.networking.connect_timeout = 10
    made.networking.error_backoffs = _ForEver()
    made.watching.inactivity_timeout = 75  # the server's bookmarks are up to 62 s apart
    made.watching.chunk_size = 500
    made.queueing.idle_timeout = 1
    made.process.ultimate_exiting_timeout = None
    # Nothing is stored on objects; these names would show if that ever changed.
    made.persistence.finalizer = "consul-registrar.dev/kopf"
    made.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="kopf.consul-registrar.dev")
    made.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix="kopf.consul-registrar.dev")
    return made


async def run_kopf(registry: kopf.OperatorRegistry, namespaces: Sequence[str] = ()) -> None:
    """Run kopf until it ends by itself, or stop and join it when cancelled. Raises what ended it.

    No namespaces: the whole cluster.
    """
    outer, inner = asyncio.get_running_loop(), asyncio.new_event_loop()
    stop, ended = asyncio.Event(), asyncio.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: inner) as runner:
                runner.run(_operate(registry, namespaces, stop))
        except BaseException as error:  # noqa: BLE001 - handed over to whoever waits
            failures.append(error)
        with contextlib.suppress(RuntimeError):  # the outer loop is closed: nobody waits any more
            outer.call_soon_threadsafe(ended.set)

    _quieten()
    threading.Thread(target=work, name="kopf", daemon=True).start()
    try:
        await ended.wait()
    finally:
        with contextlib.suppress(RuntimeError):  # the inner loop is closed: it has ended by itself
            inner.call_soon_threadsafe(stop.set)
        await _join(ended)
    if failures:
        raise failures[0]


async def _operate(registry: kopf.OperatorRegistry, namespaces: Sequence[str], stop: asyncio.Event) -> None:
    await kopf.operator(
        registry=registry,
        settings=settings(),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=stop,
    )


async def _join(ended: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(ended.wait(), _STOPPING)
    except TimeoutError:
        _log.error("kopf did not stop within %d s; its thread is left behind", _STOPPING)


def _quieten() -> None:
    """Silence a line for each handler call, and the warning that signals are not kopf's: they are the core's."""
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
