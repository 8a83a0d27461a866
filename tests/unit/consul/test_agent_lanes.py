"""How changes are sent to one agent: side by side, and nothing any more once told to stop, at whatever moment."""

import asyncio
from typing import Any

import pytest

from consul_registrar.actual import Actual
from consul_registrar.audit import Audit
from consul_registrar.changes import Cause, Change, Register
from consul_registrar.consul.errors import ConsulError
from consul_registrar.consul.session import AgentSession, Scope
from consul_registrar.consul.transport import Access, Endpoint
from consul_registrar.writer import Lane
from unit.core.build import instance, pod


class Session(AgentSession):
    """An agent's session in which one change breaks something, while another one takes a moment to be cut off."""

    def __init__(self) -> None:
        def nothing(*_: Any, **__: Any) -> Any:
            return None

        scope = Scope("prod", "default", "", Access(), Actual("prod", "default"), *[nothing] * 5)
        super().__init__("node-1", Endpoint("127.0.0.1", 1), scope)
        self.sent: list[str] = []

    async def _send(self, change: Change) -> ConsulError | None:
        self.sent.append(change.instance.subject)
        if change.instance.subject == "breaks":
            await asyncio.sleep(0)
            raise RuntimeError
        try:
            await asyncio.sleep(3600)
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
        return None


class Consul:
    name = "default"
    batch = 2
    room = 2

    def __init__(self, session: Session) -> None:
        self._session = session

    async def apply(self, _node: str, changes: list[Change]) -> list[ConsulError | None]:
        return await self._session.apply(changes)


@pytest.mark.parametrize("before", range(10))
async def test_who_is_told_to_stop_while_something_breaks_sends_nothing_more(before: int) -> None:
    """At each step of the event loop from the start of a batch to its end."""
    session = Session()
    consul: Any = Consul(session)
    lane = Lane(consul, "node-1", Audit("default", lambda *_: None))
    changes = [Register(instance(pod=pod(uid=name)), (), Cause.DESIRED) for name in ("breaks", "hangs", "late")]
    writes = [asyncio.create_task(lane.write(change)) for change in changes]
    for _ in range(4 + before):
        await asyncio.sleep(0)
    sent = list(session.sent)
    assert sent, "nothing has begun, so nothing would be cut off"
    await asyncio.wait_for(lane.stop(), 5)
    await asyncio.gather(*writes, return_exceptions=True)
    assert session.sent == sent
