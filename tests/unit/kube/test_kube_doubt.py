"""When a list that is in doubt is read again."""

import asyncio
from typing import Any

import pytest

from consul_registrar.kube.records import PODS
from consul_registrar.kube.reflector import Reflector


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
