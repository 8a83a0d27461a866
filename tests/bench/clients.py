"""The API server and Consul over plain HTTP, many requests at a time."""

import json
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp

from devcluster.kube import Api as Administrator

MERGE = "application/merge-patch+json"


class Refused(Exception):
    """Something else than a success was answered."""


class Api:
    """The API server, as an administrator."""

    def __init__(self, administrator: Administrator, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._url = administrator.url
        self._headers = {"Authorization": f"Bearer {administrator.token}"}
        self._tls = ssl.create_default_context(cafile=str(administrator.certificate))

    async def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        headers = self._headers | {"Content-Type": kind}
        data = None if body is None else json.dumps(body)
        async with self._session.request(method, self._url + path, data=data, headers=headers, ssl=self._tls) as answer:
            if answer.status >= 300:
                raise Refused(f"{method} {path}: {answer.status} {(await answer.text())[:300]}")
            return await answer.json()

    async def watch(self, path: str, selector: str, version: str) -> AsyncIterator[bytes]:
        """The lines of one watch from a version; "": what there is comes first, as if it were just added."""
        params = {"watch": "1", "labelSelector": selector, "resourceVersion": version}
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(
            self._url + path, params=params, headers=self._headers, ssl=self._tls, timeout=timeout
        ) as answer:
            async for line in answer.content:
                yield line


class Consul:
    """A server or an agent of Consul."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session

    async def get(self, path: str, **params: Any) -> Any:
        return (await self.block(path, 0, **params))[0]

    async def block(self, path: str, index: int, **params: Any) -> tuple[Any, int]:
        """What stands there once it is newer than `index`, and its index."""
        if index:
            params |= {"index": index, "wait": "30s"}
        async with self._session.get(self._url + path, params=params) as answer:
            body = await answer.read()
            if answer.status >= 300:
                raise Refused(f"GET {path}: {answer.status} {body[:300]!r}")
            return json.loads(body), int(answer.headers.get("X-Consul-Index", "0"))

    async def put(self, path: str, body: Any = None) -> bytes:
        return await self.put_bytes(path, b"" if body is None else json.dumps(body).encode())

    async def put_bytes(self, path: str, body: bytes) -> bytes:
        async with self._session.put(self._url + path, data=body) as answer:
            said = await answer.read()
            if answer.status >= 300:
                raise Refused(f"PUT {path}: {answer.status} {said[:300]!r}")
            return said

    async def instances(self) -> int:
        """How many service instances stand in the catalog; Consul keeps that count, so asking costs nothing."""
        usage = await self.get("/v1/operator/usage")
        return sum(int(each["ServiceInstances"]) for each in usage["Usage"].values())

    async def on_nodes(self, nodes: Sequence[str]) -> dict[tuple[str, str], dict[str, Any]]:
        """All services of these nodes, by node and ID, each with its checks."""
        found = {}
        for node in nodes:
            services = (await self.get(f"/v1/catalog/node-services/{node}")) or {}
            checks: dict[str, list[dict[str, Any]]] = {}
            for check in await self.get(f"/v1/health/node/{node}"):
                checks.setdefault(check["ServiceID"], []).append(check)
            for row in services.get("Services") or ():
                found[node, row["ID"]] = row | {"checks": checks.get(row["ID"], [])}
        return found
