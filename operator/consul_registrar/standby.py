"""What a process does that doesn't lead: it looks at all that changes, writes nothing, and keeps in mind what it would.

Decides with what a term begins: with what is known to be due, only then with a look at all. So a new leader writes what
is new at once, however much there is.
"""

import logging

from consul_registrar.cache import Cache
from consul_registrar.lifecycle import Lifecycle
from consul_registrar.model import Key
from consul_registrar.queue import Queue
from consul_registrar.reconcile import Reconciler
from consul_registrar.secret_values import SecretValues

logger = logging.getLogger(__name__)


class Standby:
    """Works through the queue of a process that doesn't lead."""

    def __init__(
        self, cache: Cache, queue: Queue[Key], lifecycle: Lifecycle, reconciler: Reconciler, secrets: SecretValues
    ) -> None:
        self._cache = cache
        self._queue = queue
        self._lifecycle = lifecycle
        self._reconciler = reconciler
        self._secrets = secrets
        self._due: dict[Key, None] = {}

    def begin(self) -> None:
        """The caches are filled: all that arrived until now is looked at by way of its registrations.

        What Consul holds of registrations that are no more has no other way.
        """
        for key in self._queue.clear():
            if key.registration not in self._cache.registrations:
                self._queue.add(key)
        self._look_at_all()

    async def look(self, key: Key) -> None:
        """Count what is as it should be; what isn't is due, until it is. Never raises."""
        self._due.pop(key, None)
        try:
            is_well = self._is_well(key)
        except Exception:
            logger.exception("looking at %s failed unexpectedly; it is due once this process leads", key)
            is_well = False
        if not is_well:
            self._due[key] = None

    def _is_well(self, key: Key) -> bool:
        if key.subject is not None:
            return self._reconciler.look(key.registration, key.subject)
        self._lifecycle.look(key.registration)
        return True

    def hand_over(self) -> None:
        """A term begins: what is due comes first, then, once there are no news, a look at everything."""
        self._secrets.forget()
        self._lifecycle.begin_term()
        for key in self._due:
            self._queue.add(key)
        self._due.clear()
        self._look_at_all()

    def _look_at_all(self) -> None:
        """Each registration puts its subjects on the queue."""
        for key in self._cache.registrations:
            self._queue.add_routine(Key(key))
