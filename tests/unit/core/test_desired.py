"""What should stand in Consul for one subject, row by row of the table in `desired.py`, and every field of it."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from consul_registrar.changes import Cause
from consul_registrar.checks import checks_hash
from consul_registrar.desired import Absent, Kept, Orphaned, Present, desired
from consul_registrar.facts import Facts
from consul_registrar.model import META_HASH, Check, ContainerPort, Health, Instance, Owner
from consul_registrar.probes import HttpProbe, Readiness, TcpProbe, Timing
from unit.core.build import (
    HTTP,
    OLD,
    OWNER,
    PODS,
    endpoint,
    facts,
    instance,
    node,
    of_endpoint,
    of_endpoints,
    of_pods,
    pod,
    present,
    reason,
    registration,
)

MALFORMED: dict[str, Any] = {"pods": {}}
ORPHANING = of_pods(deletionPolicy="Orphan")
STANDING = (instance(),)
TERMINATING = pod(deleting=True)


def deleted(spec: Any = None) -> Any:
    return registration(spec, deletionTimestamp=OLD)


def registers(when: str) -> Any:
    return {"pods": PODS | {"register": when}}


def checks(*specs: Any, **fields: Any) -> tuple[Check, ...]:
    return instance(of_pods(checks=list(specs)), **fields).checks


def probe(spec: Any, **fields: Any) -> TcpProbe | HttpProbe:
    (check,) = checks({"name": "probe"} | spec, **fields)
    assert isinstance(check.probe, TcpProbe | HttpProbe)
    return check.probe


# --- presence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "known",
    [
        facts(),
        facts(MALFORMED),
        facts(of_pods(suspend=True)),
        facts(refused=reason()),
        facts(registration=None),
        facts(registration=deleted()),
        facts(registration=deleted(ORPHANING)),
        facts(place=reason("AgentDown")),
        facts({"pods": {"selector": {"matchLabels": {"app": "other"}}}}),
        facts(of_endpoints()),
        facts(of_pods(consulRefs=[{"name": "elsewhere"}])),
    ],
)
@pytest.mark.parametrize("standing", [(), STANDING])
@pytest.mark.parametrize("over", [TERMINATING, pod(phase="Succeeded"), pod(phase="Failed", ready=False)])
def test_a_pod_that_is_gone_is_absent_whatever_else_is_so(known: Facts, standing: Any, over: Any) -> None:
    want = desired(replace(known, pod=over, standing=standing))
    assert isinstance(want, Absent)
    assert (want.cause, want.reason.code, want.monotone) == (Cause.GONE, "PodGone", True)


@pytest.mark.parametrize(
    ("known", "cause", "code"),
    [
        (facts(pod=None, standing=STANDING), Cause.VANISHED, "PodGone"),
        (facts(pod=None, standing=STANDING, refused=reason()), Cause.VANISHED, "PodGone"),
        (facts(registration=None), Cause.VANISHED, "RegistrationGone"),
        (facts(registration=None, standing=STANDING), Cause.VANISHED, "RegistrationGone"),
        (of_endpoint(registration=None), Cause.VANISHED, "RegistrationGone"),
        (facts(registration=deleted()), Cause.REGISTRATION_DELETED, "RegistrationDeleted"),
        (facts(registration=deleted(MALFORMED)), Cause.REGISTRATION_DELETED, "RegistrationDeleted"),
        (facts(registration=deleted(), refused=reason()), Cause.REGISTRATION_DELETED, "RegistrationDeleted"),
        (of_endpoint(registration=deleted(of_endpoints())), Cause.REGISTRATION_DELETED, "RegistrationDeleted"),
        (facts(of_pods(consulRefs=[{"name": "other"}])), Cause.UNSELECTED, "NotReferenced"),
        (facts({"pods": {"selector": {"matchLabels": {"a": "b"}}}}), Cause.UNSELECTED, "NotSelected"),
        (facts(pod=pod(labels={"app": "db"})), Cause.UNSELECTED, "NotSelected"),
        (facts(pod=pod(namespace="other")), Cause.UNSELECTED, "NotSelected"),
        (facts(pod=None), Cause.UNSELECTED, "NotSelected"),
        (facts(of_endpoints()), Cause.UNSELECTED, "EndpointRemoved"),
        (of_endpoint("second"), Cause.UNSELECTED, "EndpointRemoved"),
    ],
)
def test_what_is_not_the_registrations_is_absent_with_its_cause(known: Facts, cause: Cause, code: str) -> None:
    want = desired(known)
    assert isinstance(want, Absent)
    assert (want.cause, want.reason.code) == (cause, code)


@pytest.mark.parametrize("cause", list(Cause))
def test_only_what_stays_true_for_ever_needs_no_confirmation(cause: Cause) -> None:
    assert Absent(cause, reason()).monotone is (cause is Cause.GONE)


@pytest.mark.parametrize("cause", list(Cause))
def test_only_what_a_person_asked_for_is_never_held(cause: Cause) -> None:
    assert Absent(cause, reason()).asked_for is (cause is Cause.REGISTRATION_DELETED)


@pytest.mark.parametrize("spec", [of_pods(), {"pods": {}}])
def test_a_deleted_registration_needs_no_pod_to_be_known(spec: Any) -> None:
    """Else its deletion would wait for a quarantine that has nothing to do with it."""
    want = desired(facts(registration=deleted(spec), pod=None, standing=STANDING))
    assert isinstance(want, Absent)
    assert want.cause is Cause.REGISTRATION_DELETED


@pytest.mark.parametrize("spec", [ORPHANING, of_pods(suspend=True)])
def test_a_deleted_registration_that_orphans_or_is_suspended_leaves_what_stands(spec: Any) -> None:
    assert desired(facts(registration=deleted(spec), standing=STANDING)) == Orphaned()


@pytest.mark.parametrize("standing", [(), STANDING])
def test_what_is_not_accepted_is_kept_as_it_stands(standing: Any) -> None:
    refusal = reason("ServiceNameTaken")
    assert desired(facts(refused=refusal, standing=standing)) == Kept(refusal, problem=True)


def test_a_malformed_registration_keeps_what_stands() -> None:
    want = desired(facts(MALFORMED, standing=STANDING))
    assert isinstance(want, Kept)
    assert (want.reason.code, want.problem) == ("InvalidSpec", True)


@pytest.mark.parametrize(
    ("when", "fields", "code"),
    [
        ("Running", {"node": ""}, "PodNotScheduled"),
        ("Running", {"ip": ""}, "PodHasNoAddress"),
        ("Running", {"phase": "Pending"}, "PodNotRunning"),
        ("Running", {"phase": ""}, "PodNotRunning"),
        ("Ready", {"phase": "Pending", "ready": False}, "PodNotRunning"),
        ("Ready", {"ready": False}, "PodNotReady"),
        ("Scheduled", {"node": "", "phase": "Pending"}, "PodNotScheduled"),
        ("Scheduled", {"ip": "", "phase": "Pending"}, "PodHasNoAddress"),
    ],
)
def test_a_pod_that_is_not_there_yet_waits(when: str, fields: Any, code: str) -> None:
    want = desired(facts(registers(when), pod=pod(**fields)))
    assert isinstance(want, Kept)
    assert (want.reason.code, want.problem) == (code, False)


@pytest.mark.parametrize(
    ("when", "fields"),
    [
        ("Running", {}),
        ("Running", {"ready": False}),
        ("Ready", {}),
        ("Scheduled", {"phase": "Pending", "ready": False}),
    ],
)
def test_a_pod_enters_when_the_spec_says(when: str, fields: Any) -> None:
    assert isinstance(desired(facts(registers(when), pod=pod(**fields))), Present)


@pytest.mark.parametrize("when", ["Running", "Ready", "Scheduled"])
@pytest.mark.parametrize("fields", [{"ready": False}, {"phase": "Unknown", "ready": False}, {"phase": "Pending"}])
def test_once_in_a_pod_stays_until_it_goes(when: str, fields: Any) -> None:
    assert isinstance(desired(facts(registers(when), pod=pod(**fields), standing=STANDING)), Present)


def test_without_a_place_the_reason_is_a_problem() -> None:
    assert desired(facts(place=reason("AgentDown"))) == Kept(reason("AgentDown"), problem=True)


@pytest.mark.parametrize(
    ("service", "fields", "code", "message"),
    [
        ({"port": "grpc"}, {}, "PortNotFound", "container port 'grpc' is not declared (declared names: http)"),
        ({"port": "http"}, {"ports": ()}, "PortNotFound", "(declared names: none)"),
        ({}, {"ports": ()}, "PortAmbiguous", "spec.service.port must name one: the Pod declares no TCP port"),
        ({}, {"ports": (ContainerPort("dns", 53, "UDP"),)}, "PortAmbiguous", "declares no TCP port"),
        ({}, {"ports": (HTTP, ContainerPort("", 9))}, "PortAmbiguous", "declares several (9, 8080)"),
        (
            {"tags": ["v-$(metadata.labels['v'])"]},
            {},
            "FieldPathNotFound",
            "spec.service.tags \"v-$(metadata.labels['v'])\": metadata.labels['v'] has no value",
        ),
        ({"meta": {"a": "$(metadata.annotations['v'])"}}, {}, "FieldPathNotFound", "spec.service.meta[a]: metadata."),
        ({"tags": ["$(node.metadata.labels['z'])"]}, {}, "FieldPathNotFound", "node.metadata.labels['z']"),
        ({"tags": ["$(status.hostIP)"]}, {"host_ip": ""}, "FieldPathNotFound", "status.hostIP"),
        ({"tags": ["$(metadata.labels['e'])"]}, {"labels": {"app": "web", "e": ""}}, "ValueInvalid", "1 to 255"),
        ({"tags": ["$(metadata.annotations['a'])"]}, {"annotations": {"a": "x" * 256}}, "ValueInvalid", "1 to 255"),
        ({"tags": ["$(metadata.annotations['a'])"]}, {"annotations": {"a": "a\nb"}}, "ValueInvalid", "printable"),
        ({"meta": {"m": "$(metadata.annotations['a'])"}}, {"annotations": {"a": "x" * 513}}, "ValueInvalid", "512"),
        ({"meta": {"m": "$(metadata.annotations['a'])"}}, {"annotations": {"a": "a\0"}}, "ValueInvalid", "printable"),
        ({"meta": {"m": "$(metadata.annotations['a'])"}}, {"annotations": {"a": "é" * 257}}, "ValueInvalid", "512"),
    ],
)
@pytest.mark.parametrize("standing", [(), STANDING])
def test_what_cannot_be_published_as_asked_is_a_problem_and_keeps_what_stands(
    service: Any, fields: Any, code: str, message: str, standing: Any
) -> None:
    want = desired(facts(of_pods(service=service), pod=pod(**fields), standing=standing))
    assert isinstance(want, Kept)
    assert (want.reason.code, want.problem) == (code, True)
    assert message in want.reason.message


def test_meta_must_leave_room_for_consuls_limit() -> None:
    service = {"meta": {f"s{i}": "x" for i in range(48)}}
    full = of_endpoints(endpoint(meta={f"e{i}": "x" for i in range(16)}), service=service)
    want = desired(of_endpoint(spec=full))
    assert isinstance(want, Kept)
    assert (want.reason.code, "must leave room" in want.reason.message) == ("ValueInvalid", True)


def test_the_literal_meta_of_an_endpoint_obeys_consuls_limit_too() -> None:
    want = desired(of_endpoint(spec=of_endpoints(endpoint(meta={"note": "é" * 257}))))
    assert isinstance(want, Kept)
    assert (want.reason.code, "meta[note]" in want.reason.message) == ("ValueInvalid", True)


def test_a_port_of_a_check_that_is_not_declared_is_a_problem() -> None:
    want = desired(facts(of_pods(checks=[{"name": "a", "tcp": {"port": "grpc"}}])))
    assert isinstance(want, Kept)
    assert want.reason.code == "PortNotFound"


# --- the instance's fields ------------------------------------------------------------------------------------------


def test_a_pods_instance_says_what_it_is_and_whose() -> None:
    found = instance()
    assert (found.node, found.service, found.address, found.port) == ("agent-1", "web", "10.0.0.1", 8080)
    assert dict(found.meta) == {
        "external-source": "kubernetes",
        "managed-by": "consul-registrar",
        "k8s-cluster": "prod",
        "k8s-connection": "default",
        "k8s-namespace": "shop",
        "k8s-registration": "web",
        "k8s-pod": "web-1",
        "k8s-pod-uid": "uid-web-1",
        "k8s-node": "node-1",
        META_HASH: checks_hash(found.checks),
    }
    assert (found.owner, found.subject) == (OWNER, "uid-web-1")


def test_an_endpoints_instance_says_what_it_is_and_whose() -> None:
    spec = of_endpoints(endpoint(meta={"role": "primary", "tier": "own"}), service={"meta": {"tier": "x", "a": "b"}})
    found = present(of_endpoint(spec=spec))
    assert (found.address, found.port, found.checks) == ("db.example.com", 5432, ())
    assert (found.owner, found.subject) == (OWNER, "primary")
    assert {"role": "primary", "tier": "own", "a": "b"}.items() <= dict(found.meta).items()
    assert not {"k8s-pod", "k8s-pod-uid", "k8s-node"} & dict(found.meta).keys()


@pytest.mark.parametrize(
    ("port", "expected"),
    [(9000, 9000), ("http", 8080), ("metrics", 9100), ("dns", 53)],
)
def test_a_port_is_a_number_or_looked_up(port: Any, expected: int) -> None:
    ports = (HTTP, ContainerPort("metrics", 9100), ContainerPort("dns", 53, "UDP"))
    assert instance(of_pods(service={"port": port}), pod=pod(ports=ports)).port == expected


def test_the_only_tcp_port_is_the_default_also_where_several_containers_or_protocols_name_it() -> None:
    ports = (ContainerPort("dns", 53, "UDP"), ContainerPort("a", 80), ContainerPort("b", 80))
    assert instance(pod=pod(ports=ports)).port == 80


def test_field_paths_are_looked_up_in_pod_and_node() -> None:
    texts = ["$(metadata.name)", "$(spec.nodeName)", "$(node.metadata.labels['zone'])", "$(status.hostIP)", "$$(x)"]
    found = instance(of_pods(service={"tags": texts}), node=node(labels={"zone": "z1"}))
    assert set(found.tags) == {"web-1", "node-1", "z1", "192.168.0.1", "$(x)"}


def test_without_a_known_node_a_default_stands_in() -> None:
    spec = of_pods(service={"tags": ["$(node.metadata.labels['zone']:-nowhere)"]})
    assert instance(spec, node=None).tags == ("nowhere",)


def test_tags_and_meta_are_sorted_and_tags_are_a_set() -> None:
    spec = of_pods(service={"tags": ["b", "a", "$(metadata.labels['b'])"], "meta": {"z": "1", "a": "2"}})
    found = instance(spec, pod=pod(labels={"app": "web", "b": "b"}))
    assert found.tags == ("a", "b")
    assert list(found.meta) == sorted(found.meta)


@pytest.mark.parametrize("value", ["", "é" * 256, "x" * 512])
def test_meta_takes_what_consul_takes(value: str) -> None:
    spec = of_pods(service={"meta": {"m": "$(metadata.annotations['a'])"}})
    assert instance(spec, pod=pod(annotations={"a": value})).meta_value("m") == value


# --- identity -------------------------------------------------------------------------------------------------------


def test_an_id_is_readable_and_stable() -> None:
    first = instance().id
    assert first.startswith("shop-web-web-1-")
    assert first == instance(of_pods(service={"tags": ["x"]}), pod=pod(ip="10.9.9.9"), place="agent-2").id


def test_what_stands_keeps_its_id() -> None:
    other = replace(instance(), id="from-an-older-version")
    assert instance(standing=(other,)).id == "from-an-older-version"


@pytest.mark.parametrize("fields", [{"node": "agent-2"}, {"service": "other"}])
def test_what_stands_elsewhere_or_under_another_name_does_not_give_its_id(fields: Any) -> None:
    other = replace(instance(), id="other", **fields)
    assert instance(standing=(other,)).id == instance().id


def test_a_new_service_name_is_another_instance() -> None:
    renamed = instance(of_pods(service={"name": "shop"}), standing=STANDING)
    assert renamed.id != STANDING[0].id


def test_a_same_named_successor_is_another_instance() -> None:
    assert instance(pod=pod(uid="1")).id != instance(pod=pod(uid="2")).id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Owner("a", "bc", "shop", "web"), Owner("ab", "c", "shop", "web")),
        (Owner("a", "b", "c-d", "e"), Owner("a", "b", "c", "d-e")),
        (Owner("prod", "default", "shop", "web"), Owner("test", "default", "shop", "web")),
        (Owner("prod", "default", "shop", "web"), Owner("prod", "other", "shop", "web")),
    ],
)
def test_no_two_owners_share_an_id(one: Owner, other: Owner) -> None:
    spec = of_endpoints(consulRefs=[{"name": name} for name in sorted({one.connection, other.connection})])
    found = {present(of_endpoint(spec=spec, owner=owner)).id for owner in (one, other)}
    assert len(found) == 2


def test_an_id_stays_short_enough_to_read() -> None:
    long = instance(pod=pod("p" * 253), owner=replace(OWNER, registration="r" * 253))
    assert len(long.id) <= 133


# --- checks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ready", "health"), [(True, Health.PASSING), (False, Health.CRITICAL)])
def test_unset_checks_mirror_the_pods_readiness(ready: bool, health: Health) -> None:
    found = instance(pod=pod(ready=ready))
    assert found.checks == (Check(f"{found.id}:readiness:readiness", "readiness", Readiness(), health),)
    assert found.health == health


def test_no_checks_are_none() -> None:
    assert checks() == ()
    assert instance(of_pods(checks=[])).health == Health.PASSING


def test_check_ids_hold_instance_name_and_kind() -> None:
    found = instance(
        of_pods(
            checks=[
                {"name": "a", "readiness": {}, "notes": "n"},
                {"name": "b", "tcp": {}},
                {"name": "c", "http": {}, "initialStatus": "warning"},
            ]
        )
    )
    assert [c.id.removeprefix(found.id) for c in found.checks] == [":a:readiness", ":b:tcp", ":c:http"]
    assert [c.status for c in found.checks] == [Health.PASSING, None, Health.WARNING]
    assert found.checks[0].notes == "n"


def test_a_tcp_check_opens_the_instances_own_port_by_default() -> None:
    assert probe({"tcp": {}}) == TcpProbe("10.0.0.1", 8080, Timing(interval=10_000, timeout=2_000))
    assert probe({"tcp": {"port": 9}}) == TcpProbe("10.0.0.1", 9, Timing(interval=10_000, timeout=2_000))


def test_an_http_check_gets_the_root_by_default() -> None:
    found = probe({"http": {}})
    assert found == HttpProbe(
        url="http://10.0.0.1:8080/",
        method="GET",
        headers=(),
        body="",
        tls_server_name="",
        tls_skip_verify=False,
        timing=Timing(interval=10_000, timeout=2_000),
    )


def test_an_http_check_is_what_the_spec_says() -> None:
    http = {
        "path": "/health?x=1",
        "port": "admin",
        "scheme": "https",
        "method": "POST",
        "headers": [{"name": "X-B", "value": "2"}, {"name": "X-A", "value": "1"}],
        "body": "{}",
        "tlsServerName": "web.example.com",
        "tlsSkipVerify": True,
        "followRedirects": True,
    }
    spec = of_pods(service={"port": 1}, checks=[{"name": "a", "http": http, "interval": "5s", "timeout": "500ms"}])
    found = instance(spec, pod=pod(ports=(HTTP, ContainerPort("admin", 9)))).checks[0].probe
    assert found == HttpProbe(
        url="https://10.0.0.1:9/health?x=1",
        method="POST",
        headers=(("X-A", "1"), ("X-B", "2")),
        body="{}",
        tls_server_name="web.example.com",
        tls_skip_verify=True,
        timing=Timing(interval=5_000, timeout=500),
        follow_redirects=True,
    )


def test_ipv6_addresses_stand_in_brackets_in_urls_only() -> None:
    six = pod(ip="2001:db8::1")
    http, tcp = probe({"http": {}}, pod=six), probe({"tcp": {}}, pod=six)
    assert isinstance(http, HttpProbe)
    assert isinstance(tcp, TcpProbe)
    assert http.url == "http://[2001:db8::1]:8080/"
    assert (tcp.host, instance(pod=six).address) == ("2001:db8::1", "2001:db8::1")


@pytest.mark.parametrize(
    ("given", "taken"),
    [(None, None), ("1s", 60_000), ("59s", 60_000), ("1m", 60_000), ("90s", 90_000), ("1h", 3_600_000)],
)
def test_consuls_minimum_of_a_minute_is_taken_for_less(given: str | None, taken: int | None) -> None:
    more = {} if given is None else {"deregisterCriticalServiceAfter": given}
    assert probe({"tcp": {}} | more).timing.deregister_after == taken


def test_thresholds_are_taken_over() -> None:
    spec = {"tcp": {}, "successBeforePassing": 2, "failuresBeforeWarning": 1, "failuresBeforeCritical": 3}
    timing = probe(spec).timing
    counts = (timing.success_before_passing, timing.failures_before_warning, timing.failures_before_critical)
    assert counts == (2, 1, 3)


def hashed(*specs: Any, **fields: Any) -> str:
    return instance(of_pods(checks=list(specs)), **fields).meta_value(META_HASH)


TCP: dict[str, Any] = {"name": "a", "tcp": {}}


@pytest.mark.parametrize(
    "same",
    [
        TCP | {"interval": "10s"},
        TCP | {"interval": "10000ms", "timeout": "2s"},
        TCP | {"tcp": {"port": "http"}},
        TCP | {"failuresBeforeCritical": 0},
    ],
)
def test_the_hash_is_that_of_the_meaning_not_of_the_words(same: Any) -> None:
    assert hashed(same) == hashed(TCP)


@pytest.mark.parametrize(
    "other",
    [
        TCP | {"name": "b"},
        TCP | {"interval": "11s"},
        TCP | {"timeout": "1s"},
        TCP | {"tcp": {"port": 1}},
        TCP | {"notes": "x"},
        TCP | {"initialStatus": "passing"},
        TCP | {"deregisterCriticalServiceAfter": "1m"},
        {"name": "a", "http": {}},
        {"name": "a", "readiness": {}},
    ],
)
def test_the_hash_tells_definitions_apart(other: Any) -> None:
    assert hashed(other) != hashed(TCP)


def test_the_hash_is_versioned_and_says_whether_the_agent_may_reap() -> None:
    assert hashed(TCP).startswith("1-")
    assert hashed(TCP | {"deregisterCriticalServiceAfter": "5m"}).startswith("1r-")


def test_readiness_is_no_part_of_the_hash() -> None:
    readiness = {"name": "a", "readiness": {}}
    assert hashed(readiness, pod=pod(ready=False)) == hashed(readiness, pod=pod(ready=True))


def test_the_hash_of_one_definition_never_changes() -> None:
    """Another value here rewrites every check in every Consul at an upgrade: raise the hash's version then."""
    known = (Check("id:readiness:readiness", "readiness", Readiness(), Health.PASSING),)
    assert checks_hash(known) == "1-43ecb8afe09e8f53"


def test_an_instance_without_owner_in_its_meta_is_foreign() -> None:
    assert Instance("n", "i", "s", "a", 1).owner is None
    assert replace(instance(), meta=(("managed-by", "consul-registrar"),)).owner is None
    foreign = tuple((k, "somebody" if k == "managed-by" else v) for k, v in instance().meta)
    assert replace(instance(), meta=foreign).owner is None


@pytest.mark.parametrize("notes", ["", 'says "ready" \\ or not', "tab\t, ünïcödé, \u2028 and \x7f"])
def test_the_hash_of_a_readiness_check_is_that_of_its_json_with_sorted_keys(notes: str) -> None:
    check = Check("web-1:ready:readiness", "ready", Readiness(), Health.PASSING, notes)
    written = [{"id": check.id, "name": check.name, "probe": {}, "status": None, "notes": notes}]
    digest = hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:16]
    assert checks_hash((check,)) == f"1-{digest}"
    assert checks_hash((check, check)) != checks_hash((check,))
