"""How a list is read: one page while the server makes the next, and nothing is left when it breaks off."""

import asyncio
import json
from typing import Any, cast

import pytest

from consul_registrar.kube.client import KubeClient
from consul_registrar.kube.errors import Unavailable
from consul_registrar.kube.intake import Intake, StaleList
from consul_registrar.kube.listing import complete_list
from consul_registrar.kube.records import PODS
from consul_registrar.model import Pod


def page(number: int, token: str) -> bytes:
    items = [{"metadata": {"uid": f"u{number}", "name": f"p{number}", "resourceVersion": "1"}}]
    return json.dumps({"metadata": {"resourceVersion": "7", "continue": token}, "items": items}).encode()


class Server:
    """Two pages; `said` has in their order what was asked of it and what reached the store. `broken`: has no second."""

    def __init__(self, *, broken: bool = False) -> None:
        self.said: list[str] = []
        self._broken = broken

    async def list_page(self, _path: str, *, token: str, **_: Any) -> bytes:
        self.said.append(f"asked {token or 'first'}")
        await asyncio.sleep(0)
        if token and self._broken:
            raise Unavailable("it broke off")
        return page(2, "") if token else page(1, "second")

    def put(self, obj: Pod) -> None:
        self.said.append(f"put {obj.name}")

    def remove(self, uid: str) -> None:
        self.said.append(f"removed {uid}")

    def vanished(self, uid: str) -> None:
        self.said.append(f"vanished {uid}")


async def list_of(server: Server, intake: Intake[Pod]) -> int:
    return await complete_list(cast("KubeClient", server), ["/pods"], PODS, intake)


async def test_a_page_is_asked_for_before_the_one_before_it_is_taken_in() -> None:
    server = Server()
    assert await list_of(server, Intake(server)) == 7
    assert server.said == ["asked first", "asked second", "put p1", "put p2"]


async def test_where_the_second_page_does_not_come_the_first_is_kept_and_nothing_is_swept() -> None:
    server = Server(broken=True)
    intake: Intake[Pod] = Intake(server)
    intake.offer(PODS.page(page(3, "")).items[0])
    with pytest.raises(Unavailable):
        await list_of(server, intake)
    assert server.said == ["put p3", "asked first", "asked second", "put p1"]


async def test_nothing_is_asked_any_more_once_a_page_is_no_good() -> None:
    server = Server()
    intake: Intake[Pod] = Intake(server)
    before = asyncio.all_tasks()
    newer = json.loads(page(3, "")) | {"metadata": {"resourceVersion": "9"}}
    listing = intake.begin()
    intake.page(listing, PODS.page(json.dumps(newer).encode()).items, 9)
    intake.complete(listing)
    with pytest.raises(StaleList):
        await list_of(server, intake)
    assert asyncio.all_tasks() == before
    assert "put p1" not in server.said
