"""Every button of every page, pressed in a browser: it says what it did, and leaves its line in the audit topic."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.chromium import Looker, page_of
from tests.browser.serving import HEADER
from tests.browser.sights import SIGHTS

pytestmark = pytest.mark.timeout(400)
PAGES = [name for name, sight in SIGHTS.items() if sight.status == 200 and not sight.empty]
BUTTONS = """() => [...document.querySelectorAll("form[method=post] button")].map((each) =>
  [each.getAttribute("formaction") ?? each.form.getAttribute("action"), each.textContent.trim()])"""
OPEN = "document.querySelectorAll('main details').forEach((each) => each.open = true)"
EXPECTED = {
    *("/do/filters/save", "/do/filters/delete", "/do/letters/redrive", "/do/letters/discard", "/do/replay"),
    *("/do/queues/pause", "/do/queues/resume", "/do/types/resume"),
    *("/do/schedules/pause", "/do/schedules/resume", "/do/schedules/trigger"),
    *("/do/jobs/redrive", "/do/jobs/retry", "/do/jobs/cancel"),
}
"""Of each kind at least one is pressed."""


def kind(action: str) -> str:
    """`/do/queues/mail/pause` -> `/do/queues/pause`."""
    parts = action.split("/")
    return "/".join(parts[:3] + parts[-1:]) if len(parts) > 4 else action


def press(page: Any, index: int, why: str) -> str:
    """Press one button; what the page says then."""
    page.evaluate(OPEN)
    button = page.locator("form[method=post] button").nth(index)
    form = button.locator("xpath=ancestor::form")
    if form.locator("input[name=address]").count():
        form.locator("input[name=address]").first.check()
    for name in ("reason", "name"):
        field = form.locator(f"input[name={name}][type=text]")
        if field.count():
            field.fill(why)
    with page.expect_navigation():
        button.click()
    said = page.locator("p.said")
    assert said.count(), page.locator("main").inner_text()
    return str(said.inner_text())


def test_every_button_says_what_it_did_and_leaves_its_line(looker: Looker) -> None:
    pressed: set[str] = set()
    for name in PAGES:
        sight = SIGHTS[name]
        with page_of(looker.browser, extra_http_headers={HEADER: sight.user}) as page:
            while True:
                page.goto(looker.address(sight))
                wanted = [(n, action) for n, (action, _) in enumerate(page.evaluate(BUTTONS)) if action not in pressed]
                if not wanted:
                    break
                index, action = wanted[0]
                before = len(looker.world.queries.audit(limit=500).rows)
                why = f"button {len(pressed)}"
                press(page, index, why)
                pressed.add(action)
                page.goto(looker.url + ("/audit" if sight.user != "care" else "/care"))
                rows = looker.world.queries.audit(limit=500).rows
                assert len(rows) > before, f"{action} on {name} left nothing"
                assert {row["by"] for row in rows[: len(rows) - before]} == {f"{sight.user}@dashboard"}
                assert why in (rows[0]["reason"], rows[0]["subject"].removeprefix("filter:")) or "filter" in action
    assert {kind(action) for action in pressed} == EXPECTED
