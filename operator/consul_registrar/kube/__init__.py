"""Everything that talks to Kubernetes. Nothing here knows Consul, or what a registration means.

    login -> client -> listing, reflector   Pods, Nodes, …:   list and watch, msgspec-decoded    -> Store
                    -> resources, embedded  custom resources: kopf's events and complete lists   -> Store
                    -> writes, events       status, finalizers, Events; fresh reads, Secrets

What reaches a store is decided in `intake.py`, in one place for both sources: read it first.
"""

from consul_registrar.kube import lean  # noqa: F401 - before anything that imports kopf
from consul_registrar.kube.client import KubeClient, Login
from consul_registrar.kube.codec import Codec, Page
from consul_registrar.kube.errors import (
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    LoginFailed,
    NotFound,
    Throttled,
    Unavailable,
)
from consul_registrar.kube.events import Regarding, post_event, regarding
from consul_registrar.kube.intake import Store
from consul_registrar.kube.lease import Leadership
from consul_registrar.kube.login import login
from consul_registrar.kube.records import NAMESPACES, NODES, PODS
from consul_registrar.kube.reflector import Reflector
from consul_registrar.kube.resources import CONNECTION, REGISTRATION, CustomObject, CustomResources, Kind
from consul_registrar.kube.service_records import SERVICES, SLICES, watch_services
from consul_registrar.kube.workloads import (
    apply_registration,
    delete_registration,
    fresh_body,
    fresh_workload,
    watch_workloads,
)
from consul_registrar.kube.writes import (
    add_finalizer,
    answer_gate,
    definition_leaves,
    fresh_endpoint_slices,
    fresh_object,
    fresh_pod,
    fresh_service,
    namespace_uid,
    patch_status,
    read_secret,
    remove_finalizer,
    take_annotation,
)

__all__ = [
    "CONNECTION",
    "NAMESPACES",
    "NODES",
    "PODS",
    "REGISTRATION",
    "SERVICES",
    "SLICES",
    "Codec",
    "Conflict",
    "CustomObject",
    "CustomResources",
    "Forbidden",
    "Gone",
    "Invalid",
    "Kind",
    "KubeClient",
    "KubeError",
    "Leadership",
    "Login",
    "LoginFailed",
    "NotFound",
    "Page",
    "Reflector",
    "Regarding",
    "Store",
    "Throttled",
    "Unavailable",
    "add_finalizer",
    "answer_gate",
    "apply_registration",
    "definition_leaves",
    "delete_registration",
    "fresh_body",
    "fresh_endpoint_slices",
    "fresh_object",
    "fresh_pod",
    "fresh_service",
    "fresh_workload",
    "login",
    "namespace_uid",
    "patch_status",
    "post_event",
    "read_secret",
    "regarding",
    "remove_finalizer",
    "take_annotation",
    "watch_services",
    "watch_workloads",
]
