"""Tasks that end together, with the error of the first."""

import asyncio

import pytest

from consul_registrar.together import results, together


class Broken(Exception):
    pass


async def fails() -> None:
    raise Broken


async def waits(ended: list[str]) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        ended.append("waits")


async def test_the_first_that_fails_ends_all_and_says_why() -> None:
    ended: list[str] = []
    with pytest.raises(Broken):
        await together(waits(ended), fails())
    assert ended == ["waits"]


async def test_the_first_that_returns_ends_all() -> None:
    ended: list[str] = []
    await together(waits(ended), asyncio.sleep(0))
    assert ended == ["waits"]


async def test_what_is_cancelled_ends_all() -> None:
    ended: list[str] = []
    both = asyncio.create_task(together(waits(ended), waits(ended)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both
    assert ended == ["waits", "waits"]


@pytest.mark.parametrize("before", range(4))
async def test_a_loop_that_goes_on_after_errors_ends_when_cancelled_at_whatever_moment_of_a_failure(
    before: int,
) -> None:
    """At each step of the event loop between the failure and the end of the other tasks."""

    async def for_ever() -> None:
        while True:
            try:
                await together(waits([]), fails())
            except Broken:
                continue

    loop = asyncio.create_task(for_ever())
    for _ in range(before):
        await asyncio.sleep(0)
    loop.cancel()
    done, _ = await asyncio.wait([loop], timeout=5)
    assert done
    assert loop.cancelled()


async def says(word: str) -> str:
    await asyncio.sleep(0)
    return word


async def test_all_end_and_their_results_are_in_order() -> None:
    assert await results(says(word) for word in "abc") == ["a", "b", "c"]


async def test_of_none_there_are_no_results() -> None:
    assert await results(says(word) for word in "") == []


async def test_one_that_fails_ends_all_before_it_is_told() -> None:
    ended: list[str] = []
    with pytest.raises(Broken):
        await results([waits(ended), fails()])
    assert ended == ["waits"]


async def test_what_went_wrong_before_does_not_look_like_being_cancelled() -> None:
    """As it does after a task group of Python 3.11 and 3.12."""
    with pytest.raises(Broken):
        await together(waits([]), fails())
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)
