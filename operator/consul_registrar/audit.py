"""One line for every write to Consul: what, on which instance, for which Pod or Service, why, and what came of it.

Decides the fields of the line; where it goes is the logger's matter (`consul_registrar.audit`, always JSON).
"""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import msgspec

from consul_registrar import metrics, model
from consul_registrar.changes import Change, Evidence, operation_of
from consul_registrar.consul.errors import ConsulError, OutcomeUnknown

logger = logging.getLogger("consul_registrar.audit")
_encode = msgspec.json.Encoder().encode


class Audit:
    """The audit log of one connection. `count` is told (operation, cause, outcome) of each write."""

    def __init__(self, connection: str, count: Callable[[str, str, str], None]) -> None:
        self._connection = connection
        self._count = count

    def record(self, change: Change, error: ConsulError | None, batch: int) -> None:
        """Write the line of one change; `batch` is how many left together."""
        outcome = _outcome(error)
        operation = operation_of(change)
        if error is None:
            metrics.pod_written(change.evidence.pod)
        self._count(operation, change.cause.value, outcome)
        instance, meta = change.instance, dict(change.instance.meta)
        line = {
            "operation": operation,
            "cause": change.cause.value,
            "outcome": outcome,
            "node": change.node,
            "instance": change.id,
            "service": instance.service,
            "registration": _registration(meta),
            "pod": meta.get(model.META_POD, ""),
            "podUid": meta.get(model.META_POD_UID, ""),
            **_service(meta),
            **_evidence(change.evidence),
            "batch": batch,
        }
        self._log(line, error)

    def record_other(self, operation: str, cause: str, error: ConsulError | None, node: str = "") -> None:
        """Write the line of what is about no instance: a claim of the cluster's name, a virtual node."""
        outcome = _outcome(error)
        self._count(operation, cause, outcome)
        about = {"node": node} if node else {}
        self._log({"operation": operation, "cause": cause, "outcome": outcome, **about}, error)

    def _log(self, line: Mapping[str, object], error: ConsulError | None) -> None:
        """Where the line was logged is no news, and finding it out costs as much as the line."""
        if not logger.isEnabledFor(logging.INFO):
            return
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        whole = {"time": time, "logger": logger.name, "connection": self._connection, **line}
        if error is not None:
            whole["error"] = error.reason.code
        text = _encode(whole).decode()
        logger.handle(logging.LogRecord(logger.name, logging.INFO, __file__, 0, text, None, None))


def _registration(meta: Mapping[str, str]) -> str:
    """The owner, also of what is being orphaned: that only keeps where it came from."""
    origin = meta.get(model.META_ORPHANED, "").split("/")[2:]
    owner = meta.get(model.META_NAMESPACE), meta.get(model.META_REGISTRATION)
    return "/".join(origin or filter(None, owner))


def _service(meta: Mapping[str, str]) -> dict[str, str]:
    """The Kubernetes Service that it stands for, if it does."""
    found = {"kubernetesService": model.META_SERVICE, "kubernetesServiceUid": model.META_SERVICE_UID}
    return {name: value for name, key in found.items() if (value := meta.get(key))}


def _evidence(evidence: Evidence) -> dict[str, str]:
    """In Kubernetes a resourceVersion is a string."""
    found = {
        "resourceVersion": evidence.service if evidence.pod is None else evidence.pod,
        "registrationVersion": evidence.registration,
    }
    versions = {name: str(version) for name, version in found.items() if version is not None}
    return versions | ({"confirmed": evidence.confirmed} if evidence.confirmed else {})


def _outcome(error: ConsulError | None) -> str:
    match error:
        case None:
            return "applied"
        case OutcomeUnknown():
            return "unknown"
        case _:
            return "refused"
