"""The pages. Each shows what `ops.queries` answers; its live part asks for the page again and puts itself in place."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote, urlencode

from fastapi import APIRouter, Depends, Query, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from starlette.responses import HTMLResponse, Response

from processor.admin.orders import orders_now
from processor.admin.queues import QueueRow
from processor.core.redrive import LetterState
from processor.ops.errors import FilterInvalid, NotThere
from processor.ops.filters import NAMES
from processor.ops.queries import COUNTED, JobFacts, LetterSet
from processor.ops.roles import Permission, Role
from processor.ops.saved import saved_facts
from processor.ops.telling import SIGNS, TONES, WORDS, plainly, possible, story, why
from processor.ops.watching.wishing import told_filters
from processor.ops.web.desk import Desk, desk_of, needs, user_of
from processor.ops.wording import ago, first_line, iso, moment, number, short, span
from processor.states import TERMINAL, State

router = APIRouter(include_in_schema=False)
SEE = [Depends(needs(Permission.SEE))]
ONE = [Depends(needs(Permission.ONE))]
PAGES = (
    ("Overview", "/overview"),
    ("Jobs", "/jobs"),
    ("Failures", "/failures"),
    ("Dead letters", "/letters"),
    ("Queues", "/queues"),
    ("Workers", "/workers"),
    ("Schedules", "/schedules"),
    ("Replay", "/replay"),
    ("Doctor", "/doctor"),
    ("Audit", "/audit"),
    ("Care", "/care"),
)
KEYS = {
    "/overview": "o",
    "/jobs": "j",
    "/failures": "f",
    "/letters": "d",
    "/queues": "q",
    "/workers": "w",
    "/schedules": "s",
    "/replay": "r",
    "/doctor": "h",
    "/audit": "a",
    "/care": "c",
}
SAID = "said"
"""Cookie with what was done, shown once."""

Text = Annotated[str, Query(max_length=1000)]


@pass_context
def _ago(context: Context, milliseconds: int | None) -> str:
    return ago(milliseconds, context["now"])


@pass_context
def _lasting(context: Context, milliseconds: int) -> str:
    return span(max(0, context["now"] - milliseconds) / 1000)


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {
        "moment": moment,
        "ago": _ago,
        "lasting": _lasting,
        "rate": lambda value: number(round(value, 1 if value < 10 else 0)),
        "iso": iso,
        "number": number,
        "short": short,
        "first_line": first_line,
        "plain_error": lambda text: text.removeprefix("builtins."),
        "json": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
        "pretty": _pretty,
        "tone": lambda state: TONES.get(State(state), ""),
        "sign": lambda state: SIGNS[State(state)],
        "words": lambda state: WORDS[State(state)],
        "shell": shlex.quote,
        "segment": lambda name: quote(name, safe=""),
        "job_path": lambda job_id: f"/jobs/{quote(job_id, safe='')}",
        "bulk_path": lambda bulk: f"/bulk/{quote(bulk, safe='')}",
        "saved_path": lambda job_id: f"/saved/{quote(job_id, safe='')}",
        "events_path": lambda job_id: f"/api/v1/jobs/{quote(job_id, safe='')}/events?follow=true",
        "do_path": lambda job_id, action: f"/do/jobs/{quote(job_id, safe='')}/{action}",
    }
    return made


def _pretty(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


_pages = _environment()


def render(request: Request, template: str, **values: Any) -> HTMLResponse:
    """A page, with what every page needs."""
    desk, user = desk_of(request), user_of(request)
    path = request.url.path
    back = f"{path}?{request.url.query}" if request.url.query else path
    pages = [page for page in PAGES if user.role is not Role.CARE or page[1] == "/care"]
    # The doctor examines everything.
    pages = [page for page in pages if user.queues is None or page[1] != "/doctor"]
    shared = {
        "now": desk.clock.now_ms(),
        "namespace": desk.app.namespace,
        "user": user,
        "pages": pages,
        "keys": KEYS,
        "here": "/" + path.split("/")[1],
        "back": back,
        "said": unquote(request.cookies.get(SAID, ""))[:500],
        "fresh": desk.queries.freshness(),
        "operates": user.may(Permission.OPERATE),
        "limited": user.queues is not None,
        "leaves": bool(request.app.state.login.entrance),
        "ended": TERMINAL,
    }
    answer = HTMLResponse(_pages.get_template(template).render({**shared, **values}))
    # A live region asks again every few seconds: only a whole page shows what was done, and that once.
    if SAID in request.cookies and "hx-request" not in request.headers:
        answer.delete_cookie(SAID, path="/")
    return answer


@router.get("/jobs", dependencies=SEE)
def jobs(request: Request, q: Text = "", after: Text = "") -> Response:
    """Jobs that a filter means."""
    desk = desk_of(request)
    values: dict[str, Any] = {
        "title": "Jobs",
        "q": q,
        "after": after,
        "names": [*NAMES, *desk.fields],
        "problem": "",
        "kept": told_filters(desk.kept) if desk.queues is None else [],
    }
    states = desk.queries.states()
    values["states"] = [(state.value, number(states[state])) for state in State if state in states]
    try:
        where = desk.filter(q)
        page = desk.queries.jobs(where, after=after)
    except FilterInvalid as error:
        return render(request, "jobs.html", **{**values, "problem": str(error), "hint": error.hint})
    total = desk.queries.count(where)
    shows = user_of(request).may(Permission.OPERATE)
    values["fields"] = desk.queries.fields_of([row["id"] for row in page.rows]) if shows else {}
    values |= {"page": page, "total": f"{_counted(total)} job{'' if total == 1 else 's'}"}
    return render(request, "jobs.html", **values, first=_url("/jobs", q=q), next=_url("/jobs", q=q, after=page.after))


@router.get("/failures", dependencies=SEE)
def failures(request: Request) -> Response:
    """Jobs that failed, by fingerprint."""
    return render(request, "failures.html", title="Failures", groups=desk_of(request).queries.failure_groups())


@router.get("/letters", dependencies=SEE)
def letters(
    request: Request, state: Text = "open", fingerprint: Text = "", type: Text = "", after: Text = ""
) -> Response:
    """Dead letters."""
    queries = desk_of(request).queries
    page = queries.letters(state=state, fingerprint=fingerprint, type_=type, after=after)
    chosen = {"state": state, "fingerprint": fingerprint, "type": type}
    narrowed = {name: value for name, value in chosen.items() if value and name != "state"}
    wanted = LetterSet(**narrowed)
    counts = {name.value: queries.letter_count(wanted, name) for name in LetterState}
    return render(
        request,
        "letters.html",
        title="Dead letters",
        page=page,
        after=after,
        groups=queries.letter_groups(),
        total=counts.get(state, 0),
        states=counts.items(),
        narrowed="".join(f"&{name}={quote(value, safe='')}" for name, value in narrowed.items()),
        options="".join(f" --{name} {shlex.quote(value)}" for name, value in narrowed.items()),
        filters=", ".join(f"{name} {value}" for name, value in chosen.items() if value),
        first=_url("/letters", **chosen),
        next=_url("/letters", **chosen, after=page.after),
        **chosen,
    )


@router.get("/queues", dependencies=SEE)
def queues(request: Request) -> Response:
    """What waits in each queue, who serves it, and what is paused."""
    desk = desk_of(request)
    app = desk.app
    orders = orders_now(app.broker(), app.namespace)
    found = desk.queue_rows(orders)
    return render(
        request,
        "queues.html",
        title="Queues",
        queues=found,
        undeclared=undeclared(desk, found),
        types=desk.paused_types(orders),
    )


@router.get("/audit", dependencies=SEE)
def audit(request: Request, after: Text = "") -> Response:
    """What people did."""
    page = desk_of(request).queries.audit(after=after)
    return render(request, "audit.html", title="Audit", page=page, after=after, next=_url("/audit", after=page.after))


@router.get("/care", dependencies=ONE)
def care(request: Request, q: Text = "") -> Response:
    """One job in plain words, for people who have an order number."""
    desk = desk_of(request)
    facts, rows, more = _looked_up(desk, q.strip())
    user = user_of(request)
    told = {} if user.role is Role.VIEWER else desk.queries.fields_of([row["id"] for row in rows])
    values: dict[str, Any] = {"title": "Care", "q": q.strip(), "rows": rows, "more": more, "job": None, "fields": told}
    if facts is not None:
        now = desk.clock.now_ms()
        may = possible(facts) if user.may(Permission.RETRY) else []
        shown = {} if user.role is Role.VIEWER else facts.fields
        values |= {"job": facts.job, "why": plainly(facts, now), "actions": may, "fields": shown}
    return render(request, "care.html", **values)


@router.get("/saved/{job_id:path}", dependencies=SEE)
def saved(request: Request, job_id: str) -> Response:
    """What a job has saved, read from the log now."""
    desk = desk_of(request)
    rows = saved_facts(desk.app, desk.queries.job(job_id), user_of(request))
    return render(request, "saved.html", saved=rows)


@router.get("/jobs/{job_id:path}", dependencies=SEE)
def job(request: Request, job_id: str) -> Response:
    """One job, whole."""
    desk, user = desk_of(request), user_of(request)
    facts = desk.queries.job(job_id)
    operates = user.may(Permission.OPERATE)
    payload = desk.payload(facts, user)
    masked = facts.payload is not None and payload != desk.whole_payload(facts)
    return render(
        request,
        "job.html",
        title=f"{facts.job['type']} {job_id}",
        facts=facts,
        job=facts.job,
        why=why(facts, desk.clock.now_ms()),
        story=story(facts),
        payload=payload,
        fields=facts.fields if operates else {},
        masked=masked,
        actions=possible(facts) if operates else [],
        edits=operates and not masked,
        sees_result=operates,
        sees_saved=facts.job["state"] != State.SUCCEEDED,
    )


def undeclared(desk: Desk, queues: Sequence[QueueRow]) -> dict[str, list[str]]:
    """Queues and job types that exist and that the app's code does not declare; none if the code is not known."""
    if not desk.app.job_types:
        return {"queues": [], "types": []}
    apps = (desk.app, desk.bulks.app)
    return {
        "queues": [queue.queue for queue in queues if not any(queue.queue in app.queues for app in apps)],
        "types": [name for name in desk.queries.types() if not any(name in app.job_types for app in apps)],
    }


def _counted(amount: int) -> str:
    return f"more than {number(COUNTED)}" if amount > COUNTED else number(amount)


def _looked_up(desk: Desk, text: str) -> tuple[JobFacts | None, Any, bool]:
    """The one job that a word means, or those that it may mean."""
    if not text:
        return None, [], False
    try:
        return desk.queries.job(text), [], False
    except NotThere:
        page = desk.queries.jobs(desk.words(text), limit=20)
    if len(page.rows) == 1:
        return desk.queries.job(str(page.rows[0]["id"])), [], False
    return None, page.rows, bool(page.after)


def _url(path: str, **values: str) -> str:
    told: Mapping[str, str] = {name: value for name, value in values.items() if value}
    return f"{path}?{urlencode(told)}" if told else path
