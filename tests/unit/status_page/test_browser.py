"""The status page in a real browser: headless Chromium, where there is one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import aiohttp
import pytest

from screens import browser, samples
from screens.browser import Tab
from screens.samples import Sample
from screens.served import served
from unit.status_page.test_pages import evil

PROGRAM = browser.find()
pytestmark = pytest.mark.skipif(
    PROGRAM is None,
    reason="NOT TESTED in a browser: no Chromium is found (apt-get install chromium, or set CHROMIUM=/path/to/it)",
)

#: Text and what it stands on, of every element with text of its own, as WCAG 2.1 counts contrast.
CONTRAST = """(() => {
  const rgb = (c) => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (c !== "rgba(0, 0, 0, 0)") return c;
    }
    return "white";
  };
  const poor = [];
  for (const e of document.body.querySelectorAll("*")) {
    const says = [...e.childNodes].some((n) => n.nodeType === 3 && n.nodeValue.trim());
    if (!says || !e.checkVisibility()) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(rgb(ground(e)))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)}: ${e.className} ${e.textContent.trim()}`);
  }
  return poor;
})()"""

#: Elements that one can't tell what they are without seeing them, and identifiers that are there twice.
NAMELESS = """(() => {
  const named = (e) => e.textContent.trim() || e.getAttribute("aria-label") || e.title || (e.labels && e.labels.length);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  const pointed = [...document.querySelectorAll("[aria-labelledby]")].map((e) => e.getAttribute("aria-labelledby"));
  return [
    ...[...document.querySelectorAll("a, button, input, [role=img]")].filter((e) => !named(e)).map((e) => e.outerHTML),
    ...[...document.querySelectorAll("img:not([alt])")].map((e) => e.outerHTML),
    ...ids.filter((id, i) => ids.indexOf(id) !== i),
    ...pointed.filter((id) => !document.getElementById(id)),
    ...(document.querySelectorAll("h1").length === 1 ? [] : ["not one h1"]),
    ...(document.documentElement.lang ? [] : ["no language"]),
  ];
})()"""


@dataclass
class Live:
    """A sample that a test exchanges while somebody looks on."""

    sample: Sample = field(default_factory=samples.well)

    def look(self) -> Sample:
        return self.sample


@pytest.fixture(scope="module")
async def tab() -> AsyncIterator[Tab]:
    assert PROGRAM is not None
    async with AsyncExitStack() as stack:
        try:
            one = await stack.enter_async_context(browser.tab(PROGRAM))
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            pytest.skip(f"NOT TESTED in a browser: {PROGRAM} doesn't start: {error!r}")
        yield one


async def comes_true(tab: Tab, script: str) -> None:
    """Wait until an expression on the page is true; the test's own limit ends that."""
    while not await tab.run(script):  # noqa: ASYNC110 - the page is another process
        await asyncio.sleep(0.1)


SCREENS = {
    "desktop light": {"width": 1280, "height": 900},
    "desktop dark": {"width": 1280, "height": 900, "dark": True},
    "phone light": {"width": 360, "height": 740, "phone": True},
    "phone dark": {"width": 360, "height": 740, "phone": True, "dark": True},
}
PAGES = {
    "well": (samples.well, "/"),
    "problems": (samples.with_problems, "/"),
    "held removals": (samples.with_held_removals, "/"),
    "empty": (samples.empty, "/"),
    "registration": (samples.with_problems, "/registrations/payments/ledger"),
}


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("page", PAGES)
async def test_it_can_be_read_by_everybody(tab: Tab, screen: str, page: str) -> None:
    """Contrast, names for what can't be seen, nothing beside the screen, no error and no violation of its policy."""
    sample, path = PAGES[page]
    await tab.open("about:blank")  # what was shown before asks a server that has gone
    tab.errors.clear()
    await tab.look(**SCREENS[screen])
    async with served(sample) as url:
        await tab.open(f"{url}{path}")
        assert await tab.run(CONTRAST) == []
        assert await tab.run(NAMELESS) == []
        assert await tab.run("document.documentElement.scrollWidth <= innerWidth")
        assert tab.errors == []


async def test_what_users_name_is_never_run(tab: Tab) -> None:
    live = Live(evil())
    await tab.look(1280, 900)
    async with served(live.look) as url:
        await tab.open(url)
        await tab.run("window.alert = () => { window.wasRun = true; }")
        live.sample = evil()
        live.sample.registrations *= 2
        await tab.run("turn()")
        await comes_true(tab, "document.querySelectorAll('tbody tr').length === 2")
        assert await tab.run("window.wasRun") is None
        assert await tab.run("document.scripts.length") == 1
        assert await tab.run("document.querySelector('tbody a').textContent.includes('<script>')")


async def test_the_policy_stops_a_script_that_got_in_anyway(tab: Tab) -> None:
    async with served(samples.well) as url:
        await tab.open(url)
        script = (
            "document.body.appendChild(Object.assign(document.createElement('script'), {text: 'window.gotIn = true'}))"
        )
        await tab.run(f"void {script}")
        assert await tab.run("window.gotIn") is None


async def test_it_keeps_itself_up_to_date_and_leaves_what_somebody_does_alone(tab: Tab) -> None:
    live = Live()
    await tab.look(1280, 900)
    async with served(live.look) as url:
        await tab.open(url)
        await tab.run("document.querySelector('#q').focus(); window.same = document.querySelector('tbody tr')")
        assert await tab.run("document.querySelector('h1').textContent") == "Consul holds exactly what it should"
        live.sample = samples.with_problems()
        await comes_true(tab, "document.querySelector('h1').textContent.includes('not ready')")
        assert await tab.run("document.activeElement.id") == "q"
        assert await tab.run("document.title.includes('not ready')")
        rows = "[...document.querySelectorAll('.registrations tbody tr')].map((row) => row.dataset.key)"
        expected = [f"{one.namespace}/{one.name}" for one in live.sample.overview("").registrations]
        assert await tab.run(rows) == expected
        assert await tab.run("document.body.contains(window.same)")
        live.sample = samples.empty()
        await comes_true(tab, "document.querySelectorAll('tbody tr').length === 0")


async def test_what_somebody_types_filters_and_stays_in_the_address(tab: Tab) -> None:
    async with served(samples.well) as url:
        await tab.open(url)
        await tab.run("document.querySelector('#q').focus()")
        await tab.call("Input.insertText", text="ledger")
        await comes_true(tab, "document.querySelectorAll('.registrations tbody tr').length === 1")
        assert await tab.run("document.querySelector('#q').value") == "ledger"
        assert await tab.run("location.search") == "?q=ledger"


async def test_it_can_be_paused_and_says_when_nobody_answers(tab: Tab) -> None:
    live = Live()
    async with served(live.look) as url:
        await tab.open(url)
        await comes_true(tab, "document.querySelector('#live').textContent === 'Live'")
        await tab.run("document.querySelector('#pause').click()")
        assert await tab.run("document.querySelector('#live').textContent") == "Paused"
        await tab.run("document.querySelector('#pause').click()")
        await comes_true(tab, "document.querySelector('#live').textContent === 'Live'")
    await comes_true(tab, "document.querySelector('#live').textContent.startsWith('No answer')")
    assert await tab.run("document.querySelectorAll('tbody tr').length > 0")


async def test_the_keyboard_is_enough(tab: Tab) -> None:
    async with served(samples.well) as url:
        await tab.look(1280, 900)
        await tab.open(url)
        seen = []
        for _ in range(6):
            await tab.key("Tab")
            seen.append(await tab.run("document.activeElement.id || document.activeElement.textContent"))
        assert seen == ["Skip to the content", "consul-registrar", "pause", "q", "crm/accounts", "crm/legacy-crm"]
        assert await tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
