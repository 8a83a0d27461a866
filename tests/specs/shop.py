"""A namespace in which specs by chance publish something: Pods, a Service with addresses of each kind, a Secret.

Decides which values of a spec mean something there (`chances.Pool`), and how registrations are put, awaited and
deleted. Knows nothing of what should become of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal
from zlib import crc32

from operator_world import MERGE, World, connection, eventually, pod, registration

from devcluster import Cluster
from specs.chances import Chances, Pool, Spec

Lane = Literal["agents", "catalog", "both"]
LANES: tuple[Lane, ...] = ("agents", "catalog", "both")
CONNECTIONS = "/apis/consul-registrar.dev/v1alpha1/consulconnections"

_AGENTS_ALONE = frozenset(
    f"spec.checks[].{name}"
    for name in (
        *("grpc", "udp", "h2ping", "ttl", "alias", "http.headers[].valueFrom"),
        *("successBeforePassing", "failuresBeforeWarning", "failuresBeforeCritical"),
    )
) | {"spec.checksFromProbes"}  # a probe of Kubernetes has thresholds
_PORTS = (8080, "http", "admin")
_TRANSIENT = {"Reconciling", "Registering", "Deleting"}


def connections(cluster: Cluster) -> list[dict[str, Any]]:
    """The connections `agents` and `catalog`, where no removal is held: that is another test's matter."""
    lax = {"removalGuard": {"atLeast": 1000}, "allowEndpoints": True}
    return [
        connection("agents", mode="Agent", nodeAgents={}, **lax),
        connection("catalog", mode="Catalog", addresses=[cluster.consul.http_addr], virtualNodes=2, **lax),
    ]


def refs(lane: Lane) -> list[dict[str, str]]:
    return [{"name": name} for name in (("agents", "catalog") if lane == "both" else (lane,))]


@dataclass
class Shop:
    """The namespace of a world, furnished. `specs`: those of the registrations that were put and not deleted."""

    world: World
    chance: Random
    specs: dict[str, Spec] = field(default_factory=dict)

    def furnish(self) -> None:
        """Open it: Pods of two apps, a Service that has endpoints, a Secret."""
        namespace = self.world.namespace
        service = {
            "type": "LoadBalancer",
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            "externalIPs": ["198.51.100.4"],
        }
        self.world.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "probe"}, "stringData": {"token": "s3cret"}},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service},
            _slice("web"),
            *(self.pod(f"web-{number}", "web") for number in (1, 2)),
            self.pod("db-1", "db"),
        )
        status = {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}, {"hostname": "lb.example.com"}]}}}
        path = f"/api/v1/namespaces/{namespace}/services/web/status"
        self.world.cluster.api.request("PATCH", path, status, MERGE)
        eventually(lambda: len(self.world.pods("web")) == 2 and len(self.world.pods("db")) == 1)

    def pod(self, name: str, app: str) -> dict[str, Any]:
        """A Pod as specs may want it: with labels, ports and a readiness probe."""
        made = pod(name, app)
        made["metadata"]["labels"] |= {"track": "stable", "weight": "7"}
        host = 20_000 + 2 * (crc32(name.encode()) % 5_000)  # of each Pod its own, so that any node takes it
        ports = [
            {"name": "http", "containerPort": 8080, "hostPort": host},
            {"name": "admin", "containerPort": 9090, "hostPort": host + 1, "protocol": "UDP"},
        ]
        probe = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 5}
        made["spec"]["containers"][0] |= {"ports": ports, "readinessProbe": probe}
        return made

    def chances(self, name: str, lane: Lane) -> Chances:
        """What a registration of this name may be; its services' names are no other's."""
        own = self._service_name(name)
        values: dict[str, Any] = {
            "spec.consulRefs": [refs(lane)],
            "spec.consulRefs[].name": ("agents", "catalog"),
            "spec.service.name": [own, f"{own}-other", f"{own}-$(metadata.labels['track']:-none)"],
            "spec.service.port": _PORTS,
            "spec.service.ports.*": _PORTS,
            "spec.service.meta{}": ("a", "b-1", "C_2"),
            "spec.service.weights.passing": (1, 10, "$(metadata.labels['weight']:-3)"),
            "spec.service.weights.warning": (0, 1, "$(metadata.labels['weight']:-3)"),
            "spec.service.taggedAddresses{}": ("wan", "other"),
            "spec.pods.selector": (
                {"matchLabels": {"app": "web"}},
                {"matchLabels": {"track": "stable"}},
                {"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "web"]}]},
                {"matchLabels": {"app": "db"}},
            ),
            "spec.pods.address": ("PodIP", "HostIP"),
            "spec.pods.ipFamily": ("IPv4",),
            "spec.endpoints[].name": ("primary", "second"),
            "spec.endpoints[].address": ("192.0.2.7", "db.example.com", "2001:db8::7"),
            "spec.endpoints[].meta{}": ("a", "role"),
            "spec.kubernetesService.name": ("web",),
            "spec.kubernetesService.ipFamily": ("IPv4",),
            "spec.checks[].name": ("one", "two", "three"),
            "spec.checks[].timeout": ("100ms", "1500ms", "2s"),  # an agent that removes a check waits for its probe
            "spec.checks[].http.headers[].valueFrom.secretKeyRef": ({"name": "probe", "key": "token"},),
        }
        values |= {f"spec.checks[].{kind}.port": (*_PORTS, 9) for kind in ("tcp", "http", "grpc", "udp", "h2ping")}
        named = ("ports{}", "defaultPort")
        values |= {f"spec.{at}.{what}": ("http", "admin") for at in ("service", "endpoints[]") for what in named}
        without = _AGENTS_ALONE if lane != "agents" else frozenset()
        return Chances(self.chance, Pool(values, without | {"spec.suspend"}, often=1.0))

    def spec(self, name: str, lane: Lane) -> Spec:
        return {"consulRefs": refs(lane)} | self.chances(name, lane).spec()

    # --- registrations ---

    def put(self, name: str, spec: Spec) -> None:
        """Create a registration, or make its spec exactly this. Its service is named so that no other has the name."""
        spec = {"consulRefs": refs("agents")} | spec
        spec |= {"service": {"name": self._service_name(name)} | spec.get("service", {})}
        path = self.world.registrations

        def replaced() -> bool:
            if name not in self.specs:
                self.world.cluster.api.request("POST", path, registration(name, **spec))
            else:
                found = self.world.registration(name)
                self.world.cluster.api.request("PUT", f"{path}/{name}", found | {"spec": spec})
            return True

        eventually(replaced)  # one of that name may be going yet, or its status be written
        self.specs[name] = spec

    def renamed(self, spec: Spec, name: str, other: str) -> Spec:
        """The spec of a registration for another one: its service's name is that one's own."""
        own = spec.get("service", {})
        if "name" not in own:
            return spec
        return spec | {"service": own | {"name": own["name"].replace(name, other, 1)}}

    def _service_name(self, name: str) -> str:
        return f"{name}-{self.world.namespace}"

    def delete(self, name: str) -> None:
        """Begin to delete a registration."""
        del self.specs[name]
        self.world.cluster.api.request("DELETE", f"{self.world.registrations}/{name}")

    def found(self) -> dict[str, dict[str, Any]]:
        """The registrations that there are, by name."""
        items = self.world.cluster.api.request("GET", self.world.registrations)["items"]
        return {one["metadata"]["name"]: one for one in items}

    def settled(self, names: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Wait until each registration says how it is, as it is now: status and reason of its condition Ready."""
        wanted = set(names)

        def look() -> dict[str, tuple[str, str]]:
            found = self.found()
            said = {name: _says(found[name]) for name in wanted}
            assert not any(reason in _TRANSIENT for _, reason in said.values()), said
            return said

        return eventually(look)


def _says(found: dict[str, Any]) -> tuple[str, str]:
    ready = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    assert ready["observedGeneration"] == found["metadata"]["generation"]
    return ready["status"], ready["reason"]


def _slice(name: str) -> dict[str, Any]:
    endpoints = [
        {"addresses": [f"10.1.0.{at}"], "nodeName": f"node-{at}", "conditions": {"ready": at == 1}} for at in (1, 2)
    ]
    head = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4"}
    labels = {"kubernetes.io/service-name": name}
    return head | {"metadata": {"name": f"{name}-by-hand", "labels": labels}, "endpoints": endpoints, "ports": []}
