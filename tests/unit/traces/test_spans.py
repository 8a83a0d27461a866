"""What spans say of reconciliations and of batches of writes; recorded by OpenTelemetry's own SDK."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBasedTraceIdRatio
from opentelemetry.trace import StatusCode

from consul_registrar import tracing
from consul_registrar.audit import Audit
from consul_registrar.changes import Cause, Change, Register
from consul_registrar.consul.errors import ConsulError, Denied, NotSent
from consul_registrar.model import Key, Reason
from consul_registrar.objects import FINALIZER
from consul_registrar.queue import Ended, Queue
from consul_registrar.writer import Lane
from unit.core.build import KEY, body, instance, pod
from unit.core.instant import instantly
from unit.core.shell import World
from unit.traces.recorded import about, id_of, links, parent_of, recording

UID = pod("web-1").uid
OURS = "consul_registrar."


def with_a_pod() -> World:
    """A registration and its Pod are there, and nobody is at work yet."""
    world = World()
    world.apply(body(finalizers=[FINALIZER]))
    world.run_pod(pod("web-1"))
    return world


# a reconciliation


@instantly
async def test_a_pod_that_is_registered_is_a_reconciliation_and_a_batch_that_is_linked_to_it() -> None:
    with recording() as recorded:
        world = with_a_pod()
        async with world.running():
            await asyncio.sleep(1)
        batch = recorded.one("consul.write")
        (written,) = recorded.named("reconcile", consul_registrar__cause="desired")
    assert {key: value for key, value in about(written).items() if key != f"{OURS}queue.wait"} == {
        "k8s.namespace.name": "shop",
        "k8s.pod.name": "web-1",
        "k8s.pod.uid": UID,
        f"{OURS}registration": "web",
        f"{OURS}subject": UID,
        f"{OURS}cause": "desired",
        f"{OURS}outcome": "success",
    }
    assert [(event.name, dict(event.attributes or {})) for event in written.events] == [
        ("consul", {f"{OURS}connection": "default", f"{OURS}outcome": "Done"})
    ]
    assert written.status.status_code is StatusCode.UNSET
    assert parent_of(written) is None
    (registered,) = world.consul.written
    assert about(batch) == {
        f"{OURS}connection": "default",
        f"{OURS}lane": "agent-1",
        f"{OURS}batch.size": 1,
        f"{OURS}batch.failed": 0,
        f"{OURS}outcome": "applied",
    }
    assert links(batch) == {
        id_of(written): {
            f"{OURS}operation": "register",
            f"{OURS}cause": "desired",
            f"{OURS}instance": registered.id,
        }
    }
    assert parent_of(batch) == id_of(written)


@instantly
async def test_a_registration_as_a_whole_is_a_reconciliation_without_a_pod() -> None:
    with recording() as recorded:
        world = World()
        world.apply(body(finalizers=[FINALIZER]))
        async with world.running():
            await asyncio.sleep(1)
        whole = recorded.named("reconcile")[0]
    assert about(whole)[f"{OURS}registration"] == "web"
    assert not about(whole).keys() & {"k8s.pod.name", "k8s.pod.uid", f"{OURS}subject", f"{OURS}cause"}


@instantly
async def test_what_stands_as_it_should_has_neither_a_cause_nor_a_batch() -> None:
    with recording() as recorded:
        world = with_a_pod()
        async with world.running():
            await asyncio.sleep(1)
            recorded.kept.clear()
            world.reconsider()
            await asyncio.sleep(1)
        spans = recorded.named("reconcile", k8s__pod__uid=UID)
        assert spans
        assert not [span for span in spans if f"{OURS}cause" in about(span)]
        assert not recorded.named("consul.write")


@instantly
async def test_what_consul_refuses_is_an_error_with_its_reason_in_both() -> None:
    with recording() as recorded:
        world = with_a_pod()
        world.consul.errors += [Denied(Reason("PermissionDenied", "service:write is missing"))]
        async with world.running():
            await asyncio.sleep(1)
        (refused,) = recorded.named("reconcile", consul_registrar__outcome="error")
        batch = recorded.named("consul.write")[0]
    for span in (refused, batch):
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "PermissionDenied: service:write is missing"
        assert about(span)["error.type"] == "PermissionDenied"
    assert [dict(event.attributes or {}) for event in refused.events] == [
        {f"{OURS}connection": "default", f"{OURS}outcome": "Failed", f"{OURS}reason": "PermissionDenied"}
    ]
    assert (about(batch)[f"{OURS}outcome"], about(batch)[f"{OURS}batch.failed"]) == ("failed", 1)


@instantly
async def test_how_long_a_key_has_waited_for_its_turn_is_told() -> None:
    """The clock is the test's: it moves while the key waits."""
    now, waits = [100.0], []
    with recording() as recorded:
        queue: Queue[Key] = Queue(waited=tracing.waited(waits.append), clock=lambda: now[0])
        queue.add(Key(KEY, "a"))
        now[0] += 7
        queue.add(Key(KEY, "b"))
        now[0] += 5
        await _work_off(queue)
        told = {about(span)[f"{OURS}subject"]: about(span)[f"{OURS}queue.wait"] for span in recorded.named("reconcile")}
    assert told == {"a": 12, "b": 5}
    assert waits == [12, 5], "the metric is told as ever"


async def _work_off(queue: Queue[Key]) -> None:
    done = asyncio.Event()

    async def work(_: Key) -> Ended:
        if not len(queue):
            done.set()
        return Ended.SUCCESS

    running = asyncio.create_task(queue.run(tracing.reconciling(work, lambda _: None), 1))
    await done.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def ended(how: Ended) -> Ended:
    return how


@pytest.mark.parametrize(
    ("how", "status"),
    [
        (Ended.SUCCESS, StatusCode.UNSET),
        (Ended.REQUEUE_AFTER, StatusCode.UNSET),
        (Ended.ERROR, StatusCode.ERROR),
    ],
)
async def test_the_outcome_is_that_of_the_metrics_and_an_error_a_status(how: Ended, status: StatusCode) -> None:
    with recording() as recorded:
        assert await tracing.reconciling(lambda _: ended(how), lambda _: None)(Key(KEY)) is how
        span = recorded.one("reconcile")
    assert about(span)[f"{OURS}outcome"] == how.value
    assert span.status.status_code is status


async def test_what_fails_unexpectedly_is_told_by_its_kind_alone_and_goes_on_failing() -> None:
    async def fails(_: Key) -> Ended:
        raise ZeroDivisionError("planted-5ecret")

    with recording() as recorded:
        with pytest.raises(ZeroDivisionError):
            await tracing.reconciling(fails, lambda _: None)(Key(KEY))
        span = recorded.one("reconcile")
    assert (span.status.status_code, about(span)["error.type"]) == (StatusCode.ERROR, "ZeroDivisionError")
    assert "planted-5ecret" not in span.to_json()


async def test_what_is_cut_off_has_ended_without_an_outcome() -> None:
    async def waits(_: Key) -> Ended:
        await asyncio.Event().wait()
        return Ended.SUCCESS

    with recording() as recorded:
        task = asyncio.ensure_future(tracing.reconciling(waits, lambda _: None)(Key(KEY)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        span = recorded.one("reconcile")
    assert span.end_time is not None
    assert f"{OURS}outcome" not in about(span)


# a batch


class Consul:
    """Takes batches once it is open."""

    name = "default"
    batch = 8
    room = 32

    def __init__(self, *answers: ConsulError | None) -> None:
        self.open = asyncio.Event()
        self._answers = answers

    async def apply(self, _node: str, changes: Sequence[Change]) -> list[ConsulError | None]:
        await self.open.wait()
        return [*self._answers, *[None] * len(changes)][: len(changes)]


@asynccontextmanager
async def writing(consul: Any, *names: str) -> AsyncIterator[list[Change]]:
    """Each is registered by a reconciliation of its own; the first leaves alone."""
    lane = Lane(consul, "agent-1", Audit("default", lambda *_: None))
    changes: dict[str, Change] = {name: Register(instance(pod=pod(name)), (), Cause.DESIRED) for name in names}

    async def write(key: Key) -> Ended:
        try:
            await lane.write(changes[key.subject or ""])
        except ConsulError:
            return Ended.ERROR
        return Ended.SUCCESS

    work = tracing.reconciling(write, lambda _: None)
    tasks = []
    for name in names:
        tasks.append(asyncio.ensure_future(work(Key(KEY, name))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    yield list(changes.values())
    consul.open.set()
    await asyncio.gather(*tasks)


async def test_what_left_together_is_one_batch_that_is_linked_to_every_reconciliation() -> None:
    with recording() as recorded:
        async with writing(Consul(), "first", "a", "b", "c") as changes:
            pass
        ids = {about(span)[f"{OURS}subject"]: id_of(span) for span in recorded.named("reconcile")}
        alone, together = recorded.named("consul.write")
    assert links(alone).keys() == {ids["first"]}
    assert {span: said[f"{OURS}instance"] for span, said in links(together).items()} == {
        ids[name]: change.id for name, change in zip(("a", "b", "c"), changes[1:], strict=True)
    }
    assert about(together)[f"{OURS}batch.size"] == 3
    assert parent_of(together) == ids["a"], "it is sampled when the reconciliation is that waits longest"


async def test_a_batch_of_which_some_was_refused_says_how_much_and_why() -> None:
    refused = NotSent(Reason("ConsulUnreachable", "no leader"))
    with recording() as recorded:
        async with writing(Consul(None, refused), "first", "a", "b"):
            pass
        batch = recorded.one("consul.write", consul_registrar__batch__size=2)
        first = recorded.one("consul.write", consul_registrar__batch__size=1)
    assert (about(batch)[f"{OURS}outcome"], about(batch)[f"{OURS}batch.failed"]) == ("partly", 1)
    assert batch.status.description == "ConsulUnreachable: no leader"
    assert first.status.status_code is StatusCode.UNSET


async def test_a_batch_is_recorded_as_soon_as_one_of_its_reconciliations_is() -> None:
    """Of those that sampling leaves out nothing is told, not even in a link."""

    class Some(ParentBasedTraceIdRatio):
        """Samples the second root and the fourth."""

        def __init__(self) -> None:
            super().__init__(1.0)
            self.roots = 0

        def should_sample(self, parent_context: Any, *args: Any, **kwargs: Any) -> Any:
            if parent_context:
                return super().should_sample(parent_context, *args, **kwargs)
            self.roots += 1
            sampler: Any = super() if self.roots % 2 == 0 else ALWAYS_OFF
            return sampler.should_sample(parent_context, *args, **kwargs)

    with recording(Some()) as recorded:
        async with writing(Consul(), "left out", "a", "left out too", "b"):
            pass
        ids = {about(span)[f"{OURS}subject"]: id_of(span) for span in recorded.named("reconcile")}
        batch = recorded.one("consul.write")
    assert ids.keys() == {"a", "b"}
    assert links(batch).keys() == set(ids.values())
    assert about(batch)[f"{OURS}batch.size"] == 3


async def test_of_what_sampling_leaves_out_nothing_is_recorded_and_all_is_written() -> None:
    with recording(ALWAYS_OFF) as recorded:
        async with writing(consul := Consul(), "first", "a"):
            pass
        assert consul.open.is_set()
    assert recorded.names == []


# switched off


async def test_switched_off_everything_is_as_it_was() -> None:
    async def work(_: Key) -> Ended:
        return Ended.SUCCESS

    waiting: Awaitable[list[None]] = asyncio.sleep(0, [])
    observed: list[float] = []
    assert tracing.waited(observed.append) == observed.append
    assert tracing.reconciling(work, lambda _: None) is work
    assert tracing.requests() == []
    assert tracing.asked(Register(instance(), (), Cause.DESIRED)) is None
    assert tracing.writing(waiting, "default", "agent-1", []) is waiting
    await waiting
