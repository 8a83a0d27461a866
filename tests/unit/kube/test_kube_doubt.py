"""When a list that is in doubt is read again."""

import asyncio
import json
from typing import Any

import pytest

from consul_registrar.kube.records import PODS
from consul_registrar.kube.reflector import Reflector
from consul_registrar.kube.resources import CustomResources
from unit.core.instant import elapsed, instantly


@pytest.fixture
def reflector() -> Reflector[Any]:
    nobody: Any = None
    return Reflector(nobody, "/api/v1/pods", PODS, nobody)


async def watched(reflector: Reflector[Any], seconds: float, *, doubted: bool) -> None:
    """A watch that ends after so long, or at once, since it is `doubted`; then its connection is closed."""
    async with asyncio.timeout(seconds) as reflector._watching:
        if doubted:
            reflector.doubt()
        try:
            await asyncio.sleep(3600)
        finally:
            reflector.doubt()


@pytest.mark.parametrize(("seconds", "doubted"), [(3600, True), (0, False)])
async def test_what_is_in_doubt_is_watched_no_longer_and_doubt_while_a_watch_ends_disturbs_nobody(
    reflector: Reflector[Any], seconds: float, doubted: bool
) -> None:
    with pytest.raises(TimeoutError):
        await watched(reflector, seconds, doubted=doubted)


class Empty:
    """An API server that has the definitions, and no objects."""

    def __init__(self) -> None:
        self.lists: list[float] = []

    async def get(self, _: str) -> bytes:
        names = [{"name": "serviceregistrations"}, {"name": "consulconnections"}]
        return json.dumps({"resources": names}).encode()

    async def list_page(self, path: str, **_: Any) -> bytes:
        if path.endswith("serviceregistrations"):
            self.lists.append(elapsed())
        return b'{"metadata": {"resourceVersion": "7"}, "items": []}'


@instantly
async def test_custom_resources_that_are_doubted_again_and_again_are_listed_soon_but_not_without_pause() -> None:
    server: Any = Empty()
    nobody: Any = None
    resources = CustomResources(server, nobody, registrations=nobody, connections=nobody, clock=elapsed)
    listing = asyncio.create_task(resources._keep_listing())
    await asyncio.sleep(60)
    for _ in range(200):
        resources.doubt()
        await asyncio.sleep(0.1)
    listing.cancel()
    await asyncio.gather(listing, return_exceptions=True)
    assert server.lists[:2] == [0.0, 60.0]
    assert 8 <= len(server.lists) <= 12


@pytest.mark.parametrize(
    ("every", "heeded"),
    [
        pytest.param(5.0, [0, 10, 30, 70, 130, 190, 250], id="again and again: ever less often, but once a minute"),
        pytest.param(200.0, [0, 200], id="now and then: each at once"),
    ],
)
@instantly
async def test_a_doubt_that_lists_do_not_settle_is_heeded_ever_less_often(every: float, heeded: list[float]) -> None:
    nobody: Any = None
    reflector = Reflector(nobody, "/api/v1/pods", PODS, nobody, clock=elapsed)
    lists = []
    while elapsed() < 300:
        try:
            async with asyncio.timeout(3600) as reflector._watching:
                reflector.doubt()
                await asyncio.sleep(every)
        except TimeoutError:
            lists.append(elapsed())
            reflector._watching = None
            await asyncio.sleep(every)
    assert lists == heeded
