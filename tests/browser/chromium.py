"""Debian's chromium, driven by playwright; whatever it complains of fails the test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from processor.ops.store import Store
from tests.browser.serving import HEADER, served
from tests.browser.sights import SIGHTS, Sight, address
from tests.browser.world import NAMESPACE, World

CHROMIUM = os.environ.get("PROCESSOR_TEST_CHROMIUM") or shutil.which("chromium") or ""
LONG = 60_000
"""Milliseconds that the browser waits for something to appear: a machine may be busy."""
WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs a browser: pip install --group browser")
    if not CHROMIUM:
        pytest.skip("needs chromium: apt install chromium, or set PROCESSOR_TEST_CHROMIUM")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def page_of(browser: Any, *, status: int = 200, **how: Any) -> Iterator[Any]:
    """A page of a browser of its own. An error in its console, a breach of the content policy or an exception of a
    script fails the test, but for the answer `status` that is expected.
    """
    complaints: list[str] = []
    context = browser.new_context(**how)
    page = context.new_page()
    page.set_default_timeout(LONG)

    def heard(message: Any) -> None:
        expected = status != 200 and f"status of {status} " in message.text
        if message.type in ("error", "warning") and not expected:
            complaints.append(f"{message.type}: {message.text} at {message.location}")

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        yield page
    finally:
        context.close()
    assert complaints == []


class Looker:
    """Opens pages of two dashboards: one of a shop after half an hour, one of a shop in which nothing has happened."""

    def __init__(self, browser: Any, world: World, url: str, empty: World, empty_url: str) -> None:
        self.browser = browser
        self.world, self.url = world, url
        self._empty, self._empty_url = empty, empty_url

    def address(self, sight: Sight) -> str:
        """Where a page is."""
        return address(sight, self._empty_url if sight.empty else self.url, self._empty if sight.empty else self.world)

    @contextmanager
    def at(self, name: str, *, scheme: str = "light", width: int = WIDTHS[0], height: int = 900) -> Iterator[Any]:
        """A page, by its name in `SIGHTS`, when it is all there."""
        sight = SIGHTS[name]
        how = {"color_scheme": scheme, "viewport": {"width": width, "height": height}, "reduced_motion": "reduce"}
        headers = {HEADER: sight.user} if sight.user else {}
        with page_of(self.browser, status=sight.status, extra_http_headers=headers, **how) as page:
            answer = page.goto(self.address(sight))
            assert answer.status == sight.status, f"{name}: {answer.status}: {answer.text()[:500]}"
            show(page, sight)
            yield page


def turn(page: Any, scheme: str, width: int) -> None:
    """Look at it in another light and width."""
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 900})


def show(page: Any, sight: Sight) -> None:
    """Open what can be opened, and wait until the page is all there."""
    if sight.opened:
        page.evaluate("document.querySelectorAll('main details').forEach((each) => each.open = true)")
    if page.locator(".chart").count():
        page.locator(".chart canvas").first.wait_for()
    assert sight.says in page.locator("main").inner_text(), f"{sight.says!r} is not on {sight.path}"


@contextmanager
def looking(browser: Any, folder: Path) -> Iterator[Looker]:
    """The two dashboards."""
    with ExitStack() as stack:
        worlds, urls = [], []
        for name in ("busy", "empty"):
            store = Store(f"sqlite:///{folder}/{name}.sqlite", NAMESPACE)
            stack.callback(store.close)
            world = World(store, workers=2 if name == "busy" else 0)
            stack.callback(world.close)
            if name == "busy":
                world.live()
            worlds.append(world)
            urls.append(stack.enter_context(served(world)))
        yield Looker(browser, worlds[0], urls[0], worlds[1], urls[1])
