"""Fields of the custom resources that no story tells of: each is set, and what came of it is asked of the real Consul.

Each in both modes, where it is of any meaning. Which field is shown where says the mark `shows`; the table made of it
is docs/reference/fields.md.
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from operator_world import World, always, deployment, eventually, pod, registration, statuses

from devcluster.tls import Authority


def published(name: str, connection: str, **spec: Any) -> dict[str, Any]:
    """A registration in one connection, under a name of its own there."""
    service = {"name": f"{name}-{connection}"} | spec.pop("service", {})
    return registration(name, consulRefs=[{"name": connection}], service=service, **spec)


# --- what is published ------------------------------------------------------------------------------------------------


@pytest.mark.shows(
    "sreg.spec.consulRefs[].name",
    "sreg.spec.service.name",
    "sreg.spec.service.port",
    "sreg.spec.service.tags",
    "sreg.spec.service.meta",
    "sreg.spec.pods.selector",
    "sreg.spec.checks[].name",
    "sreg.spec.checks[].readiness",
    "sreg.spec.checks[].notes",
)
def test_what_a_registration_says_of_its_service_is_in_consul(world: World, connection: str) -> None:
    selector = {
        "matchLabels": {"app": "full"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["front", "edge"]},
            {"key": "canary", "operator": "DoesNotExist"},
        ],
    }
    service = {
        "port": "http",
        "tags": ["v1", "at-$(metadata.namespace)"],
        "meta": {"tier": "$(metadata.labels['tier'])"},
    }
    checks = [{"name": "alive", "readiness": {}, "notes": "as the kubelet says"}]
    world.apply(published("full", connection, service=service, pods={"selector": selector}, checks=checks))
    world.apply(*(pod(name, "full") for name in ("front", "edge", "back", "canary")))
    for name, tier in (("front", "front"), ("edge", "edge"), ("back", "back"), ("canary", "front")):
        labels = ["canary=yes"] if name == "canary" else []
        world.kubectl("label", "pod", name, *labels, f"tier={tier}")
    rows = world.passing(f"full-{connection}", 2)
    assert {name: row["Service"]["Meta"]["tier"] for name, row in rows.items()} == {"front": "front", "edge": "edge"}
    for row in rows.values():
        found = row["Service"]
        assert (found["Port"], sorted(found["Tags"])) == (8080, [f"at-{world.namespace}", "v1"])
        assert found["Meta"]["k8s-connection"] == connection
        (check,) = (check for check in row["Checks"] if check["ServiceID"])
        assert (check["Name"], check["Notes"], check["Status"]) == ("alive", "as the kubelet says", "passing")
    world.annotate("front", ready="false")
    eventually(lambda: world.health(f"full-{connection}", passing=True).keys() == {"edge"})


@pytest.mark.shows("sreg.spec.pods.register")
def test_a_pod_enters_when_its_registration_says(world: World, connection: str) -> None:
    def entering(when: str) -> dict[str, Any]:
        source = {"selector": {"matchLabels": {"app": "shy"}}, "register": when}
        return published(f"shy-{when}".lower(), connection, pods=source)

    world.apply(entering("Running"), entering("Ready"), pod("shy", "shy", ready="false"))
    eventually(lambda: world.health(f"shy-running-{connection}").keys() == {"shy"})
    always(lambda: world.health(f"shy-ready-{connection}") == {}, during=0.5)
    world.annotate("shy", ready=None)
    world.passing(f"shy-ready-{connection}", 1)


@pytest.mark.shows("sreg.spec.pods.address", "sreg.spec.pods.ipFamily")
def test_an_instance_has_the_address_that_is_asked_for(world: World, connection: str) -> None:
    selector = {"selector": {"matchLabels": {"app": "hosted"}}}
    ports = [{"name": "http", "containerPort": 8080, "hostPort": 30123}]
    world.apply(deployment("hosted", 1, ports=ports))
    world.apply(published("hosted", connection, pods=selector | {"address": "HostIP"}))
    (row,) = world.passing(f"hosted-{connection}", 1).values()
    node = row["Service"]["Meta"]["k8s-node"]
    assert (row["Service"]["Address"], row["Service"]["Port"]) == (world.cluster.nodes[node], 30123)
    world.patch("hosted", {"pods": {"address": "PodIP", "ipFamily": "IPv4"}})
    (live,) = world.pods("hosted").values()

    def address() -> tuple[str, int]:
        (now,) = world.health(f"hosted-{connection}").values()
        return now["Service"]["Address"], now["Service"]["Port"]

    eventually(lambda: address() == (live["status"]["podIP"], 8080))
    world.patch("hosted", {"pods": {"ipFamily": "IPv6"}})
    assert "has no IPv6 address" in world.says("hosted", "AddressNotFound")["message"]
    assert address() == (live["status"]["podIP"], 8080)


@pytest.mark.shows("sreg.spec.suspend")
def test_what_is_suspended_stays_as_it_is_until_it_isnt(world: World, connection: str) -> None:
    name = f"still-{connection}"
    world.apply(deployment("still", 1), published("still", connection))
    world.passing(name, 1)
    world.patch("still", {"suspend": True, "service": {"tags": ["later"]}})
    world.says("still", "Suspended")
    assert [row["Service"]["Tags"] for row in world.health(name).values()] == [[]]
    world.patch("still", {"suspend": False})
    eventually(lambda: [row["Service"]["Tags"] for row in world.health(name).values()] == [["later"]])


@pytest.mark.shows(
    "sreg.spec.endpoints[].name",
    "sreg.spec.endpoints[].address",
    "sreg.spec.endpoints[].port",
    "sreg.spec.endpoints[].meta",
    "sreg.spec.endpoints[].tags",
    "sreg.spec.endpoints[].weights",
    "sreg.spec.endpoints[].checks",
)
def test_each_endpoint_has_what_it_says_of_itself(world: World, connection: str) -> None:
    one = {"name": "one", "address": "192.0.2.1", "port": 5432, "meta": {"role": "primary"}, "tags": ["rw"]}
    one |= {"weights": {"passing": 7, "warning": 3}, "checks": ["first"]}
    two = {"name": "two", "address": "db.example.com", "port": 5433}
    checks = [{"name": name, "tcp": {}, "initialStatus": "passing", "interval": "1h"} for name in ("first", "second")]
    world.apply(published("ends", connection, service={"tags": ["db"]}, endpoints=[one, two], checks=checks))
    eventually(lambda: world.health(f"ends-{connection}").keys() == {"one", "two"})
    rows = world.health(f"ends-{connection}")
    first, second = rows["one"]["Service"], rows["two"]["Service"]
    assert (first["Address"], first["Port"], sorted(first["Tags"])) == ("192.0.2.1", 5432, ["db", "rw"])
    assert (first["Meta"]["role"], first["Weights"]) == ("primary", {"Passing": 7, "Warning": 3})
    assert (second["Address"], second["Port"], second["Tags"]) == ("db.example.com", 5433, ["db"])
    assert (second["Weights"], "role" in second["Meta"]) == ({"Passing": 1, "Warning": 1}, False)
    assert [sorted(statuses(rows[name])) for name in ("one", "two")] == [["first"], ["first", "second"]]


# --- what a check asks ------------------------------------------------------------------------------------------------


@dataclass
class Listener:
    """An HTTP server that keeps what it was asked, and by which name. `codes`: its next answers, the last for ever.
    `elsewhere`: where it leads to by a redirect.
    """

    port: int = 0
    seen: list[tuple[str, str, str, str]] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    codes: list[int] = field(default_factory=lambda: [200])
    elsewhere: str = ""

    def answer(self, asked: BaseHTTPRequestHandler) -> None:
        body = asked.rfile.read(int(asked.headers.get("Content-Length") or 0)).decode()
        self.seen.append((asked.command, asked.path, asked.headers.get("X-Probe", ""), body))
        asked.send_response(self.codes.pop(0) if len(self.codes) > 1 else self.codes[0])
        if self.elsewhere:
            asked.send_header("Location", self.elsewhere)
        asked.end_headers()


def listening(one: Listener, context: ssl.SSLContext | None = None) -> Iterator[Listener]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            one.answer(self)

        do_POST = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A probe that gives up breaks off."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        one.port = server.server_port
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield one
        server.shutdown()
        serving.join()


@pytest.fixture
def listener() -> Iterator[Listener]:
    yield from listening(Listener())


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Listener]:
    """One with a certificate of nobody's trust, that keeps the names it is called by."""
    certificate = Authority.at(tmp_path).server("listener", ["web.example"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.file, certificate.key)
    one = Listener()
    context.sni_callback = lambda _socket, name, _context: one.names.append(name)
    yield from listening(one, context)


@pytest.mark.shows(
    "sreg.spec.checks[].http.path",
    "sreg.spec.checks[].http.port",
    "sreg.spec.checks[].http.method",
    "sreg.spec.checks[].http.headers[].name",
    "sreg.spec.checks[].http.headers[].value",
    "sreg.spec.checks[].http.body",
    mode="agent",
)
def test_an_agents_http_check_asks_as_it_is_told(world: World, listener: Listener) -> None:
    asked = {"path": "/at/$(metadata.name)?q=1", "port": listener.port, "method": "POST", "body": "ping"}
    checks = [{"name": "web", "http": asked | {"headers": [{"name": "X-Probe", "value": "v"}]}, "interval": "1s"}]
    one = {"name": "one", "address": "127.0.0.1", "port": 1}
    world.apply(registration("asks", endpoints=[one], checks=checks))
    world.passing("asks", 1)
    assert set(listener.seen) == {("POST", "/at/one?q=1", "v", "ping")}
    listener.codes[:] = [503]
    eventually(lambda: statuses(world.health("asks")["one"]) == {"web": "critical"})


@pytest.mark.shows(
    "sreg.spec.checks[].http.scheme",
    "sreg.spec.checks[].http.tlsServerName",
    "sreg.spec.checks[].http.tlsSkipVerify",
    mode="agent",
)
def test_an_agents_https_check_verifies_unless_it_is_told_not_to(world: World, secured: Listener) -> None:
    def check(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "http": {"scheme": "https"} | more, "interval": "1s", "timeout": "1s"}

    checks = [
        check("strict", tlsServerName="web.example"),
        check("lax", tlsSkipVerify=True, tlsServerName="lax.example"),
    ]
    world.apply(
        registration("tls", endpoints=[{"name": "one", "address": "127.0.0.1", "port": secured.port}], checks=checks)
    )
    eventually(lambda: statuses(world.health("tls")["one"]) == {"strict": "critical", "lax": "passing"})
    eventually(lambda: {"web.example", "lax.example"} <= set(secured.names))
    eventually(lambda: "certificate" in _output(world, "tls", "strict"))


@pytest.fixture
def leading(listener: Listener) -> Iterator[Listener]:
    """One that leads to the other."""
    yield from listening(Listener(codes=[302], elsewhere=f"http://127.0.0.1:{listener.port}/elsewhere"))


@pytest.mark.shows("sreg.spec.checks[].http.followRedirects", mode="agent")
def test_a_redirect_is_critical_unless_the_check_is_told_to_follow_it(
    world: World, listener: Listener, leading: Listener
) -> None:
    told = {"name": "told", "http": {"followRedirects": True}, "interval": "1s"}
    checks = [{"name": "plain", "http": {}, "interval": "1s"}, told]
    ends = [{"name": "one", "address": "127.0.0.1", "port": leading.port}]
    world.apply(registration("led", endpoints=ends, checks=checks))
    eventually(lambda: "302" in _output(world, "led", "plain"))
    eventually(lambda: statuses(world.health("led")["one"]) == {"plain": "critical", "told": "passing"})
    assert {path for _, path, _, _ in listener.seen} == {"/elsewhere"}
    checks[1]["http"] = {}
    world.apply(registration("led", endpoints=ends, checks=checks))
    eventually(lambda: statuses(world.health("led")["one"]) == {"plain": "critical", "told": "critical"})


@pytest.mark.shows("sreg.spec.checks[].successBeforePassing", mode="agent")
def test_a_check_turns_passing_after_as_many_successes_in_a_row_as_it_says(world: World, listener: Listener) -> None:
    listener.codes[:] = [503]
    counted = {"name": "counted", "http": {}, "interval": "1s", "successBeforePassing": 2}
    ends = [{"name": "one", "address": "127.0.0.1", "port": listener.port}]
    world.apply(registration("counted", endpoints=ends, checks=[counted]))
    eventually(lambda: listener.seen and statuses(world.health("counted")["one"]) == {"counted": "critical"})
    listener.codes[:] = [200, 503, 200, 503, 200, 503]
    while len(listener.codes) > 1:
        always(lambda: statuses(world.health("counted")["one"]) == {"counted": "critical"}, during=0.2)
    listener.codes[:] = [200]
    world.passing("counted", 1)


@pytest.mark.shows("sreg.spec.checks[].failuresBeforeWarning", mode="agent")
@pytest.mark.shows("sreg.spec.checks[].failuresBeforeCritical", mode="agent")
@pytest.mark.parametrize(
    ("thresholds", "turned"),
    [
        ({"failuresBeforeCritical": 2}, "critical"),
        ({"failuresBeforeWarning": 2, "failuresBeforeCritical": 100}, "warning"),
    ],
    ids=["critical", "warning"],
)
def test_a_check_turns_after_as_many_failures_in_a_row_as_it_says(
    world: World, listener: Listener, thresholds: dict[str, int], turned: str
) -> None:
    name = f"fails-{turned}"
    ends = [{"name": "one", "address": "127.0.0.1", "port": listener.port}]
    check = {"name": "counted", "http": {}, "interval": "1s", **thresholds}
    world.apply(registration(name, endpoints=ends, checks=[check]))
    world.passing(name, 1)
    listener.codes[:] = [503, 200, 503, 200, 503, 200]
    while len(listener.codes) > 1:
        always(lambda: statuses(world.health(name)["one"]) == {"counted": "passing"}, during=0.2)
    listener.codes[:] = [503]
    eventually(lambda: statuses(world.health(name)["one"]) == {"counted": turned})


@pytest.mark.parametrize(("initial", "code", "turned"), [("passing", 503, "critical"), ("critical", 200, "passing")])
def test_the_first_result_of_a_new_probe_decides_at_once_whatever_its_thresholds(
    world: World, listener: Listener, initial: str, code: int, turned: str
) -> None:
    listener.codes[:] = [code]
    name = f"at-once-{turned}"
    counted = {"successBeforePassing": 9, "failuresBeforeWarning": 2, "failuresBeforeCritical": 9}
    check = {"name": "counted", "http": {}, "interval": "5s", "initialStatus": initial, **counted}
    ends = [{"name": "one", "address": "127.0.0.1", "port": listener.port}]
    world.apply(registration(name, endpoints=ends, checks=[check]))
    eventually(lambda: statuses(world.health(name)["one"]) == {"counted": turned})
    assert len(listener.seen) < counted["failuresBeforeCritical"]


def test_an_edit_of_what_is_published_alone_starts_no_probe_over(world: World, listener: Listener) -> None:
    """Every other probe fails. One that began anew would turn critical with its first failure, by Consul's counting;
    one that goes on never does.
    """
    ends = [{"name": "one", "address": "127.0.0.1", "port": listener.port}]
    check = {"name": "counted", "http": {}, "interval": "1s", "failuresBeforeCritical": 2}
    world.apply(registration("steady", endpoints=ends, checks=[check]))
    world.passing("steady", 1)
    listener.codes[:] = [503, 200] * 100
    edits: list[dict[str, Any]] = [{"tags": [str(number)]} for number in range(5)]
    for edit in (*edits, {"meta": {"some": "thing"}}, {"weights": {"passing": 7}}):
        world.patch("steady", {"service": edit})
        world.says("steady", "Registered")
        before = len(listener.seen)
        while len(listener.seen) < before + 2:
            always(lambda: statuses(world.health("steady")["one"]) == {"counted": "passing"}, during=0.1)
    (row,) = world.passing("steady", 1).values()
    assert (row["Service"]["Tags"], row["Service"]["Weights"]["Passing"]) == (["4"], 7)


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a listener that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.shows("sreg.spec.checks[].initialStatus", mode="agent")
@pytest.mark.parametrize("status", ["passing", "warning", "critical"])
def test_a_check_begins_with_the_status_that_it_says(world: World, silent: int, status: str) -> None:
    """The application's word never comes, and what is probed doesn't answer within the time that is looked."""
    said = {"initialStatus": status}
    checks = [
        {"name": "word", "ttl": {"ttl": "1h"}, **said},
        {"name": "probe", "http": {"port": silent}, "interval": "1h", "timeout": "1m", **said},
    ]
    ends = [{"name": "one", "address": "127.0.0.1", "port": 80}]
    world.apply(registration(f"begins-{status}", endpoints=ends, checks=checks))
    row = eventually(lambda: world.health(f"begins-{status}")["one"])
    assert statuses(row) == {"word": status, "probe": status}


def _output(world: World, service: str, check: str) -> str:
    """What the agent that runs a check says of it: the catalog learns of that minutes later."""
    row = world.health(service)["one"]
    return str(world.agent_checks(row)[check]["Output"])


@pytest.mark.shows(
    "sreg.spec.checks[].http.path",
    "sreg.spec.checks[].http.port",
    "sreg.spec.checks[].http.scheme",
    "sreg.spec.checks[].http.method",
    "sreg.spec.checks[].http.headers[].name",
    "sreg.spec.checks[].http.headers[].value",
    "sreg.spec.checks[].http.tlsServerName",
    "sreg.spec.checks[].http.tlsSkipVerify",
    "sreg.spec.checks[].http.followRedirects",
    "sreg.spec.checks[].tcp.port",
    "sreg.spec.checks[].interval",
    "sreg.spec.checks[].timeout",
    "sreg.spec.checks[].deregisterCriticalServiceAfter",
    "sreg.spec.checks[].initialStatus",
    mode="catalog",
)
@pytest.mark.parametrize("connection", ["catalog"], indirect=True)
def test_the_catalog_holds_the_definitions_that_consul_esm_reads(world: World, connection: str) -> None:
    asked = {
        "path": "/up",
        "port": 8443,
        "scheme": "https",
        "method": "HEAD",
        "tlsServerName": "web",
        "tlsSkipVerify": True,
        "followRedirects": True,
    }
    web = {"name": "web", "http": asked | {"headers": [{"name": "X-Probe", "value": "v"}]}, "interval": "7s"}
    port = {"name": "port", "tcp": {"port": 9}, "timeout": "3s", "deregisterCriticalServiceAfter": "2h"}
    ends = [{"name": "one", "address": "192.0.2.1", "port": 80}]
    world.apply(published("esm", connection, endpoints=ends, checks=[web, port | {"initialStatus": "warning"}]))
    row = eventually(lambda: world.health("esm-catalog")["one"])
    assert statuses(row) == {"web": "critical", "port": "warning"}
    found = {check["Name"]: check["Definition"] for check in row["Checks"] if check["ServiceID"]}
    url = "https://192.0.2.1:8443/up"
    tls = {"TLSServerName": "web", "TLSSkipVerify": True}
    assert found["web"] == found["web"] | tls | {
        "HTTP": url,
        "Method": "HEAD",
        "Header": {"X-Probe": ["v"]},
        "Interval": "7s",
    }
    wanted = {"TCP": "192.0.2.1:9", "Timeout": "3s", "DeregisterCriticalServiceAfter": "2h0m0s"}
    assert found["port"] == found["port"] | wanted


@pytest.mark.shows("sreg.spec.checks[].http.body", mode="catalog", condition="CheckNotSupported")
@pytest.mark.shows("sreg.spec.checks[].successBeforePassing", mode="catalog", condition="CheckNotSupported")
@pytest.mark.shows("sreg.spec.checks[].failuresBeforeWarning", mode="catalog", condition="CheckNotSupported")
@pytest.mark.shows("sreg.spec.checks[].failuresBeforeCritical", mode="catalog", condition="CheckNotSupported")
@pytest.mark.parametrize("connection", ["catalog"], indirect=True)
@pytest.mark.parametrize(
    "check",
    [
        {"http": {"body": "ping"}},
        {"tcp": {}, "successBeforePassing": 2},
        {"tcp": {}, "failuresBeforeWarning": 2, "failuresBeforeCritical": 3},
        {"tcp": {}, "failuresBeforeCritical": 2},
    ],
    ids=" ".join,
)
def test_what_consul_esm_has_not_for_a_single_check_is_refused_by_name(
    world: World, connection: str, check: dict[str, Any]
) -> None:
    ends = [{"name": "one", "address": "192.0.2.1", "port": 80}]
    world.apply(published("odd", connection, endpoints=ends, checks=[{"name": "odd", **check}]))
    assert "odd" in world.says("odd", "CheckNotSupported")["message"]
    assert world.health("odd-catalog") == {}
