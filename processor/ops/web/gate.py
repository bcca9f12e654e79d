"""What every request passes: is it for us, who asks, is it from our own pages. And what every answer carries.

1. On a loopback address without login the `Host` must be this machine: a page of elsewhere whose name was pointed at
   127.0.0.1 is not our page.
2. Who asks: see `ops.login`.
3. A request that changes something must come from our own pages (`Sec-Fetch-Site`, else `Origin`), or be no browser's:
   JSON, which a form of another site cannot send.
4. Every answer: a content policy without exceptions, no framing, no guessing of types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from processor.errors import ProcessorError
from processor.ops.errors import LoginRequired, NotAllowed
from processor.ops.login import BasicLogin, Login, NoLogin, is_loopback_name
from processor.ops.web.answers import error_answer
from processor.ops.web.entrance import OPEN as OPEN_PAGES
from processor.ops.web.entrance import PASSWORD
from processor.ops.web.entrance import router as entrances

__all__ = ["Gate", "entrances"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
LONGEST_BODY = 4_000_000
OPEN = ("/static/",)
"""Paths that need no login: the files of the pages hold nothing of anybody's."""


class Gate:
    """Middleware around the whole application."""

    def __init__(self, app: ASGIApp, login: Login) -> None:
        self._app = app
        self._login = login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        carrying = _carrying(send, cached=scope["path"].startswith(OPEN))
        headers = Headers(scope=scope)
        try:
            self._check(scope, headers)
            if not _is_open(scope["path"]):
                peer = (scope.get("client") or ("", 0))[0]
                # A password takes long to check, by design: not on the event loop.
                user = await run_in_threadpool(self._login.user, headers, peer)
                scope.setdefault("state", {})["user"] = user
        except ProcessorError as error:
            await self._refusal(scope, headers, error)(scope, receive, carrying)
            return
        await self._app(scope, receive, carrying)

    def _refusal(self, scope: Scope, headers: Mapping[str, str], error: ProcessorError) -> Response:
        path, entrance = scope["path"], self._login.entrance
        challenge = BasicLogin.challenge if entrance and path == PASSWORD else self._login.challenge
        # A person who opens a page is shown the way in; what a page or a program asks for is refused.
        opens = scope["method"] == "GET" and not path.startswith("/api/") and "hx-request" not in headers
        if isinstance(error, LoginRequired) and entrance and opens and path != PASSWORD:
            query = scope.get("query_string", b"").decode("latin-1")
            to = f"{path}?{query}" if query else path
            return RedirectResponse(entrance if to == "/" else f"{entrance}?to={quote(to, safe='')}", 303)
        return error_answer(Request(scope), error, challenge=challenge)

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        if isinstance(self._login, NoLogin) and not is_loopback_name(urlsplit(f"//{host}").hostname or ""):
            raise NotAllowed(f"this is not {host[:100]}", hint="without login use http://localhost or http://127.0.0.1")
        if scope["method"] in SAFE:
            return
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal() or int(length) > LONGEST_BODY:
            raise NotAllowed("the request is too long")
        if not _own(headers, host):
            raise NotAllowed("this request came from another site", hint="use the dashboard's own pages, or send JSON")


def _is_open(path: str) -> bool:
    """Whether it needs no login."""
    return path.startswith(OPEN) or path in OPEN_PAGES


def _own(headers: Mapping[str, str], host: str) -> bool:
    """Whether a request that changes something comes from our pages, or from no browser at all."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site == "same-origin"
    if origin is not None:
        return urlsplit(origin).netloc.lower() == host.lower()
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def _carrying(send: Send, *, cached: bool) -> Any:
    async def carrying(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers["cache-control"] = "public, max-age=86400" if cached else "private, no-store"
        await send(message)

    return carrying
