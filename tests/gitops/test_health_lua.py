"""Argo CD's health check, executed: what it says of an object by its condition Ready."""

from pathlib import Path
from typing import Any

import pytest

lupa = pytest.importorskip("lupa", reason="lupa isn't installed: make venv")

SCRIPT = Path(__file__).resolve().parents[2] / "manifests" / "gitops" / "health.lua"


def health(obj: dict[str, Any]) -> tuple[str, str]:
    lua = lupa.LuaRuntime(unpack_returned_tuples=True)
    lua.globals().obj = lua.table_from(obj, recursive=True)
    said = lua.execute(SCRIPT.read_text())
    return said["status"], said["message"]


def registration(status: str = "", *, observed: int = 2, suspend: bool = False, **meta: str) -> dict[str, Any]:
    ready = {"type": "Ready", "status": status, "message": "said", "observedGeneration": observed}
    conditions = [{"type": "Synced", "status": "False", "message": "no"}, ready] if status else []
    spec = {"suspend": True} if suspend else {}
    return {"metadata": {"generation": 2, **meta}, "spec": spec, "status": {"conditions": conditions}}


@pytest.mark.parametrize(
    ("obj", "status"),
    [
        (registration("True"), "Healthy"),
        (registration("False"), "Degraded"),
        (registration("Unknown"), "Progressing"),
        (registration("True", observed=1), "Progressing"),
        (registration(), "Progressing"),
        ({"metadata": {"generation": 1}, "spec": {}}, "Progressing"),
        (registration("True", suspend=True), "Suspended"),
        (registration("True", deletionTimestamp="2026-01-01T00:00:00Z"), "Progressing"),
    ],
)
def test_the_health_is_that_of_the_condition_ready(obj: dict[str, Any], status: str) -> None:
    assert health(obj)[0] == status


def test_the_message_is_that_of_the_condition() -> None:
    assert health(registration("False")) == ("Degraded", "said")
