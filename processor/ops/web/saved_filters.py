"""Saving filters, listing and deleting them; each change is noted in the audit topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from processor.client.orders import send
from processor.core.audit import FORGET_FILTER, SAVE_FILTER, noted
from processor.ops.actions import Outcome, check_all
from processor.ops.roles import Permission
from processor.ops.web.desk import Desk, desk_of, needs, user_of
from processor.ops.web.forms import Sent, lead_back
from processor.wire.records import AuditRecord

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1")
SEE = [Depends(needs(Permission.SEE))]
OPERATE = [Depends(needs(Permission.OPERATE))]
TIMEOUT = 30.0


class Named(BaseModel):
    """The name of a filter."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=60)


class Wanted(Named):
    """A filter and its name."""

    q: str = Field(max_length=1000)


@api.get("/filters", dependencies=SEE)
def listed(request: Request) -> list[Mapping[str, Any]]:
    """Filters that were saved."""
    check_all(user_of(request), "the list of saved filters")
    return list(desk_of(request).kept.all())


@api.post("/filters", dependencies=OPERATE)
def save(request: Request, wanted: Wanted) -> dict[str, str]:
    """Save a filter; one of that name gives way."""
    return {"text": _save(desk_of(request), wanted.name, wanted.q, _by(request)).text}


@api.post("/filters/delete", dependencies=OPERATE)
def delete(request: Request, named: Named) -> dict[str, str]:
    """Forget a saved filter."""
    return {"text": _delete(desk_of(request), named.name, _by(request)).text}


@router.post("/do/filters/save", dependencies=OPERATE)
def save_one(request: Request, form: Sent) -> Response:
    """Save the filter of the page."""
    return lead_back(form, _save(desk_of(request), form.one("name"), form.one("q"), _by(request)))


@router.post("/do/filters/delete", dependencies=OPERATE)
def delete_one(request: Request, form: Sent) -> Response:
    """Forget one."""
    return lead_back(form, _delete(desk_of(request), form.one("name"), _by(request)))


def _by(request: Request) -> str:
    user = user_of(request)
    # A filter is everybody's, and tells what others ask for.
    check_all(user, "a saved filter")
    return f"{user.name}@dashboard"


def _save(desk: Desk, name: str, text: str, by: str) -> Outcome:
    # Refused now, not when somebody wants to use it.
    desk.filter(text)
    desk.kept.save(name, text, by, desk.clock.now_ms())
    _note(desk, SAVE_FILTER, name.strip(), by, text)
    return Outcome(text=f"saved as {name.strip()}")


def _delete(desk: Desk, name: str, by: str) -> Outcome:
    desk.kept.delete(name)
    _note(desk, FORGET_FILTER, name, by, "")
    return Outcome(text=f"{name} is deleted")


def _note(desk: Desk, action: str, name: str, by: str, detail: str) -> None:
    producer = desk.app.broker().producer()
    try:
        record = AuditRecord(action, f"filter:{name}", desk.clock.now_ms(), by, detail=detail)
        send(producer, [noted(desk.app.namespace, record)], TIMEOUT, f"the audit record of filter {name}")
    finally:
        producer.close()
