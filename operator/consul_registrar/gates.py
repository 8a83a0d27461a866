"""Answers the readiness gates of Pods: looks at how their instances stand, and writes the condition where it differs.

Decides what a Pod's instances are and when the answer is written; what it is, is decided in `readiness_gate.py`, how
it reaches the API server is `kube/`'s matter. Pods that don't declare the gate cost one look at a field.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from consul_registrar import metrics
from consul_registrar.cache import Cache
from consul_registrar.changes import Register
from consul_registrar.consul.registry import Registry
from consul_registrar.consuls import Consuls
from consul_registrar.desired import Ceded, Kept, Want
from consul_registrar.gather import Gatherer
from consul_registrar.kube import Forbidden, KubeError
from consul_registrar.model import Gate, Health, Instance, Pod, Reason, RegistrationKey
from consul_registrar.objects import Registration
from consul_registrar.outcomes import health_of
from consul_registrar.plan import allowed, plan
from consul_registrar.queue import Queue
from consul_registrar.readiness_gate import Stand, Vote, answer, patience
from consul_registrar.reports import Reports
from consul_registrar.rivals import wanted

logger = logging.getLogger(__name__)

#: Conditions that are written at a time: the API server has to answer for the lease beside them, within seconds.
_AT_ONCE = 8
#: Seconds between two tries in a namespace where they are forbidden; meanwhile its other Pods try nothing.
_FORBIDDEN = 30.0


class Answers(Protocol):
    """Writes to the API server. `answer` raises KubeError and returns the Pod's version, 0 where it is gone."""

    async def answer(self, pod: Pod, gate: Gate) -> int: ...
    async def event_pod(self, pod: Pod, reason: Reason) -> None: ...


class Gates:
    """The Pods that declare the gate."""

    def __init__(
        self, cache: Cache, consuls: Consuls, gatherer: Gatherer, reports: Reports, answers: Answers, *, enabled: bool
    ) -> None:
        self._cache = cache
        self._consuls = consuls
        self._gatherer = gatherer
        self._reports = reports
        self._answers = answers
        self._enabled = enabled
        self._queue: Queue[str] = Queue()
        self._due: dict[str, float] = {}
        self._written: dict[str, tuple[int, Gate]] = {}
        self._forbidden: dict[str, float] = {}
        self._running = False

    def look(self, uid: str) -> None:
        """A Pod, or what stands of it, may have changed. A process that doesn't lead looks at all once it does."""
        pod = self._cache.pod(uid)
        if pod is None:
            self._forget(uid)
        elif pod.gate is not None and self._running:
            self._queue.add(uid)

    async def run(self) -> None:
        """Answer until cancelled, beginning with all that are there; where that is switched off, do nothing."""
        self._running = self._enabled
        self._due.clear()  # of a former term: an answer must hold for its time anew
        try:
            for uid in self._cache.pods():
                self.look(uid)
            await self._queue.run(self._serve, _AT_ONCE)
        finally:
            self._running = False

    async def _serve(self, uid: str) -> None:
        try:
            await self._pass(uid)
        except KubeError as error:
            await self._put_off(uid, error)
        except Exception:
            logger.exception("the readiness gate of Pod %s can't be answered", uid)
            self._queue.retry(uid)
        else:
            self._queue.forget(uid)

    async def _pass(self, uid: str) -> None:
        pod = self._cache.pod(uid)
        if pod is None or pod.gate is None or pod.gone:
            self._forget(uid)
            return
        gate = self._now(pod, pod.gate)
        votes = list(self._votes(pod))
        said = answer(gate, votes, remains=gate.status == "True" and self._remains(pod))
        if said is None:
            self._due.pop(uid, None)
            return
        wait = self._wait(uid, gate, said, pod.namespace)
        if wait > 0:
            self._queue.add_after(uid, wait)
        else:
            await self._write(pod, said)

    def _forget(self, uid: str) -> None:
        self._due.pop(uid, None)
        self._written.pop(uid, None)

    def _now(self, pod: Pod, told: Gate) -> Gate:
        """The condition as it was told, or as we have written it since."""
        version, gate = self._written.get(pod.uid, (0, told))
        if pod.version < version:
            return gate
        self._written.pop(pod.uid, None)
        return told

    def _wait(self, uid: str, gate: Gate, said: Gate, namespace: str) -> float:
        """Seconds until the answer may be written: for so long it must hold, and be allowed."""
        now, most = asyncio.get_running_loop().time(), patience(gate, said)
        due = self._due.setdefault(uid, now + most)
        return max(min(due - now, most), self._forbidden.get(namespace, now) - now)

    async def _write(self, pod: Pod, said: Gate) -> None:
        version = await self._answers.answer(pod, said)
        self._due.pop(pod.uid, None)
        self._written[pod.uid] = (version, said)
        metrics.gates_answered.labels("gone" if not version else said.status).inc()
        if self._forbidden.pop(pod.namespace, None) is not None:
            logger.info("readiness gates in namespace %r may be answered again", pod.namespace)
        logger.debug("Pod %s/%s: %s %s", pod.namespace, pod.name, said.status, said.reason)

    # how its instances stand

    def _votes(self, pod: Pod) -> Iterator[Vote]:
        for key in sorted(self._cache.selecting(pod)):
            registration = self._cache.registrations.get(key)
            if registration is not None and not registration.deleting:  # a deleted one asks for nothing any more
                yield from self._votes_of(registration, pod)

    def _votes_of(self, registration: Registration, pod: Pod) -> Iterator[Vote]:
        names = registration.connections or sorted(self._consuls.concerned(registration.key, pod.uid))
        for name in names:
            stand, reason = self._stand(registration, pod, name)
            message = f"registration {registration.key.name!r} in Consul {name!r}: {reason.message}"
            yield Vote(stand, Reason(reason.code, message))
        if not names and isinstance(registration.spec, Reason):
            message = f"registration {registration.key.name!r}: {registration.spec.message}"
            yield Vote(Stand.MISSING, Reason(registration.spec.code, message))

    def _stand(self, registration: Registration, pod: Pod, name: str) -> tuple[Stand, Reason]:
        registry = self._consuls.registry(name)
        if registry is None or not registry.ready:
            return Stand.UNSEEN, self._consuls.status(name).reason
        facts = self._gatherer.facts(registration.key, pod.uid, registry)
        if isinstance(facts.place, Reason):
            return Stand.UNSEEN, facts.place
        want = wanted(facts)
        missing = self._missing(registration, name, pod, want, facts.standing)
        if missing is not None:
            return missing
        if health_of(facts.standing) is Health.PASSING:
            return Stand.PASSING, Reason("Registered", "it is registered and passing")
        return Stand.FAILING, Reason("NotPassing", "it is registered, and its checks don't pass there")

    def _missing(
        self, registration: Registration, name: str, pod: Pod, want: Want, standing: Sequence[Instance]
    ) -> tuple[Stand, Reason] | None:
        """Whether it doesn't stand, or not as it is to: what looks wrong in Consul is on its way to be written."""
        due = tuple(change for change in plan(want, standing) if isinstance(change, Register))
        policy = self._consuls.policy(name)
        if due and not registration.suspended and allowed(due, policy):
            known = self._reports.outcome(registration.key, name, pod.uid)
            coming = Reason("Registering", "it is about to be registered")
            return Stand.COMING, known.reason if known is not None and known.reason is not None else coming
        if standing:
            return None
        if due and registration.suspended:
            return Stand.MISSING, Reason("Suspended", "spec.suspend is set, so it isn't registered")
        if due:
            return Stand.MISSING, Reason("Observed", f"the connection's policy {policy} lets nothing be registered")
        why = want.reason if isinstance(want, Kept | Ceded) else Reason("Deleting", "it is not to be registered")
        return Stand.MISSING, why

    def _remains(self, pod: Pod) -> bool:
        """Whether something of a registration of the namespace stands for the Pod, or nobody can tell yet."""
        return any(
            self._consuls.is_connecting(name) or (registry is not None and _holds(registry, pod))
            for name, registry in self._registries().items()
        )

    def _registries(self) -> Mapping[str, Registry | None]:
        return {name: self._consuls.registry(name) for name in self._consuls.names()}

    # trouble

    async def _put_off(self, uid: str, error: KubeError) -> None:
        pod = self._cache.pod(uid)
        metrics.gates_answered.labels("forbidden" if isinstance(error, Forbidden) else "failed").inc()
        if isinstance(error, Forbidden) and pod is not None:
            await self._forbid(pod, error)
            self._queue.add_after(uid, _FORBIDDEN)
            return
        wait = self._queue.retry(uid)
        logger.warning("the readiness gate of Pod %s is answered again in %.1f s: %s", uid, wait, error)

    async def _forbid(self, pod: Pod, error: Forbidden) -> None:
        """Said once for a namespace, until it is allowed again."""
        known = pod.namespace in self._forbidden
        self._forbidden[pod.namespace] = asyncio.get_running_loop().time() + _FORBIDDEN
        if not known:
            message = f"the operator may not patch pods/status, so readiness gates stay unanswered: {error}"
            reason = Reason("ReadinessGateForbidden", message)
            logger.error("%s: namespace %r: %s", reason.code, pod.namespace, reason.message)
            await self._answers.event_pod(pod, reason)


def _holds(registry: Registry, pod: Pod) -> bool:
    return any(registry.instances(key, pod.uid) for key in _in(registry, pod.namespace))


def _in(registry: Registry, namespace: str) -> Iterator[RegistrationKey]:
    return (key for key in registry.registrations() if key.namespace == namespace)
