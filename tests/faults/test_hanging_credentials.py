"""G13: a connection's token or its authorities are replaced while a write hangs on its way."""

import base64
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from fault_world import CONNECTIONS, Arena, Mode, Shop, leads, shop
from hanging import Hang, Where, daily
from operator_world import (
    MERGE,
    Operator,
    connection,
    defined,
    eventually,
    truth,
    without_consul_variables,
)

from devcluster import Cluster, Options, tls_proxy
from killpoints import Network, explain, watching

SECRET = "/api/v1/namespaces/default/secrets/shown"

pytestmark = [pytest.mark.goal("G13")]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Consul that asks for tokens, with one agent that all connections of mode Agent lead to."""
    with defined(Options(nodes=1, acls=True), tmp_path_factory.mktemp("guarded")) as one:
        yield one


@pytest.fixture(scope="module")
def locked(guarded: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """TLS is ended before the proxies, where requests can be read."""
    without_consul_variables()
    replace(guarded, ca=guarded.authority.certificate.read_text(), token=made(guarded)[1])
    shown = {"secretKeyRef": {"namespace": "default", "name": "shown", "key": "token"}}
    trusted = {"secretKeyRef": {"namespace": "default", "name": "shown", "key": "ca"}}
    places = {"agent": guarded.consul.agents["node-1"].http_addr, "catalog": guarded.consul.http_addr}
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        oracle = stack.enter_context(watching(truth(guarded)))
        for name, url in places.items():
            front = stack.enter_context(tls_proxy(guarded, network.proxy(name, url)))
            spec = {"mode": name.title(), "addresses": [front.url], "tls": {"ca": trusted}, "auth": {"token": shown}}
            guarded.api.request("POST", CONNECTIONS, connection(name, **spec))
        one = Operator(guarded, tmp_path_factory.mktemp("operator"))
        one.start()
        arena = Arena(guarded, network, one, oracle)
        eventually(lambda: leads(one))
        eventually(arena.connected)
        yield arena
        one.kill()


@pytest.fixture
def hang(locked: Arena, request: pytest.FixtureRequest) -> Iterator[Hang]:
    mode: Mode
    where: Where
    mode, where = request.param.split("-")
    locked.network.heal()
    locked.oracle.left.clear()
    with shop(locked, mode) as web:
        web.open("web", 3)
        web.settled()
        yield Hang(web, where)
    assert not locked.oracle.wrong, explain(locked.oracle.wrong)


def made(cluster: Cluster) -> tuple[str, str]:
    """A token that may do everything: its accessor ID and its secret."""
    found = cluster.consul.server.request("PUT", "/v1/acl/token", {"Policies": [{"Name": "global-management"}]})
    return found["AccessorID"], found["SecretID"]


def replace(cluster: Cluster, **values: str) -> None:
    """Put values into the Secret, which is made where it isn't there."""
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    secrets, _, name = SECRET.rpartition("/")
    if all(one["metadata"]["name"] != name for one in cluster.api.request("GET", secrets)["items"]):
        cluster.api.request("POST", secrets, {"metadata": {"name": name}})
    cluster.api.request("PATCH", SECRET, {"data": data}, MERGE)


def changes(web: Shop) -> None:
    """An edit, a Pod that goes, and one that comes."""
    web.tag("web", "v2")
    web.kill_pod(min(web.world.pods("web")), at_once=True)


@daily("agent-after", "catalog-before")
def test_a_token_that_is_replaced_while_a_write_hangs_ends_nothing(locked: Arena, hang: Hang) -> None:
    """The one before ends as soon as nothing stands under it any more."""
    web, (accessor, secret) = hang.web, made(locked.cluster)
    said = len(locked.operator.log)
    with hang.on(lambda: web.tag("web", "v1")):
        replace(locked.cluster, token=secret)
        eventually(lambda: f"the token {accessor} is used from now on" in locked.operator.log[said:])
        changes(web)
    web.settled()


@daily("agent-before", "catalog-after")
def test_authorities_that_are_replaced_while_a_write_hangs_end_nothing(locked: Arena, hang: Hang) -> None:
    """The registry is made anew: what still hangs is that of the one before."""
    web, trusted = hang.web, locked.cluster.authority.certificate.read_text()
    with hang.on(lambda: web.tag("web", "v1")):
        replace(locked.cluster, ca=f"{trusted}\n# as of {time.time()}\n")
        known = locked.network.journal.count(lambda request: request.path == "/v1/agent/self")
        changes(web)
        eventually(lambda: locked.network.journal.count(lambda request: request.path == "/v1/agent/self") > known)
    web.settled()
