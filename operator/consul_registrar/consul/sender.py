"""Decides how one change is written to an agent, so that the agent pushes it and nothing else is disturbed.

An agent does not push what equals its own copy: then a nonce in the meta makes the difference. A check that is defined
anew starts its probe over, so only those are sent that the agent doesn't run already; and a check that is wrong in the
catalog is removed first, since nothing else makes the agent push it. Under a new token all is given anew as it stands:
the agent takes the token, keeps the checks' statuses and pushes nothing. What to write is `plan.py`'s decision.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from urllib.parse import quote

from consul_registrar.changes import Cause, Change, Deregister, DropCheck, Feed, Register
from consul_registrar.consul import bodies
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.book import Book
from consul_registrar.consul.drift import same_service
from consul_registrar.consul.errors import Invalid, Misdirected, Stale
from consul_registrar.consul.named_ports import explained, refuse_unknown
from consul_registrar.consul.strangers import refuse_another
from consul_registrar.consul.transport import Client
from consul_registrar.consul.wire import Held
from consul_registrar.model import META_HASH, Check, Health, Instance, Reason
from consul_registrar.probes import Readiness

_OUTPUT = {
    Health.PASSING: "Kubernetes reports it ready.",
    Health.WARNING: "Kubernetes reports it ready with a warning.",
    Health.CRITICAL: "Kubernetes reports it not ready, or it is being terminated.",
}


class Sender:
    """Writes changes to one agent and notes what it acknowledged in its book."""

    def __init__(self, client: Client, book: Book, version: str = "") -> None:
        self._client = client
        self._book = book
        self._version = version

    async def send(self, change: Change) -> None:
        """Write one change; raises the tree of `errors.py`. Returns when the agent has acknowledged all of it."""
        if not change.id:
            raise Invalid(Reason("InvalidRequest", "an instance without an ID is never written: it could be a node"))
        match change:
            case Register():
                await self._register(change)
            case Feed():
                await self._feed(change.id, change.check)
            case DropCheck():
                await self._drop(change.id, change.check_id)
            case Deregister():
                if change.cause is Cause.ADOPTED:
                    await self._look_again(change.instance)
                await self._deregister(change.id)

    async def _register(self, change: Register) -> None:
        instance, held = change.instance, self._book.holds(change.id)
        wrong = self._book.wrong(change.id).keys()
        renews = self._book.old(change.id) and len(change.define) == len(instance.checks)
        define = list(change.define) if renews else needed(change, held, wrong)
        before = {c.id: c for c in held.instance.checks} if held else {}
        for check_id in [c.id for c in define if c.id in before and c.id in wrong]:
            await self._drop(change.id, check_id)
            del before[check_id]
        begins = {c.id: c.status or _status_of(held, c.id) for c in define}
        nonce = _nonce(held, instance, pushed=bool(wrong) or not renews)
        await self._put(instance, [bodies.definition(c, begins[c.id]) for c in define], nonce)
        if len(define) == len(instance.checks):
            self._book.renewed(change.id)
        checks = _checks_after(instance, before, begins)
        self._book.registered(Held(replace(instance, checks=checks), nonce), time.monotonic())
        for check in instance.checks:
            if isinstance(check.probe, Readiness) and check.status and check.id in before:
                await self._correct(change.id, before[check.id], check)

    async def _correct(self, instance_id: str, before: Check, check: Check) -> None:
        """Tell a readiness check that the agent had already: it ignores the status in a registration."""
        if before.status != check.status:
            await self._feed(instance_id, check)

    async def _put(self, instance: Instance, checks: Sequence[dict[str, object]], nonce: str) -> None:
        """One register call. py-consul's own knows no named ports, and drops checks silently."""
        refuse_unknown(instance, self._version)
        body = bodies.registration(instance, checks, nonce)
        try:
            answer: Answer = await self._client.http.put(_as_is, "/v1/agent/service/register", data=body)
        except Invalid as error:
            raise explained(error) if instance.ports else error from error
        if answer.code == 404:
            raise Misdirected(Reason("NotConsul", f"{self._book.node} doesn't know how to register a service"))

    async def _feed(self, instance_id: str, check: Check) -> None:
        """Set the status of a readiness check; `Stale` where the agent has no such check."""
        assert check.status is not None
        body = bodies.update(check.status, _OUTPUT[check.status])
        answer: Answer = await self._client.http.put(_as_is, f"/v1/agent/check/update/{_quoted(check.id)}", data=body)
        if answer.code == 404:
            raise Stale(Reason("Stale", f"{self._book.node} no longer has the check {check.id}: it is read again"))
        self._book.fed(instance_id, check.id, check.status, time.monotonic())

    async def _drop(self, instance_id: str, check_id: str) -> None:
        """Remove a check; one that the agent doesn't have (404) is removed already."""
        await self._client.agent.check.deregister(_quoted(check_id))
        self._book.dropped(instance_id, check_id, time.monotonic())

    async def _look_again(self, stranger: Instance) -> None:
        """An agent removes by ID alone; whoever had this one may have registered something else under it."""
        answer: Answer = await self._client.http.get(_as_is, f"/v1/agent/service/{_quoted(stranger.id)}")
        if answer.code != 404:
            refuse_another(stranger, answer)

    async def _deregister(self, instance_id: str) -> None:
        """Remove an instance; one that this agent doesn't have (404) is removed already."""
        await self._client.agent.service.deregister(_quoted(instance_id))
        self._book.removed(instance_id)


def needed(change: Register, held: Held | None, wrong: AbstractSet[str]) -> list[Check]:
    """The checks of a registration that the agent must be given: not those that it runs already by the same hash."""
    if held is None:
        return list(change.define)
    same = held.instance.meta_value(META_HASH) == change.instance.meta_value(META_HASH)
    runs = {(c.id, c.name, c.notes) for c in held.instance.checks if same and c.id not in wrong}
    return [c for c in change.define if (c.id, c.name, c.notes) not in runs]


def _nonce(held: Held | None, instance: Instance, *, pushed: bool) -> str:
    """Another one where the agent must push what equals its own copy, the same where it needn't."""
    if held is None or not same_service(held.instance, instance):
        return ""
    return secrets.token_hex(4) if pushed else held.nonce


def _status_of(held: Held | None, check_id: str) -> Health | None:
    checks = held.instance.checks if held else ()
    return next((check.status for check in checks if check.id == check_id), None)


def _checks_after(
    instance: Instance, before: Mapping[str, Check], begins: Mapping[str, Health | None]
) -> tuple[Check, ...]:
    """The agent's checks after a registration: an old one keeps its status, a new one begins as told, or critical."""
    after = dict(before)
    for check in instance.checks:
        if check.id in before or check.id in begins:
            old = before.get(check.id)
            status = old.status if old else begins[check.id] or Health.CRITICAL
            after[check.id] = Check(check.id, check.name, None, status, check.notes)
    return tuple(sorted(after.values(), key=lambda check: check.id))


def _as_is(answer: Answer) -> Answer:
    return answer


def _quoted(part: str) -> str:
    if not part:
        raise Invalid(Reason("InvalidRequest", "an empty ID is never sent to Consul"))
    return quote(part, safe="")
