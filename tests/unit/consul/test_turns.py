"""Which requests are on their way together, and which one after the other."""

import asyncio
from contextlib import AbstractAsyncContextManager

from consul_registrar.consul.turns import Turns
from unit.core.instant import instantly, settle


class Requests:
    """Requests that are on their way until they are answered."""

    def __init__(self) -> None:
        self.inside: set[str] = set()
        self._answers: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, name: str, turn: AbstractAsyncContextManager[None]) -> None:
        self._answers[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._send(name, turn))
        await settle()

    async def _send(self, name: str, turn: AbstractAsyncContextManager[None]) -> None:
        async with turn:
            self.inside.add(name)
            try:
                await self._answers[name].wait()
            finally:
                self.inside.discard(name)

    async def answer(self, name: str) -> None:
        self._answers[name].set()
        await settle()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        await settle()


@instantly
async def test_what_makes_different_things_or_nothing_goes_side_by_side() -> None:
    turns, requests = Turns(3), Requests()
    for name in "abc":
        await requests.begin(name, turns.beside({f"node-{name}"} if name != "c" else set()))
    assert requests.inside == {"a", "b", "c"}


@instantly
async def test_no_more_than_there_is_room_for_are_on_their_way_at_a_time() -> None:
    turns, requests = Turns(2), Requests()
    for name in "abc":
        await requests.begin(name, turns.beside(set()))
    assert requests.inside == {"a", "b"}
    await requests.answer("a")
    assert requests.inside == {"b", "c"}


@instantly
async def test_two_that_make_the_same_go_one_after_the_other() -> None:
    turns, requests = Turns(3), Requests()
    await requests.begin("a", turns.beside({"node-1", "node-2"}))
    await requests.begin("b", turns.beside({"node-2", "node-3"}))
    assert requests.inside == {"a"}
    await requests.answer("a")
    assert requests.inside == {"b"}


@instantly
async def test_one_that_goes_alone_waits_for_the_others_and_keeps_those_who_came_later_waiting() -> None:
    turns, requests = Turns(3), Requests()
    await requests.begin("a", turns.beside(set()))
    await requests.begin("alone", turns.alone())
    await requests.begin("late", turns.beside(set()))
    assert requests.inside == {"a"}
    await requests.answer("a")
    assert requests.inside == {"alone"}
    await requests.answer("alone")
    assert requests.inside == {"late"}


@instantly
async def test_who_gives_up_waiting_or_on_the_way_leaves_the_door_open() -> None:
    turns, requests = Turns(3), Requests()
    await requests.begin("a", turns.beside({"node-1"}))
    await requests.begin("b", turns.beside({"node-1"}))
    await requests.begin("c", turns.alone())
    await requests.cancel("b")
    await requests.cancel("a")
    assert requests.inside == {"c"}
    await requests.cancel("c")
    await requests.begin("d", turns.beside({"node-1"}))
    assert requests.inside == {"d"}
