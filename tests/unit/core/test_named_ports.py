"""Named ports: what each name stands for, which is the default, what checks may name; and what is without them."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from consul_registrar.api.registration import ServiceRegistrationSpec
from consul_registrar.changes import Cause, Register
from consul_registrar.checks import checks_hash
from consul_registrar.consul.errors import Invalid
from consul_registrar.consul.named_ports import explained, refuse_unknown
from consul_registrar.consul.wire import ServiceRow, held
from consul_registrar.desired import Kept, Present, desired
from consul_registrar.model import ContainerPort, Instance, NamedPort, Reason
from consul_registrar.plan import plan
from consul_registrar.services import Backends, Exposed, ServicePort
from unit.core.build import (
    endpoint,
    facts,
    instance,
    of_address,
    of_endpoint,
    of_endpoints,
    of_pods,
    of_service,
    pod,
    present,
    service,
)

BOTH = {"http": "http", "admin": 9090}
TWO = {"ports": BOTH, "defaultPort": "http"}
HOSTED = (ContainerPort("http", 8080, host_port=30080), ContainerPort("admin", 9090, host_port=30090))
TCP = {"name": "port", "tcp": {}, "interval": "5s"}
HTTP = {"name": "health", "http": {"path": "/health", "port": "http"}, "deregisterCriticalServiceAfter": "2m"}


def numbers(made: Instance) -> dict[str, int]:
    assert [port.name for port in made.ports if port.default] == ["http"], "Consul wants exactly one"
    return {port.name: port.port for port in made.ports}


def test_names_stand_for_numbers_or_container_ports_and_the_default_is_the_port() -> None:
    made = instance(of_pods(service=TWO))
    assert (made.port, made.ports) == (8080, (NamedPort("admin", 9090), NamedPort("http", 8080, default=True)))


def test_a_single_one_is_the_default() -> None:
    assert instance(of_pods(service={"ports": {"web": 80}})).ports == (NamedPort("web", 80, default=True),)


def test_on_a_node_they_are_host_ports() -> None:
    spec = of_pods(service=TWO, pods={"selector": {"matchLabels": {"app": "web"}}, "address": "HostIP"})
    assert numbers(instance(spec, pod=pod(ports=HOSTED))) == {"http": 30080, "admin": 30090}


def test_those_of_a_service_are_its_own_and_on_nodes_its_node_ports() -> None:
    several = (ServicePort("http", 80, node_port=30080), ServicePort("admin", 81, node_port=30081))
    known = Exposed(service(ports=several), Backends({"node-1": True}))
    ports = {"ports": {"http": "http", "other": 81}, "defaultPort": "http"}
    at = present(of_address("203.0.113.7", of_service(service=ports), exposed=known))
    on = present(of_address("node-1", of_service("NodePort", service=ports), exposed=known))
    assert (numbers(at), numbers(on)) == ({"http": 80, "other": 81}, {"http": 30080, "other": 30081})


def test_an_endpoint_brings_its_own() -> None:
    own = endpoint(port=None, ports={"http": 80, "grpc": 90}, defaultPort="http")
    del own["port"]
    checks = [{"name": "rpc", "tcp": {"port": "grpc"}}, {"name": "port", "tcp": {}}]
    made = present(of_endpoint(spec=of_endpoints(own, checks=checks)))
    assert (made.port, numbers(made)) == (80, {"http": 80, "grpc": 90})
    assert [getattr(check.probe, "port", 0) for check in made.checks] == [90, 80]


def test_checks_may_name_one_and_go_to_the_default_else() -> None:
    checks = [{"name": name, "tcp": port} for name, port in (("a", {"port": "admin"}), ("b", {}), ("c", {"port": 1}))]
    made = instance(of_pods(service=TWO, checks=checks))
    assert [getattr(check.probe, "port", 0) for check in made.checks] == [9090, 8080, 1]


def test_a_check_may_name_one_whatever_its_length() -> None:
    """Containers' names end at 15 characters, these don't."""
    name = "https-webhook-metrics"
    spec = of_pods(service={"ports": {name: 9090}}, checks=[{"name": "a", "tcp": {"port": name}}])
    assert getattr(instance(spec).checks[0].probe, "port", 0) == 9090


def test_a_name_of_the_registration_goes_before_that_of_a_container_port() -> None:
    spec = of_pods(service={"ports": {"http": 9090}}, checks=[{"name": "a", "tcp": {"port": "http"}}])
    assert getattr(instance(spec).checks[0].probe, "port", 0) == 9090


def test_a_name_that_no_container_has_is_a_problem() -> None:
    want = desired(facts(of_pods(service={"ports": {"http": "none"}})))
    assert isinstance(want, Kept)
    assert want.reason.code == "PortNotFound"


def test_a_check_that_names_what_an_endpoint_has_not_is_a_problem() -> None:
    own = {"name": "primary", "address": "192.0.2.1", "ports": {"http": 80}}
    want = desired(of_endpoint(spec=of_endpoints(own, checks=[{"name": "a", "tcp": {"port": "grpc"}}])))
    assert isinstance(want, Kept)
    assert (want.reason.code, "declared names: http" in want.reason.message) == ("PortNotFound", True)


@pytest.mark.parametrize(
    ("service", "must"),
    [
        ({"port": 80, "ports": {"a": 1}}, "at most one of port and ports"),
        ({"ports": {"a": 1, "b": 2}}, "must have a defaultPort out of ports"),
        ({"ports": {"a": 1, "b": 2}, "defaultPort": "c"}, "must have a defaultPort out of ports"),
        ({"defaultPort": "c"}, "must have a defaultPort out of ports"),
        ({"ports": {"A_b": 1}}, "must have names of at most 63"),
    ],
)
def test_there_is_exactly_one_way_to_say_it(service: Any, must: str) -> None:
    with pytest.raises(ValueError, match=must):
        ServiceRegistrationSpec.model_validate(of_pods(service=service))


# --- what differs -----------------------------------------------------------------------------------------------------

NAMED = instance(of_pods(service=TWO))


@pytest.mark.parametrize(
    "ports",
    [(), NAMED.ports[:1], (NamedPort("admin", 1), NAMED.ports[1]), (NamedPort("admin", 9090, default=True),)],
)
def test_ports_that_somebody_edits_are_written_again_and_no_check_is_begun_anew(ports: Any) -> None:
    (change,) = plan(Present(NAMED), [replace(NAMED, ports=ports)])
    assert isinstance(change, Register)
    assert (change.instance.ports, change.define, change.cause) == (NAMED.ports, (), Cause.EDITED)


def test_as_the_catalog_tells_of_them_and_as_an_agent_does_they_are_the_same() -> None:
    rows = [
        ServiceRow("i", "web", Port=port, Ports=({"Name": "b", "Port": 2}, {"Name": "a", "Port": 1, "Default": True}))
        for port in (0, 1)
    ]

    (catalog, agent) = (msgspec.convert(msgspec.to_builtins(row), ServiceRow) for row in rows)
    assert held("n", catalog, ()) == held("n", agent, ())
    assert held("n", catalog, ()).instance.port == 1


# --- what has none ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "instance_id", "digest", "port"),
    [
        (
            facts(of_pods(checks=[{"name": "ready", "readiness": {}}, TCP, HTTP])),
            "shop-web-web-1-234f43a97a16",
            "1r-ee07ab833c3b4b9f",
            8080,
        ),
        (
            of_endpoint(spec=of_endpoints(endpoint(), checks=[TCP])),
            "shop-web-primary-69e3b26f52fb",
            "1-da191cf0f1abea4a",
            5432,
        ),
        (
            of_address("203.0.113.7", of_service(checks=[{"name": "readiness", "readiness": {}}, HTTP])),
            "shop-web-web-lb-203.0.113.7-3ede6391a8e4",
            "1r-011ef2e9e917bf1f",
            80,
        ),
    ],
    ids=["pod", "endpoint", "service"],
)
def test_what_an_operator_without_named_ports_wrote_is_left_as_it_is(
    known: Any, instance_id: str, digest: str, port: int
) -> None:
    """IDs and hashes as that version made them, and read back as Consul has them: nothing is to be written."""
    made = present(known)
    assert (made.id, checks_hash(made.checks), made.port, made.ports) == (instance_id, digest, port, ())
    row = ServiceRow(made.id, made.service, made.address, made.port, made.tags, dict(made.meta))
    stands = replace(held(made.node, row, ()).instance, checks=tuple(replace(c, probe=None) for c in made.checks))
    assert plan(Present(made), [stands]) == ()


# --- what a Consul knows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "known"),
    [("1.22.0", True), ("1.22.7+ent", True), ("2.0.0", True), ("", True), ("1.21.4", False), ("1.9.17", False)],
)
def test_who_is_too_old_is_not_given_them(version: str, known: bool) -> None:
    refuse_unknown(replace(NAMED, ports=()), version)
    if known:
        refuse_unknown(NAMED, version)
        return
    with pytest.raises(Invalid) as refused:
        refuse_unknown(NAMED, version)
    assert refused.value.reason.code == "NamedPortsUnsupported"
    assert version in refused.value.reason.message


def test_a_refusal_of_the_field_says_so_and_any_other_stays_what_it_is() -> None:
    codes = [
        explained(Invalid(Reason("InvalidRequest", said))).reason.code
        for said in ('json: unknown field "Ports"', "Invalid service address")
    ]
    assert codes == ["NamedPortsUnsupported", "InvalidRequest"]
