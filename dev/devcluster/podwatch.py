"""Decides how the running Pods are followed through the API server: a list, a watch, and again after any error."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import yaml

logger = logging.getLogger("devcluster.pods")

# With this selector a Pod that finishes leaves the watch as DELETED, just like one that is gone.
RUNNING = {"fieldSelector": "status.phase=Running"}
PAGE = "500"
LONGEST_LINE = 4 * 2**20
PAUSE_AFTER_ERROR = 0.3


class Sink(Protocol):
    """Who wants to know."""

    def replace(self, pods: Iterable[Mapping[str, Any]]) -> None:
        """Take a complete list."""

    def put(self, pod: Mapping[str, Any]) -> None:
        """Take a new or changed Pod."""

    def remove(self, uid: str) -> None:
        """Forget a Pod."""


class ExpiredError(Exception):
    """The watch cannot go on from where it was."""


async def watch_running_pods(kubeconfig: Path, sink: Sink) -> None:
    """Tell `sink` of all running Pods, for ever; no error ends it."""
    async with _session(kubeconfig) as session:
        while True:
            try:
                version = await _list(session, sink)
                while True:
                    version = await _watch(session, sink, version)
            except (aiohttp.ClientError, TimeoutError, ExpiredError, ValueError) as error:
                logger.warning("listing again after: %r", error)
                await asyncio.sleep(PAUSE_AFTER_ERROR)


def _session(kubeconfig: Path) -> aiohttp.ClientSession:
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cafile=cluster["certificate-authority"])
    return aiohttp.ClientSession(
        cluster["server"],
        connector=aiohttp.TCPConnector(ssl=context),
        headers={"Authorization": f"Bearer {user['token']}"},
        timeout=aiohttp.ClientTimeout(total=None, connect=10, sock_read=60),
        read_bufsize=LONGEST_LINE,
        raise_for_status=True,
    )


async def _list(session: aiohttp.ClientSession, sink: Sink) -> str:
    pods: list[Mapping[str, Any]] = []
    query = {**RUNNING, "limit": PAGE}
    while True:
        async with session.get("/api/v1/pods", params=query) as response:
            page = await response.json()
        pods += page.get("items") or ()
        following = page["metadata"].get("continue")
        if not following:
            sink.replace(pods)
            return str(page["metadata"]["resourceVersion"])
        query["continue"] = following


async def _watch(session: aiohttp.ClientSession, sink: Sink, version: str) -> str:
    """Follow one watch to its end, and return the version that the next one goes on from."""
    query = {**RUNNING, "watch": "1", "allowWatchBookmarks": "1", "resourceVersion": version, "timeoutSeconds": "50"}
    async with session.get("/api/v1/pods", params=query) as response:
        async for line in response.content:
            event = json.loads(line)
            pod = event["object"]
            match event["type"]:
                case "ADDED" | "MODIFIED":
                    sink.put(pod)
                case "DELETED":
                    sink.remove(pod["metadata"]["uid"])
                case "ERROR":
                    raise ExpiredError(pod.get("message"))
            version = pod["metadata"]["resourceVersion"]
    return version
