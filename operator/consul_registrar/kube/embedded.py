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
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import kopf

_log = logging.getLogger(__name__)

#: Seconds that kopf gets to stop in order: it has nothing to finish, only connections to close.
_GRACE = 3.0
_ROUNDS = 25
#: Seconds after which its thread isn't waited for any longer. It is a daemon: it doesn't keep the process alive.
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
    inner.set_exception_handler(_note)
    stop, ended = asyncio.Event(), asyncio.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: inner) as runner:
                runner.run(_operate(registry, namespaces, stop))
        except BaseException as error:
            failures.append(error)
        with contextlib.suppress(RuntimeError):  # the outer loop is closed: nobody waits any more
            outer.call_soon_threadsafe(ended.set)

    _quieten()
    thread = threading.Thread(target=work, name="kopf", daemon=True)
    thread.start()
    try:
        await ended.wait()
    finally:
        with contextlib.suppress(RuntimeError):  # the inner loop is closed: it has ended by itself
            inner.call_soon_threadsafe(stop.set)
        await _join(thread, ended)
    if failures:
        raise failures[0]


async def _operate(registry: kopf.OperatorRegistry, namespaces: Sequence[str], stop: asyncio.Event) -> None:
    """What `kopf.operator()` does, save that it always comes to an end.

    When one watch fails while another one is being set up, kopf 1.45 waits for the other for ever: it cancels it once,
    and the watch takes that for a pause (seen in tests; `stream()` in kopf's `api.py`).
    """
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=settings(),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=stop,
    )
    first, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    ourselves = {task for task in (asyncio.current_task(),) if task is not None}
    await asyncio.wait({asyncio.create_task(kopf.run_tasks(tasks, ignored=ourselves))}, timeout=_GRACE)
    await _cancel_all_but(ourselves)
    for task in first:
        task.result()


async def _cancel_all_but(spared: Collection[asyncio.Task[None]]) -> None:
    """Cancel what is left of kopf, again and again: some of it takes one cancellation for something else."""
    for _ in range(_ROUNDS):
        rest = asyncio.all_tasks().difference(spared)
        if not rest:
            return
        for task in rest:
            task.cancel()
        await asyncio.wait(rest, timeout=0.2)


def _note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What kopf's abandoned tasks leave to the garbage collector: it has logged their failures itself.

    No traceback: the collector may run inside the formatting of another one, which Python 3.11 answers by SystemError.
    """
    _log.debug("left behind by kopf: %s %r", context.get("message"), context.get("exception"))


async def _join(thread: threading.Thread, ended: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(ended.wait(), _STOPPING)
    except TimeoutError:
        _log.error("kopf did not stop within %d s; its thread is left behind", _STOPPING)
    else:
        thread.join()  # all that it still does is to return


def _quieten() -> None:
    """Silence a line for each handler call, and the warning that signals are not kopf's: they are the core's."""
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
