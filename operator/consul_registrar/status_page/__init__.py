"""The status page: a small read-only web page about what is registered. Off unless it is asked for, imported only then.

What it costs: the newest lines of the audit log are kept, and answers are made when somebody asks (`serve.py`).
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from consul_registrar.status_page import serve
from consul_registrar.status_page.recent import Recent
from consul_registrar.status_page.sight import Known, Sight

__all__ = ["Known", "serving"]


@asynccontextmanager
async def serving(host: str, port: int, known: Known, hosts: frozenset[str] = frozenset()) -> AsyncIterator[None]:
    """Serve the page, under `hosts` too. Raises OSError where the address can't be bound."""
    recent, audit = Recent(), logging.getLogger("consul_registrar.audit")
    audit.addHandler(recent)
    try:
        async with serve.serving(host, port, Sight(known, recent.changes).look, hosts):
            yield
    finally:
        audit.removeHandler(recent)
