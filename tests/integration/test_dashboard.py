"""The dashboard in a real browser, over a real broker and a real worker.

It needs Debian's chromium (or one named by PROCESSOR_TEST_CHROMIUM) and the dependency group `browser`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from processor import admin
from processor.states import State
from processor.wire.codec import decode_audit
from tests.browser.chromium import CHROMIUM, LONG, chromium, page_of
from tests.integration import jobs_app
from tests.integration.fleet import Fleet
from tests.waiting import eventually

pytest.importorskip("playwright.sync_api", reason="needs a browser: pip install --group browser")
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not CHROMIUM, reason="needs chromium: apt install chromium, or set PROCESSOR_TEST_CHROMIUM"),
]
FAILED, UNPAID, BAD = 500, 57, 1007
ALL = FAILED + 30


@pytest.fixture
def url(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A dashboard, as `processor dashboard` prints it, of an app with a schedule."""
    monkeypatch.setenv("JOBS_SCHEDULE", "30d")
    target = ["--app", f"{jobs_app.__file__}:app", "--bootstrap", fleet.bootstrap, "--json"]
    where = ["--no-login", "--port", "0", "--database", f"sqlite:///{fleet.folder}/projection.sqlite"]
    log = (fleet.folder / "dashboard.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "processor", "dashboard", *target, *where],
        cwd=fleet.folder,
        env=fleet.env(),
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield str(json.loads(process.stdout.readline())["url"]).rstrip("/")
    finally:
        process.terminate()
        process.communicate(timeout=60)
        log.close()


@pytest.fixture
def page() -> Iterator[Any]:
    """A page of a browser; whatever it complains of fails the test."""
    with chromium() as browser, page_of(browser, viewport={"width": 1280, "height": 900}) as page:
        yield page


def audit(fleet: Fleet) -> Counter[tuple[str, str]]:
    """What the audit topic says: (action, reason)."""
    records = admin.tail(fleet.broker, [f"{fleet.namespace}.audit"], from_start=True)
    found = [decode_audit(record.value() or b"") for record in records]
    assert all(record.by.endswith("@dashboard") for record in found)
    return Counter((record.action, record.reason) for record in found)


def wait_for(page: Any, text: str) -> None:
    page.get_by_text(text).first.wait_for(timeout=LONG)


def submit(page: Any, summary: str, button: str, reason: str) -> None:
    """Open an action, say why, and press its button."""
    page.get_by_text(summary, exact=True).first.click()
    act = page.locator("details.act[open]")
    act.get_by_label("Why?").fill(reason)
    act.get_by_role("button", name=button).click()


def orders(fleet: Fleet) -> str:
    """Many orders, of which 500 fail in two ways; the id of one of them."""
    fleet.start_ready("a")
    bad = fleet.append("order", {"order_id": BAD, "amount": -5})
    others = [fleet.append("order", {"order_id": 2000 + n, "amount": -1}) for n in range(FAILED - UNPAID - 1)]
    unpaid = [fleet.append("order", {"order_id": 3000 + n, "amount": 0}) for n in range(UNPAID)]
    good = [fleet.append("order", {"order_id": 4000 + n, "amount": 9}) for n in range(30)]
    fleet.flush()
    fleet.finish([job.id for job in (bad, *others, *unpaid, *good)], 120)
    return bad.id


def mend(fleet: Fleet, url: str, page: Any, job_id: str) -> None:
    """Find the order, read why it failed, send it back with another payload, and see it succeed."""
    page.goto(f"{url}/jobs")
    wait_for(page, f"{ALL} jobs")
    page.keyboard.press("/")
    page.keyboard.type(f"order_id:{BAD}")
    page.keyboard.press("Enter")
    wait_for(page, "1 job for")
    page.get_by_role("link", name=job_id).click()
    wait_for(page, "It was given up")
    assert page.get_by_role("status").inner_text().endswith(f"ValueError: order {BAD}: amount -5 is negative.")
    assert "Traceback (most recent call last)" in page.get_by_label("Traceback").inner_text()
    page.get_by_text("Send it back", exact=True).first.click()
    page.get_by_text("with another payload").click()
    page.locator("textarea").fill(json.dumps({"order_id": BAD, "amount": 5}))
    page.get_by_label("Why?").fill("the amount was wrong")
    page.get_by_role("button", name="Send it back").click()
    wait_for(page, "is on its way again")
    page.evaluate("window.stillHere = true")
    wait_for(page, "It succeeded")
    assert page.evaluate("window.stillHere"), "the page was not loaded again"
    assert fleet.ends()[job_id, 2][0].state is State.SUCCEEDED
    assert audit(fleet) == {("redrive", "the amount was wrong"): 1}


def send_57(fleet: Fleet, url: str, page: Any) -> None:
    """Exactly the 57 that failed in one way, out of the 499 that are left."""
    page.goto(f"{url}/failures")
    page.get_by_role("row", name="the bank does not answer").get_by_role("link", name=str(UNPAID)).click()
    (fleet.folder / "gate-bank").touch()
    submit(page, f"All {UNPAID} of this error", f"Send all {UNPAID} back", "the bank is back")
    wait_for(page, f"{UNPAID} of {UNPAID} dead letters sent back")
    eventually(lambda: sum(life == 2 for _, life in fleet.ends()) == UNPAID + 1, 60, fleet.describe)


def rest(url: str, page: Any) -> None:
    """A queue, paused and let go on; and a schedule, which is started as well."""
    page.goto(f"{url}/queues")
    queue = page.locator("section", has=page.get_by_role("heading", name=jobs_app.QUEUE, exact=True))
    queue.get_by_text("Pause", exact=True).click()
    queue.get_by_label("Why?").fill("maintenance")
    queue.get_by_role("button", name="Pause the queue").click()
    wait_for(page, "paused: maintenance")
    queue.get_by_text("Let it go on", exact=True).first.click()
    queue.get_by_label("Why?").fill("done")
    queue.get_by_role("button", name="Let it go on").click()
    wait_for(page, f"queue {jobs_app.QUEUE} goes on")
    page.goto(f"{url}/schedules")
    submit(page, "Pause", "Pause the schedule", "too loud")
    wait_for(page, "too loud")
    submit(page, "Let it go on", "Let it go on", "quiet now")
    wait_for(page, "goes on with its next instant")
    submit(page, "Run now", "Start a job now", "one more")
    wait_for(page, "has started job")


def discard_two(url: str, page: Any) -> None:
    """Letters by tick."""
    page.goto(f"{url}/letters")
    for box in page.locator("input[name=address]").all()[:2]:
        box.check()
    page.get_by_text("Those that are ticked (2)").click()
    page.locator("#chosen").get_by_label("Why?").fill("nobody needs them")
    page.get_by_role("button", name="Discard").click()
    wait_for(page, "2 of 2 dead letters")


def test_a_person_finds_a_failed_order_mends_it_and_watches_it_succeed(fleet: Fleet, url: str, page: Any) -> None:
    job_id = orders(fleet)
    mend(fleet, url, page, job_id)
    send_57(fleet, url, page)
    rest(url, page)
    discard_two(url, page)
    # Each button has left its line.
    done = {("redrive", "the amount was wrong"): 1, ("redrive", "the bank is back"): UNPAID, ("trigger", "one more"): 1}
    done |= {("pause", "maintenance"): 1, ("resume", "done"): 1, ("discard", "nobody needs them"): 2}
    assert audit(fleet) == {**done, ("pause", "too loud"): 1, ("resume", "quiet now"): 1}
    # The same, on the page: the newest of them at the top.
    page.goto(f"{url}/audit")
    wait_for(page, "one more")


def test_all_can_be_done_with_the_keyboard(fleet: Fleet, url: str, page: Any) -> None:
    orders(fleet)
    # Not from the first of them: a page that leads to itself would be taken for the next while it goes.
    page.goto(f"{url}/jobs")
    keys = {"o": "overview", "f": "failures", "d": "letters", "q": "queues", "w": "workers", "s": "schedules"}
    for key, path in {**keys, "r": "replay", "h": "doctor", "a": "audit", "c": "care", "j": "jobs"}.items():
        page.keyboard.press("Escape")
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(f"{url}/{path}")
        if page.locator("[autofocus]").count():
            # The browser gives it the focus some time after the page is loaded.
            page.locator("[autofocus]:focus").wait_for()
    wait_for(page, f"{ALL} jobs")
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type(f"order_id:{BAD}")
    page.keyboard.press("Enter")
    wait_for(page, "1 job for")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    wait_for(page, "It was given up")
    summary = page.locator("details.act > summary").first
    while not summary.evaluate("each => each === document.activeElement"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    while not page.get_by_label("Why?").evaluate("each => each === document.activeElement"):
        page.keyboard.press("Tab")
    page.keyboard.type("it may work now")
    page.keyboard.press("Enter")
    wait_for(page, "is on its way again")
    assert audit(fleet) == {("redrive", "it may work now"): 1}
