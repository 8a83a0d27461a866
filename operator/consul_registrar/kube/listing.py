"""One complete list of a kind: every page of one snapshot into the intake, and only then the sweep."""

import asyncio
import logging
from collections.abc import Sequence
from typing import TypeVar

from consul_registrar.kube.client import KubeClient
from consul_registrar.kube.codec import Codec, Versioned
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
        token = ""
        while True:
            page = codec.page(await client.list_page(path, limit=limit, token=token, selector=selector))
            intake.page(listing, page.items, page.version)
            token = page.token
            if not token:
                break
            await asyncio.sleep(0)
    vanished = intake.complete(listing)
    if vanished:
        _log.info("%d %s objects vanished while nobody watched", vanished, codec.kind)
    return listing.version
