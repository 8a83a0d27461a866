"""By which clock a term ends."""

import time
from typing import Any

import pytest

from consul_registrar.kube.lease import Leadership


class Answers:
    """An API server that takes every Lease."""

    async def get(self, _: str) -> bytes:
        return b'{"metadata": {"name": "l", "namespace": "n", "resourceVersion": "1"}, "spec": {}}'

    async def replace(self, _: str, __: object) -> bytes:
        return b'{"metadata": {"name": "l", "namespace": "n", "resourceVersion": "2"}, "spec": {}}'


async def test_a_term_ends_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """`time.monotonic` stands still then: whoever goes by it leads on for seconds when all is over."""
    server: Any = Answers()
    leadership = Leadership(server, "n", "l", "me")
    await leadership.acquire()
    assert leadership.may_write()
    since_boot, clock = time.CLOCK_BOOTTIME, time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda which: clock(which) + 3600 * (which == since_boot))
    assert not leadership.may_write()
