"""Who leads Consul's servers. Decides when that is asked: it informs, and nothing follows from it.

Once when somebody can be asked, then every half a minute, of one agent for all of a connection. One that is known stays
known while nobody answers, since the connection says that of itself.
"""

import asyncio
from contextlib import suppress

from consul_registrar.consul.claim import Asks
from consul_registrar.consul.errors import ConsulError

ABOUT = 30.0
"""Seconds between two looks at what only informs."""

SOON = 5.0
"""Seconds until it is asked again where nobody has named one."""


class Leader:
    """The leader's address as it was told last; "": there is none, None: nobody has told yet."""

    def __init__(self, consul: Asks) -> None:
        self.address: str | None = None
        self._consul = consul
        self._met = asyncio.Event()

    def met(self) -> None:
        """Somebody may be there now who can be asked."""
        self._met.set()

    async def run(self) -> None:
        """Ask now and then, until cancelled; sooner where nobody has named one."""
        while True:
            self._met.clear()
            if await self._told():
                await asyncio.sleep(ABOUT)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(SOON):
                    await self._met.wait()

    async def _told(self) -> bool:
        """Ask once; whether a leader was named."""
        try:
            answer = await self._consul.get("/v1/status/leader", ())
        except ConsulError:
            return False
        self.address = answer.text.strip().strip('"')
        return bool(self.address)
