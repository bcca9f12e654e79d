"""The pages: what stands on them, what their buttons do, and who may press them."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path
from urllib.parse import quote

import pytest

from processor.admin.orders import Operator
from processor.admin.schedules import apply_schedules
from processor.ops import web
from processor.ops.login import BasicLogin, Users
from tests.unit.ops.conftest import Desk
from tests.unit.ops.shop import order
from tests.unit.ops.test_api import Web, failed, users

__all__ = ["users"]

STATIC = Path(web.__file__).parent / "static"
OWN = {"sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
def site(desk: Desk, users: Users) -> Web:
    """A dashboard with passwords."""
    return Web(desk, BasicLogin(users))


def text_of(site: Web, path: str, role: str = "operator") -> str:
    answer = site.client(role).get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


def press(site: Web, path: str, role: str = "operator", status: int = 303, **fields: str) -> str:
    """Press a button; where it leads, or what is said instead."""
    body = "&".join(f"{name}={quote(value, safe='')}" for name, value in fields.items())
    answer = site.client(role).post(path, content=body, headers=OWN)
    assert answer.status_code == status, answer.text
    return str(answer.headers.get("location", answer.text))


def test_an_operator_finds_an_order_reads_why_and_sends_it_back(desk: Desk, site: Web) -> None:
    (job_id,) = failed(desk)
    assert f'href="/jobs/{job_id}"' in text_of(site, "/jobs?q=order_id:100")
    page = text_of(site, f"/jobs/{job_id}")
    assert "It was given up" in page
    assert "ValueError: order 100 has no amount" in page
    assert "Traceback (most recent call last)" in page
    assert f"processor dlq redrive {job_id}" in page
    assert "loop rows" in text_of(site, f"/saved/{job_id}")
    desk.shop.fixed = True
    back = press(site, f"/do/jobs/{job_id}/redrive", reason="mended", back=f"/jobs/{job_id}")
    assert back == f"/jobs/{job_id}"
    desk.bed.drain()
    desk.look()
    page = text_of(site, f"/jobs/{job_id}")
    assert "It succeeded" in page
    assert "redrive asked for" in page
    assert "mended" in text_of(site, "/audit")


def test_letters_are_sent_back_by_tick_and_all(desk: Desk, site: Web) -> None:
    failed(desk, 5)
    desk.shop.fixed = True
    page = text_of(site, "/letters")
    addresses = re.findall(r'name="address" value="([^"]+)"', page)
    assert len(addresses) == 5
    body = "&".join(f"address={quote(address)}" for address in addresses[:2]) + "&reason=these&back=/letters"
    assert site.client("operator").post("/do/letters/redrive", content=body, headers=OWN).status_code == 303
    desk.look()
    assert "Send all 3 back" in text_of(site, "/letters")
    said = press(site, "/do/letters/redrive", status=409, reason="all", all_open="1", expected="5", back="/letters")
    assert "3 dead letters are meant now, and 5 were when you looked" in said
    press(site, "/do/letters/redrive", reason="all", all_open="1", expected="3", back="/letters")
    desk.bed.drain()
    assert desk.look().states() == {"succeeded": 5}
    assert "redriven by operator@dashboard: all" in text_of(site, "/letters?state=redriven")


def test_what_was_done_is_said_once(desk: Desk, site: Web) -> None:
    desk.bed.enqueue(desk.shop.mail)
    desk.look()
    client = site.client("operator")
    answer = client.post("/do/queues/mail/pause", content="reason=x&back=/queues", headers=OWN)
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    told = client.get("/queues", headers={"cookie": cookie.partition(";")[0]})
    assert "queue mail rests" in told.text
    assert 'said=""' in told.headers["set-cookie"]
    assert "paused: x (by operator@dashboard)" in told.text


@pytest.mark.parametrize("back", ["//evil.example/x", "https://evil.example", "/\\evil.example", "", "/\r\nx: y"])
def test_a_button_leads_only_to_our_own_pages(desk: Desk, site: Web, back: str) -> None:
    desk.bed.enqueue(desk.shop.mail)
    desk.look()
    assert press(site, "/do/queues/mail/pause", reason="x", back=back) == "/"


def test_customer_care_sees_one_job_in_plain_words(desk: Desk, site: Web) -> None:
    (job_id,) = failed(desk)
    page = text_of(site, "/care?q=100", "care")
    assert "This did not work after 1 try and is not tried again by itself." in page
    assert "Try it again" in page
    assert "Traceback" not in page
    assert 'href="/letters"' not in page
    assert "Try it again" not in text_of(site, "/care?q=100", "viewer")
    desk.shop.fixed = True
    press(site, f"/do/jobs/{job_id}/redrive", "care", reason="the customer called", back="/care?q=100")
    press(site, f"/do/jobs/{job_id}/redrive", "care", status=403, reason="x", payload="{}", back="/")
    desk.bed.drain()
    desk.look()
    assert "This is done" in text_of(site, "/care?q=100", "care")
    assert "Nothing is known of <b>99999</b>" in text_of(site, "/care?q=99999", "care")
    desk.bed.enqueue(desk.shop.charge, order(101))
    desk.look()
    assert "2 jobs fit: which one?" in text_of(site, "/care?q=Jane%20Doe", "care")


def test_what_users_send_is_shown_and_never_run(desk: Desk, site: Web) -> None:
    evil = "<script>alert(1)</script>"
    job = desk.bed.enqueue(desk.shop.charge, order(7, -1, name=evil))
    desk.bed.drain()
    desk.look()
    for path in (
        f"/jobs/{job.id}",
        "/jobs",
        f"/jobs?q={quote(evil)}",
        f"/care?q={quote(evil)}",
        f"/letters?type={quote(evil)}",
    ):
        assert evil not in text_of(site, path), path
    missing = site.client("operator").get(f"/jobs/{quote(evil)}")
    assert missing.status_code == 404
    assert evil not in missing.text


def test_no_page_needs_another_host_or_an_exception_of_the_policy() -> None:
    templates = (STATIC.parent / "templates").glob("*.html")
    for path in [*templates, *STATIC.glob("dashboard.*"), STATIC / "theme.js"]:
        text = path.read_text()
        assert not re.search(r"https?://|//cdn", text), path
        assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=|<style", text), path


def test_the_files_of_others_are_as_they_were_published() -> None:
    listed = tomllib.loads((STATIC / "VENDOR.toml").read_text())["file"]
    own = {"charts.js", "dashboard.css", "dashboard.js", "icon.svg", "theme.js", "VENDOR.toml"}
    licences = {entry["license_file"] for entry in listed}
    assert {path.name for path in STATIC.iterdir()} == own | licences | {entry["name"] for entry in listed}
    for entry in listed:
        assert hashlib.sha256((STATIC / entry["name"]).read_bytes()).hexdigest() == entry["sha256"], entry["name"]
        assert "ermission" in (STATIC / entry["license_file"]).read_text()


def test_a_running_job_tells_its_progress_without_filling_its_story(desk: Desk, site: Web) -> None:
    @desk.shop.app.job("slow", queue="orders")
    def slow(ctx: object) -> None:
        """Never started here: its statuses are written by hand."""

    from processor.broker.base import OutRecord
    from processor.states import State
    from processor.wire.codec import encode
    from processor.wire.records import StatusRecord

    desk.look()
    producer = desk.bed.broker.producer()
    for second in range(50):
        record = StatusRecord("s1", 1, "slow", "orders", State.RUNNING, 1000 + second, 1, "w", done=second, total=100)
        producer.append(OutRecord("shop.status", b"s1", encode(record)))
    producer.flush(5)
    producer.close()
    facts = desk.look().job("s1")
    assert [(move["state"], move["at"]) for move in facts.moves] == [("running", 1000)]
    assert (facts.job["done"], facts.job["changed_at"]) == (49, 1049)
    assert 'value="49.0"' in text_of(site, "/jobs/s1")


def test_the_overview_tells_what_goes_through_and_what_waits_for_a_person(desk: Desk, site: Web) -> None:
    failed(desk, 2)
    desk.bed.enqueue(desk.shop.mail)
    desk.bed.drain()
    desk.look()
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text_of(site, "/overview")))
    assert "66.7 % of 3 that ended" in page
    assert "2 open : they are not tried again" in page
    rates = site.client("viewer").get("/api/v1/rates").json()
    assert (len(rates["at"]), sum(rates["succeeded"]), sum(rates["failed"])) == (60, 1, 2)
    press(site, "/do/queues/mail/pause", reason="maintenance", back="/")
    assert 'queue <a href="/queues">mail</a>: maintenance' in text_of(site, "/overview")
    assert desk.look().types() == ["mail.send", "order.charge"]


def test_what_the_code_declares_no_more_is_marked(desk: Desk, site: Web) -> None:
    failed(desk)
    assert "not declared any more" not in text_of(site, "/queues")
    del desk.shop.app.job_types["order.charge"]
    del desk.shop.app._queues["orders"]
    for path in ("/queues", "/overview"):
        assert "not declared any more" in text_of(site, path)
    assert "Job types that the code declares no more" in text_of(site, "/overview")


def test_a_schedule_is_paused_resumed_and_started(desk: Desk, site: Web) -> None:
    desk.shop.app.schedule("nightly", desk.shop.mail, cron="0 2 * * *")
    who = Operator(by="worker", clock=desk.bed.runtime.clock)
    apply_schedules(desk.bed.broker, "shop", desk.shop.app.schedules.values(), who)
    page = text_of(site, "/schedules")
    assert "0 2 * * *" in page
    assert page.count("02:00:00 UTC") == 3, "its next instants"
    press(site, "/do/schedules/nightly/pause", reason="the printer is broken", back="/schedules")
    assert "paused by operator@dashboard: the printer is broken" in text_of(site, "/schedules")
    press(site, "/do/schedules/nightly/resume", reason="mended", back="/schedules")
    press(site, "/do/schedules/nightly/trigger", reason="missed one", back="/schedules")
    desk.bed.drain()
    assert desk.look().states() == {"succeeded": 1}
    told = [(row["action"], row["by"], row["reason"]) for row in desk.queries.audit().rows]
    assert sorted(told) == [
        ("pause", "operator@dashboard", "the printer is broken"),
        ("resume", "operator@dashboard", "mended"),
        ("trigger", "operator@dashboard", "missed one"),
    ]
    body = {"reason": "again"}
    assert site.client("operator").post("/api/v1/schedules/none/pause", json=body).json()["code"] == "order_refused"


def test_a_replay_is_planned_and_then_exactly_that_is_sent(desk: Desk, site: Web) -> None:
    failed(desk, 3)
    desk.bed.enqueue(desk.shop.charge, order(7))
    desk.bed.drain()
    asked = "/replay?queue=orders&since=1h&state=dead"
    page = text_of(site, asked)
    assert "Send 3 again" in page
    assert "Send 3 again" not in text_of(site, asked, "viewer")
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
    assert (hidden["queue"], hidden["state"], hidden["expected"]) == ("orders", "dead", "3")
    fields = {**hidden, "reason": "the shop is mended"}
    assert "3 jobs are meant now, and 2 were" in press(site, "/do/replay", status=409, **{**fields, "expected": "2"})
    desk.shop.fixed = True
    press(site, "/do/replay", **fields)
    desk.bed.drain()
    assert desk.look().states() == {"dead": 3, "succeeded": 4}
    assert {(row["by"], row["reason"]) for row in desk.queries.audit().rows} == {
        ("operator@dashboard", "the shop is mended")
    }
    assert "there is no state" in text_of(site, "/replay?queue=orders&state=lost")
    assert 'role="alert"' in text_of(site, "/replay?queue=orders&since=never")


def test_the_doctor_says_what_is_wrong(desk: Desk, site: Web) -> None:
    assert "Examining" in text_of(site, "/doctor")
    failed(desk)
    page = text_of(site, "/doctor?run=true")
    assert "Examining" not in page
    assert "1 job given up" in page
    checks = {row["check"] for row in site.client("viewer").get("/api/v1/doctor").json()}
    assert {"broker", "topics", "workers", "dead letters"} <= checks


def test_a_filter_is_saved_used_and_deleted(desk: Desk, site: Web) -> None:
    failed(desk)
    press(site, "/do/filters/save", name="Jane's failures", q="order_id:100 state:dead", back="/jobs")
    press(site, "/do/filters/save", status=400, name="bad", q="no_such:1", back="/jobs")
    press(site, "/do/filters/save", status=400, name=" ", q="state:dead", back="/jobs")
    page = text_of(site, "/jobs", "viewer")
    assert "★ Jane&#39;s failures" in page
    assert 'href="/jobs?q=order_id%3A100%20state%3Adead"' in page
    desk.store.wipe()
    desk.projector.close()
    desk.look()
    (kept,) = site.client("viewer").get("/api/v1/filters").json()
    assert (kept["filter"], kept["by"]) == ("order_id:100 state:dead", "operator@dashboard"), "a rebuild leaves it"
    assert "Delete the saved filter" in text_of(site, "/jobs?q=order_id%3A100%20state%3Adead")
    _becomes_an_alert(site, "Jane's failures", "/jobs?q=order_id%3A100%20state%3Adead")
    press(site, "/do/filters/delete", name="Jane's failures", back="/jobs")
    assert "★" not in text_of(site, "/jobs")
    assert [row["action"] for row in desk.look().audit().rows] == [
        "forget_filter",
        "unwatch_filter",
        "watch_filter",
        "watch_filter",
        "save_filter",
    ]


def _becomes_an_alert(site: Web, name: str, page: str) -> None:
    """And then none any more."""
    assert "Make it an alert" in text_of(site, page)
    assert "Make it an alert" not in text_of(site, page, "viewer")
    wish = {"name": name, "when": "many", "at_least": "10", "for": "5m", "back": page}
    for wrong in ({"at_least": "ten"}, {"at_least": "0"}, {"for": "soon"}, {"name": "none"}):
        status = 404 if wrong.get("name") else 400
        press(site, "/do/filters/watch", status=status, **{**wish, **wrong})
    press(site, "/do/filters/watch", status=303, **{**wish, "when": "each"})
    (kept,) = site.client("viewer").get("/api/v1/filters").json()
    assert (kept["alert"]["at_least"], kept["alert"]["text"]) == (None, "each new job")
    press(site, "/do/filters/watch", status=303, **wish)
    shown = text_of(site, page)
    assert "is an alert: at least 10 jobs for 5m, since " in shown
    assert "processor alerts unwatch" in shown
    (kept,) = site.client("viewer").get("/api/v1/filters").json()
    told = {name: kept["alert"][name] for name in ("at_least", "for", "open", "problem", "by")}
    assert told == {"at_least": 10, "for": "5m", "open": False, "problem": "", "by": "operator@dashboard"}
    press(site, "/do/filters/unwatch", name=name, back=page)
    press(site, "/do/filters/unwatch", status=404, name=name, back=page)
    missing = site.client("operator").post("/api/v1/filters/delete", json={"name": "none"})
    assert missing.json()["code"] == "not_there"
