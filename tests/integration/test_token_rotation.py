"""The token in a Secret is replaced: what agents hold is given to them anew, nothing is disturbed, nothing is lost."""

import base64
import json
import threading
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from operator_world import MERGE, Operator, World, defined, deployment, eventually, operating, registration, truth

from devcluster import Cluster, Options
from devcluster.kube import ApiError
from killpoints import watching

CONNECTIONS = "/apis/consul-registrar.dev/v1alpha1/consulconnections"
SECRETS = "/api/v1/namespaces/default/secrets"
READING = """
agent_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
service_prefix "" { policy = "read" }
key_prefix "consul-registrar/" { policy = "write" }
"""
AGENT = READING.replace('service_prefix "" { policy = "read" }', 'service_prefix "" { policy = "write" }')
CATALOG = AGENT.replace('node_prefix "" { policy = "read" }', 'node_prefix "" { policy = "write" }')
PODS = 30
HELD = 3 * PODS  # an instance and its two checks


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with defined(Options(nodes=2, acls=True), tmp_path_factory.mktemp("guarded")) as one:
        yield one


@pytest.fixture(scope="module")
def operator(guarded: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with operating(guarded, tmp_path_factory.mktemp("operator")) as one:
        yield one


class Rotated:
    """A connection whose token is replaced again and again, and what stands there."""

    def __init__(self, cluster: Cluster, mode: str, rules: str) -> None:
        self.cluster, self.name, self.rules = cluster, mode.lower(), rules
        self.world = World(cluster, "default")
        self.accessor = self.secret = ""
        self.put(*self.token())
        reference = {"secretKeyRef": {"namespace": "default", "name": self.name, "key": "token"}}
        where = {"nodeAgents": {}} if mode == "Agent" else {"addresses": [cluster.consul.http_addr], "virtualNodes": 2}
        spec = {"mode": mode, "auth": {"token": reference, "allowPlaintextToken": True}, **where}
        kind = {"apiVersion": "consul-registrar.dev/v1alpha1", "kind": "ConsulConnection"}
        cluster.api.request("POST", CONNECTIONS, kind | {"metadata": {"name": self.name}, "spec": spec})

    def token(self, rules: str = "") -> tuple[str, str]:
        """A new token in Consul: its accessor ID and its secret."""
        server = self.cluster.consul.server
        policy = f"p-{uuid.uuid4()}"
        server.request("PUT", "/v1/acl/policy", {"Name": policy, "Rules": rules or self.rules})
        made = server.request("PUT", "/v1/acl/token", {"Policies": [{"Name": policy}]})
        return made["AccessorID"], made["SecretID"]

    def put(self, accessor: str, secret: str) -> None:
        """Put a token into the Secret."""
        self.accessor, self.secret = accessor, secret
        body = {"metadata": {"name": self.name}, "data": {"token": base64.b64encode(secret.encode()).decode()}}
        try:
            self.cluster.api.request("PATCH", f"{SECRETS}/{self.name}", body, MERGE)
        except ApiError:
            self.cluster.api.request("POST", SECRETS, {"apiVersion": "v1", "kind": "Secret", **body})

    def end(self, accessor: str) -> None:
        self.cluster.consul.server.request("DELETE", f"/v1/acl/token/{accessor}")

    def status(self) -> dict:
        return self.cluster.api.request("GET", f"{CONNECTIONS}/{self.name}").get("status", {})

    def is_at_rest(self) -> bool:
        """Whether status says that everything stands under the token in the Secret."""
        return self.status()["token"] == {"accessorID": self.accessor}

    def reason(self, kind: str = "TokenCurrent") -> str:
        return next((c["reason"] for c in self.status()["conditions"] if c["type"] == kind), "")

    def held(self, service: str) -> Counter[str]:
        """The tokens that the agents keep on disk for the service's instances and their checks."""
        data = [self.cluster.state / "consul" / node for node in self.cluster.consul.agents]
        files = [file for folder in data for file in (*folder.glob("services/*"), *folder.glob("checks/*"))]
        return Counter(token for file in files for token in _tokens_in(file, service))

    def indexes(self, service: str) -> dict[str, int]:
        return {name: row["ModifyIndex"] for name, row in self.world.catalog(service).items()}


def _tokens_in(file: Path, service: str) -> list[str]:
    if not file.is_file() or file.name.endswith(".tmp"):
        return []
    kept = json.loads(file.read_text())
    what = kept.get("Service") or kept.get("Check") or {}
    return [kept.get("Token", "")] if service in {what.get("Service"), what.get("ServiceName")} else []


class Health:
    """Reads the health of a service event by event; `ill` is every status that was seen and isn't passing."""

    def __init__(self, cluster: Cluster, service: str) -> None:
        self.ill: list[str] = []
        self._over, self._began = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(cluster, service), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._began.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _watch(self, cluster: Cluster, service: str) -> None:
        index = "0"
        while not self._over.is_set():
            url = f"{cluster.consul.http_addr}/v1/health/service/{service}?index={index}&wait=1s"
            request = urllib.request.Request(url, headers={"X-Consul-Token": cluster.consul.token or ""})
            with urllib.request.urlopen(request, timeout=30) as answer:
                index, rows = answer.headers["X-Consul-Index"], json.load(answer)
            self.ill += [
                f"{c['CheckID']}: {c['Status']}" for r in rows for c in r["Checks"] if c["Status"] != "passing"
            ]
            self._began.set()


def lines(operator: Operator, connection: str) -> list[dict]:
    """The audit lines of a connection."""
    told = [json.loads(line) for line in operator.log.splitlines() if line.startswith('{"time"') and '"cause"' in line]
    return [line for line in told if line["connection"] == connection]


def audited(operator: Operator, connection: str, cause: str) -> list[dict]:
    return [line for line in lines(operator, connection) if line["cause"] == cause]


@pytest.fixture(scope="module")
def agents(guarded: Cluster, operator: Operator) -> Iterator[Rotated]:
    """Thirty instances at two agents, with a check that the operator feeds and one that the agent runs."""
    one = Rotated(guarded, "Agent", AGENT)
    checks = [{"name": "ready", "readiness": {}}, {"name": "health", "http": {"path": "/health"}, "interval": "1s"}]
    refs = [{"name": one.name}]
    one.world.apply(deployment("web", PODS), registration("web", consulRefs=refs, checks=checks))
    one.world.passing("web", PODS)
    eventually(one.is_at_rest)
    return one


def test_every_agent_is_given_the_new_token_and_nobody_sees_anything_of_it(
    agents: Rotated, operator: Operator, guarded: Cluster
) -> None:
    before, ended = agents.indexes("web"), agents.accessor
    with watching(truth(guarded)) as oracle, Health(guarded, "web") as health:
        agents.put(*agents.token())
        eventually(agents.is_at_rest)
        oracle.catch_up()
        assert oracle.left == []
        assert health.ill == []
    assert agents.held("web") == {agents.secret: HELD}
    assert agents.indexes("web") == before
    assert len(agents.world.passing("web", PODS)) == PODS

    def rotated() -> list[str]:
        return sorted(line["pod"] for line in audited(operator, agents.name, "token-rotated"))

    eventually(lambda: rotated() == sorted(agents.world.pods("web")))
    agents.end(ended)
    pod = min(agents.world.pods("web"))
    agents.world.annotate(pod, ready="false")
    eventually(lambda: pod not in agents.world.health("web", passing=True))
    agents.world.annotate(pod, ready=None)
    agents.world.passing("web", PODS)


def test_an_operator_that_is_killed_in_the_middle_ends_what_it_had_begun(agents: Rotated, operator: Operator) -> None:
    before = agents.indexes("web")
    agents.put(*agents.token())
    eventually(lambda: len(agents.held("web")) == 2)  # seconds before it is done, and before status says so
    operator.kill()
    assert len(agents.held("web")) == 2
    operator.start()
    eventually(agents.is_at_rest)
    assert agents.held("web") == {agents.secret: HELD}
    assert agents.indexes("web") == before


def test_a_token_that_consul_does_not_know_is_not_used_and_the_one_before_goes_on(agents: Rotated) -> None:
    before = agents.accessor, agents.secret
    agents.put("", str(uuid.uuid4()))
    eventually(lambda: agents.reason() == "NewTokenRefused")
    agents.world.kubectl("scale", "deployment", "web", f"--replicas={PODS + 1}")
    agents.world.passing("web", PODS + 1)
    agents.world.kubectl("scale", "deployment", "web", f"--replicas={PODS}")
    eventually(lambda: len(agents.world.health("web")) == PODS)
    agents.put(*before)
    eventually(lambda: agents.reason() == "TokenInUse")
    assert agents.held("web") == {agents.secret: HELD}


def test_a_token_that_may_only_read_disturbs_nothing_and_a_better_one_ends_it(
    agents: Rotated, guarded: Cluster
) -> None:
    before = agents.secret
    with watching(truth(guarded)) as oracle, Health(guarded, "web") as health:
        agents.put(*agents.token(READING))
        eventually(lambda: agents.reason() == "TokenWriteDenied")
        assert agents.held("web") == {before: HELD}
        assert len(agents.world.passing("web", PODS)) == PODS
        agents.put(*agents.token())
        eventually(agents.is_at_rest)
        oracle.catch_up()
        assert oracle.left == []
        assert health.ill == []
    assert agents.held("web") == {agents.secret: HELD}


def test_in_catalog_mode_a_new_token_costs_no_write(guarded: Cluster, operator: Operator) -> None:
    one = Rotated(guarded, "Catalog", CATALOG)
    one.world.apply(deployment("cat", 5), registration("cat", consulRefs=[{"name": one.name}]))
    one.world.passing("cat", 5)
    one.world.registered("cat", 5)
    eventually(one.is_at_rest)
    before, ended, said = one.indexes("cat"), one.accessor, lines(operator, one.name)
    assert said
    one.put(*one.token())
    eventually(one.is_at_rest)
    assert one.indexes("cat") == before
    assert lines(operator, one.name) == said
    one.end(ended)
    one.world.kubectl("scale", "deployment", "cat", "--replicas=6")
    one.world.passing("cat", 6)


def test_no_token_is_told(guarded: Cluster, operator: Operator, agents: Rotated) -> None:
    told = operator.log + guarded.kubectl("get", "cconn,sreg,events", "-A", "-o", "yaml") + operator.get("/metrics")
    assert agents.secret
    assert agents.secret not in told
