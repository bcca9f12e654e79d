"""Whatever is done by a button or by the API leaves its line in the audit topic: who, what, about what, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pytest

from processor.admin.orders import Operator, pause
from processor.admin.schedules import apply_schedules
from processor.ops.login import NoLogin
from tests.unit.ops.conftest import Desk
from tests.unit.ops.routes import routes_of
from tests.unit.ops.shop import order
from tests.unit.ops.test_api import Web, failed
from tests.unit.ops.test_pages import OWN

WHY = "the customer is on the phone"
AUDIT_READS = frozenset({"POST /api/v1/replays/plan", "POST /logout"})
"""Change nothing of anybody's jobs."""
AUDIT_LATER = frozenset({"POST /api/v1/bulk", "POST /do/bulk"})
"""Begin a job that leaves the lines while it works: see test_bulk."""


def _dead(desk: Desk) -> dict[str, str]:
    (job_id,) = failed(desk)
    (letter,) = desk.queries.letters().rows
    return {"job": job_id, "letter": f"{letter['partition']}@{letter['offset']}"}


def _retrying(desk: Desk) -> dict[str, str]:
    job_id = desk.bed.enqueue(desk.shop.charge, order(1, 0)).id
    desk.bed.advance("2s")
    desk.look()
    return {"job": job_id}


def _paused(target: str) -> Callable[[Desk], dict[str, str]]:
    def prepare(desk: Desk) -> dict[str, str]:
        desk.bed.enqueue(desk.shop.mail)
        pause(desk.bed.broker, "shop", target, Operator(by="somebody", clock=desk.bed.runtime.clock))
        desk.look()
        return {}

    return prepare


def _running(desk: Desk) -> dict[str, str]:
    desk.bed.enqueue(desk.shop.mail)
    desk.look()
    return {}


def _schedule(desk: Desk) -> dict[str, str]:
    desk.shop.app.schedule("nightly", desk.shop.mail, cron="0 2 * * *")
    who = Operator(by="worker", clock=desk.bed.runtime.clock)
    apply_schedules(desk.bed.broker, "shop", desk.shop.app.schedules.values(), who)
    return {}


def _resting_schedule(desk: Desk) -> dict[str, str]:
    _schedule(desk)
    Web(desk, NoLogin()).client().post("/api/v1/schedules/nightly/pause", json={"reason": "before"})
    return {}


def _saved(desk: Desk) -> dict[str, str]:
    desk.look()
    Web(desk, NoLogin()).client().post("/api/v1/filters", json={"name": "mine", "q": "state:dead"})
    return {}


def _watched(desk: Desk) -> dict[str, str]:
    _saved(desk)
    Web(desk, NoLogin()).client().post("/api/v1/filters/watch", json={"name": "mine"})
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one button leaves."""

    action: str
    subject: str
    """`{job}` and `{letter}` stand for those that `given` made."""
    given: Callable[[Desk], dict[str, str]]
    fields: dict[str, str] = field(default_factory=dict)
    """Of the form."""
    body: dict[str, Any] = field(default_factory=dict)
    """Of the API, if it is not the same."""
    why: str = WHY
    lines: int = 1


_ALL = {"all_open": "1", "expected": "1"}
_ALL_BODY = {"all_open": True, "expected": 1}
_REPLAY = {"queue": "orders", "since": "1h", "until": "", "expected": "1"}
_FILTER = {"name": "mine", "q": "state:dead"}
LINES: dict[str, Line] = {
    "jobs/{job_id:path}/retry": Line(action="retry", subject="job:{job}", given=_retrying),
    "jobs/{job_id:path}/cancel": Line(action="cancel", subject="job:{job}", given=_retrying),
    "jobs/{job_id:path}/redrive": Line(action="redrive", subject="{letter}", given=_dead),
    "letters/redrive": Line(action="redrive", subject="{letter}", given=_dead, fields=_ALL, body=_ALL_BODY),
    "letters/discard": Line(action="discard", subject="{letter}", given=_dead, fields=_ALL, body=_ALL_BODY),
    "queues/{name}/pause": Line(action="pause", subject="queue:mail", given=_running),
    "queues/{name}/resume": Line(action="resume", subject="queue:mail", given=_paused("queue:mail")),
    "types/{name:path}/pause": Line(action="pause", subject="type:mail.send", given=_running),
    "types/{name:path}/resume": Line(action="resume", subject="type:mail.send", given=_paused("type:mail.send")),
    "schedules/{name:path}/pause": Line(action="pause", subject="schedule:nightly", given=_schedule),
    "schedules/{name:path}/resume": Line(action="resume", subject="schedule:nightly", given=_resting_schedule),
    "schedules/{name:path}/trigger": Line(action="trigger", subject="schedule:nightly", given=_schedule),
    # It says what it begins, what it has sent, and that it is done.
    "replay": Line(action="replay", subject="", given=_dead, fields=_REPLAY, body={**_REPLAY, "expected": 1}, lines=3),
    "filters/save": Line(action="save_filter", subject="filter:mine", given=_running, fields=_FILTER, why=""),
    "filters/delete": Line(
        action="forget_filter", subject="filter:mine", given=_saved, fields={"name": "mine"}, why=""
    ),
    "filters/watch": Line(
        action="watch_filter",
        subject="filter:mine",
        given=_saved,
        fields={"name": "mine", "at_least": "3", "for": "5m"},
        body={"name": "mine", "at_least": 3, "for": "5m"},
        why="",
    ),
    "filters/unwatch": Line(
        action="unwatch_filter", subject="filter:mine", given=_watched, fields={"name": "mine"}, why=""
    ),
}
"""What each route that changes something leaves behind, by its path behind `/do/`."""
OF_API = {"replay": "replays/run", "filters/save": "filters"}
"""Where the API has another path."""
API_ONLY = frozenset({"types/{name:path}/pause"})


def test_every_route_that_changes_something_is_here(desk: Desk) -> None:
    desk.look()
    posts = {f"{method} {path}" for method, path in routes_of(Web(desk, NoLogin()).application) if method != "GET"}
    buttons = {f"POST /do/{name}" for name in LINES if name not in API_ONLY}
    assert posts - AUDIT_READS - AUDIT_LATER == buttons | {f"POST /api/v1/{OF_API.get(name, name)}" for name in LINES}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("by", ["button", "api"])
def test_it_leaves_its_line(desk: Desk, monkeypatch: pytest.MonkeyPatch, by: str, name: str) -> None:
    if by == "button" and name in API_ONLY:
        pytest.skip("no page has such a button")
    monkeypatch.setenv("USER", "jane")
    line = LINES[name]
    made = line.given(desk)
    before = len(desk.look().audit().rows)
    client = Web(desk, NoLogin()).client()
    reason = {"reason": line.why} if line.why else {}
    path = name.replace("{job_id:path}", made.get("job", "")).replace("{name}", "mail")
    path = path.replace("{name:path}", line.subject.partition(":")[2])
    if by == "button":
        answer = client.post(f"/do/{path}", content=urlencode({**line.fields, **reason}), headers=OWN)
        assert answer.status_code == 303, answer.text
    else:
        answer = client.post(f"/api/v1/{OF_API.get(path, path)}", json={**(line.body or line.fields), **reason})
        assert answer.status_code == 200, answer.text
    rows = desk.look().audit().rows[: -before or None]
    told = [(row["action"], row["by"], row["reason"]) for row in rows]
    assert told == [(line.action, "jane@dashboard", line.why)] * line.lines
    if line.subject:
        assert rows[0]["subject"] == line.subject.format(**made)
        assert "job" not in made or made["job"] in (rows[0]["job_id"], rows[0]["subject"].removeprefix("job:"))
