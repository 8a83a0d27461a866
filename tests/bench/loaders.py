"""Bare loaders: the least that a program must do to bring the same instances into Consul. What we are compared with.

They know beforehand what to write, watch nothing, decide nothing, check nothing, and are given the rows that the
operator had written.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from bench.clients import Consul

Rows = Mapping[tuple[str, str], dict[str, Any]]

TXN_OPS = 128
CATALOG_IN_FLIGHT = 4
AGENT_IN_FLIGHT = 8


async def load_catalog(consul: Consul, nodes: Mapping[str, dict[str, Any]], rows: Rows) -> float:
    """Write through `/v1/txn` in full batches; seconds. `nodes`: their meta. The nodes themselves come first."""
    began = time.monotonic()
    makes = [{"Node": {"Verb": "set", "Node": _node(name, meta)}} for name, meta in nodes.items()]
    await consul.put("/v1/txn", makes)
    batches = _chunks(list(rows.items()), TXN_OPS // 2)

    async def send(batch: Sequence[tuple[tuple[str, str], dict[str, Any]]]) -> None:
        ops = [op for (node, _), row in batch for op in _ops(node, row)]
        await consul.put("/v1/txn", ops)

    await _at_most(CATALOG_IN_FLIGHT, batches, send)
    return time.monotonic() - began


async def load_agents(agents: Mapping[str, Consul], rows: Rows) -> float:
    """Register with each agent, several at a time; seconds until all agents have acknowledged all."""
    began = time.monotonic()

    async def fill(node: str) -> None:
        bodies = [_agent_service(row) for (at, _), row in rows.items() if at == node]
        await _at_most(AGENT_IN_FLIGHT, bodies, lambda body: agents[node].put("/v1/agent/service/register", body))

    await asyncio.gather(*(fill(node) for node in agents))
    return time.monotonic() - began


async def _at_most(limit: int, items: Iterable[Any], work: Callable[[Any], Awaitable[object]]) -> None:
    rest = iter(items)

    async def lane() -> None:
        for item in rest:
            await work(item)

    await asyncio.gather(*(lane() for _ in range(limit)))


def _node(name: str, meta: Mapping[str, str]) -> dict[str, Any]:
    return {"Node": name, "Address": "127.0.0.1", "Meta": meta}


def _ops(node: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    service = {key: row[key] for key in ("ID", "Service", "Address", "Port", "Tags", "Meta", "Weights")}
    checks = [
        {key: check[key] for key in ("Node", "CheckID", "Name", "Status", "Output", "ServiceID", "ServiceName")}
        for check in row["checks"]
    ]
    return [
        {"Service": {"Verb": "set", "Node": node, "Service": service}},
        *({"Check": {"Verb": "set", "Check": check}} for check in checks),
    ]


def _agent_service(row: dict[str, Any]) -> dict[str, Any]:
    checks = [
        {"CheckID": check["CheckID"], "Name": check["Name"], "Status": check["Status"], "TTL": "876000h"}
        for check in row["checks"]
    ]
    kept = {key: row[key] for key in ("ID", "Address", "Port", "Tags", "Meta")}
    return {"Name": row["Service"], "Checks": checks, **kept}


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[at : at + size] for at in range(0, len(items), size)]
