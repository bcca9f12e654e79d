"""Saving filters, listing, deleting and making them alerts; each change is noted in the audit topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from processor.core.audit import FORGET_FILTER, SAVE_FILTER
from processor.ops.actions import Outcome, check_all
from processor.ops.errors import FilterInvalid
from processor.ops.roles import Permission
from processor.ops.watching import wishing
from processor.ops.web.desk import Desk, desk_of, needs, user_of
from processor.ops.web.forms import Sent, lead_back

router = APIRouter(include_in_schema=False)
api = APIRouter(prefix="/api/v1")
SEE = [Depends(needs(Permission.SEE))]
OPERATE = [Depends(needs(Permission.OPERATE))]


class Named(BaseModel):
    """The name of a filter."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=60)


class Wanted(Named):
    """A filter and its name."""

    q: str = Field(max_length=1000)


class Watched(Named):
    """When a saved filter is told."""

    at_least: int | None = None
    """Jobs that match; without it each new one is told."""
    hold: str = Field(default="", max_length=40, alias="for")
    """For how long, as `5m`."""


@api.get("/filters", dependencies=SEE)
def listed(request: Request) -> list[Mapping[str, Any]]:
    """Filters that were saved; `alert` says of one that is an alert when it is told, and how it stands."""
    check_all(user_of(request), "the list of saved filters")
    return wishing.told_filters(desk_of(request).kept)


@api.post("/filters", dependencies=OPERATE)
def save(request: Request, wanted: Wanted) -> dict[str, str]:
    """Save a filter; one of that name gives way."""
    return {"text": _save(desk_of(request), wanted.name, wanted.q, _by(request)).text}


@api.post("/filters/delete", dependencies=OPERATE)
def delete(request: Request, named: Named) -> dict[str, str]:
    """Forget a saved filter."""
    return {"text": _delete(desk_of(request), named.name, _by(request)).text}


@api.post("/filters/watch", dependencies=OPERATE)
def watch(request: Request, watched: Watched) -> dict[str, str]:
    """Make a saved filter an alert."""
    return {"text": _watch(desk_of(request), watched.name, watched.at_least, watched.hold, _by(request)).text}


@api.post("/filters/unwatch", dependencies=OPERATE)
def unwatch(request: Request, named: Named) -> dict[str, str]:
    """Make a saved filter no alert any more."""
    return {"text": _unwatch(desk_of(request), named.name, _by(request)).text}


@router.post("/do/filters/save", dependencies=OPERATE)
def save_one(request: Request, form: Sent) -> Response:
    """Save the filter of the page."""
    return lead_back(form, _save(desk_of(request), form.one("name"), form.one("q"), _by(request)))


@router.post("/do/filters/delete", dependencies=OPERATE)
def delete_one(request: Request, form: Sent) -> Response:
    """Forget one."""
    return lead_back(form, _delete(desk_of(request), form.one("name"), _by(request)))


@router.post("/do/filters/watch", dependencies=OPERATE)
def watch_one(request: Request, form: Sent) -> Response:
    """Make one an alert."""
    by = _by(request)
    each = form.one("when") == "each"
    at_least = None if each else _number(form.one("at_least"))
    hold = "" if each else form.one("for")
    return lead_back(form, _watch(desk_of(request), form.one("name"), at_least, hold, by))


@router.post("/do/filters/unwatch", dependencies=OPERATE)
def unwatch_one(request: Request, form: Sent) -> Response:
    """Make one no alert any more."""
    return lead_back(form, _unwatch(desk_of(request), form.one("name"), _by(request)))


def _number(text: str) -> int:
    text = text.strip()
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise FilterInvalid("at least how many jobs?", hint="give a number")
    return int(text)


def _by(request: Request) -> str:
    user = user_of(request)
    # A filter is everybody's, and tells what others ask for.
    check_all(user, "a saved filter")
    return f"{user.name}@dashboard"


def _save(desk: Desk, name: str, text: str, by: str) -> Outcome:
    # Refused now, not when somebody wants to use it.
    desk.filter(text)
    now_ms = desk.clock.now_ms()
    desk.kept.save(name, text, by, now_ms)
    wishing.note(desk.app, SAVE_FILTER, name.strip(), by=by, at=now_ms, detail=text)
    return Outcome(text=f"saved as {name.strip()}")


def _delete(desk: Desk, name: str, by: str) -> Outcome:
    desk.kept.delete(name)
    wishing.note(desk.app, FORGET_FILTER, name, by=by, at=desk.clock.now_ms())
    return Outcome(text=f"{name} is deleted")


def _watch(desk: Desk, name: str, at_least: int | None, hold: str, by: str) -> Outcome:
    wish = wishing.wish_of(at_least, hold)
    wishing.watch(desk.app, desk.kept, name, wish, by=by, at=desk.clock.now_ms())
    return Outcome(text=f"{name} is an alert: {wishing.wished(wish)}")


def _unwatch(desk: Desk, name: str, by: str) -> Outcome:
    wishing.unwatch(desk.app, desk.kept, name, by=by, at=desk.clock.now_ms())
    return Outcome(text=f"{name} is no alert any more")
