"""The cluster as last seen: which registrations a Pod concerns, and what is remembered of Pods that went."""

from dataclasses import replace
from typing import Any

import pytest

from consul_registrar import cache as module
from consul_registrar.cache import Cache
from consul_registrar.model import RegistrationKey
from unit.core.build import KEY, of_endpoints, of_pods, pod, registration


def cache(*registrations: Any) -> Cache:
    made = Cache()
    for each in registrations or (registration(),):
        made.put_registration(each)
    return made


def test_a_new_pod_concerns_the_registrations_that_select_it() -> None:
    assert cache().put_pod(pod()) == {KEY}
    assert cache().put_pod(pod(labels={"app": "db"})) == set()


def test_a_selector_never_leaves_its_namespace() -> None:
    made = cache()
    assert made.put_pod(pod(namespace="other")) == set()
    assert made.selected(KEY) == set()


def test_a_relabelled_pod_concerns_those_that_selected_it_and_those_that_do() -> None:
    other = registration({"pods": {"selector": {"matchLabels": {"app": "db"}}}}, name="db")
    made = cache(registration(), other)
    made.put_pod(pod())
    assert made.put_pod(pod(labels={"app": "db"})) == {KEY, other.key}
    assert made.selected(KEY) == set()
    assert made.selected(other.key) == {pod().uid}


def test_a_deleted_pod_is_remembered_as_deleting_and_no_longer_selected() -> None:
    made = cache()
    made.put_pod(pod())
    assert made.delete_pod(pod().uid) == {KEY}
    gone = replace(pod(), deleting=True, deleted=True, labels={}, annotations={}, ports=())
    assert made.pod(pod().uid) == gone
    assert (made.selected(KEY), dict(made.pods())) == (set(), {})


def test_a_vanished_pod_proves_nothing_and_is_forgotten() -> None:
    made = cache()
    made.put_pod(pod())
    assert made.forget_pod(pod().uid) == {KEY}
    assert made.pod(pod().uid) is None


def test_unknown_pods_concern_nobody() -> None:
    made = cache()
    assert made.delete_pod("nobody") == made.forget_pod("nobody") == set()
    assert made.pod("nobody") is None


def test_a_pod_that_is_seen_again_is_not_deleted() -> None:
    made = cache()
    made.put_pod(pod())
    made.delete_pod(pod().uid)
    made.put_pod(pod(version=2))
    assert made.pod(pod().uid) == pod(version=2)


def test_only_so_many_deleted_pods_are_remembered_the_latest_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    made = cache()
    for name in "abc":
        made.put_pod(pod(name))
        made.delete_pod(pod(name).uid)
    assert [made.pod(pod(name).uid) is not None for name in "abc"] == [False, True, True]


def test_ten_thousand_pods_that_go_while_nobody_can_clean_up_are_all_known_to_be_gone() -> None:
    made = cache()
    names = [f"web-{number}" for number in range(20_000)]
    for name in names:
        made.put_pod(pod(name))
    for name in names:
        made.delete_pod(pod(name).uid)
    found = [made.pod(pod(name).uid) for name in names]
    assert all(one is not None and one.gone for one in found)


def test_a_pod_is_compared_with_few_selectors_however_many_share_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    selectors = [{"matchLabels": {"component": "web", "name": f"shop-{number}"}} for number in range(200)]
    made = cache(*(registration(of_pods(pods={"selector": s}), name=f"r{n}") for n, s in enumerate(selectors)))
    compared: list[Any] = []
    select = module.selects
    monkeypatch.setattr(module, "selects", lambda *of: compared.append(of) or select(*of))
    assert made.put_pod(pod(labels={"component": "web", "name": "shop-77"})) == {RegistrationKey("shop", "r77")}
    assert len(compared) <= 3
    for number in range(200):
        made.remove_registration(RegistrationKey("shop", f"r{number}"))
    assert made.put_pod(pod(version=2)) == set()


def test_a_registration_that_becomes_malformed_keeps_its_pods_so_that_those_that_go_are_noticed() -> None:
    made = cache()
    made.put_pod(pod())
    made.put_registration(registration({"pods": {}}))
    assert made.selected(KEY) == {pod().uid}


def test_a_registration_that_no_longer_selects_selects_nothing() -> None:
    made = cache()
    made.put_pod(pod())
    made.put_registration(registration(of_endpoints()))
    assert (made.selecting(pod()), made.selected(KEY)) == (set(), set())
    assert KEY in made.registrations


def test_a_removed_registration_selects_nothing() -> None:
    made = cache()
    made.remove_registration(KEY)
    made.remove_registration(RegistrationKey("no", "body"))
    assert (made.put_pod(pod()), made.registrations) == (set(), {})


def test_our_own_status_is_noted_for_the_object_it_was_written_to_only() -> None:
    made = cache()
    made.note_status(KEY, "another-uid", {"a": 1})
    assert made.registrations[KEY].status == {}
    made.note_status(KEY, registration().meta.uid, {"a": 1})
    assert made.registrations[KEY] == replace(registration(of_pods()), status={"a": 1})
    made.note_status(RegistrationKey("no", "body"), "uid", {})
    assert RegistrationKey("no", "body") not in made.registrations


def test_nothing_is_left_of_what_went() -> None:
    made = cache(registration(), registration(of_endpoints(), name="db"))
    made.put_pod(pod())
    made.put_registration(registration({"pods": {"selector": {"matchLabels": {"app": "other"}}}}))
    assert [*made._selectors[KEY.namespace].by_label] == [("app", "other")]
    made.forget_pod(pod().uid)
    made.remove_registration(KEY)
    made.remove_registration(registration(name="db").key)
    indexes = made._pods_in, made._pods_on, made._selectors, made._publishing, made._publications
    assert not any(indexes)
