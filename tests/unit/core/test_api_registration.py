"""The rules of a ServiceRegistration's spec: what is refused, and the sentence that says why."""

from typing import Any

import pytest

from consul_registrar import objects
from consul_registrar.api.base import milliseconds
from consul_registrar.model import Reason
from unit.core.build import PODS, body, endpoint, of_endpoints, of_pods, registration, spec_of

PORT = "must be a number from 1 to 65535, without quotes, or the name of a port"
BYTES = "must be at most 512 bytes long in UTF-8"
LABEL = "must have labels' keys: at most 63 characters out of A-Z a-z 0-9 - _ ."
PRINTABLE = "must be printable characters"
RESERVED = "must not have keys that are reserved"
KEYS = "must have keys of at most 128 characters out of A-Z a-z 0-9 _ -"
PATHS = "must be text with field paths such as $(metadata.labels['app'])"
VALUES = "must have values with In and NotIn, and none with Exists and DoesNotExist"


def tcp(**fields: Any) -> dict[str, Any]:
    return {"name": "port", "tcp": {}} | fields


def http(**fields: Any) -> dict[str, Any]:
    return {"name": "health", "http": fields}


def service(**fields: Any) -> dict[str, Any]:
    return of_pods(service=fields)


def exposes(**fields: Any) -> dict[str, Any]:
    return {"kubernetesService": {"name": "web-lb"} | fields}


def checked(*checks: Any) -> dict[str, Any]:
    return of_pods(checks=list(checks))


def selected(**selector: Any) -> dict[str, Any]:
    return {"pods": {"selector": selector}}


def required(operator: str, *values: str) -> dict[str, Any]:
    return selected(matchExpressions=[{"key": "env", "operator": operator, "values": list(values)}])


@pytest.mark.parametrize(
    "spec",
    [
        of_pods(),
        of_endpoints(),
        of_pods(suspend=True),
        of_pods(deletionPolicy="Orphan"),
        of_pods(consulRefs=[{"name": "a"}, {"name": "b.example.com"}]),
        {"pods": PODS | {"register": "Ready"}},
        {"pods": PODS | {"register": "Scheduled"}},
        required("In", "prod"),
        required("Exists"),
        required("NotIn", "", "a", "A-b_c.d", "x" * 63),
        selected(matchLabels={"app.kubernetes.io/name": "web", "A_b.c": "", "a" * 63: "1"}),
        service(name="Web_1.x"),
        service(name="$(metadata.labels['app'])-web"),
        service(name="a" * 128),
        service(port=1),
        service(port=65535),
        service(port="http-2"),
        service(port="8080-tcp"),
        service(port="a" * 63),
        service(tags=["a", "$(metadata.labels['x']:-none)"]),
        service(meta={"a-b_C": "$(spec.nodeName)"}),
        service(tags=["na\u00efve \U0001f4a5"], meta={"a": '{{ x }}; "y"'}),
        service(meta={"a": "\u00e9" * 256, "b": "$(metadata.name:-" + "\u00e9" * 300 + ")"}),
        of_endpoints(endpoint(meta={"a": "\u00e9" * 256})),
        service(weights={"passing": 1, "warning": 0}),
        checked(),
        checked({"name": "ready", "readiness": {}}),
        checked(tcp(tcp={"port": "http"}, interval="1s", timeout="100ms")),
        checked(tcp(interval="1h", timeout="1m", deregisterCriticalServiceAfter="720h")),
        checked(tcp(failuresBeforeWarning=2, failuresBeforeCritical=2)),
        checked(tcp(initialStatus="passing", notes="x" * 512)),
        checked(http(path="/a?b=c", scheme="https", method="HEAD", headers=[{"name": "X-A", "value": "b"}])),
        of_endpoints(endpoint(address="2001:db8::1"), endpoint("second", address="10.0.0.1", meta={"role": "x"})),
        of_endpoints(checks=[tcp(tcp={"port": 80}), http(port=81)]),
        exposes(publish="LoadBalancer"),
        exposes(publish="NodePort", ipFamily="IPv6") | {"service": {"port": "http"}},
        exposes(publish="ClusterIP") | {"checks": [{"name": "r", "readiness": {}}, tcp(tcp={"port": "http"})]},
        exposes(publish="ExternalIP", name="a" * 63),
    ],
)
def test_what_is_well_formed_is_taken(spec: Any) -> None:
    assert spec_of(registration(spec))


@pytest.mark.parametrize(
    ("spec", "where", "message"),
    [
        ({}, "spec", "must have exactly one of pods, endpoints and"),
        (of_pods() | of_endpoints(), "spec", "must have exactly one of pods, endpoints and"),
        (of_pods() | exposes(publish="ClusterIP"), "spec", "must have exactly one of pods, endpoints and"),
        (of_endpoints() | exposes(publish="ClusterIP"), "spec", "must have exactly one of pods, endpoints and"),
        (exposes(), "spec.kubernetesService.publish", "Field required"),
        (exposes(publish="Ingress"), "spec.kubernetesService.publish", "'LoadBalancer', 'NodePort'"),
        (exposes(publish="ClusterIP", name="Web"), "spec.kubernetesService.name", "should match pattern"),
        (exposes(publish="ClusterIP", name="a" * 64), "spec.kubernetesService.name", "at most 63 characters"),
        (exposes(publish="ClusterIP", ipFamily="Both"), "spec.kubernetesService.ipFamily", "'IPv4' or 'IPv6'"),
        (of_endpoints(service={"port": 80}), "spec", "must not have service.port or service.ports with endpoints"),
        (
            of_endpoints(checks=[{"name": "r", "readiness": {}}]),
            "spec",
            "must not have a readiness check",
        ),
        (of_endpoints(checks=[tcp(tcp={"port": "http"})]), "spec", "must have numbers for the ports of checks"),
        (of_endpoints(checks=[http(port="http")]), "spec", "must have numbers for the ports of checks"),
        (of_pods(unknown=1), "spec.unknown", "Extra inputs are not permitted"),
        (of_pods(consulRefs=[]), "spec.consulRefs", "at least 1 item"),
        (of_pods(consulRefs=[{"name": "Not-lower"}]), "spec.consulRefs[0].name", "should match pattern"),
        (of_pods(consulRefs=[{"name": f"c{i}"} for i in range(9)]), "spec.consulRefs", "at most 8 items"),
        (of_pods(deletionPolicy="Keep"), "spec.deletionPolicy", "'Deregister' or 'Orphan'"),
        (selected(), "spec.pods.selector", "must have at least one of matchLabels and matchExpressions"),
        (selected(matchLabels={}), "spec.pods.selector", "an empty selector would take everything"),
        (required("In"), "spec.pods.selector.matchExpressions[0]", VALUES),
        (required("NotIn"), "spec.pods.selector.matchExpressions[0]", VALUES),
        (required("Exists", "x"), "spec.pods.selector.matchExpressions[0]", VALUES),
        (required("DoesNotExist", "x"), "spec.pods.selector.matchExpressions[0]", VALUES),
        (required("Near", "x"), "spec.pods.selector.matchExpressions[0].operator", "'In', 'NotIn'"),
        (required("In", "a b"), "spec.pods.selector.matchExpressions[0].values[0]", "should match pattern"),
        (selected(matchLabels={"app": "-a"}), "spec.pods.selector.matchLabels.app", "should match pattern"),
        *(
            (selected(matchLabels={key: "x"}), "spec.pods.selector.matchLabels", LABEL)
            for key in ("", "a b", "-a", "/a", "A.com/a", "a/b/c", "a" * 64, "a\n", "\u00e9", "$(metadata.name)")
        ),
        ({"pods": PODS | {"register": "Now"}}, "spec.pods.register", "'Running', 'Ready' or 'Scheduled'"),
        (service(name="Consul"), "spec.service.name", "must not be 'consul': that service is Consul's own"),
        (service(name="consul"), "spec.service.name", "must not be 'consul': that service is Consul's own"),
        (service(name="web-$(oops)"), "spec.service.name", "must be letters, digits, dots"),
        (service(name="web $"), "spec.service.name", "must be letters, digits, dots"),
        (service(name="-web"), "spec.service.name", "must be letters, digits, dots"),
        (service(name="web\n"), "spec.service.name", "must be letters, digits, dots"),
        (service(name="a" * 129), "spec.service.name", "at most 128 characters"),
        (service(port=0), "spec.service.port", PORT),
        (service(port=65536), "spec.service.port", PORT),
        (service(port="HTTP"), "spec.service.port", PORT),
        (service(port="a" * 64), "spec.service.port", PORT),
        (service(port="http\n"), "spec.service.port", PORT),
        (service(port="8080"), "spec.service.port", PORT),
        (service(port="80-90"), "spec.service.port", PORT),
        (service(ports={"http": "8080"}), "spec.service.ports.http", PORT),
        (service(ports={"8080": 8080}), "spec.service.ports", "with a letter"),
        (exposes() | {"service": {"port": "80"}}, "spec.service.port", PORT),
        (of_endpoints(endpoint(port=None, ports={"8080": 80})), "spec.endpoints[0].ports", "with a letter"),
        *(
            (checked({"name": "port", kind: {"port": "8080"}}), f"spec.checks[0].{kind}.port", PORT)
            for kind in ("tcp", "http", "grpc", "udp", "h2ping")
        ),
        (service(tags=[""]), "spec.service.tags[0]", "at least 1 character"),
        (service(tags=["a", "$(nope)"]), "spec.service.tags[1]", PATHS),
        (service(tags=["a\r\nb"]), "spec.service.tags[0]", "should match pattern"),
        (service(tags=["\u202egnp.exe"]), "spec.service.tags[0]", PRINTABLE),
        (service(meta={"a": "b\0"}), "spec.service.meta.a", "should match pattern"),
        (service(meta={"a": "\u2028"}), "spec.service.meta.a", PRINTABLE),
        (service(weights={"passing": 0}), "spec.service.weights", "must have passing from 1 on"),
        (service(tags=["x"] * 65), "spec.service.tags", "at most 64 items"),
        (service(meta={"a": "$("}), "spec.service.meta.a", PATHS),
        (service(meta={"a": "x" * 513}), "spec.service.meta.a", "at most 512 characters"),
        (service(meta={"a": "\u00e9" * 257}), "spec.service.meta.a", BYTES),
        (of_endpoints(endpoint(meta={"a": "\u00e9" * 257})), "spec.endpoints[0].meta.a", BYTES),
        (of_endpoints(endpoint(meta={"a": "$(x" + "\u00e9" * 256})), "spec.endpoints[0].meta.a", BYTES),
        (service(meta={"": "x"}), "spec.service.meta", KEYS),
        (service(meta={"a b": "x"}), "spec.service.meta", KEYS),
        (service(meta={"a\n": "x"}), "spec.service.meta", KEYS),
        (service(meta={"a" * 129: "x"}), "spec.service.meta", KEYS),
        *((service(meta={key: "x"}), "spec.service.meta", RESERVED) for key in ("k8s-pod", "k8s-", "consul-x")),
        *((service(meta={k: "x"}), "spec.service.meta", RESERVED) for k in ("external-source", "managed-by")),
        (service(meta={"orphaned-from": "x"}), "spec.service.meta", RESERVED),
        (service(meta={f"k{i}": "x" for i in range(49)}), "spec.service.meta", "at most 48 items"),
        (of_endpoints(endpoint(meta={"k8s-pod": "x"})), "spec.endpoints[0].meta", RESERVED),
        (of_endpoints(endpoint(meta={"a": "b\nc"})), "spec.endpoints[0].meta.a", "should match pattern"),
        (of_endpoints(endpoint(tags=["b\nc"])), "spec.endpoints[0].tags[0]", "should match pattern"),
        (of_endpoints(endpoint(tags=["\u202eb"])), "spec.endpoints[0].tags[0]", PRINTABLE),
        (of_endpoints(endpoint(port=0)), "spec.endpoints[0].port", "greater than or equal to 1"),
        (of_endpoints(endpoint(port=65536)), "spec.endpoints[0].port", "less than or equal to 65535"),
        (of_endpoints(endpoint(address="a b")), "spec.endpoints[0].address", "should match pattern"),
        (of_endpoints(endpoint(address="0.0.0.0")), "spec.endpoints[0].address", "that callers can reach"),
        (
            of_endpoints(endpoint(address="::")),
            "spec.endpoints[0].address",
            "that callers can reach",
        ),
        (of_endpoints(endpoint(name="A")), "spec.endpoints[0].name", "should match pattern"),
        ({"endpoints": []}, "spec.endpoints", "at least 1 item"),
        (checked({"name": "none"}), "spec.checks[0]", "must have exactly one of readiness, tcp, http"),
        (checked(tcp(http={})), "spec.checks[0]", "must have exactly one of readiness, tcp, http"),
        (checked({"name": "r", "readiness": {}, "interval": "5s"}), "spec.checks[0]", "nothing is probed"),
        (checked({"name": "r", "readiness": {}, "failuresBeforeWarning": 0}), "spec.checks[0]", "nothing is probed"),
        (checked({"name": "r", "readiness": {}, "initialStatus": "passing"}), "spec.checks[0]", "nothing is probed"),
        *(
            (checked(tcp(**counts)), "spec.checks[0]", "must have failuresBeforeWarning at most failuresBeforeCritical")
            for counts in ({"failuresBeforeWarning": 2}, {"failuresBeforeWarning": 1, "failuresBeforeCritical": 0})
        ),
        (
            checked(tcp(failuresBeforeWarning=3, failuresBeforeCritical=2)),
            "spec.checks[0]",
            "must have failuresBeforeWarning at most failuresBeforeCritical",
        ),
        (checked(tcp(interval="999ms")), "spec.checks[0].interval", "must be a duration from 1s to 1h"),
        (checked(tcp(interval="61m")), "spec.checks[0].interval", "must be a duration from 1s to 1h"),
        (checked(tcp(timeout="99ms")), "spec.checks[0].timeout", "must be a duration from 100ms to 1m"),
        (checked(tcp(timeout="61s")), "spec.checks[0].timeout", "must be a duration from 100ms to 1m"),
        (
            checked(tcp(deregisterCriticalServiceAfter="721h")),
            "spec.checks[0].deregisterCriticalServiceAfter",
            "must be a duration from 1s to 720h",
        ),
        (
            checked(tcp(initialStatus="maintenance")),
            "spec.checks[0].initialStatus",
            "'passing', 'warning'",
        ),
        (
            checked(tcp(failuresBeforeCritical=101)),
            "spec.checks[0].failuresBeforeCritical",
            "less than or equal to 100",
        ),
        (checked(tcp(name="Upper")), "spec.checks[0].name", "should match pattern"),
        (checked(http(path="health")), "spec.checks[0].http.path", "should match pattern"),
        (checked(http(path="/a b")), "spec.checks[0].http.path", "should match pattern"),
        (checked(http(path="/@host#x")), "spec.checks[0].http.path", "should match pattern"),
        (checked(http(path="/na\u00efve")), "spec.checks[0].http.path", "should match pattern"),
        (checked(http(path="/a\0")), "spec.checks[0].http.path", "should match pattern"),
        (checked(http(tlsServerName="a b")), "spec.checks[0].http.tlsServerName", "should match pattern"),
        (checked(http(scheme="ftp")), "spec.checks[0].http.scheme", "'http' or 'https'"),
        (checked(http(method="DELETE")), "spec.checks[0].http.method", "'GET', 'HEAD'"),
        (checked(http(headers=[{"name": "a:b", "value": ""}])), "spec.checks[0].http.headers[0].name", "match pattern"),
        *(
            (checked(http(headers=[{"name": "a", "value": value}])), "spec.checks[0].http.headers[0].value", "pattern")
            for value in ("x\r\ny", "a\0", "\u00e9")
        ),
        ([], "spec", "must have exactly one of pods, endpoints and"),
        (["pods"], "spec", "should be a valid dictionary"),
        ("pods", "spec", "should be a valid dictionary"),
    ],
)
def test_what_is_malformed_is_refused_with_where_and_why(spec: Any, where: str, message: str) -> None:
    found = objects.registration(body(spec) | {"spec": spec}).spec
    assert isinstance(found, Reason)
    assert found.code == "InvalidSpec"
    assert found.message.startswith((f"{where}: ", f"{where} {message}"))
    assert message in found.message


def test_a_refusal_shows_the_value_and_all_findings() -> None:
    found = registration(of_pods(service={"port": 0, "name": "-"})).spec
    assert isinstance(found, Reason)
    assert "not 0" in found.message
    assert "not '-'" in found.message
    assert "; spec.service." in found.message


@pytest.mark.parametrize(
    "spec",
    [
        of_pods(checks=[tcp(), tcp(tcp={"port": 1})]),
        of_endpoints(endpoint(), endpoint(address="other.example.com")),
        of_pods(consulRefs=[{"name": "a"}, {"name": "a"}]),
    ],
    ids=["checks", "endpoints", "consulRefs"],
)
def test_two_items_of_one_name_are_refused(spec: Any) -> None:
    assert isinstance(registration(spec).spec, Reason)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1s", 1000),
        ("100ms", 100),
        ("1m", 60_000),
        ("1h", 3_600_000),
        ("1.5s", 1500),
        ("1m30s", 90_000),
        ("1h1m1s1ms", 3_661_001),
        ("0.25h", 900_000),
        ("0s", 0),
    ],
)
def test_a_duration_is_read_as_go_reads_it(text: str, expected: int) -> None:
    assert milliseconds(text) == expected


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "5d", "1e3s", ".5s", "5.s", "5S", "5s\n", "٥s", "1s" * 9])
def test_what_go_does_not_read_is_no_duration(text: str) -> None:
    found = registration(checked(tcp(interval=text))).spec
    assert isinstance(found, Reason)
    assert "spec.checks[0].interval" in found.message
