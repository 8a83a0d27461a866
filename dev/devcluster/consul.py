"""Decides how Consul's servers and client agents are run: addresses, ports, ACLs, and how soon they notice things.

What users see stays at Consul's defaults (limits, check intervals, leaving on SIGTERM); only elections and gossip are
sped up, and no network coordinates are kept: with them servers would write every few seconds while nothing changes.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devcluster.net import Block, choose_port, is_free
from devcluster.process import Home, Process, Program
from devcluster.tls import Authority
from devcluster.tools import CONSUL

DATACENTER = "dc1"
LOCALHOST = "127.0.0.1"

FAST_GOSSIP = {
    "gossip_interval": "50ms",
    "probe_interval": "200ms",
    "probe_timeout": "100ms",
    "suspicion_mult": 3,
}


_WRITES = re.compile(r'^consul_api_http_count\{method="(?:DELETE|POST|PUT)",path="\w*"\} (\d+)$', re.MULTILINE)


class ConsulError(Exception):
    """Consul refused a request."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Place:
    """Where one Consul process listens."""

    node: str
    address: str
    http: int
    dns: int
    serf: int
    rpc: int
    grpc: int
    https: int

    @classmethod
    def at(cls, node: str, address: str) -> Place:
        """The usual ports at an address, or others where another program holds one."""
        return cls(
            node=node,
            address=address,
            http=choose_port(address, 8500),
            dns=choose_port(address, 8600),
            serf=choose_port(address, 8301),
            rpc=choose_port(address, 8300),
            grpc=choose_port(address, 8502),
            https=choose_port(address, 8501),
        )


class Member:
    """One Consul process, server or client agent."""

    def __init__(self, process: Process, place: Place, data: Path, token: str | None, *, tls: bool) -> None:
        self.process = process
        self.node = place.node
        self.address = place.address
        self.dns_port = place.dns
        self.grpc_port = place.grpc
        self.gossip = f"{place.address}:{place.serf}"
        self.rpc = f"{place.address}:{place.rpc}"
        self.token = token
        self.https_addr = f"https://{place.address}:{place.https}" if tls else None
        self._port = place.http
        self._data = data

    @property
    def http_addr(self) -> str:
        """The URL of its HTTP API."""
        return f"http://{self.address}:{self._port}"

    def request(self, method: str, path: str, body: Any = None, within: float = 10.0) -> Any:
        """Send one request with the management token (where there is one) and return the decoded answer."""
        return _request(self.address, self._port, self.token, method, path, body, within)

    def write_requests(self) -> int:
        """How many requests that may change something its HTTP API has answered since it was started."""
        path = "/v1/agent/metrics?format=prometheus"
        text = _fetch(self.address, self._port, self.token, "GET", path, None, 10.0)
        return sum(int(count) for count in _WRITES.findall(text))

    def restart(self, *, keep_data: bool = True) -> None:
        """Stop it and start it again; without its data it has forgotten its services and who it was."""
        self.process.stop()
        if not keep_data:
            self.lose_data()
        self.process.start()

    def lose_data(self) -> None:
        """Remove the data of a process that does not run, as if its disk were replaced."""
        shutil.rmtree(self._data)


@dataclass(frozen=True, slots=True)
class Consul:
    """A datacenter: its servers, its client agents by the name of their node, and with ACLs its management token."""

    servers: tuple[Member, ...]
    agents: Mapping[str, Member]
    token: str | None
    agent_tokens: Mapping[str, str]

    @property
    def server(self) -> Member:
        """The server to talk to."""
        return self.servers[0]

    @property
    def leader(self) -> Member | None:
        """The server that most of them take for their leader, or None while there is no such."""
        answers = Counter(_leader_seen_by(server) for server in self.servers)
        leading, votes = answers.most_common(1)[0]
        return next((one for one in self.servers if one.rpc == leading and 2 * votes > len(self.servers)), None)

    def writes(self) -> int:
        """How many write requests all members have answered since they were started, by Consul's own count.

        Requests, since what the servers put into their log is no measure: they write by themselves too, when gossip
        takes a member for failed for a moment, and each minute for the verification of their log.
        """
        return sum(member.write_requests() for member in (*self.servers, *self.agents.values()))

    @property
    def http_addr(self) -> str:
        """The URL of the server's HTTP API; the web UI is at /ui."""
        return self.server.http_addr

    @property
    def processes(self) -> tuple[Process, ...]:
        """All processes, servers first."""
        return tuple(member.process for member in (*self.servers, *self.agents.values()))

    def start(self) -> None:
        """Start the servers, and the agents once there is a leader that knows their tokens."""
        for server in self.servers:
            server.process.start(wait=False)
        for server in self.servers:
            server.process.wait_ready()
        for node, secret in self.agent_tokens.items():
            identity = {"NodeName": node, "Datacenter": DATACENTER}
            self.server.request("PUT", "/v1/acl/token", {"SecretID": secret, "NodeIdentities": [identity]})
        for agent in self.agents.values():
            agent.process.start(wait=False)
        for agent in self.agents.values():
            agent.process.wait_ready()


def datacenter(
    home: Home,
    block: Block,
    nodes: Mapping[str, str],
    *,
    servers: int = 1,
    acls: bool,
    on_localhost: bool,
    tls: Authority | None = None,
    verify_incoming: bool = False,
) -> Consul:
    """Lay out the servers and an agent on each of the nodes (name to address); nothing is started.

    With `tls` each has an HTTPS listener too, with a certificate of that authority, and demands one of its clients
    with `verify_incoming`; the checks that agents run trust that authority, as if the machine did.
    """
    voters = {f"consul-server-{number}": block.consul_server(number) for number in range(1, servers + 1)}
    places = {node: Place.at(node, address) for node, address in (voters | dict(nodes)).items()}
    management = str(uuid.uuid4()) if acls else None
    tokens = {node: str(uuid.uuid4()) for node in places} if acls else {}
    gossip = [f"{places[server].address}:{places[server].serf}" for server in voters]
    members = {}
    for node, place in places.items():
        data = home.state / "consul" / node
        config = _common(place, data, gossip)
        if node in voters:
            config |= _server(place, servers, on_localhost=on_localhost and node == next(iter(voters)))
        if tls is not None:
            config |= _https(config, place, tls, verify_incoming=verify_incoming)
        if management is not None:
            config["acl"] = _acl(tokens[node], management if node in voters else None)
        process = Process(_program(config, place, home.state / "consul" / f"{node}.json", management, tls), home)
        members[node] = Member(process, place, data, management, tls=tls is not None)
    return Consul(
        servers=tuple(members[node] for node in voters),
        agents={node: members[node] for node in nodes},
        token=management,
        agent_tokens=tokens,
    )


def _leader_seen_by(server: Member) -> str:
    try:
        told: str = server.request("GET", "/v1/status/leader", within=1.0)
    except (OSError, http.client.HTTPException, ConsulError):
        return ""
    return told


def _common(place: Place, data: Path, servers: Sequence[str]) -> dict[str, Any]:
    return {
        "datacenter": DATACENTER,
        "node_name": place.node,
        "data_dir": str(data),
        "bind_addr": place.address,
        "client_addr": place.address,
        "ports": {
            "http": place.http,
            "dns": place.dns,
            "grpc": place.grpc,
            "grpc_tls": -1,
            "serf_lan": place.serf,
            "serf_wan": -1,
            "server": place.rpc,
        },
        "retry_join": [address for address in servers if address != f"{place.address}:{place.serf}"],
        "retry_interval": "1s",
        "gossip_lan": FAST_GOSSIP,
        "performance": {"raft_multiplier": 1},
        "disable_coordinates": True,
        "disable_update_check": True,
        "telemetry": {"prometheus_retention_time": "24h", "disable_hostname": True},
        "log_level": "info",
    }


def _server(place: Place, servers: int, *, on_localhost: bool) -> dict[str, Any]:
    config: dict[str, Any] = {
        "server": True,
        "bootstrap_expect": servers,
        "connect": {"enabled": False},
        "ui_config": {"enabled": True},
    }
    if on_localhost and is_free(LOCALHOST, place.http):
        config["addresses"] = {"http": f"{place.address} {LOCALHOST}"}
    return config


def _https(config: Mapping[str, Any], place: Place, authority: Authority, *, verify_incoming: bool) -> dict[str, Any]:
    """HTTPS beside HTTP. The names are those of the node and, as Consul's own guides have it, of its kind."""
    kind = "server" if config.get("server") else "client"
    own = authority.server(place.node, (place.address, place.node, f"{kind}.{DATACENTER}.consul"))
    files = {"cert_file": str(own.file), "key_file": str(own.key), "ca_file": str(authority.certificate)}
    return {
        "ports": config["ports"] | {"https": place.https},
        "tls": {"https": {**files, "verify_incoming": verify_incoming}},
    }


def _acl(agent: str, management: str | None) -> dict[str, Any]:
    tokens = {"agent": agent} | ({"initial_management": management} if management else {})
    return {"enabled": True, "default_policy": "deny", "tokens": tokens}


def _program(
    config: Mapping[str, Any], place: Place, file: Path, management: str | None, tls: Authority | None
) -> Program:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(json.dumps(config, indent=2))
    command = (str(CONSUL.path()), "agent", f"-config-file={file}")
    trusted = {"SSL_CERT_FILE": str(tls.certificate)} if tls else {}
    name = f"consul-{place.node.removeprefix('consul-')}"
    return Program(name, command, ready=lambda: _is_ready(place, management), environment=trusted)


def _is_ready(place: Place, management: str | None) -> bool:
    """Whether it knows a leader and the catalog has its node as healthy, so that its services show up at once."""
    try:
        checks = _request(place.address, place.http, management, "GET", f"/v1/health/node/{place.node}")
    except (OSError, http.client.HTTPException, ConsulError):
        return False
    return any(check["CheckID"] == "serfHealth" and check["Status"] == "passing" for check in checks)


def _request(
    host: str, port: int, token: str | None, method: str, path: str, body: Any = None, within: float = 10.0
) -> Any:
    text = _fetch(host, port, token, method, path, body, within)
    return json.loads(text) if text else None


def _fetch(host: str, port: int, token: str | None, method: str, path: str, body: Any, within: float) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=within)
    headers = {"X-Consul-Token": token} if token else {}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    if response.status >= 300:
        raise ConsulError(response.status, text)
    return text
