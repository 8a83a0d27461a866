"""Kubernetes Events (events.k8s.io/v1): shaped to what the API server accepts, posted without ever failing the caller.

When an Event is due, and its words, are decided by the callers; the same (reason, message) is in condition and log.
"""

import logging
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from consul_registrar.kube.client import KubeClient
from consul_registrar.kube.errors import KubeError
from consul_registrar.kube.resources import API_VERSION, CustomObject
from consul_registrar.model import Pod, Reason

_log = logging.getLogger(__name__)

CONTROLLER = "consul-registrar.dev/operator"
#: Limits of the API (k8s.io/kubernetes pkg/apis/core/validation/events.go), in bytes.
_NOTE = 1024
_WORD = 128


@dataclass(frozen=True, slots=True)
class Regarding:
    """The object that an Event is about, as it was when it happened. `namespace` is "" for a cluster-scoped one."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    version: int


def regarding(obj: CustomObject | Pod) -> Regarding:
    """The reference to an object that was read."""
    api_version, kind = ("v1", "Pod") if isinstance(obj, Pod) else (API_VERSION, obj.kind)
    return Regarding(api_version, kind, obj.namespace, obj.name, obj.uid, obj.version)


async def post_event(
    client: KubeClient,
    about: Regarding,
    reason: Reason,
    *,
    action: str,
    instance: str,
    type: Literal["Normal", "Warning"] = "Normal",  # noqa: A002 - Kubernetes' word
) -> None:
    """Post one Event. Never raises for what Kubernetes answers: an Event that can't be posted is logged and lost.

    `action` is CamelCase: what was done or tried; `instance` tells replicas apart (the Pod's name).
    """
    namespace = about.namespace or "default"
    try:
        body = event_body(about, reason, action=action, instance=instance, type=type, now=datetime.now(UTC))
        await client.create(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", body)
    except KubeError as error:
        _log.warning("the Event %s about %s %s/%s is lost: %s", reason.code, about.kind, namespace, about.name, error)


def event_body(
    about: Regarding,
    reason: Reason,
    *,
    action: str,
    instance: str,
    type: Literal["Normal", "Warning"],  # noqa: A002 - Kubernetes' word
    now: datetime,
) -> dict[str, object]:
    """The Event object. That of a cluster-scoped object belongs to the namespace `default`, as the API demands."""
    namespace = about.namespace or "default"
    reference = {
        "apiVersion": about.api_version,
        "kind": about.kind,
        "namespace": about.namespace,
        "name": about.name,
        "uid": about.uid,
        "resourceVersion": str(about.version),
    }
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": namespace, "name": f"{about.name[:200]}.{secrets.token_hex(8)}"},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": CONTROLLER,
        "reportingInstance": _cut(instance, _WORD),
        "action": _cut(action, _WORD),
        "reason": _cut(reason.code, _WORD),
        "note": _cut(reason.message, _NOTE),
        "type": type,
        "regarding": {key: value for key, value in reference.items() if value},
    }


def _cut(text: str, most: int) -> str:
    """The text in at most so many bytes of UTF-8, marked where it was cut."""
    raw = text.encode()
    if len(raw) <= most:
        return text
    return raw[: most - 3].decode(errors="ignore") + "…"
