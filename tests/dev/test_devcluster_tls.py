"""What tests may rely on in TLS: Consul's HTTPS listeners, and proxies that put HTTPS in front of any part."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from devcluster import Cluster, Options, tls_proxy
from devcluster.build import ensure_tools
from devcluster.process import await_true
from devcluster.tls import Authority, Certificate
from devcluster.tools import CONSUL

SELF = "/v1/agent/self"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server and an agent with HTTPS; Kubernetes is laid out and not started."""
    ensure_tools(say=print, tools=(CONSUL,))
    one = Cluster.lay_out(Options(nodes=1, consul_tls=True), tmp_path_factory.mktemp("tls") / "state")
    try:
        one.consul.start()
        yield one
    finally:
        one.stop()


def https(url: str | None, path: str, authority: Authority, *, name: str = "", shown: Certificate | None = None) -> Any:
    """Ask over TLS with a verified name: `name`, or the host of the URL."""
    assert url is not None
    context = ssl.create_default_context(cafile=authority.certificate)
    if shown is not None:
        context.load_cert_chain(shown.file, shown.key)
    where = urlsplit(url)
    with (
        socket.create_connection((where.hostname, where.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name or where.hostname) as secured,
    ):
        connection = http.client.HTTPConnection(where.hostname or "", where.port)
        connection.sock = secured
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())


@pytest.mark.parametrize(
    ("part", "kind"), [("consul-server-1", "server"), ("node-1", "client")], ids=["server", "agent"]
)
def test_consul_answers_https_under_its_address_its_node_and_its_kind(cluster: Cluster, part: str, kind: str) -> None:
    member = {"consul-server-1": cluster.consul.server, **cluster.consul.agents}[part]
    for name in ("", part, f"{kind}.dc1.consul"):
        assert https(member.https_addr, SELF, cluster.authority, name=name)["Config"]["NodeName"] == part


def test_another_name_or_another_authority_is_not_trusted(cluster: Cluster, tmp_path_factory: Any) -> None:
    agent = cluster.consul.agents["node-1"]
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        https(agent.https_addr, SELF, cluster.authority, name="consul.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        https(agent.https_addr, SELF, Authority.at(tmp_path_factory.mktemp("another")))


def test_a_proxy_puts_https_before_a_part_under_the_names_that_it_is_given(cluster: Cluster) -> None:
    with tls_proxy(cluster, cluster.consul.http_addr, ("consul.example",)) as proxy:
        for name in ("", "consul.example"):
            told = https(proxy.url, SELF, cluster.authority, name=name)
            assert told["Config"]["NodeName"] == "consul-server-1"
        with pytest.raises(ssl.SSLCertVerificationError):
            https(proxy.url, SELF, cluster.authority, name="consul-server-1")


def test_blocking_queries_pass_a_proxy(cluster: Cluster) -> None:
    server = cluster.consul.server
    server.request("PUT", "/v1/kv/blocking", "before")
    index = server.request("GET", "/v1/kv/blocking")[0]["ModifyIndex"]
    with tls_proxy(cluster, cluster.consul.http_addr) as proxy:
        waited = https(proxy.url, f"/v1/kv/blocking?index={index}&wait=1s", cluster.authority)
        assert waited[0]["ModifyIndex"] == index


def test_a_proxy_that_demands_a_certificate_lets_only_clients_of_the_authority_in(
    cluster: Cluster, tmp_path_factory: Any
) -> None:
    stranger = Authority.at(tmp_path_factory.mktemp("stranger")).client("stranger")
    with tls_proxy(cluster, cluster.consul.http_addr, demand_client_certificate=True) as proxy:
        for shown in (None, stranger):
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
                https(proxy.url, SELF, cluster.authority, shown=shown)
        assert https(proxy.url, SELF, cluster.authority, shown=cluster.authority.client("one"))


def test_proxies_fail_and_come_back_one_by_one(cluster: Cluster) -> None:
    agent = cluster.consul.agents["node-1"]
    with tls_proxy(cluster, cluster.consul.http_addr) as one, tls_proxy(cluster, agent.http_addr) as other:
        one.process.kill()
        with pytest.raises(ConnectionError):
            https(one.url, SELF, cluster.authority)
        assert https(other.url, SELF, cluster.authority)["Config"]["NodeName"] == "node-1"
        one.process.start()
        assert https(one.url, SELF, cluster.authority)["Config"]["NodeName"] == "consul-server-1"


def test_a_client_of_a_proxy_sees_that_the_part_behind_is_down(cluster: Cluster) -> None:
    agent = cluster.consul.agents["node-1"]
    with tls_proxy(cluster, agent.http_addr) as proxy:
        agent.process.kill()
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            https(proxy.url, SELF, cluster.authority)
        agent.process.start()
        assert await_true(lambda: bool(https(proxy.url, SELF, cluster.authority)), within=60)
