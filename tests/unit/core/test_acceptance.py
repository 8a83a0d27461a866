"""Whether a registration is carried out: what it refers to, and whose its service's name is."""

from typing import Any

import pytest

from consul_registrar.acceptance import Acceptance, NameBook, advice
from consul_registrar.cache import Cache
from consul_registrar.model import Namespace, Reason, RegistrationKey
from consul_registrar.objects import Registration
from unit.core.build import connection, of_pods, registration

FIRST, SECOND, THIRD = (f"2026-01-01T00:00:0{i}Z" for i in (1, 2, 3))
MALFORMED: dict[str, Any] = {"pods": {}}


def named(namespace: str, created: str = FIRST, name: str = "web", spec: Any = None, **more: Any) -> Registration:
    return registration(spec, namespace=namespace, name=name, creationTimestamp=created, **more)


class World:
    """A cache and who was said to be concerned by a change."""

    def __init__(self, *connections: Any, implicit: Any = ()) -> None:
        self.cache = Cache()
        self.acceptance = Acceptance(self.cache, implicit)
        for each in connections:
            self.cache.connections[each.name] = each

    def put(self, found: Registration) -> set[RegistrationKey]:
        self.cache.put_registration(found)
        return self.acceptance.names.put(found)

    def remove(self, found: Registration) -> set[RegistrationKey]:
        self.cache.remove_registration(found.key)
        return self.acceptance.names.remove(found.key)

    def refusal(self, found: Registration) -> str | None:
        reason = self.acceptance.refusal(found.key)
        return reason.code if reason else None


def test_a_well_formed_registration_with_a_connection_is_accepted() -> None:
    world, one = World(connection()), named("shop")
    world.put(one)
    assert world.refusal(one) is None


def test_who_does_not_exist_is_not_refused() -> None:
    assert World().refusal(named("shop")) is None


def test_a_malformed_registration_is_refused_with_its_own_reason() -> None:
    world, one = World(connection()), named("shop", spec=MALFORMED)
    world.put(one)
    assert world.acceptance.refusal(one.key) == one.spec


def test_a_connection_must_exist() -> None:
    world, one = World(connection()), named("shop", spec=of_pods(consulRefs=[{"name": "default"}, {"name": "far"}]))
    world.put(one)
    assert world.acceptance.refusal(one.key) == Reason(
        "ConnectionNotFound", "spec.consulRefs: there is no ConsulConnection 'far'"
    )


@pytest.mark.parametrize(
    ("allowed", "labels", "taken"),
    [
        (None, None, True),
        ({"names": ["shop"]}, None, True),
        ({"names": ["pay"]}, {"team": "a"}, False),
        ({"selector": {"matchLabels": {"team": "a"}}}, {"team": "a"}, True),
        ({"selector": {"matchLabels": {"team": "a"}}}, {}, False),
        ({"selector": {"matchLabels": {"team": "a"}}}, None, False),  # not known (yet): nothing is done, nothing lost
        ({"names": ["shop"], "selector": {"matchLabels": {"team": "a"}}}, {"team": "b"}, True),
        ({"names": ["pay"], "selector": {"matchLabels": {"team": "a"}}}, {"team": "a"}, True),
    ],
)
def test_a_connection_takes_the_registrations_of_allowed_namespaces(allowed: Any, labels: Any, taken: bool) -> None:
    world, one = World(connection(allowedNamespaces=allowed)), named("shop")
    if labels is not None:
        world.cache.namespaces["shop"] = Namespace("uid", "shop", 1, labels)
    world.put(one)
    assert world.refusal(one) == (None if taken else "NamespaceNotAllowed")


def test_the_connection_of_the_environment_needs_no_object() -> None:
    world, one = World(implicit=["default"]), named("shop")
    world.put(one)
    assert world.refusal(one) is None


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_oldest_registrations_namespace_owns_a_name_whoever_is_seen_first(order: tuple[int, int]) -> None:
    world, both = World(connection()), (named("a", SECOND), named("b", FIRST))
    for i in order:
        world.put(both[i])
    assert [world.refusal(each) for each in both] == ["ServiceNameTaken", None]


def test_the_refusal_names_the_holder() -> None:
    world, young = World(connection()), named("b", SECOND, name="other", spec=of_pods(service={"name": "web"}))
    world.put(named("a"))
    world.put(young)
    refusal = world.acceptance.refusal(young.key)
    assert refusal is not None
    assert "belongs to namespace 'a' in Consul 'default' (registration a/web)" in refusal.message


def test_of_the_same_age_the_first_by_name_holds_it() -> None:
    world, both = World(connection()), (named("a"), named("b"))
    for each in reversed(both):
        world.put(each)
    assert [world.refusal(each) for each in both] == [None, "ServiceNameTaken"]


def test_registrations_of_one_namespace_share_a_name() -> None:
    world = World(connection())
    both = (named("a", FIRST), named("a", SECOND, name="second", spec=of_pods(service={"name": "web"})))
    for each in both:
        world.put(each)
    assert [world.refusal(each) for each in both] == [None, None]


def test_a_connection_may_let_namespaces_share_names() -> None:
    world, both = World(connection(sharedNames="Allow")), (named("a"), named("b", SECOND))
    for each in both:
        world.put(each)
    assert [world.refusal(each) for each in both] == [None, None]


def test_names_belong_to_one_consul() -> None:
    world = World(connection("x"), connection("y"))
    both = tuple(named(ns, spec=of_pods(consulRefs=[{"name": name}])) for ns, name in (("a", "x"), ("b", "y")))
    for each in both:
        world.put(each)
    assert [world.refusal(each) for each in both] == [None, None]


def test_taken_in_one_of_its_consuls_is_refused_as_a_whole() -> None:
    world = World(connection("x"), connection("y"))
    world.put(named("a", spec=of_pods(consulRefs=[{"name": "y"}])))
    young = named("b", SECOND, spec=of_pods(consulRefs=[{"name": "x"}, {"name": "y"}]))
    world.put(young)
    assert world.refusal(young) == "ServiceNameTaken"


def test_the_next_oldest_gets_the_name_when_its_holder_goes() -> None:
    world, three = World(connection()), (named("a", FIRST), named("b", SECOND), named("c", THIRD))
    for each in three:
        world.put(each)
    assert world.remove(three[0]) == {three[1].key, three[2].key}
    assert [world.refusal(each) for each in three] == [None, None, "ServiceNameTaken"]


def test_a_registration_that_is_being_deleted_holds_its_name_while_its_instances_stand() -> None:
    world, young = World(connection()), named("b", SECOND)
    world.put(named("a", deletionTimestamp=THIRD))
    world.put(young)
    assert world.refusal(young) == "ServiceNameTaken"


def test_a_rename_releases_one_name_and_takes_another() -> None:
    world, other, third = World(connection()), named("b", SECOND), named("c", SECOND, name="db")
    for each in (named("a"), other, third):
        world.put(each)
    assert world.put(named("a", spec=of_pods(service={"name": "db"}))) == {other.key, third.key}
    assert (world.refusal(other), world.refusal(third)) == (None, "ServiceNameTaken")


def test_the_same_claim_again_concerns_nobody() -> None:
    world = World(connection())
    world.put(named("a"))
    world.put(named("b", SECOND))
    assert world.put(named("a")) == set()


def test_a_successor_of_the_same_name_is_younger_and_that_concerns_the_others() -> None:
    world, other = World(connection()), named("b", SECOND)
    world.put(named("a", FIRST))
    world.put(other)
    assert world.put(named("a", THIRD, uid="successor")) == {other.key}
    assert (world.refusal(other), world.refusal(named("a"))) == (None, "ServiceNameTaken")


def test_consul_knows_no_case_so_names_that_differ_by_it_alone_are_one() -> None:
    world, young = World(connection()), named("b", SECOND, spec=of_pods(service={"name": "Payments"}))
    world.put(young)
    old = named("a", FIRST, spec=of_pods(service={"name": "payments"}))
    assert world.put(old) == {young.key}
    refusal = world.acceptance.refusal(young.key)
    assert refusal is not None
    assert refusal.code == "ServiceNameTaken"
    assert "'Payments' belongs to namespace 'a'" in refusal.message
    assert world.remove(old) == {young.key}
    assert world.refusal(young) is None


def test_names_that_labels_make_are_compared_without_case_too() -> None:
    world = World(connection())
    each = of_pods(service={"name": "$(metadata.labels['svc'])"})
    old, young = named("a", FIRST, spec=each), named("b", SECOND, spec=each)
    for found in (old, young, named("c", THIRD, spec=of_pods(service={"name": "Orders"}))):
        world.put(found)
    judge = world.acceptance.name_of_pod
    assert judge(old.key, "default", "uid-1", "payments") is None
    made, written = (judge(young.key, "default", "uid-2", name) for name in ("PAYMENTS", "orders"))
    assert made is not None
    assert "(registration a/web)" in made.message
    assert written is not None
    assert "(registration c/web)" in written.message


BY_NAMESPACE = {"serviceNamePattern": "$(metadata.namespace)-*"}
REFUSING: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (BY_NAMESPACE, {}),
    ({"allowedNamespaces": {"names": ["b-shop"]}}, {}),
    ({"allowEndpoints": False}, {"taggedAddresses": {"other": {"address": "10.9.9.9", "port": 1}}}),
]


@pytest.mark.parametrize(("terms", "service"), REFUSING)
def test_who_is_refused_by_the_terms_keeps_nobody_from_a_name(terms: Any, service: Any) -> None:
    world = World(connection(**terms))
    squatter = named("a", FIRST, spec=of_pods(service={"name": "b-shop-web"} | service))
    owner = named("b-shop", SECOND, spec=of_pods(service={"name": "b-shop-web"}))
    for each in (squatter, owner):
        world.put(each)
    assert world.refusal(squatter) not in {None, "ServiceNameTaken"}
    assert world.refusal(owner) is None
    made = world.acceptance.name_of_pod(RegistrationKey("b-shop", "each"), "default", "uid-1", "b-shop-web")
    assert made is None


@pytest.mark.parametrize(("terms", "service"), REFUSING)
def test_once_the_terms_allow_it_the_older_one_has_its_name_again(terms: Any, service: Any) -> None:
    world = World(connection(**terms))
    old = named("a", FIRST, spec=of_pods(service={"name": "b-shop-web"} | service))
    young = named("b-shop", SECOND, spec=of_pods(service={"name": "b-shop-web"}))
    for each in (old, young):
        world.put(each)
    world.cache.connections["default"] = connection()
    assert world.acceptance.users("default") == {old.key, young.key}
    assert [world.refusal(each) for each in (old, young)] == [None, "ServiceNameTaken"]


@pytest.mark.parametrize(("follows", "reason"), [(True, "EndpointsNotAllowed"), (False, None)])
def test_a_check_that_goes_where_it_is_redirected_goes_to_addresses_of_its_own(follows: bool, reason: Any) -> None:
    led = named("a", spec=of_pods(checks=[{"name": "led", "http": {"followRedirects": follows}}]))
    for allowed in (True, False):
        world = World(connection(allowEndpoints=allowed))
        world.put(led)
        assert world.refusal(led) == (None if allowed else reason)


def test_a_label_whose_name_the_pattern_refuses_keeps_nobody_from_it() -> None:
    world = World(connection(**BY_NAMESPACE))
    each = of_pods(service={"name": "$(metadata.labels['svc'])"})
    squatter, owner = named("a", FIRST, spec=each), named("b", SECOND, spec=each)
    for found in (squatter, owner):
        world.put(found)
    judge = world.acceptance.name_of_pod
    refused = judge(squatter.key, "default", "uid-1", "b-web")
    assert refused is not None
    assert refused.code == "ServiceNameNotAllowed"
    assert judge(owner.key, "default", "uid-2", "b-web") is None


def test_refused_in_one_of_its_consuls_it_holds_its_name_in_none_and_those_of_all_are_judged_anew() -> None:
    world = World(connection("x"), connection("y", allowedNamespaces={"names": ["b"]}))
    squatter = named("a", FIRST, spec=of_pods(consulRefs=[{"name": "x"}, {"name": "y"}]))
    owner = named("b", SECOND, spec=of_pods(consulRefs=[{"name": "x"}]))
    for each in (squatter, owner):
        world.put(each)
    assert [world.refusal(each) for each in (squatter, owner)] == ["NamespaceNotAllowed", None]
    assert world.acceptance.users("y") == {squatter.key, owner.key}


def test_an_edit_by_which_another_is_refused_no_more_or_from_now_on_concerns_those_of_its_name() -> None:
    world, young = World(connection(allowEndpoints=False)), named("b", SECOND)
    addresses = {"taggedAddresses": {"other": {"address": "10.9.9.9", "port": 1}}}
    world.put(named("a", spec=of_pods(service=addresses), generation=1))
    world.put(young)
    assert world.refusal(young) is None
    assert world.put(named("a", generation=2)) == {young.key}
    assert world.refusal(young) == "ServiceNameTaken"


def test_a_namespace_concerns_its_own_those_a_pattern_may_give_to_it_and_who_shares_their_names() -> None:
    world = World(connection(**BY_NAMESPACE), connection("free"))
    own, longer, other = (
        named("shop-eu", name="own", spec=of_pods(service={"name": "shop-eu-x"})),
        named("shop", name="longer", spec=of_pods(service={"name": "Shop-EU-web"})),
        named("shop", name="other", spec=of_pods(service={"name": "shop-us-web"})),
    )
    made = named("bank", name="made", spec=of_pods(service={"name": "$(metadata.labels['svc'])"}))
    free = named("bank", name="free", spec=of_pods(service={"name": "shop-eu"}, consulRefs=[{"name": "free"}]))
    sharing = named("bank", name="sharing", spec=of_pods(service={"name": "shop-eu-x"}))
    for each in (own, longer, other, made, free, sharing):
        world.put(each)
    assert world.acceptance.concerned_by("shop-eu") == {own.key, longer.key, made.key, sharing.key}
    for gone in (longer, made):
        world.remove(gone)
    world.put(named("bank", name="sharing", spec=of_pods(service={"name": "bank"})))
    assert world.acceptance.concerned_by("shop-eu") == {own.key}
    world.remove(own)
    assert world.acceptance.concerned_by("shop-eu") == set()


class Unscanned(dict[Any, Any]):
    """May be asked for one of its entries, not for all."""

    def __iter__(self) -> Any:
        raise AssertionError("all registrations are looked through")

    items = keys = values = __iter__


@pytest.mark.parametrize("terms", [{}, {"serviceNamePattern": "$(metadata.namespace)-*"}])
def test_whom_a_namespace_concerns_is_found_without_a_look_at_all_registrations(terms: Any) -> None:
    world = World(connection(**terms))
    own = named("shop", spec=of_pods(service={"name": "shop-web"}))
    for each in (own, named("bank", spec=of_pods(service={"name": "bank-web"}))):
        world.put(each)
    world.cache.registrations = Unscanned(world.cache.registrations)
    assert world.acceptance.concerned_by("shop") == {own.key}


def test_unknown_registrations_are_forgotten_quietly() -> None:
    assert NameBook().remove(RegistrationKey("a", "b")) == set()
    assert not NameBook().holders("default", "web")


def test_a_registration_that_becomes_malformed_does_not_change_anothers_acceptance() -> None:
    """Its instances still stand under the name: another namespace's would be mixed with them (law 7)."""
    world, young = World(connection()), named("b", SECOND)
    world.put(named("a"))
    world.put(young)
    world.put(named("a", spec=MALFORMED))
    assert world.refusal(young) == "ServiceNameTaken"


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ({"name": "a", "tcp": {}}, ""),
        ({"name": "a", "tcp": {}, "deregisterCriticalServiceAfter": "1m"}, ""),
        (
            {"name": "a", "tcp": {}, "deregisterCriticalServiceAfter": "59s"},
            "checks[a].deregisterCriticalServiceAfter: 59s is below Consul's minimum, 1m is used",
        ),
    ],
)
def test_advice_says_what_is_accepted_but_not_meant(check: Any, said: str) -> None:
    assert advice(registration(of_pods(checks=[check]))) == said


@pytest.mark.parametrize(
    ("http", "by_esm", "said"),
    [
        ({}, [], ""),
        ({"followRedirects": True}, ["default"], ""),
        ({}, ["another"], ""),
        (
            {},
            ["default"],
            "checks[a].http: consul-esm, which runs it for Consul 'default', follows redirects all the same",
        ),
    ],
)
def test_advice_says_where_redirects_are_followed_that_should_not_be(http: Any, by_esm: list[str], said: str) -> None:
    assert advice(registration(of_pods(checks=[{"name": "a", "http": http}])), by_esm) == said


def test_there_is_no_advice_on_what_is_malformed() -> None:
    assert advice(registration(MALFORMED)) == ""
