"""What should stand in Consul for one subject, row by row of the table in `desired.py`."""

from dataclasses import replace
from typing import Any

import pytest

from consul_registrar.changes import Cause
from consul_registrar.desired import Absent, Kept, Orphaned, Present, desired
from consul_registrar.facts import Facts
from consul_registrar.model import ContainerPort
from unit.core.build import (
    HTTP,
    OLD,
    PODS,
    endpoint,
    facts,
    instance,
    of_endpoint,
    of_endpoints,
    of_pods,
    pod,
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


def test_a_port_of_a_check_that_is_not_declared_is_a_problem() -> None:
    want = desired(facts(of_pods(checks=[{"name": "a", "tcp": {"port": "grpc"}}])))
    assert isinstance(want, Kept)
    assert want.reason.code == "PortNotFound"
