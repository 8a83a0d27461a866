"""Thousands of running Pods in seconds: written into etcd as they would stand there, past the API server.

Decides what Pods, nodes and registrations look like. The API server takes JSON from etcd as it takes its own encoding,
and tells its watchers of it like of any other change. No kubelet and no controller runs, so nobody touches them.
"""

import asyncio
import base64
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

import aiohttp

GROUP = "consul-registrar.dev"
CREATED = "2026-01-01T00:00:00Z"
IN_FLIGHT = 8
_NETWORK = IPv4Address("10.64.0.0")


@dataclass(frozen=True, slots=True)
class Place:
    """A Pod: where it stands, which registration selects it, and its number, from which its address follows."""

    namespace: str
    app: str
    number: int
    node: str

    @property
    def name(self) -> str:
        return f"{self.app}-7c9d5b8f64-{self.number:06d}"

    @property
    def ip(self) -> str:
        return str(_NETWORK + self.number)

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    @property
    def key(self) -> str:
        return f"/registry/pods/{self.namespace}/{self.name}"


def pod(place: Place, *, running: bool) -> dict[str, Any]:
    """A Pod of a Deployment, of about the usual size."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": place.name,
            "generateName": f"{place.app}-7c9d5b8f64-",
            "namespace": place.namespace,
            "uid": str(uuid.uuid4()),
            "creationTimestamp": CREATED,
            "labels": {"app": place.app, "pod-template-hash": "7c9d5b8f64", "app.kubernetes.io/part-of": "bench"},
            "annotations": {"kubernetes.io/config.source": "api", "prometheus.io/scrape": "true"},
            "ownerReferences": [_owner(place.app)],
            "managedFields": _MANAGED,
        },
        "spec": _spec(place),
        "status": running_status(place) if running else {"phase": "Pending", "qosClass": "Burstable"},
    }


def running_status(place: Place) -> dict[str, Any]:
    conditions = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    return {
        "phase": "Running",
        "hostIP": "192.0.2.1",
        "hostIPs": [{"ip": "192.0.2.1"}],
        "podIP": place.ip,
        "podIPs": [{"ip": place.ip}],
        "startTime": CREATED,
        "qosClass": "Burstable",
        "conditions": [
            {"type": each, "status": "True", "lastProbeTime": None, "lastTransitionTime": CREATED}
            for each in conditions
        ],
        "containerStatuses": [
            {
                "name": "main",
                "image": "registry.example.com/shop/app:1.2.3",
                "imageID": "registry.example.com/shop/app@sha256:" + "0" * 64,
                "containerID": "containerd://" + "0" * 64,
                "ready": True,
                "started": True,
                "restartCount": 0,
                "lastState": {},
                "state": {"running": {"startedAt": CREATED}},
            }
        ],
    }


def _owner(app: str) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": f"{app}-7c9d5b8f64",
        "uid": str(uuid.uuid5(uuid.NAMESPACE_DNS, app)),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _spec(place: Place) -> dict[str, Any]:
    probe = {"httpGet": {"path": "/health", "port": "http", "scheme": "HTTP"}, "periodSeconds": 10,
             "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3}  # fmt: skip
    return {
        "nodeName": place.node,
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": 30,
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "securityContext": {},
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
        "priority": 0,
        "tolerations": [
            {
                "key": f"node.kubernetes.io/{taint}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            }
            for taint in ("not-ready", "unreachable")
        ],
        "containers": [
            {
                "name": "main",
                "image": "registry.example.com/shop/app:1.2.3",
                "imagePullPolicy": "IfNotPresent",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": [{"name": f"SETTING_{n}", "value": f"value number {n}"} for n in range(8)],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "readinessProbe": probe,
                "livenessProbe": probe,
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
    }


_MANAGED = [
    {
        "manager": manager,
        "operation": "Update",
        "apiVersion": "v1",
        "time": CREATED,
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:status": {"f:phase": {}, "f:podIP": {}}},
        **more,
    }
    for manager, more in (("kube-controller-manager", {}), ("kubelet", {"subresource": "status"}))
]


def node(name: str, address: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "a"}},
        "status": {"addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]},
    }


def registration(namespace: str, app: str, connection: str) -> dict[str, Any]:
    """The three-line spec: the readiness of each Pod is its check."""
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "ServiceRegistration",
        "metadata": {"name": app, "namespace": namespace},
        "spec": {"consulRefs": [{"name": connection}], "pods": {"selector": {"matchLabels": {"app": app}}}},
    }


class Etcd:
    """Writes objects where the API server keeps them; each in a revision of its own, as the API server would."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def put(self, objects: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Write objects, by their keys."""
        await self._all("put", ({"key": _b64(key), "value": _b64(json.dumps(body))} for key, body in objects))

    async def remove(self, keys: Iterable[str]) -> None:
        await self._all("deleterange", ({"key": _b64(key)} for key in keys))

    async def _all(self, what: str, requests: Iterable[dict[str, str]]) -> None:
        rest = iter(requests)

        async def lane() -> None:
            for body in rest:
                async with self._session.post(f"{self._url}/v3/kv/{what}", json=body) as answer:
                    answer.raise_for_status()

        await asyncio.gather(*(lane() for _ in range(IN_FLIGHT)))


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
