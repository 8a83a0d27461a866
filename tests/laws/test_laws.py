"""The laws of the design's chapter 2 that the pure core can keep or break, for every state that can be generated."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consul_registrar import objects
from consul_registrar.acceptance import Acceptance
from consul_registrar.cache import Cache
from consul_registrar.changes import Cause, Deregister, Register
from consul_registrar.desired import Absent, Kept, Orphaned, Present, desired
from consul_registrar.exposure import subjects
from consul_registrar.facts import Facts
from consul_registrar.model import MANAGED_BY, META_HASH, META_MANAGED_BY, Instance, Node, Owner, Reason
from consul_registrar.objects import Registration
from consul_registrar.plan import allowed, plan
from consul_registrar.service_cache import source_of
from consul_registrar.services import NO_BACKENDS, Exposed
from laws.worlds import (
    ADDRESS_SUBJECT,
    ENDPOINT,
    EXPOSED,
    GONE,
    LASTING,
    LIVING,
    OF_ENDPOINTS,
    OF_PODS,
    OF_SERVICES,
    SELECTING,
    SPECS,
    SUBJECT,
    Consul,
    Published,
    addresses,
    after,
    facts,
    published,
    standing,
    states,
)
from unit.core.build import KEY, OWNER, body, connection, registration, service


def changes(known: Facts) -> Any:
    return plan(desired(known), known.standing)


# --- 1 converges, 2 silent when equal -------------------------------------------------------------------------------


@given(states())
def test_one_pass_reaches_what_is_wanted_and_the_next_is_silent(known: Facts) -> None:
    assert changes(after(known, changes(known))) == ()


@given(states())
def test_after_one_pass_consul_holds_exactly_what_is_wanted(known: Facts) -> None:
    want, then = desired(known), after(known, changes(known)).standing
    match want:
        case Present(instance):
            (held,) = then
            assert (held.node, held.id, held.address, held.port) == (
                instance.node,
                instance.id,
                instance.address,
                instance.port,
            )
            assert (held.service, held.tags) == (instance.service, instance.tags)
            assert {c.id for c in held.checks} == {c.id for c in instance.checks}
        case Absent() | Orphaned():
            assert then == ()
        case Kept():
            assert then == known.standing


@given(st.tuples(states(), states()).filter(lambda both: both[0].subject == both[1].subject))
def test_it_converges_on_the_last_state_whatever_was_planned_before(both: tuple[Facts, Facts]) -> None:
    first, last = both
    known = replace(last, standing=after(first, changes(first)).standing)
    assert changes(after(known, changes(known))) == ()


@given(states(), st.integers(0, 5))
def test_a_pass_that_is_cut_off_anywhere_is_made_good_by_the_next(known: Facts, written: int) -> None:
    cut = after(known, changes(known)[:written])
    assert changes(after(cut, changes(cut))) == ()


@given(states())
def test_the_same_facts_give_the_same_changes(known: Facts) -> None:
    assert changes(known) == changes(replace(known))


@given(published())
def test_what_was_registered_is_silent_at_once(known: Published) -> None:
    assert changes(after(known.facts, plan(Present(known.instance), ()))) == ()


# --- 3 owns what it owns --------------------------------------------------------------------------------------------


@given(states())
def test_every_change_is_of_an_instance_of_this_owner(known: Facts) -> None:
    ours = {(i.node, i.id) for i in known.standing}
    for change in changes(known):
        if isinstance(desired(known), Orphaned):
            assert (change.node, change.id) in ours
        else:
            assert change.instance.owner == known.owner
        if isinstance(change, Deregister):
            assert change.instance in known.standing


@given(standing())
def test_orphaning_takes_the_ownership_and_nothing_else(held: tuple[Instance, ...]) -> None:
    for change, before in zip(plan(Orphaned(), held), held, strict=True):
        assert isinstance(change, Register)
        assert change.instance.owner is None
        kept = {k: v for k, v in before.meta if not k.startswith(("k8s-", "managed-by"))}
        assert kept.items() <= dict(change.instance.meta).items()
        assert replace(change.instance, meta=(), checks=()) == replace(before, meta=(), checks=())


_META = st.dictionaries(
    st.sampled_from(["managed-by", "k8s-cluster", "k8s-connection", "k8s-namespace", "k8s-registration", "x"]),
    st.sampled_from(["", MANAGED_BY, "consul-k8s", "prod"]),
)


@given(_META)
def test_an_instance_has_an_owner_only_if_its_meta_says_all_of_it(meta: dict[str, str]) -> None:
    owner = Instance("n", "i", "s", "a", 1, meta=tuple(sorted(meta.items()))).owner
    whole = all(meta.get(f"k8s-{part}") for part in ("cluster", "connection", "namespace", "registration"))
    assert (owner is not None) == (whole and meta.get(META_MANAGED_BY) == MANAGED_BY)


@given(SPECS, LIVING)
def test_no_spec_changes_whose_an_instance_is(spec: Any, pod: Any) -> None:
    found = objects.registration(body() | {"spec": spec})
    want = desired(Facts(OWNER, SUBJECT, found, None, pod, None, "agent-1", ()))
    if isinstance(want, Present):
        assert (want.instance.owner, want.instance.subject) == (OWNER, SUBJECT)


# --- 4 never kills the living ---------------------------------------------------------------------------------------


@given(states())
def test_a_removal_is_of_the_gone_or_asked_for_or_an_absence_to_be_confirmed(known: Facts) -> None:
    want = desired(known)
    for change in changes(known):
        if not isinstance(change, Deregister):
            continue
        match want:
            case Present(instance):
                assert change.cause is Cause.REPLACED
                assert (change.node, change.id) != (instance.node, instance.id)
            case Absent(cause):
                assert change.cause is cause
                gone = known.pod is not None and known.pod.gone
                deleted = known.registration is not None and known.registration.deleting
                assert gone or deleted or not want.monotone
            case _:
                pytest.fail("nothing else removes")


@given(states(facts(SELECTING, LIVING)))
def test_a_selected_running_pod_of_an_accepted_registration_is_never_absent(known: Facts) -> None:
    assert not isinstance(desired(known), Absent)
    assert not any(isinstance(c, Deregister) and c.cause is not Cause.REPLACED for c in changes(known))


@given(states(facts(LASTING, LIVING)))
def test_a_refusal_or_a_lost_agent_or_a_malformed_spec_removes_nothing_of_the_living(known: Facts) -> None:
    for worse in (
        replace(known, refused=Reason("ServiceNameTaken", "taken")),
        replace(known, registration=registration({"pods": {}})),
    ):
        assert not any(isinstance(change, Deregister) for change in changes(worse))
    if not isinstance(desired(known), Absent):
        assert changes(replace(known, place=Reason("AgentDown", "down"))) == ()


@given(states())
def test_the_replacement_always_comes_before_what_it_replaces_goes(known: Facts) -> None:
    kinds = [isinstance(change, Deregister) for change in changes(known)]
    assert kinds == sorted(kinds)
    if isinstance(desired(known), Present):
        consul = Consul(known.standing)
        for change in changes(known):
            consul.take(change)
            assert consul.standing, "there was a moment without any instance"


@given(addresses())
def test_an_address_that_its_service_has_is_never_absent(known: Facts) -> None:
    registration = known.registration
    source = source_of(registration)
    if known.exposed is None or registration is None or source is None or source.name != "web-lb":
        return
    if known.subject in subjects(source, known.exposed) and registration.connections == ("default",):
        assert isinstance(desired(known), Absent | Orphaned) is registration.deleting


@given(states(), st.sampled_from(["Observe", "UpsertOnly"]))
def test_no_policy_but_sync_removes(known: Facts, policy: str) -> None:
    assert not any(isinstance(change, Deregister) for change in allowed(changes(known), policy))


# --- 5 leaves no ghosts ---------------------------------------------------------------------------------------------


@given(states(facts(pods=GONE)))
def test_all_that_a_gone_pod_left_is_removed_whatever_else_is_so(known: Facts) -> None:
    assert changes(known) == tuple(Deregister(i, Cause.GONE) for i in known.standing)


@given(addresses())
def test_all_that_a_gone_service_left_is_removed_whatever_else_is_so(known: Facts) -> None:
    gone = Exposed(service(deleting=True), NO_BACKENDS)
    known = replace(known, exposed=gone)
    assert changes(known) == tuple(Deregister(i, Cause.GONE) for i in known.standing)


@given(addresses())
def test_what_a_service_that_nobody_knows_left_is_to_be_removed_but_not_at_once(known: Facts) -> None:
    known = replace(known, exposed=None)
    if known.standing:
        want = desired(known)
        assert isinstance(want, Absent)
        assert not want.monotone
        assert all(isinstance(change, Deregister) for change in changes(known))


@given(states(facts(pods=st.none())), published())
def test_what_a_pod_that_nobody_knows_left_is_to_be_removed(known: Facts, past: Published) -> None:
    known = replace(known, standing=(*known.standing, replace(past.instance, node="agent-9")))
    want = desired(known)
    assert isinstance(want, Absent)
    assert not want.monotone
    assert len(changes(known)) == len(known.standing)


_PARTS = st.text(alphabet="a1:-/", min_size=1, max_size=4)
_OWNERS = st.builds(Owner, _PARTS, st.just("default"), _PARTS, _PARTS)


@given(_OWNERS, _OWNERS, _PARTS, _PARTS)
def test_no_two_identities_share_an_id(one: Owner, other: Owner, uid: str, successor: str) -> None:
    def known(owner: Owner, subject: str) -> str:
        spec = {"endpoints": [{"name": "x", "address": "a", "port": 1}]}
        found = objects.registration(body(spec))
        assert not isinstance(found.spec, Reason)
        endpoint = found.spec.endpoints[0].model_copy(update={"name": subject})  # type: ignore[index]
        whole = replace(found, spec=found.spec.model_copy(update={"endpoints": [endpoint]}))
        want = desired(Facts(owner, subject, whole, None, None, None, "agent-1", ()))
        assert isinstance(want, Present)
        return want.instance.id

    assert (known(one, uid) == known(other, successor)) == ((one, uid) == (other, successor))


# --- 7 one bad apple ------------------------------------------------------------------------------------------------


@given(OF_PODS | OF_ENDPOINTS, st.sampled_from([{}, {"pods": {}}, {"endpoints": []}, {"unknown": 1}]))
def test_a_malformed_registration_changes_nobody_elses_refusal(spec: Any, malformed: Any) -> None:
    def refusal(*registrations: Registration) -> Reason | None:
        cache = Cache()
        cache.connections["default"] = connection()
        acceptance = Acceptance(cache)
        for each in registrations:
            cache.put_registration(each)
            acceptance.names.put(each)
        return acceptance.refusal(KEY)

    mine = objects.registration(body(spec))
    bad = objects.registration(
        body(namespace="another", name="bad", creationTimestamp="2020-01-01T00:00:00Z") | {"spec": malformed}
    )
    assert refusal(mine, bad) == refusal(bad, mine) == refusal(mine)


# --- 9 an upgrade rewrites nothing ----------------------------------------------------------------------------------


@given(published(), st.sampled_from(["0-older", "0r-older", "2-newer"]))
def test_what_another_version_hashed_is_accepted_as_it_stands(known: Published, other: str) -> None:
    stands = after(known.facts, plan(Present(known.instance), ()))
    (held,) = stands.standing
    meta = tuple((k, other if k == META_HASH else v) for k, v in held.meta)
    assert changes(replace(stands, standing=(replace(held, meta=meta),))) == ()


@given(published(), published())
def test_running_checks_are_defined_anew_only_if_their_definitions_differ(before: Published, then: Published) -> None:
    stands = after(before.facts, plan(Present(before.instance), ()))
    edited = replace(then.facts, standing=stands.standing, place=before.facts.place)
    want = desired(edited)
    assert isinstance(want, Present)
    moved = want.instance.id != before.instance.id
    same = not moved and want.instance.meta_value(META_HASH) == before.instance.meta_value(META_HASH)
    defined = [change.define for change in changes(edited) if isinstance(change, Register)]
    assert defined == [] or (defined == [()]) == (same or not want.instance.checks)


# --- what is taken is published -------------------------------------------------------------------------------------


@given(OF_PODS | OF_ENDPOINTS | OF_SERVICES, LIVING, EXPOSED)
def test_what_the_api_takes_is_published_or_has_a_reason(spec: Any, pod: Any, exposed: Any) -> None:
    found = registration(spec)
    assert not isinstance(found.spec, Reason)
    of_pod = Facts(OWNER, SUBJECT, found, None, pod, Node("u", "node-1", 1, {}, {}), "agent-1", ())
    elsewhere = replace(of_pod, pod=None, node=None)
    of_address = replace(elsewhere, subject=ADDRESS_SUBJECT, exposed=exposed)
    for known in (of_pod, replace(elsewhere, subject=ENDPOINT), of_address):
        match desired(known):
            case Present(instance):
                assert _consul_takes(instance)
            case Kept(reason) | Absent(_, reason):
                assert reason.code.isalpha()
                assert reason.message


def _consul_takes(instance: Instance) -> bool:
    meta = dict(instance.meta)
    return (
        len(meta) == len(instance.meta) <= 63
        and all(0 < len(key) <= 128 and len(value.encode()) <= 512 for key, value in meta.items())
        and list(instance.tags) == sorted(set(instance.tags))
        and list(instance.meta) == sorted(instance.meta)
        and 1 <= instance.port <= 65535
        and bool(instance.address)
        and len({check.id for check in instance.checks}) == len(instance.checks)
    )


@given(standing())
def test_the_generated_instances_are_of_one_owner_and_subject(found: tuple[Instance, ...]) -> None:
    assert {(i.owner, i.subject) for i in found} <= {(OWNER, SUBJECT)}
