"""A token that is got by logging in with an auth method of type kubernetes, which asks the real API server."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from operator_world import (
    REPOSITORY,
    RESOURCES,
    Operator,
    World,
    connection,
    defined,
    deployment,
    eventually,
    operating,
    registration,
)

from devcluster import Cluster, Options
from devcluster.kube import ApiError

RULES = """
agent_prefix "" { policy = "read" }
node_prefix "" { policy = "write" }
service_prefix "" { policy = "write" }
key_prefix "consul-registrar/" { policy = "write" }
"""
SCRIPT = REPOSITORY / "manifests/helm/consul-registrar/files/find_in_consul.py"
ACCOUNT = "consul-registrar"
MINUTE = "60s"
"""The shortest life that Consul lets an auth method give to its tokens."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with defined(Options(nodes=1, acls=True), tmp_path_factory.mktemp("guarded")) as one:
        for account in (ACCOUNT, "stranger", "reviewer"):
            one.kubectl("create", "serviceaccount", account)
        for role in ("system:auth-delegator", "view"):
            binding = f"reviewer-{role.replace(':', '-')}"
            one.kubectl(
                "create", "clusterrolebinding", binding, f"--clusterrole={role}", "--serviceaccount=default:reviewer"
            )
        policy = {"Name": "registrar", "Rules": RULES}
        one.consul.server.request("PUT", "/v1/acl/policy", policy)
        one.consul.server.request("PUT", "/v1/acl/role", {"Name": "registrar", "Policies": [{"Name": "registrar"}]})
        yield one


@pytest.fixture
def operator(guarded: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with operating(guarded, tmp_path_factory.mktemp("operator")) as one:
        yield one


class LoggedIn:
    """An auth method of its own, and a connection that logs in with it."""

    def __init__(
        self, cluster: Cluster, folder: Path, *, ttl: str = "", account: str = ACCOUNT, plaintext: bool = True
    ):
        self.cluster, self.name = cluster, f"login-{uuid.uuid4().hex[:6]}"
        self.consul = cluster.consul.server
        self.jwt = self._jwt(account)
        config = {
            "Host": cluster.api_url,
            "CACert": cluster.api.certificate.read_text(),
            "ServiceAccountJWT": self._jwt("reviewer"),
        }
        life = {"MaxTokenTTL": ttl} if ttl else {}
        method = {"Name": self.name, "Type": "kubernetes", "Config": config, **life}
        self.consul.request("PUT", "/v1/acl/auth-method", method)
        self.rule = ""
        self.bind()
        file = folder / self.name
        file.write_text(self.jwt)
        login = {"authMethod": self.name, "tokenFile": str(file), "meta": {"cluster": "east"}}
        made = connection(
            self.name,
            mode="Catalog",
            addresses=[cluster.consul.http_addr],
            virtualNodes=2,
            auth={"kubernetes": login, "allowPlaintextToken": plaintext},
        )
        cluster.api.request("POST", f"{RESOURCES}/consulconnections", made)

    def _jwt(self, account: str) -> str:
        return self.cluster.kubectl("create", "token", account).strip()

    def bind(self) -> None:
        """Let the operator's service account in."""
        selector = f'serviceaccount.name=="{ACCOUNT}"'
        rule = {"AuthMethod": self.name, "BindType": "role", "BindName": "registrar", "Selector": selector}
        self.rule = self.consul.request("PUT", "/v1/acl/binding-rule", rule)["ID"]

    def unbind(self) -> None:
        self.consul.request("DELETE", f"/v1/acl/binding-rule/{self.rule}")

    def tokens(self) -> dict[str, str]:
        """The tokens that Consul has by this method: what is said of each, by accessor ID."""
        every = self.consul.request("GET", f"/v1/acl/tokens?authmethod={self.name}")
        return {one["AccessorID"]: one["Description"] for one in every}

    def shown(self) -> str:
        """The accessor ID in the connection's status."""
        return str(self._status()["token"]["accessorID"])

    def says(self, kind: str = "Ready") -> dict[str, str]:
        found: dict[str, str] = next(c for c in self._status()["conditions"] if c["type"] == kind)
        return found

    def _status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.api.request("GET", f"{RESOURCES}/consulconnections/{self.name}")["status"]
        return found

    def register(self, replicas: int) -> World:
        world = World(self.cluster, "default")
        world.apply(deployment(self.name, replicas), registration(self.name, consulRefs=[{"name": self.name}]))
        world.passing(self.name, replicas)
        return world


@pytest.mark.shows(
    "cconn.spec.auth.kubernetes.authMethod",
    "cconn.spec.auth.kubernetes.tokenFile",
    "cconn.spec.auth.kubernetes.meta",
    mode="catalog",
)
def test_pods_are_registered_and_the_token_ends_with_the_operator(
    guarded: Cluster, operator: Operator, tmp_path: Path
) -> None:
    one = LoggedIn(guarded, tmp_path)
    one.register(2)
    ((accessor, description),) = one.tokens().items()
    assert '"cluster":"east"' in description
    assert eventually(one.shown) == accessor
    secret = one.consul.request("GET", f"/v1/acl/token/{accessor}")["SecretID"]
    everything = operator.log + guarded.kubectl("get", "cconn,sreg,events", "-A", "-o", "yaml")
    assert accessor in everything
    assert secret not in everything
    assert one.jwt not in everything
    operator.stop()
    assert one.tokens() == {}


def test_a_token_that_ends_is_replaced_before_and_nothing_is_written_for_it(
    guarded: Cluster, operator: Operator, tmp_path: Path
) -> None:
    one = LoggedIn(guarded, tmp_path, ttl=MINUTE)
    world = one.register(2)
    first = eventually(one.shown)
    stands = {name: row["ModifyIndex"] for name, row in world.catalog(one.name).items()}
    ready = one.says()
    second = eventually(lambda: one.shown() != first and one.shown(), within=180)
    eventually(lambda: set(one.tokens()) == {second}, within=180)
    assert one.says() == ready
    assert {name: row["ModifyIndex"] for name, row in world.catalog(one.name).items()} == stands
    world.kubectl("scale", "deployment", one.name, "--replicas=3")
    world.passing(one.name, 3)
    assert one.says() == ready


def test_a_token_that_was_revoked_is_replaced_once_the_login_is_let_in(
    guarded: Cluster, operator: Operator, tmp_path: Path
) -> None:
    one = LoggedIn(guarded, tmp_path)
    world = one.register(1)
    first = eventually(one.shown)
    one.unbind()
    one.consul.request("DELETE", f"/v1/acl/token/{first}")
    condition = eventually(lambda: one.says("TokenCurrent")["reason"] == "LoginRefused" and one.says("TokenCurrent"))
    assert one.name in condition["message"]
    one.bind()
    eventually(lambda: one.says("TokenCurrent")["reason"] == "TokenInUse")
    assert one.shown() != first
    world.kubectl("scale", "deployment", one.name, "--replicas=2")
    world.passing(one.name, 2)


def test_the_charts_own_test_rests_on_the_status_where_it_cannot_log_in_itself(
    guarded: Cluster, operator: Operator, tmp_path: Path
) -> None:
    one = LoggedIn(guarded, tmp_path)
    world = World(guarded, "default")
    world.apply(deployment(one.name, 1))
    ((name, pod),) = eventually(lambda: list(world.pods(one.name).items()))
    world.kubectl("label", "pod", name, f"consul-registrar.dev/test={one.name}")
    (tmp_path / "token").write_text(guarded.token)
    (tmp_path / "ca.crt").write_text(guarded.api.certificate.read_text())
    api = urlsplit(guarded.api_url)
    environment = {
        "ACCOUNT": str(tmp_path),
        "KUBERNETES_SERVICE_HOST": str(api.hostname),
        "KUBERNETES_SERVICE_PORT": str(api.port),
        "POD_NAME": name,
        "POD_UID": pod["metadata"]["uid"],
        "POD_NAMESPACE": "default",
        "RELEASE": one.name,
        "CONNECTION": one.name,
        "TIMEOUT": "60",
    }
    done = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Consul isn't asked" in done.stdout
    assert '"service":"consul-registrar-test"' in operator.log.replace(" ", ""), "it was registered all the same"
    eventually(lambda: one.consul.request("GET", "/v1/health/service/consul-registrar-test") == [])


def test_an_account_that_no_rule_binds_is_refused(guarded: Cluster, operator: Operator, tmp_path: Path) -> None:
    one = LoggedIn(guarded, tmp_path, account="stranger")
    message = eventually(lambda: one.says()["reason"] == "LoginRefused" and one.says()["message"])
    assert one.name in message
    assert one.jwt not in operator.log


def test_a_service_accounts_token_is_not_sent_in_plain_text_unless_the_connection_says_so(
    guarded: Cluster, operator: Operator, tmp_path: Path
) -> None:
    one = LoggedIn(guarded, tmp_path, plaintext=False)
    eventually(lambda: one.says()["reason"] == "PlaintextTokenRefused")
    assert one.tokens() == {}


@pytest.mark.shows(
    "cconn.spec.auth.kubernetes.authMethod",
    "cconn.spec.auth.kubernetes.tokenFile",
    "cconn.spec.auth.kubernetes.meta",
    mode="agent",
    condition="refused",
)
def test_agents_are_given_no_token_that_ends(guarded: Cluster) -> None:
    body = connection("agents", mode="Agent", nodeAgents={}, auth={"kubernetes": {"authMethod": "any"}})
    with pytest.raises(ApiError, match=r"must not have auth\.kubernetes in mode Agent"):
        guarded.api.request("POST", f"{RESOURCES}/consulconnections", body)
