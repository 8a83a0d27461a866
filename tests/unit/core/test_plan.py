"""What to do about a difference, row by row of the table in `plan.py`, and what a policy lets pass."""

from dataclasses import replace
from typing import Any

import pytest

from consul_registrar.changes import Cause, Change, Deregister, DropCheck, Feed, Register
from consul_registrar.desired import Absent, Kept, Orphaned, Present
from consul_registrar.model import META_HASH, META_NONCE, META_TAGS, Check, Health, Instance
from consul_registrar.plan import allowed, plan, same_fields
from unit.core.build import instance, of_pods, pod, reason, registration

TCP = {"name": "port", "tcp": {}}
READY = {"name": "ready", "readiness": {}}
BOTH = of_pods(checks=[READY, TCP])


def read_back(wanted: Instance, **fields: Any) -> Instance:
    """As Consul gives it back: definitions are not among it, and what is probed has some status."""
    checks = (replace(c, probe=None, status=c.status or Health.CRITICAL) for c in wanted.checks)
    return replace(wanted, checks=tuple(checks), **fields)


def with_meta(found: Instance, **meta: str | None) -> Instance:
    pairs = {key: value for key, value in (dict(found.meta) | meta).items() if value is not None}
    return replace(found, meta=tuple(sorted(pairs.items())))


def with_hash(found: Instance, value: str | None) -> Instance:
    return with_meta(found, **{META_HASH: value})


WANTED = instance(BOTH)
HAVE = read_back(WANTED)


def test_what_is_missing_is_registered_with_all_its_checks() -> None:
    assert plan(Present(WANTED), ()) == (Register(WANTED, WANTED.checks, Cause.DESIRED),)


def test_what_is_equal_is_left_alone() -> None:
    assert plan(Present(WANTED), (HAVE,)) == ()


def test_what_stands_under_a_token_that_was_replaced_is_given_anew_with_all_its_checks() -> None:
    assert plan(Present(WANTED), (replace(HAVE, outdated=True),)) == (Register(WANTED, WANTED.checks, Cause.ROTATED),)


def test_an_edit_of_what_stands_under_a_replaced_token_is_an_edit_with_all_checks() -> None:
    have = replace(HAVE, port=1, outdated=True)
    assert plan(Present(WANTED), (have,)) == (Register(WANTED, WANTED.checks, Cause.EDITED),)


def test_what_is_adopted_is_replaced_and_lends_its_health() -> None:
    """Under its check's name or, where that is another, by its worst."""
    by_hand = Instance("legacy", "web-old", "web", "10.0.0.1", 8080, checks=(Check("c", "port", None, Health.PASSING),))
    wanted = instance(of_pods(checks=[TCP, TCP | {"name": "other"}]))
    register, leave = plan(Present(wanted), (), [by_hand])
    assert isinstance(register, Register)
    assert [check.status for check in register.instance.checks] == [Health.PASSING, Health.PASSING]
    assert (register.cause, leave) == (Cause.ADOPTED, Deregister(by_hand, Cause.ADOPTED))
    have = read_back(wanted)
    assert plan(Present(wanted), (have,), [by_hand]) == (Deregister(by_hand, Cause.ADOPTED),)


@pytest.mark.parametrize("other", [{"service": "db"}, {"address": "10.0.0.2"}, {"port": 1}])
def test_only_what_has_the_same_name_address_and_port_is_adopted(other: Any) -> None:
    by_hand = replace(WANTED, node="legacy", id="web-old", meta=(), **other)
    assert plan(Present(WANTED), (HAVE,), [by_hand]) == ()


def test_what_is_adopted_may_have_its_name_in_other_letters() -> None:
    by_hand = replace(WANTED, node="legacy", id="web-old", meta=(), service=WANTED.service.upper())
    assert Deregister(by_hand, Cause.ADOPTED) in plan(Present(WANTED), (HAVE,), [by_hand])


def test_what_is_gone_is_removed_under_any_token() -> None:
    have = replace(HAVE, outdated=True)
    assert plan(Absent(Cause.GONE, reason()), (have,)) == (Deregister(have, Cause.GONE),)


@pytest.mark.parametrize(
    "harmless",
    [
        with_meta(HAVE, **{META_NONCE: "42"}),
        replace(HAVE, checks=(HAVE.checks[0], replace(HAVE.checks[1], status=Health.PASSING))),
        replace(HAVE, checks=(replace(HAVE.checks[0], notes="x"), HAVE.checks[1])),
    ],
    ids=["a nonce", "a probe's status", "notes aren't read back"],
)
def test_what_consul_may_hold_otherwise_is_no_difference(harmless: Instance) -> None:
    assert plan(Present(WANTED), (harmless,)) == ()


@pytest.mark.parametrize(
    "have",
    [
        replace(HAVE, address="10.9.9.9"),
        replace(HAVE, port=1),
        replace(HAVE, service="other"),
        replace(HAVE, tags=("x",)),
        replace(HAVE, tag_override=True),
        with_meta(HAVE, extra="x"),
        with_meta(HAVE, **{"k8s-node": "elsewhere"}),
        with_meta(HAVE, **{"external-source": None}),
    ],
)
def test_other_fields_are_written_and_running_checks_left_alone(have: Instance) -> None:
    assert plan(Present(WANTED), (have,)) == (Register(WANTED, (), Cause.EDITED),)


def test_other_definitions_are_defined_anew_and_what_is_no_longer_wanted_is_dropped() -> None:
    wanted = instance(of_pods(checks=[READY, {"name": "web", "http": {}}]))
    assert plan(Present(wanted), (HAVE,)) == (
        Register(wanted, wanted.checks, Cause.DRIFT),
        DropCheck(wanted, HAVE.checks[1].id),
    )


def test_a_changed_type_drops_the_old_probe() -> None:
    wanted = instance(of_pods(checks=[READY, {"name": "port", "http": {}}]))
    changes = plan(Present(wanted), (HAVE,))
    assert [type(change) for change in changes] == [Register, DropCheck]
    assert changes[1] == DropCheck(wanted, f"{wanted.id}:port:tcp")


def test_a_missing_check_is_defined_and_the_others_go_on() -> None:
    have = replace(HAVE, checks=HAVE.checks[:1])
    assert plan(Present(WANTED), (have,)) == (Register(WANTED, WANTED.checks[1:], Cause.DRIFT),)


def test_a_check_of_nobodys_is_dropped_although_nothing_else_differs() -> None:
    stray = replace(HAVE.checks[1], id=f"{HAVE.id}:stray:tcp")
    assert plan(Present(WANTED), (replace(HAVE, checks=(*HAVE.checks, stray)),)) == (DropCheck(WANTED, stray.id),)


@pytest.mark.parametrize("status", [Health.CRITICAL, Health.WARNING, None])
def test_another_readiness_is_fed_and_nothing_is_registered(status: Health | None) -> None:
    spoiled = replace(HAVE, checks=(replace(HAVE.checks[0], status=status), HAVE.checks[1]))
    assert plan(Present(WANTED), (spoiled,)) == (Feed(WANTED, WANTED.checks[0]),)


def test_readiness_is_fed_after_the_registration_that_does_not_define_it() -> None:
    have = replace(HAVE, port=1, checks=(replace(HAVE.checks[0], status=Health.CRITICAL), HAVE.checks[1]))
    assert [type(change) for change in plan(Present(WANTED), (have,))] == [Register, Feed]


def test_readiness_is_not_fed_twice_where_it_is_defined() -> None:
    changes = plan(Present(WANTED), (replace(HAVE, checks=()),))
    assert changes == (Register(WANTED, WANTED.checks, Cause.DRIFT),)


@pytest.mark.parametrize("fields", [{"node": "agent-2"}, {"id": "another-id"}])
def test_the_replacement_is_made_before_the_old_is_broken(fields: Any) -> None:
    old = replace(HAVE, **fields)
    changes = plan(Present(WANTED), (old,))
    assert [type(change) for change in changes] == [Register, Deregister]
    assert changes[1] == Deregister(old, Cause.REPLACED)


def test_where_it_stands_already_only_the_others_go() -> None:
    others = (replace(HAVE, node="agent-2"), replace(HAVE, id="x"))
    assert plan(Present(WANTED), (others[0], HAVE, others[1])) == tuple(Deregister(i, Cause.REPLACED) for i in others)


def test_what_takes_anothers_place_begins_with_its_health() -> None:
    old = replace(HAVE, node="agent-2", checks=(HAVE.checks[0], replace(HAVE.checks[1], status=Health.PASSING)))
    first = plan(Present(WANTED), (old,))[0]
    assert isinstance(first, Register)
    assert [c.status for c in first.define] == [Health.PASSING, Health.PASSING]
    assert first.instance.checks == first.define


@pytest.mark.parametrize("cause", [Cause.GONE, Cause.VANISHED, Cause.UNSELECTED, Cause.REGISTRATION_DELETED])
def test_what_is_absent_is_deregistered_wherever_it_stands(cause: Cause) -> None:
    standing = (HAVE, replace(HAVE, node="agent-2"))
    assert plan(Absent(cause, reason()), standing) == tuple(Deregister(i, cause) for i in standing)


def test_what_is_orphaned_loses_its_owner_and_keeps_all_else() -> None:
    have = read_back(instance(of_pods(service={"meta": {"version": "1"}, "tags": ["a"]})))
    (change,) = plan(Orphaned(), (have,))
    assert isinstance(change, Register)
    assert (change.define, change.cause) == ((), Cause.ORPHANED)
    assert change.instance.owner is None
    assert change.instance.meta == tuple(sorted(change.instance.meta))
    assert dict(change.instance.meta) == {
        "external-source": "kubernetes",
        "k8s-node": "node-1",
        "k8s-pod": "web-1",
        "k8s-pod-uid": "uid-web-1",
        "orphaned-from": "prod/default/shop/web",
        "version": "1",
    }
    assert replace(change.instance, meta=have.meta, checks=have.checks) == have


def test_an_orphans_origin_fits_into_consuls_limit() -> None:
    long = with_meta(HAVE, **{"k8s-registration": "r" * 253, "k8s-connection": "c" * 253, "k8s-cluster": "x" * 63})
    (change,) = plan(Orphaned(), (long,))
    assert len(change.instance.meta_value("orphaned-from")) <= 512


@pytest.mark.parametrize("standing", [(), (HAVE,), (HAVE, replace(HAVE, node="agent-2", port=1))])
@pytest.mark.parametrize("problem", [True, False])
def test_what_is_kept_is_kept(standing: Any, problem: bool) -> None:
    assert plan(Kept(reason(), problem), standing) == ()


@pytest.mark.parametrize("want", [Absent(Cause.GONE, reason()), Orphaned()])
def test_where_nothing_stands_nothing_is_removed(want: Any) -> None:
    assert plan(want, ()) == ()


@pytest.mark.parametrize("older", ["0-abc", "0r-abc", "2-abc", "something"])
def test_a_hash_of_another_version_is_accepted_as_it_is(older: str) -> None:
    have = with_hash(HAVE, older)
    assert plan(Present(WANTED), (have,)) == ()
    assert same_fields(WANTED, have)


@pytest.mark.parametrize("other", ["1-abc", "1r-abc", None])
def test_another_hash_of_this_version_or_none_defines_all(other: str | None) -> None:
    have = with_hash(HAVE, other)
    assert plan(Present(WANTED), (have,)) == (Register(WANTED, WANTED.checks, Cause.DRIFT),)
    assert not same_fields(WANTED, have)


@pytest.mark.parametrize("fields", [{"port": 1}, {"checks": HAVE.checks[:1]}], ids=["an edit", "a missing check"])
def test_a_hash_of_another_version_ends_with_the_definitions_it_stood_for(fields: Any) -> None:
    """The write brings this version's hash, which must not be claimed for definitions that were never written."""
    (change,) = plan(Present(WANTED), (replace(with_hash(HAVE, "0-abc"), **fields),))
    assert isinstance(change, Register)
    assert change.define == WANTED.checks


def test_tags_that_others_may_edit_are_no_difference() -> None:
    wanted = replace(WANTED, tag_override=True)
    assert plan(Present(wanted), (read_back(wanted, tags=("edited",)),)) == ()


def tagged(*tags: str) -> Instance:
    return instance(of_pods(service={"tags": list(tags), "enableTagOverride": True}))


def test_tags_that_others_may_edit_are_written_anew_when_the_spec_asks_for_others() -> None:
    (change,) = plan(Present(tagged("v2")), (read_back(tagged("v1"), tags=("edited",)),))
    assert isinstance(change, Register)
    assert (change.instance.tags, change.define, change.cause) == (("v2",), (), Cause.EDITED)


def test_tags_that_others_may_edit_stay_as_they_are_when_anything_else_is_edited() -> None:
    wanted = instance(of_pods(service={"tags": ["v1"], "meta": {"some": "thing"}, "enableTagOverride": True}))
    (change,) = plan(Present(wanted), (read_back(tagged("v1"), tags=("edited",)),))
    assert change == Register(replace(wanted, tags=("edited",)), (), Cause.EDITED)


def test_tags_that_others_may_no_longer_edit_are_those_of_the_spec() -> None:
    wanted = instance(of_pods(service={"tags": ["v1"]}))
    (change,) = plan(Present(wanted), (read_back(tagged("v1"), tags=("edited",)),))
    assert isinstance(change, Register)
    assert change.instance.tags == ("v1",)


def test_tags_that_others_may_edit_are_left_where_an_older_version_did_not_note_which_were_asked_for() -> None:
    older = with_meta(read_back(tagged("v1"), tags=("edited",)), **{META_TAGS: None})
    assert plan(Present(tagged("v1")), (older,)) == ()
    (change,) = plan(Present(tagged("v2")), (older,), edited=True)
    assert isinstance(change, Register)
    assert (change.instance, change.define, change.cause) == (tagged("v2"), (), Cause.EDITED)


def test_the_readiness_that_went_wrong_is_what_is_fed() -> None:
    unready = instance(BOTH, pod=pod(ready=False))
    (change,) = plan(Present(unready), (HAVE,))
    assert isinstance(change, Feed)
    assert (change.check.status, change.cause) == (Health.CRITICAL, Cause.READINESS)


CHANGES: tuple[Change, ...] = (
    Register(WANTED, (), Cause.DESIRED),
    Feed(WANTED, WANTED.checks[0]),
    DropCheck(WANTED, "x"),
    Deregister(HAVE, Cause.GONE),
)


@pytest.mark.parametrize(("policy", "passing"), [("Sync", CHANGES), ("UpsertOnly", CHANGES[:3]), ("Observe", ())])
def test_a_policy_lets_pass_what_it_says(policy: str, passing: tuple[Change, ...]) -> None:
    assert allowed(CHANGES, policy) == passing


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_says_where_it_goes(change: Change) -> None:
    assert (change.node, change.id) == (WANTED.node, WANTED.id)


def test_an_edited_registration_is_one_write() -> None:
    edited = instance(registration=registration(of_pods(checks=[READY, TCP], service={"tags": ["v2"]})))
    assert plan(Present(edited), (HAVE,)) == (Register(edited, (), Cause.EDITED),)
