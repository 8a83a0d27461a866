"""What tests may rely on in a Consul of three servers, which fail one by one."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from devcluster import Cluster, Options
from devcluster.build import ensure_tools
from devcluster.consul import Consul, ConsulError, Member
from devcluster.process import await_true
from devcluster.tools import CONSUL

PATIENCE = 180.0


@pytest.fixture(scope="module")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    """Three servers and the agents of two nodes; Kubernetes is laid out and not started."""
    ensure_tools(say=print, tools=(CONSUL,))
    options = Options(nodes=2, consul_servers=3, acls=True)
    cluster = Cluster.lay_out(options, tmp_path_factory.mktemp("servers") / "state")
    try:
        cluster.consul.start()
        yield cluster.consul
    finally:
        cluster.stop()


@pytest.fixture(autouse=True)
def _whole(consul: Consul) -> Iterator[None]:
    yield
    eventually(lambda: all(answers(member) for member in (*consul.servers, *consul.agents.values())))
    eventually(lambda: len(voters(consul)) == 3)


def eventually(condition: Callable[[], bool]) -> None:
    assert await_true(condition, PATIENCE)


def answers(member: Member) -> bool:
    """Whether its reads are answered by a leader."""
    try:
        member.request("GET", "/v1/catalog/nodes", within=3.0)
    except (OSError, ConsulError):
        return False
    return True


def has(server: Member, key: str) -> bool:
    """Whether a server's own copy holds a key; one that is catching up may not know the token yet."""
    try:
        return bool(server.request("GET", f"/v1/kv/{key}?stale"))
    except (OSError, ConsulError):
        return False


def voters(consul: Consul) -> list[str]:
    peers = consul.server.request("GET", "/v1/operator/raft/configuration")["Servers"]
    return [peer["Node"] for peer in peers if peer["Voter"]]


def health(consul: Consul, member: Member) -> str:
    """What the catalog says of a member by gossip."""
    checks = consul.server.request("GET", f"/v1/health/node/{member.node}")
    return next((str(check["Status"]) for check in checks if check["CheckID"] == "serfHealth"), "none")


def put(consul: Consul, key: str) -> None:
    """Write a key through whoever leads; a machine that is slow for a moment may have another lead."""

    def written() -> bool:
        try:
            leader(consul).request("PUT", f"/v1/kv/{key}", "value")
        except (OSError, ConsulError):
            return False
        return True

    eventually(written)


def others(consul: Consul, member: Member) -> list[Member]:
    return [server for server in consul.servers if server is not member]


def leader(consul: Consul) -> Member:
    """Who leads; looked at once, since the next moment may have no leader."""
    found: list[Member] = []

    def is_led() -> bool:
        found.extend(filter(None, [consul.leader]))
        return bool(found)

    eventually(is_led)
    return found[0]


def test_the_servers_agree_on_a_leader_and_the_agents_of_all_nodes_have_joined(consul: Consul) -> None:
    assert leader(consul) in consul.servers
    agent = consul.agents["node-1"]
    everybody = {"consul-server-1", "consul-server-2", "consul-server-3", "node-1", "node-2"}
    eventually(lambda: {one["Name"] for one in agent.request("GET", "/v1/agent/members")} == everybody)


def test_what_anybody_writes_is_counted_wherever_he_does_and_no_reads_are(consul: Consul) -> None:
    """Whatever the answer is: while the servers elect a leader they refuse."""
    before, agent = consul.writes(), consul.agents["node-1"]
    for member, method, path, body in (
        (consul.server, "PUT", "/v1/kv/counted", "value"),
        (consul.servers[1], "DELETE", "/v1/kv/counted", None),
        (agent, "PUT", "/v1/agent/service/register", {"Name": "counted"}),
        (agent, "PUT", "/v1/agent/service/deregister/counted", None),
        (agent, "GET", "/v1/agent/services", None),
    ):
        with suppress(ConsulError):
            member.request(method, path, body)
    assert consul.writes() == before + 4


def test_what_the_servers_write_by_themselves_is_not_counted(consul: Consul) -> None:
    """A member is taken for failed, and for alive again: each is a change of its node's check."""
    before, agent = consul.writes(), consul.agents["node-2"]
    agent.process.pause()
    try:
        eventually(lambda: health(consul, agent) == "critical")
    finally:
        agent.process.resume()
    eventually(lambda: health(consul, agent) == "passing")
    assert consul.writes() == before


def test_a_killed_leader_is_followed_by_another_and_comes_back_with_what_it_missed(consul: Consul) -> None:
    killed = leader(consul)
    killed.process.kill()
    eventually(lambda: consul.leader not in {None, killed})
    put(consul, "missed")
    killed.process.start()
    eventually(lambda: has(killed, "missed"))


def test_a_paused_leader_is_followed_by_another_and_goes_on_as_a_follower(consul: Consul) -> None:
    paused = leader(consul)
    paused.process.pause()
    try:
        eventually(lambda: consul.leader not in {None, paused})
        put(consul, "written-meanwhile")
    finally:
        paused.process.resume()
    eventually(lambda: has(paused, "written-meanwhile"))
    eventually(lambda: consul.leader not in {None, paused})


def test_a_server_that_is_cut_off_from_the_others_has_no_leader_and_its_clients_are_told(consul: Consul) -> None:
    alone, *paused = consul.servers
    for server in paused:
        server.process.pause()
    try:
        eventually(lambda: not answers(alone))
        with pytest.raises(ConsulError, match="No cluster leader"):
            alone.request("PUT", "/v1/kv/key", "value", within=30.0)
        assert alone.request("GET", "/v1/catalog/nodes?stale")
        eventually(lambda: consul.leader is None)
    finally:
        for server in paused:
            server.process.resume()
    assert leader(consul)


@pytest.mark.parametrize("keep_data", [True, False])
def test_a_server_restarts_and_has_what_the_others_have(consul: Consul, keep_data: bool) -> None:
    put(consul, "kept")
    restarted = others(consul, leader(consul))[0]
    restarted.restart(keep_data=keep_data)
    eventually(lambda: has(restarted, "kept"))


def test_an_agent_goes_on_while_any_one_server_restarts(consul: Consul) -> None:
    agent = consul.agents["node-2"]
    for server in consul.servers:
        server.restart()
        eventually(lambda: answers(agent))
