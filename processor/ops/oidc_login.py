"""Logging in at an OpenID Connect provider: from a visitor to a session, and from a session to a role.

The login that is under way and the session are signed cookies (`ops.signed`); the dashboard keeps nothing of them but
the states that were used, so that no answer of the provider is used twice. The role follows from a claim with each
request, so a changed configuration holds at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from processor.errors import SettingsError
from processor.ops.errors import LoginFailed, LoginRequired, NotAllowed
from processor.ops.login import BasicLogin, checked_user, is_loopback_name
from processor.ops.roles import User
from processor.ops.signed import Signer

if TYPE_CHECKING:
    from processor.ops.provider import Provider  # needs an extra

UNDER_WAY = 600.0
"""Seconds that somebody may take to log in at the provider."""
BACK = "/login/back"
"""Where the provider sends people back to."""
_NAMES = ("preferred_username", "email", "name", "sub")
"""Claims that name somebody, the first that is there."""
Roles = tuple[tuple[str, User], ...]
"""Values of the claim, and the role of whoever has it; the first that fits counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A login that has begun."""

    url: str
    """At the provider."""
    cookie: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A login that has succeeded."""

    cookie: str
    to: str
    """Our page that was asked for."""


class OidcLogin:
    """Who may ask: whoever has logged in at the provider; beside them users with a password, if there are any."""

    challenge = ""
    entrance = "/login"

    def __init__(
        self,
        provider: Provider,
        roles: Roles,
        *,
        claim: str,
        address: str,
        secret: bytes,
        session: float,
        now: Callable[[], float],
        passwords: BasicLogin | None = None,
    ) -> None:
        """`address` is ours for browsers, `session` how many seconds one lasts, `now` seconds since the epoch."""
        self.provider = provider
        self.passwords = passwords
        self.session = session
        self.secure = urlsplit(address).scheme == "https"
        prefix = "__Host-" if self.secure else ""
        # Bound to the host by their prefix, so that no neighbour under the same domain can plant one.
        self.session_cookie, self.login_cookie = f"{prefix}processor-session", f"{prefix}processor-login"
        self._roles, self._claim, self._now = roles, claim, now
        self._sessions, self._logins = Signer(secret, "session", now), Signer(secret, "login", now)
        self._used: dict[str, float] = {}
        self._lock = threading.Lock()

    def user(self, headers: Mapping[str, str], peer: str) -> User:
        """Whose session, or whose password, came.

        Raises:
            LoginRequired: none that holds.
        """
        if self.passwords is not None and "authorization" in headers:
            return self.passwords.user(headers, peer)
        session = self._sessions.read(self._cookie(headers, self.session_cookie))
        found = None if session is None else self._of_session(session)
        if found is None:
            raise LoginRequired("log in first", hint="open /login in a browser")
        return found

    def _of_session(self, session: Mapping[str, Any]) -> User | None:
        """Its user, by the roles of now."""
        if session.get("local"):
            return None if self.passwords is None else self.passwords.named(session["name"])
        found = _first(self._roles, session["values"])
        return None if found is None else User(name=session["name"], role=found.role, queues=found.queues)

    def local_session(self, user: User) -> str:
        """The session of a user with a password: browsers give that to the page alone that asked for it."""
        return self._sessions.write({"name": user.name, "local": True}, self.session)

    def begin(self, to: str) -> Begun:
        """Begin a login that ends at our page `to`.

        Raises:
            ProviderUnreachable: the provider does not answer.
        """
        start = self.provider.start()
        facts = {"state": start.state, "nonce": start.nonce, "verifier": start.verifier, "to": own_path(to)}
        return Begun(url=start.url, cookie=self._logins.write(facts, UNDER_WAY))

    def finish(self, headers: Mapping[str, str], answer: Mapping[str, str]) -> Done:
        """The provider has sent somebody back with this answer.

        Raises:
            LoginFailed: it belongs to no login of this browser, was used before, or is not to be believed.
            NotAllowed: whoever that is has no role here.
            ProviderUnreachable: the provider does not answer.
        """
        begun = self._logins.read(self._cookie(headers, self.login_cookie))
        if begun is None or not answer.get("state") or answer["state"] != begun["state"]:
            raise LoginFailed("this answer belongs to no login that was begun in this browser", hint="log in again")
        self._use(begun["state"], begun["until"])
        if answer.get("iss", self.provider.issuer) != self.provider.issuer:
            raise LoginFailed("this answer is another provider's", hint="log in again")
        if "code" not in answer:
            why = f"{answer.get('error', 'no code')} {answer.get('error_description', '')}".strip()
            raise LoginFailed(f"{self.provider.issuer} refused: {why[:300]}", hint="log in again")
        claims = self.provider.finish(answer["code"], begun["nonce"], begun["verifier"])
        return Done(cookie=self._session(claims), to=own_path(begun["to"]))

    def _use(self, state: str, until: float) -> None:
        """A state is for one answer."""
        with self._lock:
            self._used = {each: end for each, end in self._used.items() if end > self._now()}
            if state in self._used:
                raise LoginFailed("this login was finished before", hint="log in again")
            self._used[state] = until

    def _session(self, claims: Mapping[str, Any]) -> str:
        name = next(str(claims[each]) for each in _NAMES if claims.get(each))[:100]
        name = "".join(each if each.isprintable() else "?" for each in name)
        values = claimed(claims, self._claim)
        if self._claim == "email" and claims.get("email_verified") is not True:
            raise NotAllowed(
                f"{name}: {self.provider.issuer} has not verified this address", hint="have it verified there"
            )
        known = [value for value, _ in self._roles if value in values]
        if not known:
            had = ", ".join(sorted(values)[:20]) or "nothing"
            raise NotAllowed(
                f"{name} is known to {self.provider.issuer}, and has no role here: {self._claim} says {had[:500]}",
                hint="ask an administrator of the dashboard: dashboard.oidc_roles says which values have a role",
            )
        return self._sessions.write({"name": name, "values": known[:10]}, self.session)

    @staticmethod
    def _cookie(headers: Mapping[str, str], name: str) -> str:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(name)
        except CookieError:
            return ""
        return "" if found is None else found.value


def own_path(to: str) -> str:
    """A page of ours; `/` for whatever is not surely one: nobody is led elsewhere from here."""
    parts = urlsplit(to) if to.isprintable() and "\\" not in to else None
    own = parts is not None and not parts.scheme and not parts.netloc and to.startswith("/") and to[1:2] != "/"
    return to if own and len(to) <= 2000 and not to.startswith(("/login", "/logout")) else "/"


def claimed(claims: Mapping[str, Any], path: str) -> frozenset[str]:
    """The values of a claim: a text, or those of a list. `realm_access.roles` names an inner one."""
    value: Any = claims.get(path)
    if value is None:
        value = claims
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
    values = value if isinstance(value, list) else [value]
    return frozenset(each for each in values if isinstance(each, str))


def _first(roles: Roles, values: Iterable[str]) -> User | None:
    had = frozenset(values)
    return next((user for value, user in roles if value in had), None)


def roles_of(text: str) -> Roles:
    """`ops:operator; support:care@orders,mail` as values and roles.

    Raises:
        SettingsError: a part of it is none, or there is none.
    """
    found = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        value, colon, role = part.rpartition(":")
        if not colon:
            raise SettingsError(f"dashboard.oidc_roles: {part[:60]!r} gives no role", hint="write value:role@queue")
        found.append((value.strip(), checked_user(value.strip().replace(":", "."), role.strip())))
    if not found:
        raise SettingsError(
            "nobody who logs in has a role yet",
            hint='set dashboard.oidc_roles, e.g. "ops:operator; support:care@orders"',
        )
    return tuple(found)


def checked_address(address: str, host: str, port: int) -> str:
    """Our address as browsers know it; empty: that of this machine, if nobody else can ask.

    Raises:
        SettingsError: it is not known, or would send sessions in clear through a network.
    """
    if not address:
        if not is_loopback_name(host) or not port:
            raise SettingsError(
                "how do browsers reach the dashboard?", hint="set dashboard.address, e.g. https://jobs.example.com"
            )
        return f"http://{host}:{port}"
    parts = urlsplit(address)
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback_name(parts.hostname or ""))
    if is_safe and parts.netloc and parts.path in ("", "/") and not parts.query:
        return address.rstrip("/")
    raise SettingsError(
        f"dashboard.address {address[:100]!r} is none to log in at", hint="write https:// and the host, no path"
    )
