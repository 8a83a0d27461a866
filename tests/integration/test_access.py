"""Consul with ACLs: the token comes from a Secret, goes nowhere it shouldn't, and what is wrong with it is said."""

from collections.abc import Iterator

import pytest
from operator_world import MERGE, Operator, World, connection, defined, deployment, eventually, operating, registration

from devcluster import Cluster, Options

CONNECTIONS = "/apis/consul-registrar.dev/v1alpha1/consulconnections"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with defined(Options(nodes=1, acls=True), tmp_path_factory.mktemp("guarded")) as one:
        one.kubectl("create", "secret", "generic", "consul", f"--from-literal=token={one.consul.token}")
        one.kubectl("create", "secret", "generic", "wrong", "--from-literal=token=00000000-dead-beef-0000-000000000000")
        yield one


@pytest.fixture(scope="module")
def operator(guarded: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with operating(guarded, tmp_path_factory.mktemp("operator")) as one:
        yield one


def connect(guarded: Cluster, name: str, secret: str, mode: str = "Agent", *, plaintext: bool = True) -> None:
    token = {"secretKeyRef": {"namespace": "default", "name": secret, "key": "token"}}
    where = {"Agent": {"nodeAgents": {}}, "Catalog": {"addresses": [guarded.consul.http_addr], "virtualNodes": 2}}
    auth = {"token": token, "allowPlaintextToken": plaintext}
    guarded.api.request("POST", CONNECTIONS, connection(name, mode=mode, auth=auth, **where[mode]))


def reason_of(guarded: Cluster, name: str) -> str:
    conditions = guarded.api.request("GET", f"{CONNECTIONS}/{name}").get("status", {}).get("conditions", [])
    return next((c["reason"] for c in conditions if c["type"] == "Ready"), "")


@pytest.mark.parametrize("mode", ["Agent", "Catalog"])
@pytest.mark.shows("cconn.spec.auth.token.secretKeyRef")
def test_with_the_token_of_a_secret_pods_are_registered(guarded: Cluster, operator: Operator, mode: str) -> None:
    name = f"web-{mode}".lower()
    connect(guarded, name, "consul", mode)
    world = World(guarded, "default")
    world.apply(deployment(name, 2), registration(name, consulRefs=[{"name": name}]))
    assert len(world.passing(name, 2)) == 2


@pytest.mark.parametrize("mode", ["Agent", "Catalog"])
@pytest.mark.shows("cconn.spec.auth.allowPlaintextToken")
def test_a_token_is_not_sent_in_plain_text_unless_the_connection_says_so(
    guarded: Cluster, operator: Operator, mode: str
) -> None:
    name = f"careful-{mode}".lower()
    connect(guarded, name, "consul", mode, plaintext=False)
    eventually(lambda: reason_of(guarded, name) == "PlaintextTokenRefused")
    guarded.api.request("PATCH", f"{CONNECTIONS}/{name}", {"spec": {"auth": {"allowPlaintextToken": True}}}, MERGE)
    eventually(lambda: reason_of(guarded, name) in {"AgentsReady", "CatalogReady"})


def test_a_token_that_consul_does_not_know_is_said_to_be_unknown(guarded: Cluster, operator: Operator) -> None:
    connect(guarded, "mistaken", "wrong")
    eventually(lambda: reason_of(guarded, "mistaken") == "TokenUnknown")


def test_a_missing_secret_is_named_and_its_coming_heals(guarded: Cluster, operator: Operator) -> None:
    connect(guarded, "late", "later")
    eventually(lambda: reason_of(guarded, "late") == "SecretNotFound")
    guarded.kubectl("create", "secret", "generic", "later", f"--from-literal=token={guarded.consul.token}")
    eventually(lambda: reason_of(guarded, "late") == "AgentsReady")


@pytest.mark.parametrize("mode", ["Agent", "Catalog"])
def test_with_its_secret_deleted_first_everything_goes_all_the_same(
    guarded: Cluster, operator: Operator, mode: str
) -> None:
    """The token itself is good still: what stands in Consul is removed by it."""
    name = f"first-{mode}".lower()
    guarded.kubectl("create", "secret", "generic", name, f"--from-literal=token={guarded.consul.token}")
    connect(guarded, name, name, mode)
    world = World(guarded, "default")
    world.apply(deployment(name, 2), registration(name, consulRefs=[{"name": name}]))
    world.passing(name, 2)
    guarded.kubectl("delete", "secret", name)
    guarded.kubectl("delete", "cconn", name, "--wait=false")
    world.kubectl("delete", "sreg", name, "--timeout=180s")
    assert world.health(name) == {}
    eventually(lambda: guarded.kubectl("get", "cconn", name, "--ignore-not-found") == "")


def test_no_token_appears_in_log_status_or_events(guarded: Cluster, operator: Operator) -> None:
    secret = guarded.consul.token
    assert secret
    assert secret not in operator.log
    assert secret not in guarded.kubectl("get", "cconn,sreg,events", "-A", "-o", "yaml")
    assert secret not in operator.get("/metrics")
