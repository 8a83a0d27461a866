"""The work queue has client-go's semantics; its time is the event loop's."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from consul_registrar.queue import Queue
from unit.core.instant import elapsed, instantly, settle


class Work:
    """Notes which key was begun when, and holds those that are to be held."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, float]] = []
        self.running: set[str] = set()
        self.most = 0
        self.held: dict[str, asyncio.Event] = {}

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self.begun]

    def hold(self, key: str) -> asyncio.Event:
        self.held[key] = asyncio.Event()
        return self.held[key]

    async def __call__(self, key: str) -> None:
        assert key not in self.running, "two workers on one key"
        self.begun.append((key, elapsed()))
        self.running.add(key)
        self.most = max(self.most, len(self.running))
        if key in self.held:
            await self.held[key].wait()
        self.running.discard(key)


@asynccontextmanager
async def at_work(queue: Queue[str], work: Callable[[str], Awaitable[None]], limit: int = 4):
    task = asyncio.create_task(queue.run(work, limit))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@instantly
async def test_keys_are_worked_on_in_the_order_in_which_they_came() -> None:
    queue, work = Queue[str](), Work()
    for key in "cab":
        queue.add(key)
    async with at_work(queue, work):
        await settle()
    assert work.keys == ["c", "a", "b"]


@instantly
async def test_a_key_that_waits_is_not_added_twice() -> None:
    queue, work = Queue[str](), Work()
    for _ in range(3):
        queue.add("a")
    assert (len(queue), queue.numbers().depth, queue.numbers().adds) == (1, 1, 3)
    async with at_work(queue, work):
        await settle()
    assert work.keys == ["a"]
    assert queue.idle


@instantly
async def test_a_key_added_while_it_is_worked_on_is_worked_on_once_more_and_never_by_two() -> None:
    queue, work = Queue[str](), Work()
    release = work.hold("a")
    async with at_work(queue, work):
        queue.add("a")
        await settle()
        queue.add("a")
        queue.add("a")
        await settle()
        assert (work.keys, len(queue), queue.idle) == (["a"], 0, False)
        release.set()
        await settle()
    assert work.keys == ["a", "a"]
    assert queue.idle


@instantly
async def test_a_slow_key_holds_up_nobody_else() -> None:
    queue, work = Queue[str](), Work()
    work.hold("slow")
    async with at_work(queue, work):
        for key in ("slow", "a", "b"):
            queue.add(key)
        await settle()
        assert work.keys == ["slow", "a", "b"]


@instantly
async def test_no_more_than_the_limit_are_worked_on_at_a_time() -> None:
    queue, work = Queue[str](), Work()
    release = [work.hold(key) for key in "abc"]
    async with at_work(queue, work, limit=2):
        for key in "abc":
            queue.add(key)
        await settle()
        assert work.keys == ["a", "b"]
        release[0].set()
        await settle()
    assert (work.keys, work.most) == (["a", "b", "c"], 2)


@instantly
async def test_what_is_for_later_comes_when_it_is_due_and_does_not_count_as_work() -> None:
    queue, work = Queue[str](), Work()
    async with at_work(queue, work):
        queue.add_after("late", 60.0)
        queue.add_after("soon", 5.0)
        await settle()
        assert queue.idle
        await asyncio.sleep(100)
    assert work.begun == [("soon", 5.0), ("late", 60.0)]


@pytest.mark.parametrize("delays", [(5.0, 60.0), (60.0, 5.0)])
@instantly
async def test_of_two_dates_the_earlier_one_stands(delays: tuple[float, float]) -> None:
    queue, work = Queue[str](), Work()
    async with at_work(queue, work):
        for delay in delays:
            queue.add_after("a", delay)
        await asyncio.sleep(100)
    assert work.begun == [("a", 5.0)]


@instantly
async def test_a_date_that_has_passed_can_be_set_again() -> None:
    queue, work = Queue[str](), Work()
    async with at_work(queue, work):
        queue.add_after("a", 5.0)
        await asyncio.sleep(10)
        queue.add_after("a", 5.0)
        await asyncio.sleep(10)
    assert work.begun == [("a", 5.0), ("a", 15.0)]


@instantly
async def test_the_backoff_of_a_key_grows_and_is_forgotten() -> None:
    queue = Queue[str](jitter=lambda: 1.0)
    delays = [queue.retry("a") for _ in range(4)]
    assert delays == [0.05, 0.1, 0.2, 0.4]
    assert queue.retry("b") == 0.05
    queue.forget("a")
    assert queue.retry("a") == 0.05
    assert queue.numbers().retries == 6


@instantly
async def test_a_retry_waits_at_least_as_long_as_it_was_told() -> None:
    queue, work = Queue[str](jitter=lambda: 0.0), Work()
    async with at_work(queue, work):
        assert queue.retry("a", at_least=30.0) == 30.0
        await asyncio.sleep(100)
    assert work.begun == [("a", 30.0)]


@instantly
async def test_an_event_does_not_wait_for_the_backoff() -> None:
    queue, work = Queue[str](), Work()
    async with at_work(queue, work):
        queue.retry("a", at_least=30.0)
        queue.add("a")
        await settle()
        assert work.begun == [("a", 0.0)]


@instantly
async def test_news_go_before_routine() -> None:
    queue, done = Queue[str](), []

    async def work(key: str) -> None:
        done.append(key)

    for key in ("a", "b", "c"):
        queue.add_routine(key)
    queue.add("new")
    queue.add("b")
    queue.add_routine("new")
    assert len(queue) == 4
    running = asyncio.create_task(queue.run(work, 1))
    await settle()
    running.cancel()
    assert done == ["new", "b", "a", "c"]


@instantly
async def test_routine_that_comes_while_a_key_is_worked_on_is_not_lost() -> None:
    queue, begun = Queue[str](), []
    gate = asyncio.Event()

    async def work(key: str) -> None:
        begun.append(key)
        await gate.wait()

    queue.add("a")
    running = asyncio.create_task(queue.run(work, 1))
    await settle()
    queue.add_routine("a")
    gate.set()
    await settle()
    running.cancel()
    assert begun == ["a", "a"]
    assert queue.idle


@instantly
async def test_what_arrives_while_routine_is_worked_on_goes_before_the_rest_of_it() -> None:
    queue, done = Queue[str](), []
    loop = asyncio.get_running_loop()

    async def work(key: str) -> None:
        done.append(key)
        if key == "1":
            loop.call_soon(queue.add, "new")

    for number in range(8):
        queue.add_routine(str(number))
    async with at_work(queue, work, limit=512):
        await settle()
    assert done.index("new") < done.index("4")


@instantly
async def test_keys_that_are_cut_off_are_worked_on_when_work_goes_on() -> None:
    """Also those whose work had not even begun, and those that were added meanwhile."""
    queue, done = Queue[str](), []

    async def hang(key: str) -> None:
        await asyncio.Event().wait()

    async def work(key: str) -> None:
        done.append(key)

    for key in "abc":
        queue.add(key)
    running = asyncio.create_task(queue.run(hang, 8))
    await asyncio.sleep(0)
    queue.add("a")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    async with at_work(queue, work):
        await settle()
    assert sorted(done) == ["a", "b", "c"]


@instantly
async def test_a_key_whose_work_breaks_is_tried_again_and_the_others_go_on() -> None:
    queue, begun = Queue[str](lambda: 0.5), list[str]()

    async def breaks_once(key: str) -> None:
        begun.append(key)
        if begun == ["bad"]:
            raise RuntimeError

    for key in ("bad", "good"):
        queue.add(key)
    async with at_work(queue, breaks_once, limit=1):
        await settle()
        assert begun == ["bad", "good"]
        await asyncio.sleep(1)
    assert begun == ["bad", "good", "bad"]


@instantly
async def test_it_is_measured_how_long_a_key_waits_and_how_long_work_on_it_takes() -> None:
    waited: list[float] = []
    worked: list[float] = []
    queue, work = Queue[str](waited=waited.append, worked=worked.append, clock=elapsed), Work()
    done = work.hold("a")
    queue.add("a")
    queue.add("b")
    async with at_work(queue, work, limit=1):
        await asyncio.sleep(3)
        numbers = queue.numbers()
        assert (numbers.depth, numbers.unfinished, numbers.longest) == (1, 3, 3)
        queue.add("b")
        done.set()
        await settle()
    assert (waited, worked) == ([0, 3], [3, 0])
    assert (queue.numbers().unfinished, queue.numbers().longest) == (0, 0)


@instantly
async def test_a_key_whose_work_was_cut_off_from_below_is_worked_on_again_and_takes_no_place_for_good() -> None:
    """As when a connection that its work waits for is given up."""
    queue, begun = Queue[str](jitter=lambda: 0.0), list[str]()

    async def work(key: str) -> None:
        begun.append(key)
        if begun.count(key) == 1:
            raise asyncio.CancelledError

    async with at_work(queue, work, limit=1):
        queue.add("a")
        queue.add("b")
        await asyncio.sleep(1)
    assert (sorted(begun), queue.unfinished) == (["a", "a", "b", "b"], 0)
