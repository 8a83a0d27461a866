"""The audit log beside what the proxies saw pass and what has left Consul: each change has a line, each line a change.

Instances come and go by two operations, `register` and `deregister`; how readiness is told is left out, since agents
take it with a registration or after it.
"""

import json
from collections import Counter
from collections.abc import Iterator

from fault_world import Arena, Shop
from operator_world import eventually

from killpoints import Request

Changes = Counter[tuple[str, str]]
"""How often an operation was done to an instance."""


class Account:
    """Of one shop, from now on."""

    def __init__(self, web: Shop) -> None:
        self._arena: Arena = web.arena
        self._mine = f"{web.world.namespace}-"
        self._begun = len(self._arena.operator.log), len(self._arena.network.journal.entries)

    def agrees(self) -> None:
        """What was applied was sent, what was sent has a line, and what has left had a line that says so.

        What is reset is sent once more by the client itself, which is the same change.
        """

        def look() -> None:
            sent, lines = self._sent(), self._lines()
            applied = self._told(lines, "applied")
            assert applied <= sent, applied - sent
            assert sent.keys() <= self._told(lines, "applied", "unknown", "refused").keys(), (sent, lines)
            left = Counter(("deregister", row.row.id) for row in self._arena.oracle.left if self._is_mine(row.row.id))
            assert left <= self._told(lines, "applied", "unknown"), left

        self._arena.oracle.catch_up()
        eventually(look)

    def _sent(self) -> Changes:
        requests = (entry.request for entry in self._arena.network.journal.entries[self._begun[1] :])
        return Counter(change for r in requests if r.is_write for change in changes(r) if self._is_mine(change[1]))

    def _lines(self) -> list[dict[str, str]]:
        said = self._arena.operator.log[self._begun[0] :].splitlines()
        lines = [json.loads(line) for line in said if line.startswith('{"time"') and '"cause"' in line]
        return [line for line in lines if self._is_mine(line.get("instance", ""))]

    def _told(self, lines: list[dict[str, str]], *outcomes: str) -> Changes:
        operations = ("register", "deregister")
        told = [line for line in lines if line["outcome"] in outcomes and line["operation"] in operations]
        return Counter((line["operation"], line["instance"]) for line in told)

    def _is_mine(self, instance: str) -> bool:
        return instance.startswith(self._mine)


def changes(request: Request) -> Iterator[tuple[str, str]]:
    """What a request is to do, to which instances."""
    match request.kind:
        case "PUT agent/service/register":
            yield "register", json.loads(request.body)["ID"]
        case "PUT agent/service/deregister":
            yield "deregister", request.path.rpartition("/")[2]
        case "PUT txn":
            for operation in (op["Service"] for op in json.loads(request.body) if "Service" in op):
                removes = operation["Verb"].startswith("delete")
                yield "deregister" if removes else "register", operation["Service"]["ID"]
