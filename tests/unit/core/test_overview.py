"""What the status page says: from statuses, what needs attention first, and never more than a page can bear."""

from typing import Any

import pytest

from consul_registrar import objects, overview
from consul_registrar.model import CONNECTING, META_POD, Check, Health, Instance, Reason
from consul_registrar.overview import Change, ConnectionRow, Held, Looks, Overview, RegistrationRow, Replica, State
from unit.core.build import NOW, body, connection, registration

REPLICA = Replica("prod", "here", "0", leads=True, unready="")
TAKEN = Reason("ClusterNameTaken", "another cluster holds it")
WELL = Looks(ready=True, reason=Reason("Connected", "it can be written to"), agents=1, agents_ready=1)


def status(ready: str = "True", reason: str = "Registered", message: str = "so it is", **counts: int) -> dict[str, Any]:
    condition = {"type": "Ready", "status": ready, "reason": reason, "message": message, "lastTransitionTime": NOW}
    return {"observedGeneration": 3, "conditions": [condition], "instances": counts}


def row(name: str = "web", **said: Any) -> RegistrationRow:
    return overview.row(objects.registration(body(name=name, status=status(**said))))


def seen(rows: list[RegistrationRow], asked: str = "", connections: Any = (), changes: Any = ()) -> Overview:
    return overview.overview(REPLICA, overview.ordered(rows), connections, changes, asked)


STATES: list[tuple[str, dict[str, Any], State]] = [
    ("all is registered and passes", status(desired=2, registered=2, passing=2), State.GOOD),
    ("an instance is critical", status(desired=2, registered=2, passing=1, critical=1), State.UNHEALTHY),
    ("an instance has a warning", status(desired=2, registered=2, passing=1, warning=1), State.UNHEALTHY),
    ("no Pod matches", status(reason="NoPodsMatched"), State.IDLE),
    ("it is suspended", status(reason="Suspended"), State.IDLE),
    ("a Pod can't be registered", status("False", "PortNotFound"), State.BAD),
    ("instances are on their way", status("False", "Registering"), State.PENDING),
    ("it is being deleted", status("False", "Deleting"), State.PENDING),
    ("nothing is known yet", status("Unknown", "Reconciling"), State.PENDING),
    ("nobody has said anything", {}, State.PENDING),
    ("it was edited since", status() | {"observedGeneration": 2}, State.PENDING),
]


@pytest.mark.parametrize(("said", "state"), [case[1:] for case in STATES], ids=[case[0] for case in STATES])
def test_a_registrations_state_follows_from_its_status(said: dict[str, Any], state: State) -> None:
    assert overview.row(objects.registration(body(status=said))).state is state


def test_a_deletion_that_is_blocked_needs_attention() -> None:
    told = body(status=status("False", "DeregistrationBlocked"), deletionTimestamp=NOW)
    assert overview.row(objects.registration(told)).state is State.BAD


def test_a_malformed_registration_has_a_row_too() -> None:
    told = body({"pods": {"selector": {}}}, status=status("False", "InvalidSpec"))
    assert overview.row(objects.registration(told)).reason == "InvalidSpec"


def test_what_needs_attention_comes_first_and_equals_by_name() -> None:
    rows = [row("c"), row("z", ready="False", reason="PortNotFound"), row("b"), row("a", desired=1, critical=1)]
    assert [one.name for one in seen(rows).registrations] == ["z", "a", "b", "c"]


def test_counts_are_of_all_registrations_whatever_is_asked_for() -> None:
    rows = [row("web", desired=3, registered=2, passing=1), row("api", desired=4, registered=4, passing=4)]
    found = seen(rows, "WEB")
    assert [one.name for one in found.registrations] == ["web"]
    assert (found.matching, found.total) == (1, 2)
    assert (found.counts.desired, found.counts.registered, found.counts.passing) == (7, 6, 5)


@pytest.mark.parametrize("asked", ["shop/we", "crm", "PortNot", "web"])
def test_one_may_ask_for_namespace_name_service_or_reason(asked: str) -> None:
    other = objects.registration(body(name="api", namespace="infra", status=status()))
    told = body(
        {"pods": {"selector": {"matchLabels": {"a": "b"}}}, "service": {"name": "crm"}},
        status=status("False", "PortNotFound"),
    )
    found = seen([overview.row(other), overview.row(objects.registration(told))], asked)
    assert [one.name for one in found.registrations] == ["web"]


def test_no_more_rows_are_shown_than_there_is_room_for_and_the_rest_is_counted() -> None:
    rows = [row(f"web-{number}", desired=5) for number in range(10_000)]
    found = seen(rows, connections=[connection_row(f"c{number}") for number in range(200)], changes=[change()] * 500)
    assert len(found.registrations) == overview.ROWS
    assert (found.matching, found.total, found.counts.desired) == (10_000, 10_000, 50_000)
    assert (len(found.connections), found.connections_total) == (overview.CONNECTIONS, 200)
    assert len(found.changes) == overview.CHANGES


def test_a_long_message_is_cut() -> None:
    assert len(row(message="x" * 30_000).message) == overview.MESSAGE
    verbose = Looks(ready=False, reason=Reason("ConsulUnreachable", "x" * 30_000))
    assert len(connection_row(looks=verbose).looks.reason.message) == overview.MESSAGE


def connection_row(name: str = "default", looks: Looks = WELL, held: Held | None = None, **spec: Any) -> ConnectionRow:
    return overview.connection_row(connection(name, **spec), looks, held)


CONNECTIONS: list[tuple[str, ConnectionRow, State, str]] = [
    ("it can be written to", connection_row(), State.GOOD, "held"),
    ("nothing may be written there", connection_row(policy="Observe"), State.GOOD, ""),
    ("removals are held", connection_row(held=Held(3, "abc", ("web-1",))), State.UNHEALTHY, "held"),
    ("an agent is away", connection_row(looks=Looks(True, WELL.reason, agents=2)), State.UNHEALTHY, "held"),
    ("it is being connected", connection_row(looks=Looks(False, Reason(CONNECTING, "wait"))), State.PENDING, ""),
    ("it doesn't answer", connection_row(looks=Looks(False, Reason("ConsulUnreachable", "no"))), State.BAD, ""),
    ("the name is another's", connection_row(looks=Looks(False, TAKEN)), State.BAD, "refused"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("told", "state", "claim"), [one[1:] for one in CONNECTIONS], ids=[one[0] for one in CONNECTIONS]
)
def test_a_connections_state_follows_from_how_it_looks(told: ConnectionRow, state: State, claim: str) -> None:
    assert (told.state, told.claim) == (state, claim)


def instance(number: int, health: Health) -> tuple[str, Instance]:
    check = Check("c", "readiness", None, health)
    found = Instance(
        "node-1", f"id-{number}", "web", "10.0.0.1", 80, meta=((META_POD, f"web-{number}"),), checks=(check,)
    )
    return "default", found


def change(registration: str = "shop/web") -> Change:
    return Change(NOW, "register", "desired", "applied", "default", "web", registration, "web-1")


def test_of_one_registration_the_unhealthy_instances_come_first_and_not_all_are_shown() -> None:
    health = {7: Health.WARNING, 9_000: Health.CRITICAL}
    standing = [instance(number, health.get(number, Health.PASSING)) for number in range(10_000)]
    found = overview.detail(REPLICA, registration(), standing, [])
    assert [one.name for one in found.instances[:2]] == ["web-9000", "web-7"]
    assert (len(found.instances), found.standing) == (overview.INSTANCES, 10_000)


def test_of_one_registration_only_its_own_changes_are_told() -> None:
    told = [change(), change("shop/other"), change("other/web")]
    assert overview.detail(REPLICA, registration(), [], told).changes == (change(),)


def test_nothing_of_a_spec_is_told_but_names() -> None:
    secret = "s3cret"
    spec = {
        "pods": {"selector": {"matchLabels": {"app": secret}}},
        "service": {"meta": {"key": secret}, "tags": [secret]},
        "checks": [{"name": "h", "http": {"headers": [{"name": "Authorization", "value": secret}]}, "interval": "5s"}],
    }
    told = objects.registration(body(spec, status=status()))
    name, found = instance(1, Health.PASSING)
    assert secret not in repr(overview.detail(REPLICA, told, [(name, found)], []))
