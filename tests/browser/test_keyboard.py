"""The pages without a mouse: where the focus goes, and that it is always seen."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.chromium import Looker

pytestmark = pytest.mark.timeout(240)
FOCUSED = "document.activeElement"


def focused(page: Any, what: str = "outerHTML.slice(0, 200)") -> str:
    return str(page.evaluate(f"{FOCUSED}.{what}"))


def test_the_first_stop_leads_past_the_pages_to_the_content(looker: Looker) -> None:
    with looker.at("jobs") as page:
        page.keyboard.press("Tab")
        assert focused(page, "textContent") == "To the content"
        assert page.evaluate(f"{FOCUSED}.getBoundingClientRect().left") >= 0, "it is seen while it has the focus"
        page.keyboard.press("Enter")
        assert focused(page, "id") == "main"
        page.keyboard.press("Tab")
        assert focused(page, "name") == "q"


@pytest.mark.parametrize("name", ["jobs", "care"])
def test_a_slash_begins_a_search(looker: Looker, name: str) -> None:
    with looker.at(name) as page:
        if page.locator("[autofocus]").count():
            # The browser gives it the focus some time after the page is loaded.
            page.locator("[autofocus]:focus").wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        assert focused(page, "type") == "search"
        page.keyboard.type("45900")
        page.keyboard.press("Enter")
        page.wait_for_url("**q=45900*")


def test_the_keys_are_told_in_a_dialog_that_escape_closes(looker: Looker) -> None:
    with looker.at("overview") as page:
        page.get_by_role("button", name="Keyboard").focus()
        page.keyboard.press("Enter")
        page.get_by_role("dialog").wait_for()
        page.keyboard.press("g")
        page.keyboard.press("j")
        assert page.url.endswith("/overview"), "keys are for the dialog while it is open"
        page.keyboard.press("Escape")
        page.get_by_role("dialog").wait_for(state="hidden")
        assert focused(page, "dataset.do") == "keys", "the focus is where it was"
        page.keyboard.press("?")
        page.get_by_role("dialog").wait_for()
        page.keyboard.press("Enter")
        page.get_by_role("dialog").wait_for(state="hidden")


def test_an_action_opens_with_enter_and_closes_with_escape(looker: Looker) -> None:
    with looker.at("queues") as page:
        summary = page.locator("details.act > summary").first
        page.evaluate("document.querySelectorAll('details.act').forEach((each) => each.open = false)")
        summary.focus()
        page.keyboard.press("Enter")
        assert page.locator("details.act[open]").count() == 1
        page.keyboard.press("Tab")
        assert focused(page, "name") == "reason"
        page.keyboard.press("Enter")
        assert page.evaluate("document.querySelector('details.act[open] input[name=reason]').validity.valueMissing")
        assert page.url.endswith("/queues"), "nothing is done without a reason"
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        assert page.locator("details.act[open]").count() == 0
        assert focused(page, "tagName") == "SUMMARY"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["jobs", "letters", "job-dead", "queues", "replay"])
def test_the_focus_is_seen_wherever_it_goes(looker: Looker, name: str, scheme: str) -> None:
    with looker.at(name, scheme=scheme) as page:
        stops = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            seen = page.evaluate(
                f"(() => {{ const s = getComputedStyle({FOCUSED}); const r = {FOCUSED}.getBoundingClientRect();"
                "return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0 && r.width > 0 && r.left >= 0; })()"
            )
            if focused(page, "tagName") == "BODY":
                break
            assert seen, focused(page)
            stops.add(focused(page))
        assert len(stops) > 12
