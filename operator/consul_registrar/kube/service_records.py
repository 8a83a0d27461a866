"""Services and EndpointSlices from the API server's JSON, cut down while decoding to what a registration can use.

Of a slice only its nodes are kept, and whether one of their endpoints is ready: a large Service costs little. What the
values mean is decided elsewhere.
"""

from collections.abc import Iterable, Sequence

import msgspec

from consul_registrar.kube.client import KubeClient
from consul_registrar.kube.codec import Codec, Page, version_of
from consul_registrar.kube.intake import Store
from consul_registrar.kube.records import ListMeta, Meta, Wire, annotations_of, interned
from consul_registrar.kube.reflector import Reflector
from consul_registrar.services import EndpointSlice, KubernetesService, ServicePort

#: The label by which a slice says whose endpoints it holds.
SERVICE_NAME = "kubernetes.io/service-name"


class _Port(Wire):
    name: str | None = None
    port: int | None = None
    protocol: str | None = None
    node_port: int | None = None


class _ServiceSpec(Wire):
    type: str | None = None
    cluster_i_p: str | None = msgspec.field(default=None, name="clusterIP")
    cluster_i_ps: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    external_i_ps: list[str] | None = msgspec.field(default=None, name="externalIPs")
    ports: list[_Port] | None = None
    external_traffic_policy: str | None = None


class _Ingress(Wire):
    ip: str | None = None
    hostname: str | None = None


class _LoadBalancer(Wire):
    ingress: list[_Ingress] | None = None


class _ServiceStatus(Wire):
    load_balancer: _LoadBalancer | None = None


class _ServiceWire(Wire):
    metadata: Meta | None = None
    spec: _ServiceSpec | None = None
    status: _ServiceStatus | None = None


class _Conditions(Wire):
    ready: bool | None = None


class _Endpoint(Wire):
    conditions: _Conditions | None = None
    node_name: str | None = None


class _SliceWire(Wire):
    metadata: Meta | None = None
    endpoints: list[_Endpoint] | None = None


class _ServiceList(Wire):
    metadata: ListMeta | None = None
    items: list[_ServiceWire] | None = None


class _SliceList(Wire):
    metadata: ListMeta | None = None
    items: list[_SliceWire] | None = None


_SERVICE = msgspec.json.Decoder(_ServiceWire)
_SERVICES = msgspec.json.Decoder(_ServiceList)
_SLICE = msgspec.json.Decoder(_SliceWire)
_SLICES = msgspec.json.Decoder(_SliceList)


def _service(wire: _ServiceWire) -> KubernetesService:
    meta, spec, status = wire.metadata or Meta(), wire.spec or _ServiceSpec(), wire.status or _ServiceStatus()
    ingress = status.load_balancer.ingress if status.load_balancer else None
    return KubernetesService(
        uid=meta.uid or "",
        namespace=meta.namespace or "",
        name=meta.name or "",
        version=version_of(meta.resource_version),
        labels=interned(meta.labels),
        annotations=annotations_of(meta.annotations),
        type=spec.type or "ClusterIP",
        cluster_ips=_distinct(spec.cluster_i_ps or [spec.cluster_i_p or ""]),
        external_ips=_distinct(spec.external_i_ps or ()),
        ingress=_distinct(entry.ip or entry.hostname or "" for entry in ingress or ()),
        ports=tuple(map(_port, spec.ports or ())),
        local=spec.external_traffic_policy == "Local",
        deleting=meta.deletion_timestamp is not None,
    )


def _port(port: _Port) -> ServicePort:
    return ServicePort(port.name or "", port.port or 0, port.protocol or "TCP", port.node_port or 0)


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))


def _slice(wire: _SliceWire) -> EndpointSlice:
    meta = wire.metadata or Meta()
    nodes: dict[str, bool] = {}
    for endpoint in wire.endpoints or ():
        node = endpoint.node_name or ""
        nodes[node] = nodes.get(node, False) or _is_ready(endpoint)
    return EndpointSlice(
        uid=meta.uid or "",
        namespace=meta.namespace or "",
        service=(meta.labels or {}).get(SERVICE_NAME, ""),
        version=version_of(meta.resource_version),
        nodes=tuple(sorted(nodes.items())),
    )


def _is_ready(endpoint: _Endpoint) -> bool:
    """What isn't said counts as ready (discovery/v1, EndpointConditions)."""
    return endpoint.conditions is None or endpoint.conditions.ready is not False


def _services(raw: bytes) -> Page[KubernetesService]:
    wire = _SERVICES.decode(raw)
    meta = wire.metadata or ListMeta()
    return Page(tuple(map(_service, wire.items or ())), version_of(meta.resourceVersion))


def _slices(raw: bytes) -> Page[EndpointSlice]:
    wire = _SLICES.decode(raw)
    meta = wire.metadata or ListMeta()
    return Page(tuple(map(_slice, wire.items or ())), version_of(meta.resourceVersion))


SERVICES: Codec[KubernetesService] = Codec("Service", page=_services, obj=lambda raw: _service(_SERVICE.decode(raw)))
SLICES: Codec[EndpointSlice] = Codec("EndpointSlice", page=_slices, obj=lambda raw: _slice(_SLICE.decode(raw)))


def watch_services(
    client: KubeClient,
    services: Store[KubernetesService],
    slices: Store[EndpointSlice],
    namespaces: Sequence[str],
    resync: float,
) -> tuple[list[Reflector[KubernetesService]], list[Reflector[EndpointSlice]]]:
    """What feeds both stores, a reflector for each namespace; none: for the whole cluster. `resync`: seconds."""
    scopes = [f"/namespaces/{name}" for name in namespaces] or [""]
    of_slices = [f"/apis/discovery.k8s.io/v1{scope}/endpointslices" for scope in scopes]
    return (
        [Reflector(client, f"/api/v1{scope}/services", SERVICES, services, resync=resync) for scope in scopes],
        [Reflector(client, path, SLICES, slices, resync=resync) for path in of_slices],
    )
