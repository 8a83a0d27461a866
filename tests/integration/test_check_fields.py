"""Fields of checks: each is set, and what its probe asks and what comes of its answer is asked of the real Consul."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from listener import Listener, listening
from operator_world import World, always, eventually, published, registration, statuses

from devcluster.tls import Authority


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Listener]:
    """One with a certificate of nobody's trust, that keeps the names it is called by."""
    certificate = Authority.at(tmp_path).server("listener", ["web.example"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.file, certificate.key)
    one = Listener()
    context.sni_callback = lambda _socket, name, _context: one.names.append(name)
    with listening(one, context):
        yield one


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
    checks = [
        {
            "name": "web",
            "http": asked | {"headers": [{"name": "X-Probe", "value": "of-$(metadata.name)"}]},
            "interval": "1s",
        }
    ]
    one = {"name": "one", "address": "127.0.0.1", "port": 1}
    world.apply(registration("asks", endpoints=[one], checks=checks))
    world.passing("asks", 1)
    assert set(listener.seen) == {("POST", "/at/one?q=1", "of-one", "ping")}
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
    with listening(Listener(codes=[302], elsewhere=f"http://127.0.0.1:{listener.port}/elsewhere")) as one:
        yield one


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
        "path": "/up/$(metadata.namespace)",
        "port": 8443,
        "scheme": "https",
        "method": "HEAD",
        "tlsServerName": "web",
        "tlsSkipVerify": True,
        "followRedirects": True,
    }
    web = {
        "name": "web",
        "http": asked | {"headers": [{"name": "X-Probe", "value": "of-$(metadata.name)"}]},
        "interval": "7s",
    }
    port = {"name": "port", "tcp": {"port": 9}, "timeout": "3s", "deregisterCriticalServiceAfter": "2h"}
    ends = [{"name": "one", "address": "192.0.2.1", "port": 80}]
    world.apply(published("esm", connection, endpoints=ends, checks=[web, port | {"initialStatus": "warning"}]))
    row = eventually(lambda: world.health("esm-catalog")["one"])
    assert statuses(row) == {"web": "critical", "port": "warning"}
    found = {check["Name"]: check["Definition"] for check in row["Checks"] if check["ServiceID"]}
    url = f"https://192.0.2.1:8443/up/{world.namespace}"
    tls = {"TLSServerName": "web", "TLSSkipVerify": True}
    assert found["web"] == found["web"] | tls | {
        "HTTP": url,
        "Method": "HEAD",
        "Header": {"X-Probe": ["of-one"]},
        "Interval": "7s",
    }
    wanted = {"TCP": "192.0.2.1:9", "Timeout": "3s", "DeregisterCriticalServiceAfter": "2h0m0s"}
    assert found["port"] == found["port"] | wanted
    assert "redirects" not in eventually(lambda: world.condition("esm", "Accepted"))["message"]
    web["http"] = asked | {"followRedirects": False}
    world.apply(published("esm", connection, endpoints=ends, checks=[web, port | {"initialStatus": "warning"}]))
    eventually(lambda: "follows redirects all the same" in world.condition("esm", "Accepted")["message"])


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
