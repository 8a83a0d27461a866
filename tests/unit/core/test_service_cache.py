"""Which Services there are, what stands behind them, and who publishes them; whatever comes in whatever order."""

from consul_registrar.model import RegistrationKey
from consul_registrar.service_cache import ServiceCache
from consul_registrar.services import NO_BACKENDS, Backends
from unit.core.build import KEY, of_pods, of_service, registration, service, slices

NAME = ("shop", "web-lb")


def test_endpoints_may_come_before_their_service() -> None:
    cache = ServiceCache()
    cache.put_slice(slices(node_1=True))
    assert cache.named(*NAME) is None
    cache.put(service())
    found = cache.named(*NAME)
    assert found is not None
    assert found.backends == Backends({"node-1": True})
    assert cache.exposed("uid-web-lb") == found


def test_each_slice_counts_until_it_goes() -> None:
    cache = ServiceCache()
    cache.put_slice(slices(node_1=True))
    cache.put_slice(slices(part="b", node_1=False, node_2=False))
    assert cache.backends(*NAME) == Backends({"node-1": True, "node-2": False})
    cache.put_slice(slices(version=2, node_1=False))
    assert not cache.backends(*NAME).ready
    assert cache.remove_slice("uid-web-lb-b") == NAME
    assert cache.backends(*NAME) == Backends({"node-1": False})
    assert cache.remove_slice("uid-web-lb-a") == NAME
    assert cache.remove_slice("uid-web-lb-a") is None
    assert cache.backends(*NAME) is NO_BACKENDS


def test_a_slice_whose_label_was_edited_is_of_another_service() -> None:
    cache = ServiceCache()
    cache.put_slice(slices(node_1=True))
    moved = slices("other", node_1=True)
    cache.put_slice(type(moved)("uid-web-lb-a", "shop", "other", 2, moved.nodes))
    assert (cache.backends(*NAME), cache.backends("shop", "other").ready) == (NO_BACKENDS, True)


def test_a_service_that_was_seen_deleted_is_remembered_as_that() -> None:
    cache = ServiceCache()
    cache.put(service())
    cache.delete("uid-web-lb")
    found = cache.exposed("uid-web-lb")
    assert found is not None
    assert found.service.deleting
    assert cache.named(*NAME) is None
    assert len(cache) == 0


def test_one_that_vanished_is_not() -> None:
    cache = ServiceCache()
    cache.put(service())
    cache.forget("uid-web-lb")
    assert cache.exposed("uid-web-lb") is None
    assert cache.delete("uid-web-lb") is None


def test_a_successors_name_is_its_own_although_the_end_of_the_other_is_heard_later() -> None:
    cache = ServiceCache()
    cache.put(service())
    cache.put(service(uid="successor"))
    cache.delete("uid-web-lb")
    found = cache.named(*NAME)
    assert found is not None
    assert found.service.uid == "successor"


def test_who_publishes_a_service_is_known_before_the_service() -> None:
    cache = ServiceCache()
    cache.put_registration(registration(of_service()))
    assert cache.publishing(*NAME) == {KEY}
    assert cache.published() == [NAME]
    cache.put_registration(registration({"kubernetesService": {"name": "other", "publish": "ClusterIP"}}))
    assert (cache.publishing(*NAME), cache.publishing("shop", "other")) == (frozenset(), {KEY})
    cache.put_registration(registration(of_pods()))
    assert cache.published() == []
    cache.remove_registration(RegistrationKey("nobody", "knows"))
