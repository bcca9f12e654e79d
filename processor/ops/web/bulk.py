"""Bulk actions: what one would do, having it done, and how far it is. See `processor.ops.bulk`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import RedirectResponse, Response

from processor.ops.actions import Why
from processor.ops.bulk.job import TYPE, Bulk, Tally
from processor.ops.bulk.plan import ACTIONS, Action, Plan, make_plan
from processor.ops.errors import FilterInvalid, NotAllowed, NotThere, SetChanged
from processor.ops.queries import JobFacts, Queries
from processor.ops.roles import Permission, User
from processor.ops.web.desk import Desk, desk_of, needs, user_of, why_of
from processor.ops.web.forms import Sent
from processor.ops.web.pages import render
from processor.ops.wording import count
from processor.states import TERMINAL

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1")
SEE = [Depends(needs(Permission.SEE))]
OPERATE = [Depends(needs(Permission.OPERATE))]
LATEST = 50
"""Audit records that the page shows."""


class Wish(BaseModel):
    """Which jobs, and what is to be done to them; or a plan as a dry run gave it."""

    model_config = ConfigDict(extra="forbid")

    action: Action | None = None
    q: str = Field(default="", max_length=1000)
    """The filter, as `GET /api/v1/jobs` takes it."""
    from_zero: bool = False
    dry_run: bool = False
    """Only make the plan."""
    plan: Plan | None = None
    """The plan of a dry run: exactly these jobs, whatever has come since."""
    expected: int | None = Field(default=None, ge=0)
    """Without a plan: how many jobs you mean; if they are not as many, nothing is done."""
    reason: str = Field(default="", max_length=500)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a bulk is."""

    id: str
    state: str
    action: str
    q: str
    by: str
    reason: str
    count: int
    """Jobs that were meant."""
    done: int
    """Jobs to which it was done, as the audit log says."""
    tally: Tally | None
    """What it has come to, at the end."""
    note: str

    @property
    def left(self) -> int:
        """Jobs that it has not come to, or that had changed."""
        known = self.tally
        return max(0, self.count - self.done - (known.refused + known.skipped + known.changed if known else 0))


@router.get("/bulk", dependencies=OPERATE)
def wizard(request: Request, q: Annotated[str, Query(max_length=1000)] = "", action: str = "") -> Response:
    """What a bulk action would do. Nothing is done."""
    desk = desk_of(request)
    values: dict[str, Any] = {"q": q, "action": action, "actions": ACTIONS, "plan": None, "sample": (), "problem": ""}
    try:
        desk.filter(q)
        if action:
            plan = planned(desk, _action(action), q)
            values |= {"plan": plan, "wire": plan.model_dump_json(), "cli": _cli(plan)}
            values["sample"] = desk.queries.jobs(desk.filter(q), limit=10).rows
    except FilterInvalid as error:
        values |= {"problem": str(error), "hint": error.hint}
    return render(request, "bulk_plan.html", title="Many at once", **values)


@router.post("/do/bulk", dependencies=OPERATE)
def begin(request: Request, form: Sent) -> Response:
    """Have a plan carried out, and lead to its page."""
    try:
        plan = Plan.model_validate_json(form.one("plan"))
    except ValidationError as error:
        raise FilterInvalid("that is no plan", hint="make it anew") from error
    bulk = started(desk_of(request), plan, why_of(request, form.one("reason")))
    return RedirectResponse(f"/bulk/{quote(bulk, safe='')}", 303)


@router.get("/bulk/{job_id:path}", dependencies=SEE)
def one(request: Request, job_id: str) -> Response:
    """One bulk: how far it is, who wanted it and why, and what it has done last."""
    desk = desk_of(request)
    try:
        facts, standing = _looked_up(desk, user_of(request), job_id)
    except NotThere:
        answer = render(request, "bulk.html", title="Many at once", bulk=None, job=None, rows=(), bulk_id=job_id)
        # It may come: the page asks again, and takes nothing in before that.
        answer.status_code = 404
        return answer
    rows = Queries(desk.store).audit(limit=LATEST, bulk=job_id).rows
    title = f"{standing.action} of {count(standing.count, 'job')}"
    return render(request, "bulk.html", title=title, bulk=standing, job=facts.job, rows=rows, bulk_id=job_id)


@api.post("/bulk", dependencies=OPERATE)
def bulk(request: Request, wanted: Wish) -> dict[str, Any]:
    """Do something to all jobs of a filter; with `dry_run` only say which.

    The set is fixed by the plan: jobs that come or change later are left alone. Give the plan of a dry run back to have
    exactly that done; the same plan twice is done once.
    """
    desk = desk_of(request)
    plan = wanted.plan
    if plan is None:
        if wanted.action is None:
            raise FilterInvalid("what is to be done?", hint=f"action: one of {', '.join(ACTIONS)}; or a plan")
        plan = planned(desk, wanted.action, wanted.q, from_zero=wanted.from_zero)
    if wanted.dry_run:
        return {"plan": plan.model_dump(), "jobs": plan.count, "digest": plan.digest}
    why = why_of(request, wanted.reason)
    if wanted.plan is None and wanted.expected != plan.count:
        if wanted.expected is None:
            raise FilterInvalid("how many are meant?", hint="give expected, or the plan of a dry run")
        raise SetChanged(f"{plan.count} jobs are meant now, and {wanted.expected} were expected", hint="look again")
    return {"id": started(desk, plan, why), "jobs": plan.count, "digest": plan.digest}


@api.get("/bulk/{job_id:path}", dependencies=SEE)
def standing(request: Request, job_id: str) -> dict[str, Any]:
    """How far a bulk is. `GET /api/v1/jobs/{id}/events` tells the same live."""
    found = _looked_up(desk_of(request), user_of(request), job_id)[1]
    return {**asdict(found), "tally": found.tally and found.tally.model_dump(), "left": found.left}


def planned(desk: Desk, action: Action, q: str, *, from_zero: bool = False) -> Plan:
    """Fix which jobs are meant now, of those that may be seen."""
    how: Mapping[str, Any] = {"fields": desk.fields, "queues": desk.queues, "from_zero": from_zero}
    return make_plan(desk.store, action, q, desk.clock.now_ms(), **how)


def started(desk: Desk, plan: Plan, why: Why) -> str:
    """Have a plan carried out; its id.

    Raises:
        NotAllowed: it means jobs of other queues than the user's.
        FilterInvalid: its filter cannot be read, or it is too old.
    """
    if desk.queues is not None and not (plan.queues is not None and desk.queues.issuperset(plan.queues)):
        raise NotAllowed("this plan means jobs of queues that are not yours", hint="make it anew")
    return desk.bulks.start(plan, why.by, why.reason)


def _looked_up(desk: Desk, user: User, job_id: str) -> tuple[JobFacts, Standing]:
    queries = Queries(desk.store)
    facts = queries.job(job_id)
    wanted = _wanted(facts)
    theirs = wanted is not None and wanted.plan.queues
    if wanted is None or (user.queues is not None and not (theirs and user.queues.issuperset(theirs))):
        raise NotThere(f"there is no bulk {job_id}", hint="is the id right? It appears a second after its start")
    job, plan = facts.job, wanted.plan
    ended = job["state"] in {state.value for state in TERMINAL}
    tally = Tally.model_validate_json(facts.result) if ended and facts.result else None
    standing = Standing(
        id=job_id,
        state=str(job["state"]),
        action=plan.action,
        q=plan.q,
        by=wanted.by,
        reason=wanted.reason,
        count=plan.count,
        done=queries.bulk_count(job_id),
        tally=tally,
        note=tally.words if tally else str(job["note"]),
    )
    return facts, standing


def _wanted(facts: JobFacts) -> Bulk | None:
    if facts.job["type"] != TYPE or facts.payload is None:
        return None
    try:
        return Bulk.model_validate(json.loads(facts.payload))
    except ValueError:
        return None


def _action(text: str) -> Action:
    found = next((action for action in ACTIONS if action == text), None)
    if found is None:
        raise FilterInvalid(f"there is no action {text[:40]!r}", hint=f"there are: {', '.join(ACTIONS)}")
    return found


def _cli(plan: Plan) -> str:
    return shlex.join(["processor", "bulk", plan.action, *plan.q.split(), "--expected", str(plan.count)])
