"""What the buttons of the pages do. Each does it, says what was done, and leads back to where it was pressed."""

from __future__ import annotations

import json
from typing import Annotated
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from processor.errors import PayloadInvalid
from processor.ops.actions import Outcome
from processor.ops.errors import FilterInvalid
from processor.ops.queries import LetterSet
from processor.ops.roles import Permission
from processor.ops.web.desk import desk_of, needs, why_of
from processor.ops.web.pages import SAID

router = APIRouter(prefix="/do", include_in_schema=False)
RETRY = [Depends(needs(Permission.RETRY))]
OPERATE = [Depends(needs(Permission.OPERATE))]


class Form:
    """Fields of a form."""

    def __init__(self, values: dict[str, list[str]]) -> None:
        self._values = values

    def one(self, name: str) -> str:
        """The first value of a field; empty if there is none."""
        return self._values.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        """All its values."""
        return self._values.get(name, [])

    def number(self, name: str) -> int:
        """A count that the page wrote itself.

        Raises:
            FilterInvalid: it is none.
        """
        text = self.one(name)
        if not text.isascii() or not text.isdecimal() or len(text) > 9:
            raise FilterInvalid(f"{name} is no number", hint="load the page again")
        return int(text)


async def form_of(request: Request) -> Form:
    """The form that was sent."""
    body = (await request.body()).decode("utf-8", "replace")
    return Form(parse_qs(body, keep_blank_values=True, max_num_fields=2000))


Sent = Annotated[Form, Depends(form_of)]


@router.post("/letters/redrive", dependencies=OPERATE)
def redrive(request: Request, form: Sent) -> Response:
    """Send dead letters back."""
    letters, expected = _letters(form)
    return lead_back(form, desk_of(request).actions.redrive(letters, expected, why_of(request, form.one("reason"))))


@router.post("/letters/discard", dependencies=OPERATE)
def discard(request: Request, form: Sent) -> Response:
    """Note that dead letters need nothing more."""
    letters, expected = _letters(form)
    return lead_back(form, desk_of(request).actions.discard(letters, expected, why_of(request, form.one("reason"))))


@router.post("/queues/{name}/pause", dependencies=OPERATE)
def pause_queue(request: Request, name: str, form: Sent) -> Response:
    """Let a queue rest."""
    return lead_back(form, desk_of(request).actions.pause(f"queue:{name}", why_of(request, form.one("reason"))))


@router.post("/queues/{name}/resume", dependencies=OPERATE)
def resume_queue(request: Request, name: str, form: Sent) -> Response:
    """Let a queue go on."""
    return lead_back(form, desk_of(request).actions.resume(f"queue:{name}", why_of(request, form.one("reason"))))


@router.post("/types/{name:path}/resume", dependencies=OPERATE)
def resume_type(request: Request, name: str, form: Sent) -> Response:
    """Let a job type go on."""
    return lead_back(form, desk_of(request).actions.resume(f"type:{name}", why_of(request, form.one("reason"))))


@router.post("/jobs/{job_id:path}/retry", dependencies=RETRY)
def retry(request: Request, job_id: str, form: Sent) -> Response:
    """Let a waiting job go on now."""
    return lead_back(form, desk_of(request).actions.retry(job_id, why_of(request, form.one("reason"))))


@router.post("/jobs/{job_id:path}/cancel", dependencies=OPERATE)
def cancel(request: Request, job_id: str, form: Sent) -> Response:
    """Cancel a job."""
    return lead_back(form, desk_of(request).actions.cancel(job_id, why_of(request, form.one("reason"))))


@router.post("/jobs/{job_id:path}/redrive", dependencies=RETRY)
def redrive_job(request: Request, job_id: str, form: Sent) -> Response:
    """Send a job back."""
    desk = desk_of(request)
    payload = None
    if form.one("payload").strip():
        needs(Permission.OPERATE)(request)
        payload = _json(form.one("payload"))
        if payload == desk.whole_payload(desk.queries.job(job_id)):
            payload = None
    why = why_of(request, form.one("reason"))
    from_zero = bool(form.one("from_zero"))
    return lead_back(form, desk.actions.redrive_job(job_id, why, from_zero=from_zero, payload=payload))


def _letters(form: Form) -> tuple[LetterSet, int]:
    if form.one("all_open"):
        chosen = LetterSet(fingerprint=form.one("fingerprint"), type=form.one("type"))
        return chosen, form.number("expected")
    addresses = sorted(set(form.all("address")))
    if not addresses:
        raise FilterInvalid("no letter is ticked", hint="go back and tick those that are meant")
    return LetterSet(addresses=addresses), len(addresses)


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PayloadInvalid(f"the payload is no JSON: {error}", hint="go back and mend it") from error


def lead_back(form: Form, outcome: Outcome) -> Response:
    """To the page where the button is; it says what was done."""
    back = form.one("back")
    # Only to our own pages: `//host` and `/\\host` are somebody else's.
    safe = back if back.startswith("/") and not back.startswith(("//", "/\\")) and back.isprintable() else "/"
    text = outcome.text
    if outcome.skipped:
        text += f"; {outcome.skipped} were settled by somebody else meanwhile"
    if outcome.refused:
        text += f"; {len(outcome.refused)} refused, the first: {outcome.refused[0]}"
    answer = RedirectResponse(quote(safe, safe="/?&=:%@~+,;.-_*\"'"), 303)
    answer.set_cookie(SAID, quote(text[:500]), max_age=30, path="/", httponly=True, samesite="lax")
    return answer
