"""A question that many ask together."""

import asyncio

import pytest

from consul_registrar.once import Once


class Oracle:
    """Answers with how often it was asked, once it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.may = asyncio.Event()

    async def question(self) -> int:
        self.asked += 1
        count = self.asked
        await self.may.wait()
        return count


class Broken(Exception):
    pass


async def fails() -> int:
    await asyncio.sleep(0)
    raise Broken


async def asking(once: Once[str, int], oracle: Oracle, *about: str) -> "list[asyncio.Task[int]]":
    """Tasks that have asked, and wait."""
    tasks = [asyncio.create_task(once.ask(each, oracle.question)) for each in about]
    await asyncio.sleep(0.01)
    return tasks


async def test_who_asks_while_the_question_is_under_way_gets_its_answer() -> None:
    once, oracle = Once[str, int](), Oracle()
    tasks = await asking(once, oracle, "web", "web", "web")
    oracle.may.set()
    assert (await asyncio.gather(*tasks), oracle.asked) == ([1, 1, 1], 1)


async def test_questions_about_different_things_are_asked_side_by_side() -> None:
    once, oracle = Once[str, int](), Oracle()
    tasks = await asking(once, oracle, "web", "db")
    oracle.may.set()
    assert await asyncio.gather(*tasks) == [1, 2]


async def test_who_comes_after_the_answer_asks_anew() -> None:
    once, oracle = Once[str, int](), Oracle()
    oracle.may.set()
    assert await once.ask("web", oracle.question) == 1
    assert await once.ask("web", oracle.question) == 2


async def test_a_question_that_fails_fails_for_all_and_is_asked_anew() -> None:
    once, oracle = Once[str, int](), Oracle()
    outcomes = await asyncio.gather(*(once.ask("web", fails) for _ in range(2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Broken, Broken]
    oracle.may.set()
    assert await once.ask("web", oracle.question) == 1


async def test_who_is_cancelled_takes_nobody_along() -> None:
    once, oracle = Once[str, int](), Oracle()
    first, second = await asking(once, oracle, "web", "web")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    oracle.may.set()
    assert await second == 1
