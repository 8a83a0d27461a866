"""A headless Chromium, driven by its DevTools protocol: https://chromedevtools.github.io/devtools-protocol/.

Decides how it is found and started. It gets a profile of its own, and ends with the block that started it.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_STARTS_WITHIN = 60.0


def find() -> str | None:
    """The program, None where there is none. $CHROMIUM names another one."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page. What goes wrong on it (exceptions, violations of its policy) is kept in `errors`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._loaded = asyncio.Event()

    async def listen(self) -> None:
        """Take in what the browser tells, until it ends."""
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told and (future := self._asked.pop(told["id"], None)) and not future.done():
                future.set_result(told)
            match told.get("method"):
                case "Page.loadEventFired":
                    self._loaded.set()
                case "Runtime.exceptionThrown":
                    self.errors.append(str(told["params"]["exceptionDetails"]))
                case "Log.entryAdded" if told["params"]["entry"]["level"] == "error":
                    self.errors.append(told["params"]["entry"]["text"])

    async def call(self, method: str, **params: Any) -> Any:
        """Ask the browser. Raises RuntimeError with what it refused."""
        number = next(self._numbers)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_str(json.dumps({"id": number, "method": method, "params": params}))
        told = await asyncio.wait_for(future, _STARTS_WITHIN)
        if "error" in told:
            raise RuntimeError(f"{method}: {told['error']}")
        return told["result"]

    async def look(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """Be a screen of this size, in CSS pixels."""
        shape = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        await self.call("Emulation.setDeviceMetricsOverride", **shape)
        preference = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[preference])

    async def open(self, url: str) -> None:
        """Go there and wait until it is loaded."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), _STARTS_WITHIN)

    async def run(self, script: str) -> Any:
        """The value of an expression on the page; a promise is waited for."""
        told = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in told:
            raise RuntimeError(f"{script}: {told['exceptionDetails']}")
        return told["result"].get("value")

    async def key(self, key: str) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    async def picture(self, *, whole: bool = True) -> bytes:
        """What it shows, as a PNG; `whole`: also what one has to scroll to."""
        shown = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(shown["data"])


@asynccontextmanager
async def tab(program: str) -> AsyncIterator[Tab]:
    """A browser with one page. Raises TimeoutError or OSError where it doesn't start."""
    with tempfile.TemporaryDirectory(prefix="screens-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program, *_flags(profile), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(_STARTS_WITHIN):
                url = await _page_of(process, Path(profile) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
                one = Tab(socket)
                listening = asyncio.create_task(one.listen())
                for domain in ("Page", "Runtime", "Log"):
                    await one.call(f"{domain}.enable")
                yield one
                listening.cancel()
                with suppress(asyncio.CancelledError):
                    await listening
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


def _flags(profile: str) -> list[str]:
    """Nothing but the page is fetched. As root, which a container's user is, Chromium runs without its sandbox only."""
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    unprivileged = ["--no-sandbox"] if os.geteuid() == 0 else []
    shown = ["--headless=new", "--hide-scrollbars", "--disable-gpu", "--disable-dev-shm-usage"]
    return [*shown, *quiet, *unprivileged, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]


async def _page_of(process: asyncio.subprocess.Process, file: Path) -> str:
    """The address of the page's DevTools, once the browser has written where they are."""
    while not file.exists() or len(file.read_text().splitlines()) < 2:  # noqa: ASYNC240
        if process.returncode is not None:
            raise OSError(f"the browser has ended with {process.returncode}")
        await asyncio.sleep(0.05)
    port = file.read_text().splitlines()[0]  # noqa: ASYNC240
    while True:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/json") as answer:
            found = [one for one in await answer.json() if one["type"] == "page"]
        if found:
            return str(found[0]["webSocketDebuggerUrl"])
        await asyncio.sleep(0.05)
