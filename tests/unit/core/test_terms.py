"""A connection's terms: names that a pattern gives to namespaces, checks that go too far, defaults."""

from typing import Any

import pytest

from consul_registrar.addresses import dialled
from consul_registrar.api.connection import CheckPolicy, Defaults
from consul_registrar.cache import Cache
from consul_registrar.model import Check, Health, Namespace, Node, Weights
from consul_registrar.probes import TcpProbe, Timing
from consul_registrar.terms import CheckTerms, owner_by_pattern, refused_check, with_defaults
from unit.core.build import NOW, OLD, body, endpoint, instance, node, of_endpoints, of_pods, pod, registration, spec_of
from unit.core.instant import instantly
from unit.core.shell import World
from unit.core.situations import HELD, passes

BY_NAMESPACE = "$(metadata.namespace)-*"


@pytest.mark.parametrize(
    ("pattern", "service", "namespace", "owner"),
    [
        (BY_NAMESPACE, "shop-web", "shop", "shop"),
        (BY_NAMESPACE, "web", "shop", None),
        (BY_NAMESPACE, "bank-web", "shop", None),
        (BY_NAMESPACE, "shop-eu-web", "shop", "shop-eu"),
        (BY_NAMESPACE, "shop-eu-web", "shop-eu", "shop-eu"),
        (BY_NAMESPACE, "shop-us-web", "shop", "shop"),
        ("k8s-$(metadata.namespace)-*", "k8s-shop-web", "shop", "shop"),
        ("k8s-$(metadata.namespace)-*", "shop-web", "shop", None),
        ("k8s-*", "k8s-anything", "shop", "shop"),
        ("k8s-*", "other", "shop", None),
        ("a.b", "aXb", "shop", None),
        ("$(metadata.namespace)", "shop", "shop", "shop"),
        (BY_NAMESPACE, "shop-EU-web", "shop", "shop-eu"),
        ("K8s-$(metadata.namespace)-*", "K8s-shop-Eu-web", "shop", "shop-eu"),
        (BY_NAMESPACE, "Shop-web", "shop", None),
    ],
)
def test_a_pattern_gives_a_name_to_the_namespace_with_the_longest_name_that_fits(
    pattern: str, service: str, namespace: str, owner: str | None
) -> None:
    assert owner_by_pattern(pattern, service, namespace, {"shop", "shop-eu", "bank"}) == owner


def terms(**policy: Any) -> CheckTerms:
    return CheckTerms(CheckPolicy.model_validate(policy), nodes={"192.168.0.1"}, consul={"consul.example.com"})


def refusal(check: Any, address: str = "db.example.com", **policy: Any) -> str | None:
    spec = of_endpoints(endpoint(address=address), checks=[{"name": "probe"} | check])
    found = refused_check(instance(spec, pod=None, subject="primary").checks, terms(**policy))
    return found.message if found else None


@pytest.mark.parametrize(
    ("check", "policy", "must"),
    [
        ({"udp": {}}, {"types": ["tcp", "http"]}, "its type must be one of tcp, http, not udp"),
        ({"http": {"method": "POST"}}, {}, "its method must be one of GET, HEAD, not POST"),
        ({"tcp": {"port": 22}}, {"ports": [{"first": 80}, {"first": 5000, "last": 6000}]}, "not 22"),
        ({"http": {"port": 22}}, {"ports": [{"first": 80}]}, "not 22"),
        ({"http": {"followRedirects": True}}, {}, "it must not follow redirects"),
    ],
)
def test_a_check_that_goes_too_far_is_refused_with_what_must_be(check: Any, policy: Any, must: str) -> None:
    message = refusal(check, **policy)
    assert message is not None
    assert message.startswith("check 'probe': ")
    assert must in message


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("127.0.0.1", "a loopback address"),
        ("127.8.9.1", "a loopback address"),
        ("localhost", "a loopback address"),
        ("::1", "a loopback address"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("169.254.169.254", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("192.168.0.1", "the address of a node"),
        ("Consul.Example.com", "an address of Consul"),
    ],
)
@pytest.mark.parametrize("check", [{"tcp": {}}, {"http": {}}, {"grpc": {}}, {"udp": {}}, {"h2ping": {}}])
def test_addresses_that_are_nobodys_business_are_not_probed(address: str, what: str, check: Any) -> None:
    message = refusal(check, address)
    assert message is not None
    assert what in message
    assert refusal(check, address, refusedAddresses=[]) is None


@pytest.mark.parametrize("check", [{"tcp": {}}, {"http": {}}, {"ttl": {"ttl": "30s"}}, {"alias": {"serviceId": "x"}}])
def test_other_checks_pass(check: Any) -> None:
    assert refusal(check, "10.1.2.3") is None
    assert refusal(check) is None


def test_redirects_are_followed_only_where_the_policy_says_so() -> None:
    assert refusal({"http": {"followRedirects": True}}, redirects="Allow") is None
    assert refusal({"http": {"followRedirects": False}}, redirects="Refuse") is None


def test_readiness_is_a_type_too() -> None:
    refused = refused_check(instance().checks, terms(types=["tcp"]))
    assert refused is not None
    assert "not readiness" in refused.message


DEFAULTS = Defaults.model_validate(
    {
        "tags": ["k8s", "zone-$(metadata.labels['zone']:-none)"],
        "meta": {"team": "platform", "env": "prod"},
        "weights": {"passing": 5},
        "checks": [{"name": "port", "tcp": {}}],
    }
)


def published(spec: Any) -> Any:
    made = with_defaults(registration(spec), DEFAULTS)
    return instance(registration=made, pod=pod(labels={"app": "web", "zone": "a"}))


def test_defaults_go_under_what_a_registration_says() -> None:
    service = {"tags": ["own"], "meta": {"team": "shop"}, "weights": {"warning": 3}}
    found = published(of_pods(service=service, checks=[{"name": "ready", "readiness": {}}]))
    assert found.tags == ("k8s", "own", "zone-a")
    assert (found.meta_value("team"), found.meta_value("env")) == ("shop", "prod")
    assert found.weights == Weights(1, 3)
    assert [check.name for check in found.checks] == ["ready"]


def test_defaults_are_all_there_is_where_a_registration_says_nothing() -> None:
    found = published(of_pods())
    assert (found.weights, [check.name for check in found.checks]) == (Weights(5, 1), ["port"])
    assert published(of_pods(checks=[])).checks == ()


def test_endpoints_take_no_checks_by_default_and_what_is_malformed_nothing() -> None:
    assert spec_of(with_defaults(registration(of_endpoints()), DEFAULTS)).checks is None
    malformed = registration({"pods": {}})
    assert with_defaults(malformed, DEFAULTS) is malformed
    assert with_defaults(registration(), None).spec == registration().spec


@instantly
async def test_an_edit_of_the_terms_reaches_what_stands_and_keeps_it_where_it_is_refused() -> None:
    world = World()
    async with world.running():
        world.apply(body(of_pods(checks=[{"name": "port", "tcp": {}}]), **HELD))
        world.run_pod(pod())
        await passes(3)
        world.connect("default", defaults={"tags": ["k8s"]})
        world.apply(body(of_pods(checks=[{"name": "port", "tcp": {}}]), generation=4, **HELD))
        await passes(3)
        assert [i.tags for i in world.consul.held] == [("k8s",)]
        world.connect("default", checkPolicy={"types": ["http"]})
        world.run_pod(pod(version=2, ip="10.0.0.9"))
        await passes(3)
    assert world.cluster.ready == ("False", "CheckNotAllowed")
    assert [(i.address, i.tags) for i in world.consul.held] == [("10.0.0.1", ("k8s",))]


@instantly
async def test_a_name_that_does_not_fit_is_not_accepted() -> None:
    world = World(default={"serviceNamePattern": BY_NAMESPACE})
    for name in ("shop", "shop-eu"):
        world.namespaces.put(Namespace(f"uid-{name}", name, 1, {}))
    async with world.running():
        world.apply(body(of_pods(service={"name": "shop-eu-web"}), **HELD, creationTimestamp=OLD))
        world.run_pod(pod())
        await passes(3)
        assert (world.consul.held, world.cluster.ready) == ([], ("False", "ServiceNameNotAllowed"))
        assert "it fits namespace 'shop-eu' too" in world.cluster.statuses[-1][1]["conditions"][1]["message"]
        world.apply(body(of_pods(service={"name": "shop-web"}), generation=4, **HELD, creationTimestamp=NOW))
        await passes(3)
    assert [i.health for i in world.consul.held] == [Health.PASSING]


@instantly
async def test_a_namespace_that_comes_takes_the_names_that_the_pattern_gives_to_it_until_it_goes() -> None:
    """What stands stays; only nothing is added or changed any more."""
    world, eu = World(default={"serviceNamePattern": BY_NAMESPACE}), Namespace("uid-eu", "shop-eu", 1, {})
    world.namespaces.put(Namespace("uid-shop", "shop", 1, {}))
    async with world.running():
        world.apply(body(of_pods(service={"name": "shop-eu-web"}), **HELD))
        world.run_pod(pod())
        await passes(3)
        assert world.cluster.ready == ("True", "Registered")
        world.namespaces.put(eu)
        await passes(3)
        assert world.cluster.ready == ("False", "ServiceNameNotAllowed")
        assert len(world.consul.held) == 1
        world.namespaces.remove(eu.uid)
        await passes(3)
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_the_rightful_owner_of_a_name_gets_it_from_whom_the_terms_refuse_and_what_stood_stays() -> None:
    world = World()
    async with world.running():
        world.apply(body(of_pods(service={"name": "bank-web"}), **HELD, creationTimestamp=OLD))
        world.run_pod(pod())
        world.apply(body(of_pods(service={"name": "Bank-web"}), namespace="bank", **HELD, creationTimestamp=NOW))
        world.run_pod(pod("theirs", namespace="bank", uid="uid-theirs"))
        await passes(3)
        assert [i.service for i in world.consul.held] == ["bank-web"]
        world.connect("default", allowedNamespaces={"names": ["bank"]})
        world.reconsider()
        await passes(40)
    assert sorted(i.service for i in world.consul.held) == ["Bank-web", "bank-web"]
    assert [type(change).__name__ for change in world.consul.written] == ["Register", "Register"]


@pytest.mark.parametrize(
    ("host", "what"),
    [
        ("::ffff:10.0.0.5", "the address of a node"),
        ("fd00:0::5", "the address of a node"),
        ("FD00::5", "the address of a node"),
        ("::ffff:10.0.0.9", "an address of Consul"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("::0", "a loopback address"),
        ("0.0.0.0", "a loopback address"),
        ("::ffff:169.254.169.254", "a link-local address"),
        ("127.1", "a loopback address"),
        ("2130706433", "a loopback address"),
        ("0x7f.1", "a loopback address"),
        ("0X7F000001", "a loopback address"),
        ("0177.0.0.01", "a loopback address"),
        ("127.0.0.1.", "a loopback address"),
        ("0", "a loopback address"),
        ("app.localhost", "a loopback address"),
        ("169.16689662", "a link-local address"),
        ("10.5", "the address of a node"),
        ("012.0.0.011", "an address of Consul"),
    ],
)
def test_another_way_of_writing_an_address_is_no_way_past_the_policy(host: str, what: str) -> None:
    terms = CheckTerms(CheckPolicy(), frozenset({"10.0.0.5", "fd00::5"}), frozenset({"10.0.0.9"}))
    [check] = (Check("c:port:tcp", "port", TcpProbe(host, 80, Timing(5000, 1000))),)
    refused = refused_check((check,), terms)
    assert refused is not None
    assert what in refused.message


@pytest.mark.parametrize(
    "name", ["127.0.0.1.example.com", "1.2.3.4.5", "256.1", "1.2.3.256", "08.1", "0x", "4294967296", "a"]
)
def test_what_no_resolver_reads_as_an_address_is_a_name(name: str) -> None:
    assert dialled(name) is None


@pytest.mark.parametrize(
    ("refused_addresses", "port", "refused"),
    [
        (["Consul"], 8501, True),
        (["Consul"], 8080, False),
        (["Node"], 8501, True),
        (["Node"], 8080, True),
        (["Loopback"], 8501, False),
    ],
)
def test_the_agents_on_the_nodes_are_addresses_of_consul(refused_addresses: Any, port: int, refused: bool) -> None:
    policy = CheckPolicy.model_validate({"refusedAddresses": refused_addresses})
    check = Check("c:port:tcp", "port", TcpProbe("10.0.0.5", port, Timing(5000, 1000)))
    terms = CheckTerms(policy, {"10.0.0.5"}, agent_port=8501)
    assert (refused_check((check,), terms) is not None) is refused


@instantly
async def test_a_connection_to_the_agents_on_the_nodes_lets_nobody_probe_them() -> None:
    policy = {"refusedAddresses": ["Consul"]}
    world = World(default={"addresses": None, "nodeAgents": {"port": 8501}, "checkPolicy": policy})
    world.nodes.put(node(addresses={"InternalIP": "192.168.0.1"}))
    async with world.running():
        probes = [{"name": "agent", "tcp": {"port": 8501}}]
        world.apply(body(of_endpoints(endpoint(address="192.168.0.1"), checks=probes), **HELD))
        await passes(3)
    assert (world.consul.held, world.cluster.ready) == ([], ("False", "CheckNotAllowed"))


def test_all_addresses_of_a_node_are_known_however_many_there_are_of_a_kind() -> None:
    cache = Cache()
    cache.nodes["n"] = Node("u", "n", 1, {}, {"InternalIP": "10.0.0.6"}, ("10.0.0.6", "FD00:0::6"))
    assert cache.node_addresses == {"10.0.0.6", "fd00::6"}


@instantly
async def test_an_endpoint_named_like_a_pod_is_told_nothing_of_it() -> None:
    """UIDs are no secret: they stand in Consul."""
    world = World()
    async with world.running():
        world.run_pod(pod("web-1", namespace="secret", uid="u-1", annotations={"key": "hidden, all of it"}))
        spec = of_endpoints(endpoint("u-1")) | {"service": {"name": "x-$(metadata.annotations['key'])"}}
        world.apply(body(spec, **HELD))
        await passes(3)
        world.pods.put(pod("web-1", namespace="secret", uid="u-1", version=2, deleting=True))
        await passes(3)
    assert "hidden" not in str(world.cluster.statuses)
    assert world.cluster.statuses
