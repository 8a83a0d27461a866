"""One complete list of a kind: every page of one snapshot into the intake, and only then the sweep."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Protocol, TypeVar

from consul_registrar.kube.client import KubeClient
from consul_registrar.kube.codec import Codec, Versioned, token_of
from consul_registrar.kube.intake import Intake

_log = logging.getLogger(__name__)

T = TypeVar("T", bound=Versioned)

#: Objects a page: large enough that requests don't count, small enough that decoding one doesn't hold up the loop.
PAGE = 500


async def complete_list(
    client: KubeClient,
    paths: Sequence[str],
    codec: Codec[T],
    intake: Intake[T],
    *,
    selector: str = "",
    limit: int = PAGE,
) -> int:
    """List the collections (several: one for each namespace) that together are the scope of the intake.

    Returns the version to watch from. Raises `KubeError`, `StaleList` or `msgspec.DecodeError`, and then nothing
    was swept: a partial list is no evidence of absence.
    """
    listing = intake.begin()
    for path in paths:
        async with aclosing(_pages(partial(client.list_page, path, limit=limit, selector=selector))) as pages:
            async for raw in pages:
                page = codec.page(raw)
                intake.page(listing, page.items, page.version)
    vanished = intake.complete(listing)
    if vanished:
        _log.info("%d %s objects vanished while nobody watched", vanished, codec.kind)
    return listing.version


class _Ask(Protocol):
    def __call__(self, *, token: str) -> Coroutine[Any, Any, bytes]: ...


async def _pages(ask: _Ask) -> AsyncGenerator[bytes, None]:
    """The pages of one collection. The server makes the next one while the one before is taken in."""
    following: asyncio.Task[bytes] | None = asyncio.create_task(ask(token=""))
    try:
        while following is not None:
            raw = await following
            token = token_of(raw)
            following = asyncio.create_task(ask(token=token)) if token else None
            await asyncio.sleep(0)  # it leaves before the decoding
            yield raw
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
