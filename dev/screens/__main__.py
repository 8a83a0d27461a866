"""`python -m screens FOLDER`: pictures of the status page, as headless Chromium shows it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from screens import browser, samples
from screens.served import served

_DESKTOP, _PHONE = (1280, 900), (390, 844)
_PAGES = {
    "desktop-light": (samples.well, "", _DESKTOP, False),
    "desktop-dark": (samples.well, "", _DESKTOP, True),
    "phone-light": (samples.with_problems, "", _PHONE, False),
    "phone-dark": (samples.well, "", _PHONE, True),
    "problems": (samples.with_problems, "", _DESKTOP, False),
    "problems-dark": (samples.with_problems, "", _DESKTOP, True),
    "held-removals": (samples.with_held_removals, "", _DESKTOP, False),
    "empty": (samples.empty, "", _DESKTOP, False),
    "standby": (samples.standby, "", _DESKTOP, False),
    "registration": (samples.with_problems, "registrations/payments/ledger", _DESKTOP, False),
    "registration-phone": (samples.with_problems, "registrations/shop/search", _PHONE, True),
    "not-found": (samples.well, "registrations/shop/nothing", _DESKTOP, False),
}


async def take(folder: Path, program: str) -> None:
    """All pictures, as PNG files."""
    async with browser.tab(program) as tab:
        for name, (sample, path, (width, height), dark) in _PAGES.items():
            await tab.look(width, height, dark=dark, phone=width < 500)
            async with served(sample) as url:
                await tab.open(f"{url}/{path}")
                (folder / f"{name}.png").write_bytes(await tab.picture())
            print(folder / f"{name}.png")


def main() -> None:
    program = browser.find()
    if program is None:
        sys.exit("screens: no Chromium is found (apt-get install chromium, or set CHROMIUM=/path/to/it)")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(take(folder, program))


if __name__ == "__main__":
    main()
