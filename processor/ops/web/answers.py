"""Errors as answers: JSON for programs, a page for people, the same code, sentence and hint for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from processor.client.backlog import QueueFull
from processor.client.critical import LogUnreachable, SpoolFailed
from processor.errors import (
    AttemptTimedOut,
    BrokerError,
    DeadLetterError,
    DefinitionError,
    EnqueueError,
    EnqueueUnconfirmed,
    ExtraMissing,
    HandlerMistake,
    InternalError,
    JobFailed,
    JobNotFinished,
    NameInvalid,
    OffsetOutOfRange,
    OffsetsLost,
    OrderRefused,
    OtherJobType,
    ProcessorError,
    RecordError,
    RecordRefused,
    ReplayError,
    ResultUnavailable,
    SettingsError,
    TopicError,
    TopicRefused,
    UnknownQueue,
)
from processor.ops.errors import (
    FilterInvalid,
    LoginFailed,
    LoginRequired,
    NotAllowed,
    NotThere,
    ProjectionError,
    ProviderUnreachable,
    SetChanged,
    TooManyViewers,
)

_TITLES = {
    400: "That cannot be understood",
    401: "Nobody is logged in",
    403: "That is not allowed",
    404: "Not found",
    405: "Not found",
    409: "Nothing was done",
    422: "That cannot be understood",
    503: "Not possible at the moment",
}

STATUS: dict[type[ProcessorError], int] = {
    # What was asked for cannot be meant.
    FilterInvalid: 400,
    NameInvalid: 400,
    DefinitionError: 400,
    # Who asks.
    LoginRequired: 401,
    NotAllowed: 403,
    LoginFailed: 403,
    # It is not there, or not any more.
    NotThere: 404,
    UnknownQueue: 404,
    OffsetOutOfRange: 410,
    ResultUnavailable: 410,
    # As things are it makes no sense: look, then ask again.
    SetChanged: 409,
    OrderRefused: 409,
    ReplayError: 409,
    DeadLetterError: 409,
    OffsetsLost: 409,
    OtherJobType: 409,
    JobFailed: 409,
    # Asking again changes nothing: this record, this payload cannot be used.
    EnqueueError: 422,
    RecordError: 422,
    RecordRefused: 422,
    QueueFull: 429,
    # The fault is here, and a person has to mend it.
    SettingsError: 500,
    ExtraMissing: 500,
    HandlerMistake: 500,
    InternalError: 500,
    # Kafka, its topics or this server are not as they must be: later it may work.
    BrokerError: 503,
    TopicError: 503,
    TopicRefused: 503,
    EnqueueUnconfirmed: 503,
    LogUnreachable: 503,
    SpoolFailed: 503,
    ProjectionError: 503,
    TooManyViewers: 503,
    ProviderUnreachable: 503,
    JobNotFinished: 504,
    AttemptTimedOut: 504,
}
"""The HTTP status of each kind of error; a more special kind may have its own."""


def status_of(error: ProcessorError) -> int:
    """The HTTP status of an error."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def error_answer(request: Request, error: ProcessorError, *, challenge: str = "") -> Response:
    """An error as this client reads it."""
    status = status_of(error)
    headers = {"www-authenticate": challenge} if challenge and status == 401 else {}
    if request.url.path.startswith("/api/"):
        body = {"code": error.code, "message": str(error), "hint": error.hint}
        return JSONResponse(body, status_code=status, headers=headers)
    return error_page(request, status, str(error), error.hint, headers)


def error_page(
    request: Request, status: int, text: str, hint: str = "", headers: Mapping[str, str] | None = None
) -> HTMLResponse:
    """An error as people read it, and the way back."""
    title = _TITLES.get(status, "That did not work")
    return page_alone(title, text, hint, _ways_back(request), status=status, headers=headers)


def page_alone(
    title: str,
    text: str,
    hint: str,
    links: Sequence[tuple[str, str]],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """A page of some sentences and links, (address, words), also for whoever is not logged in."""
    ways = " ".join(f"<a class=button href='{escape(to)}'>{escape(words)}</a>" for to, words in links)
    # Written by hand: it must work whatever is wrong with the pages.
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title>"
        "<link rel=icon href='/static/icon.svg' type='image/svg+xml'><script src='/static/theme.js'></script>"
        "<link rel=stylesheet href='/static/dashboard.css'>"
        f"<main class=alone><h1>{escape(title)}</h1><p>{escape(text)}</p><p class=dim>{escape(hint)}</p>"
        f"<p>{ways}</p></main></html>"
    )
    return HTMLResponse(page, status_code=status, headers=dict(headers or {}))


def _ways_back(request: Request) -> list[tuple[str, str]]:
    start = ("/", "To the start")
    came = urlsplit(request.headers.get("referer", ""))
    path = f"{came.path}?{came.query}" if came.query else came.path
    here = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
    # Only to our own pages: `//host` is somebody else's.
    if came.netloc != request.headers.get("host") or path.startswith("//") or path in ("", "/", here):
        return [start]
    return [(path, "Back to where you were"), start]
