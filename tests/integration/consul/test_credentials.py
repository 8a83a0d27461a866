"""The credentials of one connection are read again, each by itself."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from consul_world import CLUSTER, eventually

from consul_registrar import credentials
from consul_registrar.api.connection import ConsulConnectionSpec
from consul_registrar.consuls import NodeRegistry
from devcluster.consul import Consul
from devcluster.tls import Authority, Certificate


def new_token(consul: Consul) -> tuple[str, str]:
    """Its accessor ID and its secret."""
    made = consul.server.request("PUT", "/v1/acl/token", {"Policies": [{"Name": "global-management"}]})
    return made["AccessorID"], made["SecretID"]


async def _uid() -> str:
    return "uid-of-kube-system"


def connections() -> credentials.ConsulConnections:
    nothing: Any = lambda *_, **__: None  # noqa: E731
    return credentials.ConsulConnections(CLUSTER, nothing, _uid, nothing, nothing, {}, lambda: True, *[nothing] * 3)


def spec(consul: Consul, authority: Authority, shown: Certificate, token: Path) -> ConsulConnectionSpec:
    def file(path: Path) -> dict[str, str]:
        return {"file": str(path)}

    tls = {
        "ca": file(authority.certificate),
        "clientCertificate": {"certificate": file(shown.file), "key": file(shown.key)},
    }
    where = {"addresses": [consul.server.https_addr], "virtualNodes": 1}
    return ConsulConnectionSpec.model_validate({"mode": "Catalog", "tls": tls, "auth": {"token": file(token)}, **where})


@pytest.mark.parametrize("broken", ["no certificate", None], ids=["unusable", "missing"])
async def test_a_client_certificate_that_can_not_be_shown_keeps_no_token_from_being_replaced(
    closed_consul: Consul,
    authority: Authority,
    tmp_path: Path,
    broken: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(credentials, "_READ_AGAIN", 0.2)
    shown, token = authority.client(f"shown-{broken is None}"), tmp_path / "token"
    (first, secret), (second, replacement) = new_token(closed_consul), new_token(closed_consul)
    token.write_text(secret)
    taken: list[NodeRegistry] = []
    serving = asyncio.create_task(
        connections().serve("default", spec(closed_consul, authority, shown, token), taken.append)
    )

    def accessor() -> str:
        status = taken[-1].status() if taken else None
        return status.token.accessor if status and status.token else ""

    try:
        await eventually(lambda: accessor() == first)
        if broken is None:
            shown.file.unlink()
        else:
            shown.file.write_text(broken)
        await eventually(lambda: "goes on with the credentials read before" in caplog.text)
        token.write_text(replacement)
        await eventually(lambda: accessor() == second)
        assert taken[-1].status().ready
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
