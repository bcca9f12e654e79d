"""Schedules: when each fires next, pausing one, letting it go on, and starting its job now."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from processor.admin.orders import Operator
from processor.admin.schedules import pause_schedule, resume_schedule, schedules_now, trigger
from processor.core.schedules import Standing, instants
from processor.errors import DefinitionError
from processor.ops.actions import Outcome, Why
from processor.ops.errors import NotThere
from processor.ops.roles import Permission
from processor.ops.web.api import Reason
from processor.ops.web.desk import Desk, desk_of, needs, why_of
from processor.ops.web.forms import Sent, lead_back
from processor.ops.web.pages import render
from processor.wire.durations import format_duration
from processor.wire.records import ScheduleRecord

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1")
SEE = [Depends(needs(Permission.SEE))]
OPERATE = [Depends(needs(Permission.OPERATE))]
NEXT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """One schedule. Moments in milliseconds since the epoch."""

    name: str
    type: str
    queue: str
    when: str
    overlap: str
    next: list[int]
    """Its next instants; its jitter comes on top. Empty: it rests, or it cannot be read."""
    last: int | None
    last_job: str
    runs: int
    skipped: int
    source: str
    """`code` or `cli`."""
    declared: bool
    """The app's code declares it, or was never asked to."""
    paused: bool
    by: str
    reason: str
    fault: str
    """Why its next instants are not known."""


@router.get("/schedules", dependencies=SEE)
def page(request: Request) -> Response:
    """All schedules."""
    desk = desk_of(request)
    rows = rows_of(desk)
    missing = sorted(desk.app.schedules.keys() - {row.name for row in rows}) if desk.queues is None else []
    return render(request, "schedules.html", title="Schedules", schedules=rows, missing=missing)


@router.post("/do/schedules/{name:path}/pause", dependencies=OPERATE)
def pause(request: Request, name: str, form: Sent) -> Response:
    """Let a schedule rest."""
    return lead_back(form, paused(desk_of(request), name, why_of(request, form.one("reason"))))


@router.post("/do/schedules/{name:path}/resume", dependencies=OPERATE)
def resume(request: Request, name: str, form: Sent) -> Response:
    """Let a schedule go on."""
    return lead_back(form, resumed(desk_of(request), name, why_of(request, form.one("reason"))))


@router.post("/do/schedules/{name:path}/trigger", dependencies=OPERATE)
def start(request: Request, name: str, form: Sent) -> Response:
    """Start its job now."""
    return lead_back(form, triggered(desk_of(request), name, why_of(request, form.one("reason"))))


@api.get("/schedules", dependencies=SEE)
def schedules(request: Request) -> list[dict[str, Any]]:
    """All schedules, with their next instants."""
    return [asdict(row) for row in rows_of(desk_of(request))]


@api.post("/schedules/{name:path}/pause", dependencies=OPERATE)
def pause_one(request: Request, name: str, wanted: Reason) -> dict[str, Any]:
    """Let a schedule rest: its instants pass without being fired."""
    return asdict(paused(desk_of(request), name, why_of(request, wanted.reason)))


@api.post("/schedules/{name:path}/resume", dependencies=OPERATE)
def resume_one(request: Request, name: str, wanted: Reason) -> dict[str, Any]:
    """Let a paused schedule go on with its next instant."""
    return asdict(resumed(desk_of(request), name, why_of(request, wanted.reason)))


@api.post("/schedules/{name:path}/trigger", dependencies=OPERATE)
def trigger_one(request: Request, name: str, wanted: Reason) -> dict[str, Any]:
    """Start a job of a schedule now, beside its instants."""
    return asdict(triggered(desk_of(request), name, why_of(request, wanted.reason)))


def rows_of(desk: Desk) -> list[ScheduleRow]:
    """All schedules by name."""
    found = schedules_now(desk.app.broker(), desk.app.namespace).standings
    return [_row(desk, found[name]) for name in sorted(found) if desk.shows(found[name].plan.queue)]


def paused(desk: Desk, name: str, why: Why) -> Outcome:
    """Let one rest."""
    _check(desk, name)
    pause_schedule(desk.app.broker(), desk.app.namespace, name, _operator(desk, why))
    return Outcome(text=f"schedule {name} rests: its instants pass without being fired")


def resumed(desk: Desk, name: str, why: Why) -> Outcome:
    """Let one go on."""
    _check(desk, name)
    resume_schedule(desk.app.broker(), desk.app.namespace, name, _operator(desk, why))
    return Outcome(text=f"schedule {name} goes on with its next instant")


def triggered(desk: Desk, name: str, why: Why) -> Outcome:
    """Start its job."""
    _check(desk, name)
    job_id = trigger(desk.app.broker(), desk.app.namespace, name, _operator(desk, why))
    return Outcome(text=f"schedule {name} has started job {job_id}")


def _check(desk: Desk, name: str) -> None:
    if desk.queues is not None and name not in {row.name for row in rows_of(desk)}:
        # Of another's queue is as if it were not there.
        raise NotThere(f"there is no schedule {name[:100]} in {', '.join(sorted(desk.queues))}")


def when(plan: ScheduleRecord) -> str:
    """When a schedule fires."""
    jitter = f" + up to {format_duration(plan.jitter / 1000)}" if plan.jitter else ""
    return (f"every {format_duration(plan.every / 1000)}" if plan.every else f"{plan.cron} {plan.tz}") + jitter


def _row(desk: Desk, standing: Standing) -> ScheduleRow:
    plan, fired = standing.plan, standing.fired
    try:
        after = max(standing.after, desk.clock.now_ms())
        following, fault = ([] if plan.paused else list(islice(instants(plan, after), NEXT))), ""
    except DefinitionError as error:
        following, fault = [], str(error)
    return ScheduleRow(
        name=plan.name,
        type=plan.type,
        queue=plan.queue,
        when=when(plan),
        overlap=plan.overlap,
        next=following,
        last=None if fired is None else fired.instant,
        last_job=fired.job_id if fired is not None and fired.job_id else "",
        runs=0 if fired is None else fired.fired,
        skipped=0 if fired is None else fired.skipped,
        source=plan.source,
        declared=plan.source != "code" or not desk.app.job_types or plan.name in desk.app.schedules,
        paused=plan.paused,
        by=plan.by,
        reason=plan.reason,
        fault=fault,
    )


def _operator(desk: Desk, why: Why) -> Operator:
    return Operator(reason=why.reason, by=why.by, clock=desk.clock)
