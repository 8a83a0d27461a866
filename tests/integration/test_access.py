"""Consul with ACLs: the token comes from a Secret, goes nowhere it shouldn't, and what is wrong with it is said."""

from collections.abc import Iterator

import pytest
from operator_world import CRDS, Operator, World, deployment, eventually, without_consul_variables

from devcluster import Cluster, Options, running

CONNECTIONS = "/apis/consul-registrar.dev/v1alpha1/consulconnections"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(Options(nodes=1, acls=True), tmp_path_factory.mktemp("guarded") / "state") as one:
        one.kubectl("apply", "-f", str(CRDS))
        one.kubectl("wait", "--for=condition=Established", "crd", "--all")
        one.kubectl("create", "secret", "generic", "consul", f"--from-literal=token={one.consul.token}")
        one.kubectl("create", "secret", "generic", "wrong", "--from-literal=token=00000000-dead-beef-0000-000000000000")
        yield one


@pytest.fixture(scope="module")
def operator(guarded: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    without_consul_variables()
    one = Operator(guarded, tmp_path_factory.mktemp("operator"))
    one.start()
    yield one
    one.kill()


def connect(guarded: Cluster, name: str, secret: str, *, plaintext: bool = True) -> None:
    token = {"secretKeyRef": {"namespace": "default", "name": secret, "key": "token"}}
    spec = {"mode": "Agent", "nodeAgents": {}, "auth": {"token": token, "allowPlaintextToken": plaintext}}
    body = {"apiVersion": "consul-registrar.dev/v1alpha1", "kind": "ConsulConnection", "metadata": {"name": name}}
    guarded.api.request("POST", CONNECTIONS, body | {"spec": spec})


def reason_of(guarded: Cluster, name: str) -> str:
    conditions = guarded.api.request("GET", f"{CONNECTIONS}/{name}").get("status", {}).get("conditions", [])
    return next((c["reason"] for c in conditions if c["type"] == "Ready"), "")


@pytest.mark.shows("cconn.spec.auth.token.secretKeyRef", mode="agent")
def test_with_the_token_of_a_secret_pods_are_registered(guarded: Cluster, operator: Operator) -> None:
    connect(guarded, "default", "consul")
    world = World(guarded, "default")
    spec = {"pods": {"selector": {"matchLabels": {"app": "web"}}}}
    kind = {"apiVersion": "consul-registrar.dev/v1alpha1", "kind": "ServiceRegistration", "metadata": {"name": "web"}}
    world.apply(deployment("web", 2), kind | {"spec": spec})
    assert len(world.passing("web", 2)) == 2


@pytest.mark.shows("cconn.spec.auth.allowPlaintextToken", mode="agent")
def test_a_token_is_not_sent_in_plain_text_unless_the_connection_says_so(guarded: Cluster, operator: Operator) -> None:
    connect(guarded, "careful", "consul", plaintext=False)
    eventually(lambda: reason_of(guarded, "careful") == "PlaintextTokenRefused")


def test_a_token_that_consul_does_not_know_is_said_to_be_unknown(guarded: Cluster, operator: Operator) -> None:
    connect(guarded, "mistaken", "wrong")
    eventually(lambda: reason_of(guarded, "mistaken") == "TokenUnknown", within=120)


def test_a_missing_secret_is_named_and_its_coming_heals(guarded: Cluster, operator: Operator) -> None:
    connect(guarded, "late", "later")
    eventually(lambda: reason_of(guarded, "late") == "SecretNotFound")
    guarded.kubectl("create", "secret", "generic", "later", f"--from-literal=token={guarded.consul.token}")
    eventually(lambda: reason_of(guarded, "late") == "AgentsReady")


def test_no_token_appears_in_log_status_or_events(guarded: Cluster, operator: Operator) -> None:
    secret = guarded.consul.token
    assert secret
    assert secret not in operator.log
    assert secret not in guarded.kubectl("get", "cconn,sreg,events", "-A", "-o", "yaml")
    assert secret not in operator.get("/metrics")
