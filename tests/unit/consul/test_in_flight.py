"""What is on its way: whoever must know what it did waits for its answer, not for what leaves later."""

import asyncio

from consul_registrar.consul.in_flight import InFlight


async def test_with_nothing_on_its_way_nobody_waits() -> None:
    async with asyncio.timeout(5):
        await InFlight().settled(60)


async def test_what_is_on_its_way_is_waited_for_and_nothing_that_leaves_later() -> None:
    in_flight = InFlight()
    with in_flight.request():
        waits = asyncio.create_task(in_flight.settled(60))
        await asyncio.sleep(0)
        later = in_flight.request()
        later.__enter__()
        await asyncio.sleep(0)
        assert not waits.done()
    async with asyncio.timeout(5):
        await waits
    later.__exit__(None, None, None)


async def test_an_answer_that_does_not_come_is_not_waited_for_longer_than_that() -> None:
    in_flight = InFlight()
    with in_flight.request():
        async with asyncio.timeout(5):
            await in_flight.settled(0.01)


async def test_who_left_with_others_is_not_alone_whoever_came_first() -> None:
    """Else one that Consul tells no number of would be counted where it may not stand."""
    in_flight = InFlight()
    with in_flight.request() as told:
        told(100, ["a"])
    for first in (True, False):
        with in_flight.request() as one, in_flight.request() as other:
            (one if first else other)(0, ["b"])
        assert in_flight.own.highest == 0
        with in_flight.request() as told:
            told(200, ["a"])
