"""How reconciliations are counted and timed, in controller-runtime's names."""

import asyncio

import pytest

from consul_registrar.changes import Register
from consul_registrar.consul.errors import NotSent
from consul_registrar.metrics import REGISTRY, Reconciles
from consul_registrar.model import Reason
from consul_registrar.objects import FINALIZER
from consul_registrar.queue import Ended
from unit.core.build import KEY, body, pod
from unit.core.instant import instantly
from unit.core.shell import World


def counted(controller: str) -> dict[str, float]:
    def of(name: str, **labels: str) -> float:
        found = REGISTRY.get_sample_value(name, {"controller": controller, **labels})
        assert found is not None, f"{name} {labels} is not there from the start"
        return found

    return {each.value: of("controller_runtime_reconcile_total", result=each.value) for each in Ended} | {
        "errors": of("controller_runtime_reconcile_errors_total"),
        "timed": of("controller_runtime_reconcile_time_seconds_count"),
        "active": of("controller_runtime_active_workers"),
    }


async def ending(ended: Ended) -> Ended:
    return ended


async def failing() -> Ended:
    raise ZeroDivisionError


async def test_every_reconciliation_is_counted_by_what_became_of_it() -> None:
    """Series are there before anything has happened: a rate needs a first value."""
    reconciles = Reconciles("counted")
    assert set(counted("counted").values()) == {0}
    for ended in (Ended.SUCCESS, Ended.SUCCESS, Ended.REQUEUE_AFTER, Ended.ERROR):
        await reconciles.measure(ending(ended))
    with pytest.raises(ZeroDivisionError):
        await reconciles.measure(failing())
    assert counted("counted") == {
        "success": 2, "requeue_after": 1, "error": 2, "errors": 2, "timed": 5, "active": 0
    }  # fmt: skip


async def test_one_that_is_under_way_is_an_active_worker_and_one_that_is_cancelled_has_not_ended() -> None:
    reconciles, goes_on = Reconciles("cancelled"), asyncio.Event()

    async def waiting() -> Ended:
        await goes_on.wait()
        return Ended.SUCCESS

    task = asyncio.create_task(reconciles.measure(waiting()))
    await asyncio.sleep(0)
    assert counted("cancelled")["active"] == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (counted("cancelled")["active"], counted("cancelled")["success"]) == (0, 0)


@instantly
async def test_what_consul_does_not_take_is_an_error_and_what_it_takes_then_a_success() -> None:
    world = World()
    world.apply(body(finalizers=[FINALIZER]))
    world.run_pod(pod("web-1"))
    subject = pod("web-1").uid
    world.consul.errors += [NotSent(Reason("ConsulUnreachable", "refused"))] * 100
    async with world.running():
        await asyncio.sleep(1)
        assert await world.reconciler.reconcile(KEY, subject) is Ended.ERROR
        world.consul.errors.clear()
        assert await world.reconciler.reconcile(KEY, subject) is Ended.SUCCESS
        assert [type(change) for change in world.consul.written] == [Register]
        assert await world.lifecycle.reconcile(KEY) is Ended.SUCCESS
