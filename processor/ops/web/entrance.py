"""The way in and out by an OpenID Connect provider (`ops.oidc_login`); all others have no use for these pages."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from processor import events
from processor.errors import ProcessorError
from processor.ops.errors import NotThere, ProviderUnreachable
from processor.ops.oidc_login import BACK, UNDER_WAY, OidcLogin
from processor.ops.roles import Permission
from processor.ops.web.answers import error_answer, page_alone
from processor.ops.web.desk import needs, user_of

router = APIRouter(include_in_schema=False)
ENTRANCE, PASSWORD, EXIT = "/login", "/login/password", "/logout"
OPEN = frozenset({ENTRANCE, BACK, EXIT})
"""Paths that need no login: they are the login."""
_log = events.logger(__name__)


@router.get(ENTRANCE)
def enter(request: Request, to: str = "/") -> Response:
    """Send the browser to the provider."""
    login = _login(request)
    if login is None:
        return RedirectResponse("/", 303)
    try:
        begun = login.begin(to)
    except ProviderUnreachable as error:
        _log.error("login.unreachable", extra={"issuer": login.provider.issuer, "error": str(error)})
        links = [(ENTRANCE, "Try again")]
        if login.passwords is not None:
            links.append((PASSWORD, "Log in with name and password"))
        return page_alone("Nobody can log in there now", str(error), error.hint, links, status=503)
    answer = RedirectResponse(begun.url, 303)
    _keep(answer, login, login.login_cookie, begun.cookie, UNDER_WAY)
    return answer


@router.get(BACK)
def come_back(request: Request) -> Response:
    """The provider has sent somebody back."""
    login = _login(request)
    if login is None:
        return RedirectResponse("/", 303)
    answer: Response
    try:
        done = login.finish(request.headers, request.query_params)
    except ProcessorError as error:
        _log.warning("login.refused", extra={"issuer": login.provider.issuer, "error": str(error)})
        answer = error_answer(request, error)
    else:
        answer = RedirectResponse(done.to, 303)
        _keep(answer, login, login.session_cookie, done.cookie, login.session)
    _drop(answer, login, login.login_cookie)
    return answer


@router.get(PASSWORD, dependencies=[Depends(needs(Permission.ONE))])
def enter_by_password(request: Request) -> Response:
    """Whoever gets here has a password, or a session."""
    login, user = _login(request), user_of(request)
    answer = RedirectResponse("/", 303)
    if login is not None and login.passwords is not None and login.passwords.named(user.name) == user:
        _keep(answer, login, login.session_cookie, login.local_session(user), login.session)
    return answer


@router.post(EXIT)
def leave(request: Request) -> Response:
    """End the session here. That at the provider stays: other programs may use it."""
    login = _login(request)
    if login is None:
        raise NotThere("nobody logs in here that way", hint="dashboard.login says how")
    links = [(ENTRANCE, "Log in again")]
    if login.provider.logout:
        links.append((login.provider.logout, f"Log out of {login.provider.issuer} as well"))
    answer = page_alone("You are logged out", f"Your session at {login.provider.issuer} goes on.", "", links)
    _drop(answer, login, login.session_cookie)
    return answer


def _login(request: Request) -> OidcLogin | None:
    login = request.app.state.login
    return login if isinstance(login, OidcLogin) else None


def _keep(answer: Response, login: OidcLogin, name: str, value: str, seconds: float) -> None:
    answer.set_cookie(name, value, max_age=int(seconds), path="/", secure=login.secure, httponly=True, samesite="lax")


def _drop(answer: Response, login: OidcLogin, name: str) -> None:
    answer.delete_cookie(name, path="/", secure=login.secure, httponly=True, samesite="lax")
