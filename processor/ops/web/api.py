"""The API under `/api/v1`. Lists are paged by `after`, filters are those of `ops.filters`, changes want a reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from processor.ops.errors import FilterInvalid
from processor.ops.queries import LetterSet, Page
from processor.ops.roles import Permission, Role, json_or_text
from processor.ops.web.desk import desk_of, needs, user_of, why_of

router = APIRouter(prefix="/api/v1")
SEE = [Depends(needs(Permission.SEE))]
ONE = [Depends(needs(Permission.ONE))]
RETRY = [Depends(needs(Permission.RETRY))]
OPERATE = [Depends(needs(Permission.OPERATE))]

Limit = Annotated[int, Query(ge=1, le=500)]
Text = Annotated[str, Query(max_length=1000)]


class Reason(BaseModel):
    """Why something is done."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=500)


class RedriveJob(Reason):
    """How a job is sent back."""

    from_zero: bool = False
    """Begin at the beginning, not at the checkpoint."""
    payload: Any = None
    """Another payload in place of the job's own."""


class Letters(Reason):
    """Which dead letters are meant."""

    addresses: list[Annotated[str, Field(max_length=40)]] = Field(default=[], max_length=10_000)
    fingerprint: str = Field(default="", max_length=100)
    type: str = Field(default="", max_length=300)
    queue: str = Field(default="", max_length=100)
    all_open: bool = False
    expected: int = Field(ge=0)
    """How many they were when you looked: if they are not as many now, nothing is done."""
    from_zero: bool = False
    dry_run: bool = False

    def chosen(self) -> LetterSet:
        """As the projection is asked.

        Raises:
            FilterInvalid: nothing was chosen.
        """
        said = self.addresses or self.fingerprint or self.type or self.queue
        if not said and not self.all_open:
            raise FilterInvalid("which letters?", hint="give addresses, a fingerprint, type or queue, or all_open")
        return LetterSet(addresses=self.addresses, fingerprint=self.fingerprint, type=self.type, queue=self.queue)


@router.get("/me", dependencies=[Depends(needs(Permission.OPEN))])
def me(request: Request) -> dict[str, Any]:
    """Who you are here, and for which queues; null: all."""
    user = user_of(request)
    return {"name": user.name, "role": user.role.value, "queues": None if user.queues is None else sorted(user.queues)}


@router.get("/freshness", dependencies=ONE)
def freshness(request: Request) -> dict[str, int]:
    """How far all other answers are behind the log."""
    return asdict(desk_of(request).queries.freshness())


@router.get("/jobs", dependencies=SEE)
def jobs(request: Request, q: Text = "", after: Text = "", limit: Limit = 50, count: bool = False) -> dict[str, Any]:
    """Jobs that a filter means, newest change first."""
    desk = desk_of(request)
    where = desk.filter(q)
    found = _paged(desk.queries.jobs(where, limit=limit, after=after))
    return {**found, "count": desk.queries.count(where)} if count else found


@router.get("/states", dependencies=SEE)
def states(request: Request) -> dict[str, int]:
    """How many jobs are in each state."""
    return desk_of(request).queries.states()


@router.get("/failures", dependencies=SEE)
def failures(request: Request) -> list[Mapping[str, Any]]:
    """Jobs that failed, by fingerprint of their error."""
    return desk_of(request).queries.failure_groups()


@router.get("/letters", dependencies=SEE)
def letters(
    request: Request, state: Text = "", fingerprint: Text = "", type: Text = "", after: Text = "", limit: Limit = 50
) -> dict[str, Any]:
    """Dead letters, newest first."""
    queries = desk_of(request).queries
    return _paged(queries.letters(state=state, fingerprint=fingerprint, type_=type, after=after, limit=limit))


@router.get("/queues", dependencies=SEE)
def queues(request: Request) -> list[dict[str, Any]]:
    """What waits in each queue, who serves it, and whether it is paused. Asked of Kafka now."""
    return [asdict(row) for row in desk_of(request).queue_rows()]


@router.get("/audit", dependencies=SEE)
def audit(request: Request, after: Text = "", limit: Limit = 50) -> dict[str, Any]:
    """What operators did, newest first."""
    return _paged(desk_of(request).queries.audit(after=after, limit=limit))


# -- changes -----------------------------------------------------------------------------------------------------------


@router.post("/letters/redrive", dependencies=OPERATE)
def redrive(request: Request, wanted: Letters) -> dict[str, Any]:
    """Send dead letters back; with `dry_run` only say what would be done."""
    actions = desk_of(request).actions
    if wanted.dry_run:
        return asdict(actions.plan(wanted.chosen(), from_zero=wanted.from_zero))
    why = why_of(request, wanted.reason)
    return asdict(actions.redrive(wanted.chosen(), wanted.expected, why, from_zero=wanted.from_zero))


@router.post("/letters/discard", dependencies=OPERATE)
def discard(request: Request, wanted: Letters) -> dict[str, Any]:
    """Note that dead letters need nothing more."""
    if wanted.dry_run:
        raise FilterInvalid("discarding has no dry run", hint="GET /api/v1/letters shows what is meant")
    why = why_of(request, wanted.reason)
    return asdict(desk_of(request).actions.discard(wanted.chosen(), wanted.expected, why))


@router.post("/queues/{name}/pause", dependencies=OPERATE)
def pause_queue(request: Request, name: str, wanted: Reason) -> dict[str, Any]:
    """Let a queue rest."""
    return asdict(desk_of(request).actions.pause(f"queue:{name}", why_of(request, wanted.reason)))


@router.post("/queues/{name}/resume", dependencies=OPERATE)
def resume_queue(request: Request, name: str, wanted: Reason) -> dict[str, Any]:
    """Let a paused queue go on."""
    return asdict(desk_of(request).actions.resume(f"queue:{name}", why_of(request, wanted.reason)))


@router.post("/types/{name:path}/pause", dependencies=OPERATE)
def pause_type(request: Request, name: str, wanted: Reason) -> dict[str, Any]:
    """Let a job type rest."""
    return asdict(desk_of(request).actions.pause(f"type:{name}", why_of(request, wanted.reason)))


@router.post("/types/{name:path}/resume", dependencies=OPERATE)
def resume_type(request: Request, name: str, wanted: Reason) -> dict[str, Any]:
    """Let a paused job type go on."""
    return asdict(desk_of(request).actions.resume(f"type:{name}", why_of(request, wanted.reason)))


@router.post("/jobs/{job_id:path}/retry", dependencies=RETRY)
def retry(request: Request, job_id: str, wanted: Reason) -> dict[str, Any]:
    """Let a waiting job go on now."""
    return asdict(desk_of(request).actions.retry(job_id, why_of(request, wanted.reason)))


@router.post("/jobs/{job_id:path}/redrive", dependencies=RETRY)
def redrive_job(request: Request, job_id: str, wanted: RedriveJob) -> dict[str, Any]:
    """Send the dead letter of a job back. Another payload is an operator's to give."""
    if wanted.payload is not None:
        needs(Permission.OPERATE)(request)
    why = why_of(request, wanted.reason)
    actions = desk_of(request).actions
    return asdict(actions.redrive_job(job_id, why, from_zero=wanted.from_zero, payload=wanted.payload))


@router.post("/jobs/{job_id:path}/cancel", dependencies=OPERATE)
def cancel(request: Request, job_id: str, wanted: Reason) -> dict[str, Any]:
    """Cancel a job, wherever it is."""
    return asdict(desk_of(request).actions.cancel(job_id, why_of(request, wanted.reason)))


@router.get("/jobs/{job_id:path}", dependencies=ONE)
def job(request: Request, job_id: str) -> dict[str, Any]:
    """One job, as much of it as you may see."""
    desk, user = desk_of(request), user_of(request)
    facts = desk.queries.job(job_id)
    shown: dict[str, Any] = {**asdict(facts), "payload": desk.payload(facts, user)}
    if not user.may(Permission.OPERATE):
        shown["result"] = None
        # They are values of the payload.
        shown["fields"] = facts.fields if user.role is Role.CARE else {}
    elif facts.result is not None:
        shown["result"] = json_or_text(facts.result)
    if user.role is Role.CARE:
        for failure in shown["failures"]:
            failure["traceback"] = ""
    return shown


def _paged(page: Page) -> dict[str, Any]:
    rows: Sequence[Mapping[str, Any]] = page.rows
    return {"rows": rows, "after": page.after}
