"""A Kubernetes Service as a source: which addresses are published, how each looks, when one goes, what is said."""

from dataclasses import replace
from typing import Any

import pytest

from consul_registrar.changes import Cause, Deregister, Feed
from consul_registrar.desired import Absent, Kept, Orphaned, Present, desired
from consul_registrar.exposure import lack, subjects
from consul_registrar.model import Health
from consul_registrar.outcomes import name_of
from consul_registrar.plan import plan
from consul_registrar.service_cache import source_of
from consul_registrar.services import CLUSTER_IP, Backends, Exposed, ServicePort, parts_of, together
from unit.core.build import (
    OLD,
    OWNER,
    node,
    of_address,
    of_endpoints,
    of_pods,
    of_service,
    pod,
    present,
    reason,
    registration,
    service,
    slices,
)

SOMEWHERE = Backends({"node-1": True, "node-2": False, "": True})
DUAL = service(
    cluster_ips=("10.96.0.10", "fd00::a"),
    ingress=("203.0.113.7", "2001:db8::7", "lb.example.com"),
    external_ips=("198.51.100.4", "2001:db8::4"),
)
SEVERAL = (ServicePort("http", 80, node_port=30080), ServicePort("admin", 81), ServicePort("dns", 53, "UDP", 30053))


def addresses(publish: str, known: Any = None, family: str | None = None, behind: Backends = SOMEWHERE) -> list[str]:
    source = source_of(registration(of_service(publish, family=family)))
    assert source is not None
    return sorted(parts_of(each)[1] for each in subjects(source, Exposed(known or service(), behind)))


# --- which addresses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("publish", "known", "family", "published"),
    [
        ("ClusterIP", service(), None, [CLUSTER_IP]),
        ("ClusterIP", DUAL, "IPv6", [CLUSTER_IP]),
        ("ClusterIP", service(cluster_ips=("None",)), None, []),
        ("ClusterIP", service(type="ExternalName", cluster_ips=()), None, []),
        ("LoadBalancer", service(), None, ["203.0.113.7"]),
        ("LoadBalancer", service(ingress=()), None, []),
        ("LoadBalancer", service(type="ClusterIP"), None, []),
        ("LoadBalancer", DUAL, None, ["2001:db8::7", "203.0.113.7", "lb.example.com"]),
        ("LoadBalancer", DUAL, "IPv4", ["203.0.113.7", "lb.example.com"]),
        ("LoadBalancer", DUAL, "IPv6", ["2001:db8::7", "lb.example.com"]),
        ("ExternalIP", DUAL, None, ["198.51.100.4", "2001:db8::4"]),
        ("ExternalIP", DUAL, "IPv6", ["2001:db8::4"]),
        ("ExternalIP", service(type="ClusterIP"), None, ["198.51.100.4"]),
        ("ExternalIP", service(external_ips=()), None, []),
        ("NodePort", service(), None, ["node-1", "node-2"]),
        ("NodePort", service(type="NodePort", local=True), None, ["node-1", "node-2"]),
        ("NodePort", service(ports=(ServicePort("http", 80),)), None, []),
        ("NodePort", service(deleting=True), None, []),
        ("LoadBalancer", service(deleting=True), None, []),
    ],
)
def test_each_address_of_the_wanted_kind_is_a_subject(
    publish: str, known: Any, family: str | None, published: list[str]
) -> None:
    assert addresses(publish, known, family) == published


def test_slices_of_one_service_are_taken_together() -> None:
    found = together([slices(node_1=False, node_2=True), slices(part="b", node_1=True, node_3=False)])
    assert found == Backends({"node-1": True, "node-2": True, "node-3": False})
    assert found.ready


# --- how each looks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("publish", "which", "address", "port"),
    [
        ("ClusterIP", CLUSTER_IP, "10.96.0.10", 80),
        ("LoadBalancer", "203.0.113.7", "203.0.113.7", 80),
        ("ExternalIP", "198.51.100.4", "198.51.100.4", 80),
        ("NodePort", "node-1", "192.168.0.1", 30080),
    ],
)
def test_an_instance_has_the_address_and_port_of_its_kind(publish: str, which: str, address: str, port: int) -> None:
    made = present(of_address(which, of_service(publish)))
    assert (made.service, made.address, made.port) == ("web", address, port)


def test_its_meta_says_which_service_it_stands_for_and_which_address() -> None:
    made = present(of_address("203.0.113.7"))
    meta = dict(made.meta)
    assert (meta["k8s-service"], meta["k8s-service-uid"], meta["k8s-endpoint"]) == (
        "web-lb",
        "uid-web-lb",
        "203.0.113.7",
    )
    assert not meta.keys() & {"k8s-pod", "k8s-pod-uid", "k8s-node"}
    assert (made.owner, made.subject) == (OWNER, "uid-web-lb/203.0.113.7")


def test_on_a_node_port_it_says_the_node() -> None:
    made = present(of_address("node-1", of_service("NodePort")))
    assert made.meta_value("k8s-node") == "node-1"
    assert made.subject == "uid-web-lb/node-1"


def test_an_address_of_ipv6_makes_a_readable_id_without_colons() -> None:
    made = present(of_address("2001:db8::7", exposed=Exposed(DUAL, SOMEWHERE)))
    assert made.id.startswith("shop-web-web-lb-2001-db8--7-")
    assert made.address == "2001:db8::7"


@pytest.mark.parametrize(("family", "address"), [(None, "10.96.0.10"), ("IPv4", "10.96.0.10"), ("IPv6", "fd00::a")])
def test_the_family_chooses_the_cluster_ip(family: str | None, address: str) -> None:
    known = of_address(CLUSTER_IP, of_service("ClusterIP", family=family), exposed=Exposed(DUAL, SOMEWHERE))
    assert present(known).address == address


def test_the_family_chooses_the_nodes_address() -> None:
    both = node(addresses={"InternalIP": "192.168.0.1"}, ips=("192.168.0.1", "fd00::1"))
    assert present(of_address("node-1", of_service("NodePort", family="IPv6"), node=both)).address == "fd00::1"


@pytest.mark.parametrize(
    ("port", "published", "on_node"), [("http", 80, 30080), (80, 80, 30080), ("dns", 53, 30053), (53, 53, 30053)]
)
def test_the_port_is_one_of_the_services_by_name_or_number(port: Any, published: int, on_node: int) -> None:
    exposed = Exposed(service(ports=SEVERAL), SOMEWHERE)
    spec = {"service": {"port": port}}
    assert present(of_address("203.0.113.7", of_service(**spec), exposed=exposed)).port == published
    assert present(of_address("node-1", of_service("NodePort", **spec), exposed=exposed)).port == on_node


def test_the_names_of_a_services_ports_may_be_longer_than_those_of_containers() -> None:
    name = "https-webhook-metrics"
    exposed = Exposed(service(ports=(*SEVERAL, ServicePort(name, 443))), SOMEWHERE)
    checks = [{"name": "a", "tcp": {"port": name}}]
    found = present(of_address("203.0.113.7", of_service(service={"port": name}, checks=checks), exposed=exposed))
    assert (found.port, getattr(found.checks[0].probe, "port", 0)) == (443, 443)


@pytest.mark.parametrize(
    ("publish", "which", "port", "code", "says"),
    [
        ("LoadBalancer", "203.0.113.7", None, "PortAmbiguous", "http 80/TCP, admin 81/TCP, dns 53/UDP"),
        ("LoadBalancer", "203.0.113.7", 8080, "PortNotFound", "port 8080 is not one of the Service's"),
        ("LoadBalancer", "203.0.113.7", "web", "PortNotFound", "port 'web' is not one of the Service's"),
        ("NodePort", "node-1", "admin", "NodePortNotFound", "the port 81 of the Service has no nodePort"),
    ],
)
def test_a_port_that_it_does_not_have_is_a_problem_and_keeps_what_stands(
    publish: str, which: str, port: Any, code: str, says: str
) -> None:
    exposed = Exposed(service(ports=SEVERAL), SOMEWHERE)
    want = desired(of_address(which, of_service(publish, service={"port": port}), exposed=exposed))
    assert isinstance(want, Kept)
    assert (want.problem, want.reason.code) == (True, code)
    assert says in want.reason.message


@pytest.mark.parametrize(
    ("at", "family", "says"),
    [
        (node(), None, "the node node-1 has no InternalIP (none is known)"),
        (node(addresses={"InternalIP": "192.168.0.1"}), "IPv6", "the node node-1 has no IPv6 address (192.168.0.1)"),
    ],
)
def test_a_node_without_the_wanted_address_is_a_problem(at: Any, family: str | None, says: str) -> None:
    want = desired(of_address("node-1", of_service("NodePort", family=family), node=at))
    assert isinstance(want, Kept)
    assert (want.reason.code, says in want.reason.message) == ("AddressNotFound", True)


def test_a_cluster_ip_of_the_other_family_only_is_a_problem() -> None:
    want = desired(of_address(CLUSTER_IP, of_service("ClusterIP", family="IPv6")))
    assert isinstance(want, Kept)
    assert want.reason.code == "AddressNotFound"


def test_texts_take_the_fields_of_the_service_and_on_a_node_port_those_of_the_node() -> None:
    texts = ["$(metadata.name)", "$(metadata.labels['v'])", "$(metadata.annotations['a'])"]
    on_node = ["$(spec.nodeName)", "$(node.metadata.labels['zone'])", "$(status.hostIP)"]
    exposed = Exposed(service(labels={"v": "2"}, annotations={"a": "b"}), SOMEWHERE)
    at = node(addresses={"InternalIP": "192.168.0.1"}, labels={"zone": "z1"})
    made = present(
        of_address("node-1", of_service("NodePort", service={"tags": texts + on_node}), exposed=exposed, node=at)
    )
    assert made.tags == ("192.168.0.1", "2", "b", "node-1", "web-lb", "z1")
    want = desired(of_address("203.0.113.7", of_service(service={"tags": on_node[:1]}), exposed=exposed))
    assert isinstance(want, Kept)
    assert want.reason.code == "FieldPathNotFound"


# --- how healthy it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("publish", "which", "local", "nodes", "health"),
    [
        ("LoadBalancer", "203.0.113.7", False, {"node-2": True}, Health.PASSING),
        ("LoadBalancer", "203.0.113.7", True, {"node-2": True}, Health.PASSING),
        ("LoadBalancer", "203.0.113.7", False, {"node-2": False}, Health.CRITICAL),
        ("LoadBalancer", "203.0.113.7", False, {}, Health.CRITICAL),
        ("LoadBalancer", "203.0.113.7", False, {"": True}, Health.PASSING),
        ("ClusterIP", CLUSTER_IP, False, {"node-1": False}, Health.CRITICAL),
        ("NodePort", "node-1", False, {"node-1": False, "node-2": True}, Health.PASSING),
        ("NodePort", "node-1", True, {"node-1": False, "node-2": True}, Health.CRITICAL),
        ("NodePort", "node-1", True, {"node-1": True, "node-2": False}, Health.PASSING),
    ],
)
def test_it_passes_while_something_ready_stands_behind_that_it_leads_to(
    publish: str, which: str, local: bool, nodes: dict[str, bool], health: Health
) -> None:
    known = of_address(which, of_service(publish), exposed=Exposed(service(local=local), Backends(nodes)))
    (check,) = present(known).checks
    assert (check.name, check.status) == ("readiness", health)


def test_probes_go_to_the_address_that_is_published_and_its_ports() -> None:
    checks = [{"name": "a", "tcp": {}}, {"name": "b", "tcp": {"port": "dns"}}, {"name": "c", "readiness": {}}]
    spec = of_service("NodePort", checks=checks, service={"port": "http"})
    made = present(of_address("node-1", spec, exposed=Exposed(service(ports=SEVERAL), SOMEWHERE)))
    probed = [(c.probe.host, c.probe.port) for c in made.checks if hasattr(c.probe, "port")]  # type: ignore[union-attr]
    assert probed == [("192.168.0.1", 30080), ("192.168.0.1", 30053)]
    assert [c.name for c in made.checks] == ["a", "b", "c"]


def test_no_checks_means_none() -> None:
    assert present(of_address("203.0.113.7", of_service(checks=[]))).checks == ()


# --- when one goes --------------------------------------------------------------------------------------------------

STANDING = (present(of_address("203.0.113.7")),)


@pytest.mark.parametrize(
    ("known", "cause", "code"),
    [
        ({"exposed": Exposed(service(deleting=True), SOMEWHERE)}, Cause.GONE, "KubernetesServiceGone"),
        ({"exposed": None}, Cause.VANISHED, "KubernetesServiceGone"),
        ({"exposed": Exposed(service(ingress=()), SOMEWHERE)}, Cause.UNSELECTED, "AddressRemoved"),
        ({"exposed": Exposed(service(type="ClusterIP"), SOMEWHERE)}, Cause.UNSELECTED, "AddressRemoved"),
        ({"exposed": Exposed(service("other", uid="uid-web-lb"), SOMEWHERE)}, Cause.UNSELECTED, "NotSelected"),
        ({"spec": of_service("ClusterIP")}, Cause.UNSELECTED, "AddressRemoved"),
        ({"spec": of_pods()}, Cause.UNSELECTED, "NotSelected"),
        ({"spec": of_endpoints()}, Cause.UNSELECTED, "EndpointRemoved"),
        ({"registration": None}, Cause.VANISHED, "RegistrationGone"),
    ],
)
def test_why_an_address_is_absent(known: dict[str, Any], cause: Cause, code: str) -> None:
    want = desired(of_address("203.0.113.7", **({"standing": STANDING} | known)))
    assert isinstance(want, Absent)
    assert (want.cause, want.reason.code, want.monotone) == (cause, code, cause is Cause.GONE)


def test_a_pod_is_absent_from_a_registration_of_a_service() -> None:
    stands = (present(of_address("203.0.113.7")),)
    want = desired(replace(of_address("x", exposed=None), subject="uid-web-1", pod=pod(), standing=stands[:0]))
    assert isinstance(want, Absent)
    assert want.cause is Cause.UNSELECTED


@pytest.mark.parametrize("known", [{"refused": reason("ServiceNameTaken")}, {"place": reason("AgentDown")}])
def test_a_gone_service_leaves_nothing_whatever_else_is_so(known: dict[str, Any]) -> None:
    exposed = Exposed(service(deleting=True), SOMEWHERE)
    facts = of_address("203.0.113.7", exposed=exposed, standing=STANDING, **known)
    assert plan(desired(facts), facts.standing) == (Deregister(STANDING[0], Cause.GONE),)


def test_a_refused_registration_keeps_its_addresses() -> None:
    exposed = Exposed(service(ingress=()), SOMEWHERE)
    want = desired(of_address("203.0.113.7", refused=reason("ServiceNameTaken"), exposed=exposed, standing=STANDING))
    assert isinstance(want, Kept)


def test_deleted_it_may_be_orphaned() -> None:
    leaving = registration(of_service(deletionPolicy="Orphan"), deletionTimestamp=OLD)
    assert isinstance(desired(of_address("203.0.113.7", registration=leaving, standing=STANDING)), Orphaned)


def test_an_address_that_is_taken_away_is_critical_before_it_is_removed() -> None:
    (stands,) = STANDING
    facts = of_address("203.0.113.7", exposed=Exposed(service(ingress=()), SOMEWHERE), standing=STANDING)
    feed, removal = plan(desired(facts), facts.standing)
    assert isinstance(feed, Feed)
    assert (feed.check.id, feed.check.status) == (stands.checks[0].id, Health.CRITICAL)
    assert removal == Deregister(stands, Cause.UNSELECTED)


def test_an_address_stays_the_same_instance_when_the_way_to_publish_it_is_another() -> None:
    """A load balancer's address that is an external IP as well."""
    exposed = Exposed(service(external_ips=("203.0.113.7",)), SOMEWHERE)
    want = desired(of_address("203.0.113.7", of_service("ExternalIP"), exposed=exposed, standing=STANDING))
    assert want == Present(STANDING[0])


def test_people_call_it_by_the_service_and_its_address() -> None:
    assert name_of(of_address("203.0.113.7")) == "web-lb at 203.0.113.7"
    assert name_of(of_address("203.0.113.7", exposed=None, standing=STANDING)) == "web-lb at 203.0.113.7"
    assert name_of(of_address(CLUSTER_IP, of_service("ClusterIP"))) == "web-lb"


# --- what is said where there is none -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("publish", "known", "family", "code", "problem"),
    [
        ("LoadBalancer", None, None, "KubernetesServiceNotFound", True),
        ("LoadBalancer", service(deleting=True), None, "KubernetesServiceNotFound", True),
        ("ClusterIP", service(cluster_ips=("None",)), None, "HeadlessService", True),
        ("ClusterIP", service(type="ExternalName", cluster_ips=()), None, "ServiceTypeMismatch", True),
        ("LoadBalancer", service(ingress=()), None, "LoadBalancerPending", False),
        ("LoadBalancer", service(type="NodePort", ingress=()), None, "ServiceTypeMismatch", True),
        ("LoadBalancer", service(), "IPv6", "AddressNotFound", True),
        ("ExternalIP", service(external_ips=()), None, "ServiceTypeMismatch", True),
        ("ExternalIP", service(), "IPv6", "AddressNotFound", True),
        ("NodePort", service(), None, "NoEndpoints", False),
        ("NodePort", service(type="ClusterIP", ports=(ServicePort("http", 80),)), None, "ServiceTypeMismatch", True),
    ],
)
def test_why_nothing_of_a_service_is_published(
    publish: str, known: Any, family: str | None, code: str, problem: bool
) -> None:
    source = source_of(registration(of_service(publish, family=family)))
    assert source is not None
    found = lack(source, Exposed(known, Backends({})) if known else None)
    assert found is not None
    assert (found.reason.code, found.problem) == (code, problem)
    assert "'web-lb'" in found.reason.message or "the Service has no" in found.reason.message


def test_what_is_published_lacks_nothing() -> None:
    source = source_of(registration(of_service()))
    assert source is not None
    assert lack(source, Exposed(service(), Backends({}))) is None
