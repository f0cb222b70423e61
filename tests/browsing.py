"""What the tests in Chromium share: the browser, where pictures go, what a page may ask."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from checkout import ROOT

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync"
)
SHOTS = ROOT / "build" / "screenshots"

marks = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser; skips where Playwright is not installed."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


def shoot(page: Any, name: str) -> None:
    """Keep a picture of the window as build/screenshots/NAME.png."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def is_outside(address: str) -> bool:
    """Whether an address leads to another machine."""
    parts = urlsplit(address)
    inside = parts.scheme in ("data", "blob", "about") or parts.hostname in (
        "127.0.0.1",
        "localhost",
    )
    return not inside
