"""The operator between proxies: how it is started so that all it says to Kubernetes and Consul goes through them.

Here the general runner (`killpoints`) meets this operator. What the faults are is the tests' matter.
"""

import random
import secrets
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from operator_world import (
    MERGE,
    PATIENCE,
    RESOURCES,
    Operator,
    World,
    connection,
    define,
    deployment,
    eventually,
    without_consul_variables,
)

from devcluster import Cluster
from devcluster.kube import ApiError
from killpoints import Claim, Network, Oracle, Request, Stage, faults

Mode = Literal["agent", "catalog"]
Count = Callable[[int], None]
MODES: tuple[Mode, ...] = ("agent", "catalog")

AGENT_PORT = 9500
RESYNC = 20
"""Seconds; ten minutes as a rule."""
HOLDS = {"after": "10s"}
"""Five minutes as a rule: what one test after the other makes vanish within a minute is much for so few instances."""
LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases/consul-registrar"
CLAIM = "/v1/kv/consul-registrar/clusters/test"
CONNECTIONS = f"{RESOURCES}/consulconnections"

#: The writes of each mode to Consul.
CONSUL_WRITES: dict[Mode, tuple[str, ...]] = {
    "agent": ("PUT agent/service/register", "PUT agent/service/deregister", "PUT agent/check/update"),
    "catalog": ("PUT txn",),
}


def some(table: Iterable[Any], *daily: Any) -> list[Any]:
    """The names of a table as parameters; those that aren't for every day are for `make test-faults`."""
    return [name if name in daily else pytest.param(name, marks=pytest.mark.exhaustive) for name in table]


def external(request: Request) -> bool:
    """The writes that count: all but the Lease's, which go on for ever."""
    return request.is_write and not request.kind.endswith(" leases")


def to_consul(request: Request) -> bool:
    return request.path.startswith("/v1/")


def leads(operator: Operator) -> bool:
    """Whether it is the one that writes."""
    return 'leader_election_master_status{name="consul-registrar"} 1.0' in operator.get("/metrics")


def between(cluster: Cluster, network: Network, folder: Path) -> Path:
    """Open proxies before the API server, Consul's servers and its agents; returns the operator's kubeconfig."""
    trust = ssl.create_default_context(cafile=str(cluster.control_plane.api.certificate))
    api = network.proxy("kubernetes", cluster.api_url, tls=trust)
    for node, agent in cluster.consul.agents.items():
        network.proxy(node, agent.http_addr, listen=(agent.address, AGENT_PORT))
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"] = {"server": api}
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    return kubeconfig


def connect(cluster: Cluster, servers: Sequence[str]) -> None:
    """The two connections: `agent` to an agent on each node, `catalog` to the servers; both through proxies."""
    define(cluster)
    agent = connection("agent", mode="Agent", nodeAgents={"port": AGENT_PORT}, removalGuard=HOLDS)
    catalog = connection("catalog", mode="Catalog", addresses=list(servers), virtualNodes=2, removalGuard=HOLDS)
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([agent, catalog]))


@dataclass
class Arena:
    """Everything that a fault test needs."""

    cluster: Cluster
    network: Network
    operator: Operator
    oracle: Oracle

    def stage(self, **settings: Any) -> Stage:
        """For plays with kill points. The dead leader's Lease is removed, to save the seconds of its term."""
        return Stage(self.network, self.operator, external, revive=self.vacate, **settings)

    def vacate(self) -> None:
        """Nobody leads any more."""
        with suppress(ApiError):  # nobody has led yet
            self.cluster.api.request("DELETE", LEASE)

    def leads(self) -> bool:
        return leads(self.operator)

    def start_on(self, old: faults.Replay) -> None:
        """Start the operator where all that can be seen of Pods is old."""
        old.recording = False
        self.network.inject(lambda request: request.kind == "watch pods", faults.silent_watch, times=None)
        self.restart()

    def connected(self) -> bool:
        """Both connections say that all is well."""
        found = self.cluster.api.request("GET", CONNECTIONS)["items"]
        conditions = [c for one in found for c in one.get("status", {}).get("conditions") or ()]
        return [c["status"] for c in conditions if c["type"] == "Ready"] == ["True"] * len(MODES)

    def restart(self) -> None:
        """Kill the operator and start it; it leads at once."""
        self.operator.kill()
        self.vacate()
        self.operator.start()
        eventually(self.leads)

    def shop(self, mode: Mode) -> "Shop":
        """A new namespace."""
        namespace = f"f-{secrets.token_hex(3)}"
        self.cluster.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        return Shop(self, mode, World(self.cluster, namespace))


@contextmanager
def playing(
    cluster: Cluster, oracle: Oracle, folder: Path, arguments: Sequence[str] = (), **operator: Any
) -> Iterator[Arena]:
    """An operator that runs and leads, between proxies."""
    without_consul_variables()
    with Network() as network:
        kubeconfig = between(cluster, network, folder)
        connect(cluster, [network.proxy(server.node, server.http_addr) for server in cluster.consul.servers])
        one = Operator(cluster, folder, kubeconfig=kubeconfig, arguments=(f"--resync={RESYNC}", *arguments), **operator)
        arena = Arena(cluster, network, one, oracle)
        arena.vacate()
        arena.operator.start()
        eventually(arena.leads)
        eventually(arena.connected)
        yield arena
        arena.operator.kill()


@dataclass
class Shop:
    """A namespace with services, each a Deployment with its registration, and what is claimed of them."""

    arena: Arena
    mode: Mode
    world: World
    claims: dict[str, Claim] = field(default_factory=dict)

    def name(self, app: str) -> str:
        """The Consul service of an app: unlike that of any other shop."""
        return f"{app}-{self.world.namespace}"

    def registration(self, app: str, **spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": "consul-registrar.dev/v1alpha1",
            "kind": "ServiceRegistration",
            "metadata": {"name": app},
            "spec": {
                "consulRefs": [{"name": self.mode}],
                "service": {"name": self.name(app)},
                "pods": {"selector": {"matchLabels": {"app": app}}},
                **spec,
            },
        }

    def open(self, app: str, replicas: int) -> None:
        """Apply a Deployment and its registration; from now on it is claimed."""
        self.open_pods(app, replicas)
        self.create(self.world.registrations, self.registration(app))
        self.claim(app)

    def open_pods(self, app: str, replicas: int) -> None:
        self.create(self.deployments, deployment(app, replicas))

    def claim(self, app: str, tags: tuple[str, ...] | None = None) -> None:
        self.claims[app] = Claim(self.name(app), self.world.namespace, {"app": app}, tags)

    def tag(self, app: str, *tags: str) -> None:
        self.world.patch(app, {"service": {"tags": list(tags)}})
        self.claim(app, tags)

    def scale(self, app: str, replicas: int) -> None:
        path = f"{self.deployments}/{app}/scale"
        self.arena.cluster.api.request("PATCH", path, {"spec": {"replicas": replicas}}, MERGE)

    def create(self, collection: str, body: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = self.arena.cluster.api.request("POST", collection, body)
        return made

    def churn(self, app: str, changes: int, seed: int, pause: float = 0.1) -> None:
        """So many random changes, one after the other: Pods come, go, become ready and unready."""
        chance = random.Random(seed)
        for _ in range(changes):
            names = sorted(self.world.pods(app))
            match chance.choice(("scale", "kill", "unready", "ready")):
                case "kill" if names:
                    self.kill_pod(chance.choice(names), at_once=chance.random() < 0.3)
                case "unready" if names:
                    self._steer(chance.choice(names), ready="false")
                case "ready" if names:
                    self._steer(chance.choice(names), ready=None)
                case _:
                    self.scale(app, chance.randint(1, 6))
            time.sleep(pause)

    def _steer(self, pod: str, **annotations: str | None) -> None:
        with suppress(ApiError):  # it went meanwhile
            self.world.annotate(pod, **annotations)

    def kill_pod(self, name: str, *, at_once: bool = False) -> None:
        """Delete a Pod; `at_once`: without any grace, so that nobody sees it terminate."""
        path = f"{self.pods}/{name}"
        with suppress(ApiError):  # it went meanwhile
            self.arena.cluster.api.request("DELETE", path, {"gracePeriodSeconds": 0} if at_once else None)

    @property
    def pods(self) -> str:
        """The path of the Pods of this namespace at the API server."""
        return f"/api/v1/namespaces/{self.world.namespace}/pods"

    @property
    def deployments(self) -> str:
        """The path of the Deployments of this namespace at the API server."""
        return f"/apis/apps/v1/namespaces/{self.world.namespace}/deployments"

    def vacate(self) -> None:
        """The Pods go too, and nobody waits for it."""
        with suppress(ApiError):  # it went already
            self.arena.cluster.api.request("DELETE", f"/api/v1/namespaces/{self.world.namespace}")

    def abandon(self) -> None:
        """Delete the namespace with all that is in it."""
        self.arena.oracle.excuse(*(claim.service for claim in self.claims.values()))
        self.claims.clear()
        self.vacate()

    def unregister(self, app: str) -> None:
        """Delete the registration; the Pods live on, and their instances may go."""
        self.arena.oracle.excuse(self.claims.pop(app).service)
        self.arena.cluster.api.request("DELETE", f"{self.world.registrations}/{app}")

    def wrong(self) -> list[str]:
        """What is not as claimed: in Consul, of the statuses, and what is left of deleted registrations."""
        mine = [claim.service for claim in self.claims.values()]
        found = [text for text in self.arena.oracle.differences(self.claims.values()) if self._concerns(text, mine)]
        registrations = self.arena.cluster.api.request("GET", self.world.registrations)["items"]
        found += [f"{one['metadata']['name']} still exists" for one in registrations if self._is_over(one)]
        return found + [f"status: {one}" for one in registrations if not self._is_over(one) and not _registered(one)]

    def _is_over(self, registration: dict[str, Any]) -> bool:
        return registration["metadata"]["name"] not in self.claims

    def _concerns(self, text: str, mine: Sequence[str]) -> bool:
        """Ghosts of other namespaces are the matter of those tests."""
        return not text.startswith("ghost: ") or self.world.namespace in text or any(name in text for name in mine)

    def settled(self, within: float = PATIENCE) -> None:
        """Wait until all is as claimed."""

        def look() -> None:
            wrong = self.wrong()
            assert not wrong, wrong

        eventually(look, within=within)

    def close(self) -> None:
        """Nothing of it is left: everything is unregistered and deleted."""
        for app in tuple(self.claims):
            self.unregister(app)
        self.settled()
        self.vacate()


def _registered(registration: dict[str, Any]) -> bool:
    """Whether the status says of the present spec that all is registered."""
    conditions = registration.get("status", {}).get("conditions") or ()
    generation = registration["metadata"]["generation"]
    return any(
        (c["type"], c["reason"], c["observedGeneration"]) == ("Ready", "Registered", generation) for c in conditions
    )


class Walk:
    """The scenario of the kill points: a registration's whole life, with every kind of write in it."""

    def __init__(self, arena: Arena, mode: Mode) -> None:
        self._shop = arena.shop(mode)
        self.steps: Sequence[Callable[[], object]] = (self._come, self._change, self._go)

    def _come(self) -> None:
        self._shop.open("web", 3)

    def _change(self) -> None:
        """Nearly at once: an edit, one Pod fewer, one that isn't ready; and the claim of the cluster's name is lost."""
        self._shop.tag("web", "v2")
        self._shop.scale("web", 2)
        name = min(eventually(lambda: len(left := self._shop.world.pods("web")) == 2 and left))  # one that stays
        self._shop.world.annotate(name, ready="false")
        self._shop.arena.cluster.consul.server.request("DELETE", CLAIM)

    def _go(self) -> None:
        self._shop.unregister("web")

    def wrong(self) -> Sequence[str]:
        claimed = self._shop.arena.oracle.consul(CLAIM).status == 200
        return [*self._shop.wrong(), *([] if claimed else ["the cluster's name is not claimed"])]

    def close(self) -> None:
        """Its Pods go too."""
        self._shop.vacate()


@contextmanager
def shop(arena: Arena, mode: Mode) -> Iterator[Shop]:
    """A shop for the length of a block; afterwards nothing of it is left, and nothing was removed wrongly."""
    made = arena.shop(mode)
    yield made
    arena.network.heal()
    made.close()
