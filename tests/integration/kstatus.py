"""What Flux, and others that use kstatus, take an object for: its documented rules for custom resources.

https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md, read in November 2026.
"""

from collections.abc import Mapping
from typing import Any

CURRENT, IN_PROGRESS, FAILED, TERMINATING = "Current", "InProgress", "Failed", "Terminating"


def kstatus(found: Mapping[str, Any]) -> str:
    """The first rule that says something wins. What none speaks of is current, also an object without a status."""
    metadata, status = found["metadata"], found.get("status") or {}
    conditions = {one["type"]: one["status"] for one in status.get("conditions", ())}
    if metadata.get("deletionTimestamp"):
        return TERMINATING
    if "observedGeneration" in status and status["observedGeneration"] != metadata["generation"]:
        return IN_PROGRESS
    if conditions.get("Reconciling") == "True":
        return IN_PROGRESS
    if conditions.get("Stalled") == "True":
        return FAILED
    return CURRENT if conditions.get("Ready", "True") == "True" else IN_PROGRESS
