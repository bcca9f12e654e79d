"""The doctor: cluster, topics and workers examined, each finding with what to do about it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from processor.admin.doctor import DoctorContext, Finding, Verdict, examine
from processor.ops.actions import check_all
from processor.ops.roles import Permission
from processor.ops.web.desk import Desk, desk_of, needs, user_of
from processor.ops.web.pages import render

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1")
SEE = [Depends(needs(Permission.SEE))]
TONES = {Verdict.OK: "good", Verdict.WARN: "warn", Verdict.FAIL: "bad", Verdict.UNKNOWN: ""}
SIGNS = {Verdict.OK: "✓", Verdict.WARN: "!", Verdict.FAIL: "✕", Verdict.UNKNOWN: "?"}


@router.get("/doctor", dependencies=SEE)
def doctor(request: Request, run: bool = False) -> Response:
    """The report. It takes seconds, so the page asks for it once it is there."""
    check_all(user_of(request), "the doctor's report")
    findings = findings_of(desk_of(request)) if run else None
    return render(request, "doctor.html", title="Doctor", findings=findings, tones=TONES, signs=SIGNS)


@api.get("/doctor", dependencies=SEE)
def report(request: Request) -> list[dict[str, Any]]:
    """What is wrong with cluster, topics and workers. Takes seconds."""
    check_all(user_of(request), "the doctor's report")
    return [finding.as_row() for finding in findings_of(desk_of(request))]


def findings_of(desk: Desk) -> list[Finding]:
    """Examine the cluster now. Without the app's code, queues are taken as they are."""
    return list(examine(DoctorContext(app=desk.app, has_code=bool(desk.app.job_types))))
