"""Trust both ways: what the operator reads of files on its disk, whom it trusts, and the certificates that agents'
checks verify. Consul demands a client certificate and a token, and every listener is a real one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from operator_world import (
    MERGE,
    RESOURCES,
    Operator,
    World,
    connection,
    defined,
    deployment,
    eventually,
    operating,
    registration,
    statuses,
)

from devcluster import Cluster, Options, tls_proxy
from devcluster.tls import Authority

CONNECTIONS = f"{RESOURCES}/consulconnections"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    options = Options(nodes=1, acls=True, consul_tls=True, client_certificates=True)
    with defined(options, tmp_path_factory.mktemp("guarded")) as one:
        yield one


@pytest.fixture(scope="module")
def operator(guarded: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with operating(guarded, tmp_path_factory.mktemp("operator")) as one:
        yield one


@pytest.fixture
def world(guarded: Cluster, operator: Operator) -> World:
    return World(guarded, "default")


@pytest.fixture
def files(guarded: Cluster, tmp_path: Path) -> Path:
    """A folder as a chart would mount it: ca.crt, tls.crt, tls.key, token."""
    shown = guarded.authority.client(f"files-{tmp_path.name}")
    for name, source in (("ca.crt", guarded.authority.certificate), ("tls.crt", shown.file), ("tls.key", shown.key)):
        (tmp_path / name).write_bytes(source.read_bytes())
    (tmp_path / "token").write_text(f"{token(guarded)[1]}\n")
    return tmp_path


def token(cluster: Cluster) -> tuple[str, str]:
    """A new token that may do everything: its accessor ID and its secret."""
    made = cluster.consul.server.request("PUT", "/v1/acl/token", {"Policies": [{"Name": "global-management"}]})
    return made["AccessorID"], made["SecretID"]


def connect(cluster: Cluster, name: str, mode: str, files: Path, **tls: Any) -> None:
    """A connection that shows what is in the folder."""
    server = cluster.consul.server.https_addr or ""
    port = urlsplit(cluster.consul.agents["node-1"].https_addr or "").port
    where = {
        "Agent": {"nodeAgents": {"scheme": "https", "port": port}},
        "Catalog": {"addresses": [server], "virtualNodes": 2},
    }
    shown = {"certificate": {"file": str(files / "tls.crt")}, "key": {"file": str(files / "tls.key")}}
    trust = {"ca": {"file": str(files / "ca.crt")}, "clientCertificate": shown, **tls}
    auth = {"token": {"file": str(files / "token")}}
    cluster.api.request("POST", CONNECTIONS, connection(name, mode=mode, tls=trust, auth=auth, **where[mode]))


def status(cluster: Cluster, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.api.request("GET", f"{CONNECTIONS}/{name}")["status"]
    return found


def reason(cluster: Cluster, name: str) -> str:
    return next((c["reason"] for c in status(cluster, name)["conditions"] if c["type"] == "Ready"), "")


READY = {"AgentsReady", "CatalogReady"}


@pytest.mark.parametrize("mode", ["Agent", "Catalog"])
@pytest.mark.shows(
    "cconn.spec.tls.ca.file",
    "cconn.spec.tls.clientCertificate.certificate.file",
    "cconn.spec.tls.clientCertificate.key.file",
    "cconn.spec.auth.token.file",
)
def test_what_is_in_files_is_shown_and_trusted_and_read_again(
    guarded: Cluster, world: World, files: Path, mode: str
) -> None:
    name = f"files-{mode}".lower()
    (files / "ca.crt").rename(files / "kept")
    connect(guarded, name, mode, files)
    eventually(lambda: reason(guarded, name) == "FileNotReadable")
    (files / "kept").rename(files / "ca.crt")
    world.apply(deployment(name, 2), registration(name, consulRefs=[{"name": name}]))
    world.passing(name, 2)
    ended = eventually(lambda: status(guarded, name)["token"]["accessorID"])
    accessor, secret = token(guarded)
    (files / "token").write_text(secret)
    eventually(lambda: status(guarded, name)["token"] == {"accessorID": accessor})
    guarded.consul.server.request("DELETE", f"/v1/acl/token/{ended}")
    world.kubectl("scale", "deployment", name, "--replicas=3")
    world.passing(name, 3)


@pytest.mark.parametrize("mode", ["Agent", "Catalog"])
@pytest.mark.parametrize("lacking", ["tls.crt", "tls.key", "token"])
def test_a_file_that_is_not_there_is_named_and_its_coming_heals(
    guarded: Cluster, world: World, files: Path, mode: str, lacking: str
) -> None:
    name = f"lacks-{mode}-{lacking}".lower()
    (files / lacking).rename(files / "kept")
    connect(guarded, name, mode, files)
    eventually(lambda: reason(guarded, name) == "FileNotReadable")
    (condition,) = (c for c in status(guarded, name)["conditions"] if c["type"] == "Ready")
    assert str(files / lacking) in condition["message"]
    (files / "kept").rename(files / lacking)
    eventually(lambda: reason(guarded, name) in READY)


@pytest.mark.parametrize("mode", ["Agent", "Catalog"])
def test_a_certificate_of_an_authority_that_is_not_in_the_file_is_not_trusted(
    guarded: Cluster, world: World, files: Path, tmp_path_factory: pytest.TempPathFactory, mode: str
) -> None:
    name = f"stranger-{mode}".lower()
    stranger = Authority.at(tmp_path_factory.mktemp("stranger")).certificate
    (files / "ca.crt").write_bytes(stranger.read_bytes())
    connect(guarded, name, mode, files)
    eventually(lambda: reason(guarded, name) == "TlsFailed")
    (files / "ca.crt").write_bytes(guarded.authority.certificate.read_bytes())
    eventually(lambda: reason(guarded, name) in READY)


@pytest.mark.parametrize(("mode", "kind"), [("Agent", "client"), ("Catalog", "server")])
@pytest.mark.shows("cconn.spec.tls.serverName")
def test_the_name_that_it_says_is_verified_in_place_of_the_address(
    guarded: Cluster, world: World, files: Path, mode: str, kind: str
) -> None:
    name = f"named-{mode}".lower()
    connect(guarded, name, mode, files, serverName="elsewhere.consul")
    eventually(lambda: reason(guarded, name) == "TlsFailed")
    right = {"tls": {"serverName": f"{kind}.dc1.consul"}}
    guarded.api.request("PATCH", f"{CONNECTIONS}/{name}", {"spec": right}, MERGE)
    eventually(lambda: reason(guarded, name) in READY)


@pytest.mark.parametrize("kind", ["http", "grpc", "h2ping"])
@pytest.mark.shows(
    "sreg.spec.checks[].http.scheme",
    "sreg.spec.checks[].http.tlsServerName",
    "sreg.spec.checks[].http.tlsSkipVerify",
    "sreg.spec.checks[].grpc.tls",
    "sreg.spec.checks[].grpc.tlsServerName",
    "sreg.spec.checks[].grpc.tlsSkipVerify",
    "sreg.spec.checks[].h2ping.tls",
    "sreg.spec.checks[].h2ping.tlsServerName",
    "sreg.spec.checks[].h2ping.tlsSkipVerify",
    mode="agent",
)
def test_a_check_over_tls_verifies_the_name_that_it_says_unless_it_is_told_not_to(
    guarded: Cluster, world: World, files: Path, kind: str
) -> None:
    """What is behind TLS: Consul's HTTP and HTTP/2 listeners, and the gRPC health service of etcd."""
    connect(guarded, f"probes-{kind}", "Agent", files)
    agent = guarded.consul.agents["node-1"]
    behind = {
        "http": agent.http_addr,
        "grpc": guarded.control_plane.etcd_url,
        "h2ping": f"http://{agent.address}:{agent.grpc_port}",
    }
    switch = "scheme" if kind == "http" else "tls"
    on, off = ("https", "http") if kind == "http" else (True, False)
    more = {"path": "/v1/status/leader"} if kind == "http" else {}

    def check(name: str, *, tls: object = on, **said: object) -> dict[str, Any]:
        return {"name": name, kind: {switch: tls, **more, **said}, "interval": "1s", "timeout": "1s"}

    checks = [
        check("address"),
        check("right", tlsServerName="probed.example"),
        check("wrong", tlsServerName="other.example"),
        check("lax", tlsServerName="other.example", tlsSkipVerify=True),
        check("plain", tls=off),
    ]
    with tls_proxy(guarded, behind[kind], ("probed.example",), http2=kind != "http") as proxy:
        at = urlsplit(proxy.url)
        ends = [{"name": "one", "address": at.hostname, "port": at.port}]
        refs = [{"name": f"probes-{kind}"}]
        world.apply(registration(f"tls-{kind}", endpoints=ends, checks=checks, consulRefs=refs))
        healthy = {"address": "passing", "right": "passing", "lax": "passing", "wrong": "critical", "plain": "critical"}
        eventually(lambda: statuses(world.health(f"tls-{kind}")["one"]) == healthy)
        proxy.process.kill()
        eventually(lambda: set(statuses(world.health(f"tls-{kind}")["one"]).values()) == {"critical"})
