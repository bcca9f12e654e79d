"""Errors as answers: JSON for programs, a page for people, the same code, sentence and hint for both."""

from __future__ import annotations

from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from processor.errors import (
    BrokerError,
    DeadLetterError,
    DefinitionError,
    EnqueueError,
    NameInvalid,
    OrderRefused,
    ProcessorError,
    ReplayError,
    TopicMissing,
    UnknownQueue,
)
from processor.ops.errors import FilterInvalid, LoginRequired, NotAllowed, NotThere, SetChanged, TooManyViewers

_STATUS: tuple[tuple[type[ProcessorError], int], ...] = (
    (LoginRequired, 401),
    (NotAllowed, 403),
    (NotThere, 404),
    (UnknownQueue, 404),
    (FilterInvalid, 400),
    (NameInvalid, 400),
    (DefinitionError, 400),
    (SetChanged, 409),
    (OrderRefused, 409),
    (ReplayError, 409),
    (DeadLetterError, 409),
    (EnqueueError, 422),
    (TooManyViewers, 503),
    (TopicMissing, 503),
    (BrokerError, 503),
)


def status_of(error: ProcessorError) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_answer(request: Request, error: ProcessorError, *, challenge: str = "") -> Response:
    """An error as this client reads it."""
    status = status_of(error)
    headers = {"www-authenticate": challenge} if challenge and status == 401 else {}
    if request.url.path.startswith("/api/"):
        body = {"code": error.code, "message": str(error), "hint": error.hint}
        return JSONResponse(body, status_code=status, headers=headers)
    # Written by hand: it must work whatever is wrong with the pages.
    text = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<title>That did not work</title>"
        "<link rel=icon href='data:,'><script src='/static/theme.js'></script>"
        "<link rel=stylesheet href='/static/dashboard.css'>"
        f"<main class=alone><h1>That did not work</h1><p>{escape(str(error))}</p><p class=dim>{escape(error.hint)}</p>"
        "<p><a href='/'>Back to the start</a></p></main></html>"
    )
    return HTMLResponse(text, status_code=status, headers=headers)
