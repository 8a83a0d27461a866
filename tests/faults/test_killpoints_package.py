"""The runner itself, on a server and a program of a few lines: what it promises holds without any operator."""

import gc
import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest

from devcluster.tls import Authority
from killpoints import Network, Stage, faults, is_write, kind_is, play, rehearse
from killpoints.calls import Request
from killpoints.oracle import Row, departures


@dataclass
class Server:
    """Keeps what is PUT, and streams two lines on /stream, the second one when told."""

    kept: dict[str, bytes] = field(default_factory=dict)
    go_on: threading.Event = field(default_factory=threading.Event)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            state.kept[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(b"{}")

        def do_GET(self) -> None:
            if self.path != "/stream":
                return self._answer(json.dumps(sorted(state.kept)).encode())
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._chunk(b'{"type": "ADDED"}\n')
            state.go_on.wait(10)
            self._chunk(b'{"type": "DELETED"}\n')
            self._chunk(b"")
            return None

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.handle_error = lambda *_: None  # resets are what these tests are about
    state.url = f"http://127.0.0.1:{listening.server_address[1]}"
    threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
    yield state
    listening.shutdown()
    listening.server_close()


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as one:
        yield one


def ask(url: str, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    at = urlsplit(url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=5)
    try:
        connection.request(method, path, body or None)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_requests_pass_and_are_told_apart_by_class_and_number(server: Server, network: Network) -> None:
    url = network.proxy("one", server.url)
    assert ask(url, "PUT", "/v1/agent/service/deregister/a", b"1") == (200, b"{}")
    assert ask(url, "PUT", "/v1/agent/service/deregister/b", b"2") == (200, b"{}")
    assert ask(url, "GET", "/v1/kv/a") == (200, json.dumps(sorted(server.kept)).encode())
    seen = [(e.request.via, e.request.kind, e.number) for e in network.journal.of(is_write)]
    assert seen == [("one", "PUT agent/service/deregister", 0), ("one", "PUT agent/service/deregister", 1)]


@pytest.mark.parametrize(
    ("method", "target", "kind"),
    [
        ("PUT", "/v1/txn", "PUT txn"),
        ("PUT", "/v1/agent/check/update/x", "PUT agent/check/update"),
        ("GET", "/v1/health/node/n?index=3&wait=60s", "GET health/node blocking"),
        ("GET", "/api/v1/pods?watch=true&resourceVersion=1", "watch pods"),
        ("GET", "/api/v1/pods?limit=500", "list pods"),
        ("GET", "/api/v1/namespaces/a/pods/b", "get pods"),
        ("PATCH", "/apis/consul-registrar.dev/v1alpha1/namespaces/a/serviceregistrations/b/status",
         "patch serviceregistrations/status"),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/b", "update leases"),
        ("GET", "/api/v1/namespaces/a", "get namespaces"),
        ("GET", "/apis/consul-registrar.dev/v1alpha1", "GET discovery"),
    ],
)  # fmt: skip
def test_the_class_of_a_request_has_no_names_of_objects(method: str, target: str, kind: str) -> None:
    assert Request("", method, target).kind == kind


def test_a_stream_passes_as_it_comes(server: Server, network: Network) -> None:
    at = urlsplit(network.proxy("one", server.url))
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=5)
    connection.request("GET", "/stream")
    answer = connection.getresponse()
    assert answer.readline() == b'{"type": "ADDED"}\n'  # the server waits to be told to go on
    server.go_on.set()
    assert answer.read() == b'{"type": "DELETED"}\n'
    connection.close()


def test_events_of_a_stream_can_be_swallowed(server: Server, network: Network) -> None:
    url = network.proxy("one", server.url)
    network.inject(lambda r: r.path == "/stream", faults.swallowing(lambda event: event["type"] == "ADDED"))
    server.go_on.set()
    assert ask(url, "GET", "/stream") == (200, b'{"type": "DELETED"}\n')


def test_healing_ends_what_a_fault_still_does(server: Server, network: Network) -> None:
    at = urlsplit(network.proxy("one", server.url))
    network.inject(lambda r: r.path == "/stream", faults.swallowing(lambda _: True))
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=5)
    connection.request("GET", "/stream")
    answer = connection.getresponse()
    network.heal()
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        answer.read()
    server.go_on.set()
    connection.close()


def test_a_stream_can_be_cut(server: Server, network: Network) -> None:
    at = urlsplit(network.proxy("one", server.url))
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=5)
    connection.request("GET", "/stream")
    answer = connection.getresponse()
    answer.readline()
    assert network.cut(lambda r: r.path == "/stream") == 1
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        answer.read()
    server.go_on.set()
    connection.close()


@pytest.mark.parametrize(
    ("fault", "applied"),
    [
        (faults.refused, False),
        (faults.lost_answer, True),
        (faults.torn_answer, True),
    ],
)
def test_a_request_that_breaks_was_applied_or_not_as_the_fault_says(
    server: Server, network: Network, fault: faults.Fault, applied: bool
) -> None:
    url = network.proxy("one", server.url)
    network.inject(is_write, fault)
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(url, "PUT", "/v1/kv/a", b"1")
    assert ("/v1/kv/a" in server.kept) == applied
    assert ask(url, "PUT", "/v1/kv/a", b"2") == (200, b"{}"), "a rule is for one request unless it says otherwise"


@pytest.mark.parametrize(("fault", "applied"), [(faults.held, False), (faults.withheld_answer, True)])
def test_an_answer_may_never_come(server: Server, network: Network, fault: faults.Fault, applied: bool) -> None:
    at = urlsplit(network.proxy("one", server.url))
    network.inject(is_write, fault)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=0.3)
    connection.request("PUT", "/v1/kv/a", b"1")
    if applied:
        until(lambda: "/v1/kv/a" in server.kept)
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()
    assert ("/v1/kv/a" in server.kept) == applied


def test_an_answer_can_be_another_one_before_or_after_the_write(server: Server, network: Network) -> None:
    url = network.proxy("one", server.url)
    network.inject(is_write, faults.answered(429, "slow down", [("Retry-After", "1")]))
    network.inject(is_write, faults.answered_after(500, "leadership lost"))
    assert ask(url, "PUT", "/v1/kv/a", b"1") == (429, b"slow down")
    assert server.kept == {}
    assert ask(url, "PUT", "/v1/kv/a", b"1") == (500, b"leadership lost")
    assert server.kept == {"/v1/kv/a": b"1"}


def test_an_effect_can_come_after_its_answer(server: Server, network: Network) -> None:
    url = network.proxy("one", server.url)
    network.inject(is_write, faults.delayed_effect(2.0))
    assert ask(url, "PUT", "/v1/kv/a", b"1") == (200, b"")
    assert server.kept == {}
    until(lambda: server.kept == {"/v1/kv/a": b"1"})


def test_an_answer_can_end_after_each_number_of_bytes(server: Server, network: Network) -> None:
    url = network.proxy("one", server.url)
    cut = faults.Cut(step=10)
    network.inject(is_write, cut, times=None)
    answer = None
    while answer != (200, b"{}"):
        with suppress(OSError, http.client.HTTPException):
            answer = ask(url, "PUT", f"/v1/kv/{cut.cuts}", b"1")
    assert cut.cuts > 3
    assert server.kept.keys() == {f"/v1/kv/{n}" for n in range(cut.cuts + 1)}, "each was applied"


def test_a_write_can_be_applied_once_more_later(server: Server, network: Network) -> None:
    url = network.proxy("one", server.url)
    network.inject(is_write, faults.repeated(2.0))
    assert ask(url, "PUT", "/v1/kv/a", b"1") == (200, b"{}")
    assert ask(url, "PUT", "/v1/kv/a", b"2") == (200, b"{}")
    assert server.kept == {"/v1/kv/a": b"2"}
    until(lambda: server.kept == {"/v1/kv/a": b"1"})


def test_old_answers_can_be_replayed(server: Server, network: Network) -> None:
    url = network.proxy("one", server.url)
    replay = faults.Replay()
    network.inject(kind_is("GET kv/list"), replay, times=None)
    assert ask(url, "GET", "/v1/kv/list") == (200, b"[]")
    replay.recording = False
    ask(url, "PUT", "/v1/kv/a", b"1")
    assert ask(url, "GET", "/v1/kv/list") == (200, b"[]")
    network.heal()
    assert ask(url, "GET", "/v1/kv/list") == (200, b'["/v1/kv/a"]')


WRITER = """
import http.client, json, sys
host, port, wanted = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")
server = http.client.HTTPConnection(host, port)
server.request("GET", "/v1/kv/list")
there = json.loads(server.getresponse().read())
for name in wanted:
    if f"/v1/kv/{name}" not in there:
        server.request("PUT", f"/v1/kv/{name}", b"1")
        server.getresponse().read()
"""
FORGETFUL = WRITER.replace("for name in wanted:", "for name in wanted if not there else []:")


class Writer:
    """A subject: it puts what isn't there yet, and ends."""

    def __init__(self, url: str, source: str) -> None:
        at = urlsplit(url)
        self._command = [sys.executable, "-I", "-S", "-c", source, str(at.hostname), str(at.port), "a,b,c"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def was_started(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        self.forget()
        self._process = subprocess.Popen(self._command)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        if self._process is not None:
            self.kill()
            self._process = None


@pytest.fixture
def write(server: Server, network: Network) -> Iterator[Callable[[str], Writer]]:
    """Makes a writer out of its source."""
    made: list[Writer] = []

    def make(source: str) -> Writer:
        made.append(Writer(network.proxy("one", server.url), source))
        return made[-1]

    yield make
    for writer in made:
        writer.forget()


@dataclass
class Story:
    server: Server
    writer: Writer

    @property
    def steps(self) -> list[Callable[[], object]]:
        return [self._nothing_is_there, self.writer.start]

    def _nothing_is_there(self) -> None:
        self.writer.forget()
        self.server.kept.clear()

    def wrong(self) -> list[str]:
        wanted = {f"/v1/kv/{name}" for name in "abc"} if self.writer.was_started else set()
        return sorted(wanted - self.server.kept.keys())


def test_the_runner_finds_each_write_and_kills_before_and_after_it(
    server: Server, network: Network, write: Callable[[str], Writer]
) -> None:
    story = Story(server, write(WRITER))
    stage = Stage(network, story.writer, is_write, quiet=0.3)
    points = rehearse(stage, story)
    assert [str(point) for point in points] == [f"{w} PUT kv/{n} 0" for n in "abc" for w in ("before", "after")]
    assert all(play(stage, story, point) for point in points)


def test_a_program_that_does_not_come_right_after_its_death_is_found_out(
    server: Server, network: Network, write: Callable[[str], Writer]
) -> None:
    story = Story(server, write(FORGETFUL))
    stage = Stage(network, story.writer, is_write, quiet=0.3)
    points = {str(point): point for point in rehearse(stage, story)}
    assert play(stage, story, points["after PUT kv/c 0"]), "after the last write nothing is left to do"
    with pytest.raises(AssertionError, match=r"killed after PUT kv/a 0: .*/v1/kv/b"):
        play(replace(stage, within=3), story, points["after PUT kv/a 0"])


def test_a_server_that_never_hangs_up_in_turn_leaves_no_connection_open(tmp_path: Path) -> None:
    """TLS waits half a minute for that."""
    authority = Authority.at(tmp_path)
    mine, trust = authority.server("one", ("127.0.0.1",)), ssl.create_default_context(cafile=str(authority.certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(mine.file, mine.key)
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor() as others, ExitStack() as stack:

        def answer() -> None:
            taken = stack.enter_context(context.wrap_socket(listening.accept()[0], server_side=True))
            taken.recv(2**16)
            taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        answering = others.submit(answer)
        with Network() as network:
            url = network.proxy("one", f"https://127.0.0.1:{listening.getsockname()[1]}", tls=trust)
            assert ask(url, "GET", "/") == (200, b"{}")
            answering.result()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            del network
            gc.collect()
        assert [str(one.message) for one in said] == []


@pytest.mark.parametrize(("where", "applied"), [("before", False), ("after", True)])
def test_a_request_hangs_at_a_gate_before_or_after_its_effect_until_it_is_opened(
    server: Server, network: Network, where: Literal["before", "after"], applied: bool
) -> None:
    url, gate = network.proxy("one", server.url), faults.Gate(where)
    network.inject(is_write, gate, times=None)
    with ThreadPoolExecutor() as others:
        asking = others.submit(ask, url, "PUT", "/v1/kv/a", b"1")
        until(lambda: gate.hanging)
        assert ("/v1/kv/a" in server.kept) == applied
        assert not asking.done()
        gate.open()
        assert asking.result() == (200, b"{}")
    assert ask(url, "PUT", "/v1/kv/b", b"2") == (200, b"{}")
    assert server.kept == {"/v1/kv/a": b"1", "/v1/kv/b": b"2"}


def test_a_request_that_is_late_takes_effect_long_after_it_was_reset(server: Server, network: Network) -> None:
    url, gate = network.proxy("one", server.url), faults.Gate("late")
    network.inject(is_write, gate)
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(url, "PUT", "/v1/kv/a", b"late")
    assert ask(url, "PUT", "/v1/kv/a", b"again") == (200, b"{}")
    gate.open()
    until(lambda: gate.passed)
    assert server.kept == {"/v1/kv/a": b"late"}


def test_an_instance_that_left_and_came_back_between_two_looks_has_left() -> None:
    before, same, anew = (Row("node", "id", "web", "uid", created) for created in (7, 7, 9))
    assert departures({"id": before}, {"id": same}) == []
    assert departures({"id": before}, {"id": anew}) == [before]
    assert departures({"id": before}, {}) == [before]


def until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)
