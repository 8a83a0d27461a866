"""Decides what the pictures show: clusters as one might meet them. Made of objects as the API server gives them, and
told by the same functions as in the operator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from consul_registrar import objects, overview
from consul_registrar.model import META_POD, Check, Health, Instance, Reason, RegistrationKey
from consul_registrar.objects import Registration
from consul_registrar.overview import Change, ConnectionRow, Detail, Held, Looks, Overview, Replica

_SERVICES = [
    ("shop", "web", 24), ("shop", "cart", 12), ("shop", "checkout", 9), ("shop", "search", 16), ("shop", "images", 6),
    ("payments", "ledger", 6), ("payments", "gateway", 12), ("payments", "fraud-score", 4), ("platform", "ingress", 8),
    ("platform", "otel-collector", 5), ("data", "clickhouse", 6), ("data", "kafka", 9), ("data", "postgres", 1),
    ("crm", "accounts", 8), ("crm", "mailer", 3), ("crm", "pdf-render", 4),
]  # fmt: skip
_LEADER = Replica("prod-eu1", "consul-registrar-7d9f6c5b8-x2vqk", "0.1.0", leads=True, unready="")


def ago(**span: float) -> str:
    """A time in the past, RFC 3339."""
    return (datetime.now(UTC) - timedelta(**span)).isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass
class Sample:
    """What a replica knows, as `status_page.serve.Look` wants it."""

    registrations: list[Registration] = field(default_factory=list)
    connections: list[ConnectionRow] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    replica: Replica = _LEADER

    def overview(self, asked: str) -> Overview:
        rows = overview.ordered(map(overview.row, self.registrations))
        return overview.overview(self.replica, rows, self.connections, self.changes, asked)

    def detail(self, key: RegistrationKey) -> Detail | None:
        found = next((one for one in self.registrations if one.key == key), None)
        return overview.detail(self.replica, found, list(standing(found)), self.changes) if found else None


def registration(
    namespace: str,
    name: str,
    desired: int,
    *,
    registered: int | None = None,
    warning: int = 0,
    critical: int = 0,
    ready: tuple[str, str, str] | None = None,
    since: str = "",
    problems: Any = None,
    service: str = "",
) -> Registration:
    """One with a status that counts so; `ready`: status, reason and message of its condition."""
    there = desired if registered is None else registered
    passing = there - warning - critical
    well = ("True", "Registered", f"{there} of {desired} instances registered, {passing} passing")
    status, reason, message = ready or well
    synced = ("True", "InSync", "Consul holds exactly the desired instances") if there == desired else (
        "False", "OutOfSync", f"{there} of {desired} instances are as desired")  # fmt: skip
    accepted = ("True", "Accepted", "the spec is valid, its Consuls exist and the service name is its own")
    conditions = [
        {
            "type": kind,
            "status": one[0],
            "reason": one[1],
            "message": one[2],
            "lastTransitionTime": since or ago(days=3),
        }
        for kind, one in (("Ready", (status, reason, message)), ("Accepted", accepted), ("Synced", synced))
    ]
    counts = {"desired": desired, "registered": there, "passing": passing, "warning": warning, "critical": critical}
    spec = {"pods": {"selector": {"matchLabels": {"app": name}}}} | ({"service": {"name": service}} if service else {})
    metadata = {"namespace": namespace, "name": name, "uid": name, "resourceVersion": "1", "generation": 1}
    told = {"observedGeneration": 1, "conditions": conditions, "instances": counts}
    told |= {"problems": problems} if problems else {}
    return objects.registration({"metadata": metadata, "spec": spec, "status": told})


def connection(name: str, looks: Looks, held: Held | None = None, **spec: Any) -> ConnectionRow:
    """One Consul."""
    metadata = {"name": name, "uid": name, "resourceVersion": "1", "generation": 1}
    given = {"mode": "Catalog", "addresses": ["https://consul.example.com:8501"]} | spec
    return overview.connection_row(objects.connection({"metadata": metadata, "spec": given}), looks, held)


def well() -> Sample:
    """All is as it should be."""
    told = [registration(namespace, name, count) for namespace, name, count in _SERVICES]
    told.append(registration("crm", "legacy-crm", 2, service="crm"))
    total = sum(count for *_, count in _SERVICES) + 2
    return Sample(told, [_catalog(total - 12), _agents()], _changes())


def with_problems() -> Sample:
    """Pods that can't be registered, failing checks, a rollout, a Consul that doesn't answer."""
    sample = well()
    undeclared = "container port 'http' is not declared (declared names: grpc)"
    pods = [f"ledger-5b8d7f9c4-{end}" for end in ("2kx9f", "q8zml", "w4t7p")]
    worst = [{"subject": pod, "reason": "PortNotFound", "message": undeclared} for pod in pods]
    broken = {"counts": {"PortNotFound": 3}, "worst": worst}
    first = ("False", "PortNotFound", f"{pods[0]}: {undeclared} (and 2 more, see status.problems)")
    taken = "the service name 'accounts' belongs to namespace 'shop' in Consul 'default' (registration shop/accounts)"
    refused = ("False", "ServiceNameTaken", taken)
    on_its_way = ("False", "Registering", "7 of 9 instances registered")
    exchanged = [
        registration("payments", "ledger", 6, registered=3, since=ago(minutes=4), problems=broken, ready=first),
        registration("crm", "accounts", 8, registered=0, since=ago(hours=2), ready=refused),
        registration("shop", "search", 16, critical=2, warning=1),
        registration("shop", "checkout", 9, registered=7, since=ago(seconds=3), ready=on_its_way),
        registration("data", "kafka", 9, ready=("True", "Suspended", "spec.suspend is set; 0 changes wait")),
    ]
    keys = {one.key: one for one in exchanged}
    sample.registrations = [keys.get(one.key, one) for one in sample.registrations]
    message = "can't connect to https://consul.dc2.example.com:8501: connection refused; trying again"
    down = Looks(ready=False, reason=Reason("ConsulUnreachable", message), version="1.22.7", datacenter="dc2")
    sample.connections.append(connection("dc2", down))
    return sample


def with_held_removals() -> Sample:
    """A selector with a typo: what it no longer selects is held."""
    sample = well()
    shown = tuple(
        f"shop/web web-6c9b7d5f4-{end}" for end in ("2bxkq", "4hjtz", "5wwm8", "7zp2d", "8v6cn", "b4r9s", "c7lqx")
    )
    held = Held(24, "9f2c4e1ab07d", shown)
    total = sum(count for *_, count in _SERVICES) + 2
    sample.connections = [_catalog(total - 12, held), _agents()]
    why = (
        "False",
        "RemovalHeld",
        "web-6c9b7d5f4-2bxkq: not selected any more, but held (and 23 more, see status.problems)",
    )
    held_one = registration("shop", "web", 0, registered=24, ready=why, since=ago(seconds=40))
    sample.registrations = [held_one if one.key == held_one.key else one for one in sample.registrations]
    return sample


def empty() -> Sample:
    """Just installed."""
    return Sample([], [_catalog(0)])


def standby() -> Sample:
    """A replica that doesn't lead."""
    return replace(well(), changes=[], replica=replace(_LEADER, name="consul-registrar-7d9f6c5b8-mm4tr", leads=False))


def _catalog(instances: int, held: Held | None = None) -> ConnectionRow:
    reason = Reason("Connected", "the servers' catalog is read and can be written to")
    looks = Looks(True, reason, "1.22.7", "eu1", "10.20.0.11:8300", 1, 1, instances)
    return connection("default", looks, held)


def _agents() -> ConnectionRow:
    reason = Reason("Connected", "all 3 agents can be written to")
    looks = Looks(True, reason, "1.22.7", "eu1-edge", "10.30.0.12:8300", 3, 3, 12)
    return connection("edge", looks, mode="Agent", addresses=None, nodeAgents={})


def _changes() -> list[Change]:
    told = [
        (2, "register", "desired", "shop", "web", "web-6c9b7d5f4-c7lqx"),
        (2, "feed", "readiness", "shop", "web", "web-6c9b7d5f4-b4r9s"),
        (3, "deregister", "gone", "shop", "web", "web-58d4c6b77-tt2vh"),
        (41, "register", "drift", "payments", "gateway", "gateway-7fd5-9kxq2"),
        (320, "register", "edited", "data", "clickhouse", "clickhouse-3"),
        (322, "register", "edited", "data", "clickhouse", "clickhouse-2"),
        (4000, "deregister", "unselected", "crm", "mailer", "mailer-canary-x1"),
    ]
    return [
        Change(ago(seconds=age), operation, cause, "applied", "default", name, f"{namespace}/{name}", subject)
        for age, operation, cause, namespace, name, subject in told
    ]


def standing(of: Registration) -> Iterator[tuple[str, Instance]]:
    counts = overview.row(of).counts
    for number in range(counts.registered):
        bad, poor = number < counts.critical, number < counts.critical + counts.warning
        health = Health.CRITICAL if bad else Health.WARNING if poor else Health.PASSING
        name = f"{of.key.name}-6c9b7d5f4-{number:05x}"
        node = f"prod-eu1-default-{number % 32:02d}"
        check = Check("readiness", "readiness", None, health)
        yield (
            "default",
            Instance(
                node,
                name,
                of.service,
                f"10.42.{number % 8}.{number % 250 + 4}",
                8080,
                meta=((META_POD, name),),
                checks=(check,),
            ),
        )
