"""What broken connections, refusals and TLS mean, against scripted faults and a real Consul with certificates."""

import asyncio
import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from aiohttp import web as aioweb
from consul_faults import serving
from consul_world import running

from consul_registrar.consul import (
    Access,
    AgentSettings,
    Denied,
    Endpoint,
    NotSent,
    OutcomeUnknown,
    Throttled,
    Tls,
    tls_context,
    transport,
)
from consul_registrar.consul.answers import Answer
from consul_registrar.consul.transport import Client, Transport, _timeout
from devcluster.build import ensure_tools
from devcluster.net import choose_port, claim_block
from devcluster.process import Home, Process, Program
from devcluster.tools import CONSUL


def as_is(answer: Answer) -> Answer:
    return answer


@contextlib.asynccontextmanager
async def speaking(port: int, access: Access | None = None):
    made = Transport(Endpoint("127.0.0.1", port), access or Access())
    try:
        yield made
    finally:
        await made.close()


async def read(at: Transport) -> Answer:
    return await at.get(as_is, "/v1/agent/services")


async def write(at: Transport) -> Answer:
    return await at.put(as_is, "/v1/agent/service/register", data="{}")


async def test_an_address_where_nothing_listens_gets_nothing():
    port = choose_port("127.0.0.1", 0)
    async with speaking(port) as at:
        for ask in (read, write):
            with pytest.raises(NotSent) as caught:
                await ask(at)
            assert caught.value.reason.code == "ConsulUnreachable"
            assert f"127.0.0.1:{port}" in caught.value.reason.message


async def test_a_connection_that_breaks_after_a_write_leaves_the_outcome_open():
    async def reset(request):
        request.transport.abort()
        return aioweb.Response()

    async with serving(reset) as server, speaking(server.port) as at:
        with pytest.raises(OutcomeUnknown) as caught:
            await write(at)
        assert type(caught.value) is OutcomeUnknown
        with pytest.raises(NotSent):
            await read(at)


async def test_an_answer_that_ends_in_the_middle_leaves_the_outcome_open():
    async def half(request):
        answer = aioweb.StreamResponse(headers={"Content-Length": "100"})
        await answer.prepare(request)
        await answer.write(b"half")
        request.transport.close()
        return answer

    async with serving(half) as server, speaking(server.port) as at:
        with pytest.raises(OutcomeUnknown):
            await write(at)
        with pytest.raises(NotSent):
            await read(at)


async def test_an_answer_that_does_not_come_leaves_the_outcome_open(monkeypatch):
    monkeypatch.setattr(transport, "SHORT_TIMEOUT", 0.3)

    async def silent(_request):
        await asyncio.sleep(30)
        return aioweb.Response()

    async with serving(silent) as server, speaking(server.port) as at:
        with pytest.raises(OutcomeUnknown) as caught:
            await write(at)
        assert "timed out" in caught.value.reason.message
        with pytest.raises(NotSent):
            await read(at)


async def test_an_idle_connection_that_was_closed_is_not_an_error():
    """The answer to the first request ends its connection after the client has put it aside."""

    async def closing(request):
        asyncio.get_running_loop().call_later(0.05, request.transport.close)
        return aioweb.Response()

    async with serving(closing) as server, speaking(server.port) as at:
        for _ in range(5):
            assert (await write(at)).code == 200
            await asyncio.sleep(0.05)


async def test_throttling_says_how_long():
    async def busy(_request):
        return aioweb.Response(status=429, text="RPC rate limit exceeded", headers={"Retry-After": "3"})

    async with serving(busy) as server, speaking(server.port) as at:
        with pytest.raises(Throttled) as caught:
            await write(at)
        assert caught.value.after == 3.0


async def test_an_unknown_token_may_be_new_at_first_and_is_refused_later(monkeypatch):
    async def unknown(_request):
        return aioweb.Response(status=403, text="ACL not found")

    async with serving(unknown) as server:
        access = Access(lambda: "t0ken", allow_plaintext_token=True)
        async with speaking(server.port, access) as at:
            with pytest.raises(NotSent):
                await read(at)
            monkeypatch.setattr(transport, "FRESH_TOKEN", 0.0)
            with pytest.raises(Denied) as caught:
                await read(at)
            assert caught.value.reason.code == "TokenUnknown"


@pytest.mark.parametrize("secret", ["two words", "new\nline", "späti"])
async def test_a_token_that_is_none_is_not_sent(secret):
    async with speaking(1, Access(lambda: secret, allow_plaintext_token=True)) as at:
        with pytest.raises(Denied) as caught:
            await read(at)
        assert caught.value.reason.code == "TokenMalformed"
        assert secret not in caught.value.reason.message


async def test_a_token_file_that_is_gone_says_so(tmp_path):
    access = Access((tmp_path / "token").read_text, allow_plaintext_token=True)
    async with speaking(1, access) as at:
        with pytest.raises(Denied) as caught:
            await read(at)
        assert caught.value.reason.code == "TokenUnreadable"


async def test_a_rotated_token_is_noticed(tmp_path):
    file = tmp_path / "token"

    async def fine(_request):
        return aioweb.Response()

    access = Access(file.read_text, allow_plaintext_token=True)
    async with serving(fine) as server, speaking(server.port, access) as at:
        for secret in ("one", "two\n"):
            file.write_text(secret)
            await read(at)
        assert [headers["X-Consul-Token"] for _, headers, _ in server.requests] == ["one", "two"]


async def test_what_is_asked_after_the_end_is_not_sent():
    async with speaking(1) as at:
        await at.close()
        with pytest.raises(NotSent):
            await read(at)


def test_a_blocking_query_may_take_as_long_as_consul_says():
    assert _timeout([]).total == 10
    assert _timeout([("index", 7), ("wait", "160s")]).total == 10 + 160 + 10 + 7
    assert _timeout([("index", 7)]).total > 300 * 17 / 16 + 7


def test_the_library_holds_no_token(monkeypatch):
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "env")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "https://elsewhere:1")
    client = Client(Transport(Endpoint("127.0.0.1", 8500), Access()))
    assert client.token is None
    assert client.http.endpoint.url == "http://127.0.0.1:8500"
    assert Endpoint("fd00::1", 8500).url == "http://[fd00::1]:8500"


# --- TLS, with a real Consul that asks for client certificates ---


@dataclass(frozen=True)
class Certified:
    address: str
    port: int
    certificates: Path

    def tls(self, **changes: str) -> Tls:
        """What a proper client has: everything as PEM text, as from a Secret."""
        texts = {
            "ca": (self.certificates / "consul-agent-ca.pem").read_text(),
            "certificate": (self.certificates / "dc1-client-consul-0.pem").read_text(),
            "key": (self.certificates / "dc1-client-consul-0-key.pem").read_text(),
        }
        return Tls(**(texts | changes))

    def settings(self, tls: Tls, server_name: str = "server.dc1.consul") -> AgentSettings:
        access = Access(tls=tls_context(tls), server_name=server_name)
        return AgentSettings(host=self.address, port=self.port, scheme="https", access=access)


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Certified]:
    ensure_tools(say=print, tools=(CONSUL,))
    state = tmp_path_factory.mktemp("tls")
    for arguments in (["ca", "create"], ["cert", "create", "-server"], ["cert", "create", "-client"]):
        subprocess.run([str(CONSUL.path()), "tls", *arguments], cwd=state, check=True, capture_output=True)
    block = claim_block()
    address = block.consul_server(1)
    config = {
        "node_name": "certified",
        "server": True,
        "bootstrap": True,
        "data_dir": str(state / "data"),
        "bind_addr": address,
        "client_addr": address,
        "ports": {"http": -1, "https": 8501, "grpc": -1, "grpc_tls": -1, "dns": -1, "serf_wan": -1},
        "performance": {"raft_multiplier": 1},
        "disable_update_check": True,
        "connect": {"enabled": False},
        "tls": {
            "https": {
                "ca_file": str(state / "consul-agent-ca.pem"),
                "cert_file": str(state / "dc1-server-consul-0.pem"),
                "key_file": str(state / "dc1-server-consul-0-key.pem"),
                "verify_incoming": True,
            }
        },
    }
    (state / "consul.json").write_text(json.dumps(config))
    command = (str(CONSUL.path()), "agent", f"-config-file={state / 'consul.json'}")
    home = Home(state, tethered=True, inherited=(block.claim.fileno(),))
    process = Process(Program("consul-tls", command, ready=lambda: True), home)
    process.start()
    try:
        yield Certified(address, 8501, state)
    finally:
        process.kill()
        block.release()


async def test_over_tls_a_token_is_sent(certified: Certified):
    settings = certified.settings(certified.tls())
    settings = replace(settings, access=replace(settings.access, token=lambda: "any"))
    async with running(settings) as one:
        await one.is_ready()
        assert one.registry.place(None, "x", ()) == "certified"


async def test_certificates_may_be_files(certified: Certified):
    folder = certified.certificates
    tls = Tls(
        str(folder / "consul-agent-ca.pem"),
        str(folder / "dc1-client-consul-0.pem"),
        str(folder / "dc1-client-consul-0-key.pem"),
    )
    async with running(certified.settings(tls)) as one:
        await one.is_ready()


def test_a_client_certificate_of_a_secret_needs_nothing_that_can_be_written(certified: Certified, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert tls_context(certified.tls())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda c: c.settings(Tls()),
        lambda c: c.settings(c.tls(certificate="", key="")),
        lambda c: c.settings(c.tls(), server_name="other.example"),
        lambda c: c.settings(c.tls(), server_name=""),
    ],
    ids=["another CA", "no client certificate", "another name", "the address isn't in the certificate"],
)
async def test_a_handshake_that_fails_says_what_to_check(certified: Certified, wrong):
    async with running(wrong(certified)) as one:
        message = await one.looks("TlsFailed")
        assert "CA" in message
        assert "BEGIN" not in message


async def test_plain_text_to_a_tls_port_is_refused(certified: Certified):
    async with running(AgentSettings(host=certified.address, port=certified.port)) as one:
        assert "HTTPS" in await one.looks("InvalidRequest")


def test_certificates_that_are_none_say_so(certified: Certified):
    for tls in (Tls(ca="-----BEGIN nonsense"), Tls(ca="/nowhere"), certified.tls(key="-----BEGIN nonsense")):
        with pytest.raises(Denied) as caught:
            tls_context(tls)
        assert caught.value.reason.code == "TlsFailed"
        assert "nonsense" not in caught.value.reason.message
