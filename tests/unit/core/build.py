"""Builds the values that tests of the core speak of: each has sensible defaults, a test names what matters to it."""

from typing import Any

from consul_registrar import objects
from consul_registrar.api.registration import ServiceRegistrationSpec
from consul_registrar.desired import Present, desired
from consul_registrar.facts import Facts
from consul_registrar.model import Check, ContainerPort, Health, Instance, Node, Owner, Pod, Reason, RegistrationKey
from consul_registrar.objects import Connection, Registration
from consul_registrar.probes import Readiness
from consul_registrar.services import Backends, EndpointSlice, Exposed, KubernetesService, ServicePort, subject_of

SELECTOR = {"matchLabels": {"app": "web"}}
PODS: dict[str, Any] = {"selector": SELECTOR}
HTTP = ContainerPort("http", 8080)
OWNER = Owner("prod", "default", "shop", "web")
KEY = RegistrationKey("shop", "web")
OLD = "2026-01-01T00:00:00Z"
NOW = "2026-02-02T00:00:00Z"


def pod(name: str = "web-1", **fields: Any) -> Pod:
    """A running, ready Pod of the registration that `registration()` makes."""
    defaults: dict[str, Any] = {
        "uid": f"uid-{name}",
        "namespace": "shop",
        "version": 1,
        "labels": {"app": "web"},
        "annotations": {},
        "node": "node-1",
        "phase": "Running",
        "ip": "10.0.0.1",
        "host_ip": "192.168.0.1",
        "deleting": False,
        "ready": True,
        "restarts": 0,
        "ports": (HTTP,),
    }
    return Pod(name=name, **(defaults | fields))


def node(name: str = "node-1", **fields: Any) -> Node:
    defaults: dict[str, Any] = {"uid": f"uid-{name}", "version": 1, "labels": {}, "addresses": {}}
    return Node(name=name, **(defaults | fields))


def of_pods(**spec: Any) -> dict[str, Any]:
    """A spec that selects Pods with the label app=web."""
    return {"pods": PODS} | spec


def of_endpoints(*endpoints: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"endpoints": list(endpoints or [endpoint()])} | spec


def endpoint(name: str = "primary", **fields: Any) -> dict[str, Any]:
    return {"name": name, "address": "db.example.com", "port": 5432} | fields


def service(name: str = "web-lb", **fields: Any) -> KubernetesService:
    """A Service of type LoadBalancer with an address of each kind and one port, http."""
    defaults: dict[str, Any] = {
        "uid": f"uid-{name}",
        "namespace": "shop",
        "version": 1,
        "labels": {},
        "annotations": {},
        "type": "LoadBalancer",
        "cluster_ips": ("10.96.0.10",),
        "external_ips": ("198.51.100.4",),
        "ingress": ("203.0.113.7",),
        "ports": (ServicePort("http", 80, node_port=30080),),
    }
    return KubernetesService(name=name, **(defaults | fields))


def slices(name: str = "web-lb", part: str = "a", version: int = 1, **nodes: bool) -> EndpointSlice:
    """A slice of the Service's endpoints: node to whether one there is ready; `_` stands for `-`."""
    named = tuple((node.replace("_", "-"), ready) for node, ready in nodes.items())
    return EndpointSlice(f"uid-{name}-{part}", "shop", name, version, named)


def of_service(publish: str = "LoadBalancer", *, family: str | None = None, **spec: Any) -> dict[str, Any]:
    """A spec that publishes the Service that `service()` makes."""
    source = {"name": "web-lb", "publish": publish} | ({"ipFamily": family} if family else {})
    return {"kubernetesService": source} | spec


def of_address(address: str, spec: Any = None, **fields: Any) -> Facts:
    """What is known of one address of a Service, with one ready endpoint on node-1."""
    exposed = fields.pop("exposed", Exposed(service(), Backends({"node-1": True})))
    at = node(addresses={"InternalIP": "192.168.0.1"})
    defaults: dict[str, Any] = {"pod": None, "node": at, "subject": subject_of("uid-web-lb", address)}
    return facts(spec or of_service(), exposed=exposed, **(defaults | fields))


def body(spec: Any = None, *, name: str = "web", namespace: str = "shop", status: Any = None, **metadata: Any) -> Any:
    """An object as the API server has it."""
    known = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-of-{namespace}-{name}",
        "resourceVersion": "7",
        "generation": 3,
        "creationTimestamp": OLD,
    }
    return {"metadata": known | metadata, "spec": of_pods() if spec is None else spec, "status": status or {}}


def registration(spec: Any = None, **metadata: Any) -> Registration:
    """A registration with this spec; by default one that selects Pods."""
    return objects.registration(body(spec, **metadata))


def connection(name: str = "default", **spec: Any) -> Connection:
    wanted = {"mode": "Agent", "nodeAgents": {}} | spec
    return objects.connection(
        {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": "1"}, "spec": wanted}
    )


def spec_of(found: Registration) -> ServiceRegistrationSpec:
    """The spec of a registration that must be well-formed."""
    assert isinstance(found.spec, ServiceRegistrationSpec), found.spec
    return found.spec


def facts(spec: Any = None, **fields: Any) -> Facts:
    """What is known of the Pod web-1 of the registration shop/web; `spec` is short for a registration with it."""
    a_pod = fields.get("pod", pod())
    defaults: dict[str, Any] = {
        "owner": OWNER,
        "subject": a_pod.uid if a_pod else "uid-web-1",
        "registration": registration(spec),
        "refused": None,
        "pod": a_pod,
        "node": node(),
        "place": "agent-1",
        "standing": (),
    }
    return Facts(**(defaults | fields))


def of_endpoint(name: str = "primary", spec: Any = None, **fields: Any) -> Facts:
    """What is known of one endpoint."""
    return facts(spec or of_endpoints(), **({"pod": None, "node": None, "subject": name} | fields))


def instance(spec: Any = None, **fields: Any) -> Instance:
    """What should stand for these facts."""
    return present(facts(spec, **fields))


def present(known: Facts) -> Instance:
    want = desired(known)
    assert isinstance(want, Present), want
    return want.instance


def reason(code: str = "SomeReason", message: str = "something is so") -> Reason:
    return Reason(code, message)


def readiness(instance_id: str, status: Health = Health.PASSING, name: str = "readiness") -> Check:
    return Check(f"{instance_id}:{name}:readiness", name, Readiness(), status)
