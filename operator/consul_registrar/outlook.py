"""Looks at what others hold under the names that registrations publish: once for each name and Consul.

Decides when to look: when a name comes to be published somewhere, after all that had to be written for it, and once
more in each process, since others may have come while none ran. Few at a time, and after a crowd of subjects: it
informs, and nothing waits for it. What is said of it is decided in `foreign.py`, when it is written in `reports.py`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial

from consul_registrar.consul import ConsulError, Registry
from consul_registrar.foreign import Edition, edition, joins, told
from consul_registrar.logs import about
from consul_registrar.model import Reason, RegistrationKey
from consul_registrar.objects import Registration
from consul_registrar.queue import Queue

logger = logging.getLogger(__name__)

_AT_ONCE = 2
#: Seconds for which a Consul that has failed to answer isn't asked.
_RETRY = 30.0
#: Seconds after which it is looked once more at what may be adopted: whoever adopts has done so by then.
_ADOPTED = 5.0
#: Seconds that a look waits, at most, while there is a crowd; and between two looks at that.
_CROWD_FIRST = 5.0
_LOOK = 0.1

_Place = tuple[RegistrationKey, str]


class Outlook:
    """What was found, by registration and connection."""

    def __init__(
        self,
        registry: Callable[[str], Registry | None],
        registration: Callable[[RegistrationKey], Registration | None],
        crowded: Callable[[], bool],
    ) -> None:
        self._registry = registry
        self._registration = registration
        self._crowded = crowded
        self._queue: Queue[_Place] = Queue()
        self._asked: dict[_Place, Edition] = {}
        self._found: dict[_Place, tuple[Edition, Reason | None]] = {}
        self._rests: dict[str, float] = {}

    def look(self, registration: Registration, connection: str) -> None:
        """Look at what others hold there, unless that was done, or is about to be."""
        place = (registration.key, connection)
        if self._asked.get(place) != edition(registration):
            self._asked[place] = edition(registration)
            self._queue.add(place)

    def found(self, registration: Registration) -> Mapping[str, Reason | None]:
        """What was found, for each connection where it was looked; None: nothing to speak of."""
        if registration.names_each:
            return dict.fromkeys(registration.connections)
        places = ((name, self._found.get((registration.key, name))) for name in registration.connections)
        return {name: known[1] for name, known in places if known and known[0] == edition(registration)}

    def forget(self, key: RegistrationKey) -> None:
        """The registration is no more."""
        for place in [place for place in self._asked if place[0] == key]:
            del self._asked[place]
            self._found.pop(place, None)

    async def run(self, news: Callable[[RegistrationKey], None]) -> None:
        """Look, until cancelled; `news` is told about whom something is to be said anew."""
        await self._queue.run(partial(self._serve, news), _AT_ONCE)

    async def _serve(self, news: Callable[[RegistrationKey], None], place: _Place) -> None:
        key, connection = place
        registration, registry = self._registration(key), self._registry(connection)
        if registration is None or registry is None or not registry.ready:
            self._asked.pop(place, None)  # it is asked for again once there is something to ask
            return
        now = asyncio.get_running_loop().time()
        if now < self._rests.get(connection, now):
            self._queue.add_after(place, self._rests[connection] - now)
            return
        await self._let_instances_first()
        with about(key):
            joined = await self._read(place, registration, registry)
        if joined or told(registration.status, connection):
            news(key)

    async def _let_instances_first(self) -> None:
        time = asyncio.get_running_loop().time
        until = time() + _CROWD_FIRST
        while self._crowded() and time() < until:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)

    async def _read(self, place: _Place, registration: Registration, registry: Registry) -> bool:
        """Whether there is something to speak of."""
        connection = place[1]
        try:
            places = await registry.foreign(registration.service)
        except ConsulError as error:
            logger.info("what others hold as %r in Consul %r: %s", registration.service, connection, error)
            self._rests[connection] = asyncio.get_running_loop().time() + _RETRY
            self._queue.add_after(place, _RETRY)
            return False
        joined, now = joins(connection, registration.service, places), edition(registration)
        if joined and registration.adopts and self._found.get(place, ((), None))[0] != now:
            self._queue.add_after(place, _ADOPTED)
        self._found[place] = (now, joined)
        return joined is not None
