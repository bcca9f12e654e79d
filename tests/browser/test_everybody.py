"""Every page, in light and dark, wide and narrow, can be used by everybody, and no browser complains of it."""

from __future__ import annotations

from itertools import product

import pytest

from tests.browser.chromium import SCHEMES, WIDTHS, Looker, turn
from tests.browser.sights import SIGHTS

pytestmark = pytest.mark.timeout(240)
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install --group browser")


@pytest.mark.parametrize("name", SIGHTS)
def test_axe_finds_nothing_and_nothing_sticks_out(looker: Looker, name: str) -> None:
    with looker.at(name) as page:
        assert page.title(), "a page has a title"
        for scheme, width in product(SCHEMES, WIDTHS):
            turn(page, scheme, width)
            found = axe.Axe().run(page).response["violations"]
            told = [(each["id"], each["nodes"][0]["html"]) for each in found]
            assert told == [], (scheme, width)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{scheme}: wider than {width}"
