"""Logging in at an OpenID Connect provider: real HTTP to a small one, the way in for those who may, and the attacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import httpx
import pytest

from processor.cli.dashboard import login_of
from processor.errors import SettingsError
from processor.ops.login import BasicLogin, Users
from processor.ops.oidc_login import BACK, OidcLogin, checked_address, claimed, own_path, roles_of
from processor.ops.provider import Provider
from processor.ops.roles import Role, User
from processor.ops.signed import Signer
from processor.ops.web.serve import create
from processor.wire.settings import DashboardSettings
from tests.unit.ops.client import Client
from tests.unit.ops.conftest import Desk
from tests.unit.ops.small_provider import CLIENT, SECRET, SmallProvider
from tests.unit.ops.test_api import PASSWORDS, basic, users
from tests.unit.ops.test_pages import OWN

__all__ = ["users"]

pytestmark = pytest.mark.timeout(240)

ROLES = "platform:admin; shop-ops:operator@orders; support:care"
SECRET_OF_SESSIONS = b"s" * 32


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.seconds = time.time()

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def provider() -> Iterator[SmallProvider]:
    made = SmallProvider()
    yield made
    made.close()


class Web:
    """A dashboard whose people log in at the small provider."""

    def __init__(self, desk: Desk, provider: SmallProvider, passwords: BasicLogin | None, address: str) -> None:
        desk.look()
        self.clock, self.address = Clock(), address
        speaks = Provider(
            provider.issuer, CLIENT, SECRET, redirect=address + BACK, scope="openid profile", now=self.clock
        )
        self.login = OidcLogin(
            speaks,
            roles_of(ROLES),
            claim="groups",
            address=address,
            secret=SECRET_OF_SESSIONS,
            session=3600.0,
            now=self.clock,
            passwords=passwords,
        )
        self.application = create(desk.shop.app, desk.store, self.login, clock=desk.bed.runtime.clock)

    def browser(self) -> Browser:
        return Browser(self)


class Browser:
    """Keeps cookies, as one does; follows only where it is told to."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self.cookies: dict[str, str] = {}
        self.set: list[str] = []
        """The cookies as they were set, with what they say of themselves."""

    def ask(self, method: str, path: str, **how: Any) -> httpx.Response:
        headers = {**how.pop("headers", {})}
        if self.cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = Client(self._web.application, self._web.address, "10.0.0.9", headers).request(method, path, **how)
        for line in answer.headers.get_list("set-cookie"):
            self.set.append(line)
            name, _, value = line.partition(";")[0].partition("=")
            if "Max-Age=0" in line:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return answer

    def get(self, path: str, **how: Any) -> httpx.Response:
        return self.ask("GET", path, **how)

    def to_provider(self, path: str = "/login") -> str:
        """Ask to log in, and at the provider; the address that it sends back to."""
        answer = self.get(path)
        assert answer.status_code == 303, answer.text
        there = httpx.get(answer.headers["location"])
        assert there.status_code == 302, there.text
        back = there.headers["location"]
        assert back.startswith(self._web.address + BACK)
        return str(back.removeprefix(self._web.address))

    def log_in(self, path: str = "/login") -> httpx.Response:
        return self.get(self.to_provider(path))


@pytest.fixture
def make_web(desk: Desk, provider: SmallProvider) -> Callable[..., Web]:
    def make(passwords: BasicLogin | None = None, address: str = "https://jobs.example.com") -> Web:
        return Web(desk, provider, passwords, address)

    return make


@pytest.fixture
def web(make_web: Callable[..., Web]) -> Web:
    return make_web()


def me(browser: Browser) -> Any:
    answer = browser.get("/api/v1/me")
    return answer.json() if answer.status_code == 200 else answer.status_code


def test_a_person_is_led_to_the_provider_and_back_to_the_page(web: Web) -> None:
    browser = web.browser()
    first = browser.get("/jobs?q=state:dead")
    assert (first.status_code, first.headers["location"]) == (303, "/login?to=%2Fjobs%3Fq%3Dstate%3Adead")
    assert me(browser) == 401, "a program is told, and not led anywhere"
    answer = browser.log_in(first.headers["location"])
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs?q=state:dead")
    facts = me(browser)
    assert (facts["name"], facts["role"]) == ("jane", "operator")
    assert web.login.user({"cookie": "; ".join(f"{n}={v}" for n, v in browser.cookies.items())}, "") == User(
        name="jane", role=Role.OPERATOR, queues=frozenset({"orders"})
    )
    page = browser.get("/jobs")
    assert page.status_code == 200
    assert "log out" in page.text
    (session,) = [line for line in browser.set if line.startswith("__Host-processor-session=")]
    for part in ("HttpOnly", "Secure", "SameSite=lax", "Path=/", "Max-Age=3600"):
        assert part in session
    assert list(browser.cookies) == ["__Host-processor-session"], "that of the login is gone"


def test_on_this_machine_cookies_need_no_tls(make_web: Callable[..., Web]) -> None:
    browser = make_web(address="http://127.0.0.1:8484").browser()
    browser.log_in()
    assert list(browser.cookies) == ["processor-session"]
    assert not [line for line in browser.set if "Secure" in line]


@pytest.mark.parametrize(
    ("groups", "role"),
    [(["support"], "care"), (["support", "platform"], "admin"), ("platform", "admin"), (["x", "support"], "care")],
)
def test_the_first_value_of_the_claim_that_has_a_role_counts(
    web: Web, provider: SmallProvider, groups: Any, role: str
) -> None:
    provider.person["groups"] = groups
    browser = web.browser()
    assert browser.log_in().status_code == 303
    assert me(browser)["role"] == role


@pytest.mark.parametrize("groups", [None, [], "", ["other"], ["<b>x"], [7], {"shop-ops": 1}, ["SHOP-OPS"]])
def test_who_has_no_role_is_told_why(web: Web, provider: SmallProvider, groups: Any) -> None:
    provider.person["groups"] = groups
    browser = web.browser()
    answer = browser.log_in()
    assert answer.status_code == 403
    assert "jane is known to" in answer.text
    assert "dashboard.oidc_roles" in answer.text
    assert "<b>" not in answer.text
    assert (browser.cookies, me(browser)) == ({}, 401)


def test_a_session_ends_by_the_clock_and_by_the_button(web: Web, provider: SmallProvider) -> None:
    provider.now = web.clock
    browser = web.browser()
    browser.log_in()
    web.clock.seconds += 3599
    assert me(browser)["name"] == "jane"
    web.clock.seconds += 2
    assert me(browser) == 401
    browser.log_in()
    assert me(browser)["name"] == "jane"
    answer = browser.ask("POST", "/logout", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403, "nobody else's page logs people out"
    answer = browser.ask("POST", "/logout", headers=OWN)
    assert answer.status_code == 200
    assert f"{provider.issuer}/leave" in answer.text
    assert (browser.cookies, me(browser)) == ({}, 401)


def test_what_changes_something_must_still_come_from_our_pages(web: Web) -> None:
    browser = web.browser()
    browser.log_in()
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}, {}):
        assert browser.ask("POST", "/do/queues/orders/pause", headers=headers).status_code == 403


BENT: dict[str, Callable[[SmallProvider], object]] = {
    "another nonce": lambda p: p.claims.update(nonce="other"),
    "no nonce": lambda p: p.claims.update(nonce=None),
    "another audience": lambda p: p.claims.update(aud="other"),
    "no audience": lambda p: p.claims.update(aud=None),
    "many audiences, none named": lambda p: p.claims.update(aud=[CLIENT, "other"]),
    "for another of its audiences": lambda p: p.claims.update(aud=[CLIENT, "other"], azp="other"),
    "another issuer": lambda p: p.claims.update(iss="https://evil.example"),
    "over": lambda p: p.claims.update(exp=int(time.time()) - 120),
    "without an end": lambda p: p.claims.update(exp=None),
    "an end that is none": lambda p: p.claims.update(exp="soon"),
    "from the future": lambda p: p.claims.update(iat=int(time.time()) + 600),
    "without a subject": lambda p: p.claims.update(sub=None),
    "alg none": lambda p: setattr(p, "unsigned", True),
    "forged": lambda p: p.forge(),
}


@pytest.mark.parametrize("how", BENT)
def test_a_token_that_is_not_to_be_believed_lets_nobody_in(web: Web, provider: SmallProvider, how: str) -> None:
    BENT[how](provider)
    browser = web.browser()
    answer = browser.log_in()
    assert answer.status_code == 403, answer.text
    assert "ID token" in answer.text
    assert (browser.cookies, me(browser)) == ({}, 401)


def test_many_audiences_are_fine_if_the_token_is_ours(web: Web, provider: SmallProvider) -> None:
    provider.claims.update(aud=[CLIENT, "other"], azp=CLIENT)
    assert web.browser().log_in().status_code == 303


def test_keys_that_change_are_fetched_when_they_are_seen(web: Web, provider: SmallProvider) -> None:
    assert web.browser().log_in().status_code == 303
    assert web.browser().log_in().status_code == 303
    assert provider.asked.count("/keys") == 1
    provider.rotate()
    assert web.browser().log_in().status_code == 303
    assert provider.asked.count("/keys") == 2


def test_an_answer_is_for_one_browser_and_once(web: Web) -> None:
    browser, other = web.browser(), web.browser()
    back = browser.to_provider()
    assert other.get(back).status_code == 403, "a browser that has begun no login"
    other.to_provider()
    assert other.get(back).status_code == 403, "one that has begun another"
    kept = dict(browser.cookies)
    assert browser.get(back).status_code == 303
    replaying = web.browser()
    replaying.cookies = kept
    answer = replaying.get(back)
    assert (answer.status_code, me(replaying)) == (403, 401)
    assert "finished before" in answer.text
    slow = web.browser()
    back = slow.to_provider()
    web.clock.seconds += 601
    assert slow.get(back).status_code == 403


def changed(back: str, **values: str | None) -> str:
    parts = {**dict(parse_qsl(urlsplit(back).query)), **values}
    return f"{BACK}?{urlencode({name: value for name, value in parts.items() if value is not None})}"


@pytest.mark.parametrize(
    "values",
    [{"code": "x"}, {"code": None}, {"code": None, "error": "access_denied"}, {"iss": "https://evil.example"}],
)
@pytest.mark.parametrize("state", ["same", "other", "none"])
def test_an_answer_that_was_changed_lets_nobody_in(web: Web, values: dict[str, str | None], state: str) -> None:
    browser = web.browser()
    back = browser.to_provider()
    given = {} if state == "same" else {"state": None if state == "none" else "other"}
    answer = browser.get(changed(back, **values, **given))
    assert answer.status_code == 403
    assert "session" not in "".join(browser.cookies)


@pytest.mark.parametrize(
    "to",
    [
        *("https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)", ""),
        *("/\t/evil.example", "evil.example", "/login", "/logout", "/\n/x", "///evil.example", "http:evil.example"),
    ],
)
def test_nobody_is_led_elsewhere(web: Web, to: str) -> None:
    assert own_path(to) == "/"
    answer = web.browser().log_in(f"/login?to={quote(to, safe='')}")
    assert answer.headers["location"] == "/"


def test_a_cookie_that_was_changed_is_none(web: Web) -> None:
    browser = web.browser()
    browser.log_in()
    ((name, value),) = browser.cookies.items()
    data, _, digest = value.partition(".")
    forged = Signer(b"x" * 32, "session", web.clock).write({"name": "eve", "values": ["platform"]}, 60)
    of_login = Signer(SECRET_OF_SESSIONS, "login", web.clock).write({"name": "eve", "values": ["platform"]}, 60)
    for bad in (f"{data}A.{digest}", f"{data}.{digest[:-1]}", data, ".", "", forged, of_login, "x" * 5000, '"\\377"'):
        browser.cookies = {name: bad}
        assert me(browser) == 401, bad


def test_a_provider_that_is_away_locks_nobody_else_out(
    make_web: Callable[..., Web], provider: SmallProvider, users: Users
) -> None:
    web = make_web(BasicLogin(users))
    provider.close()
    browser = web.browser()
    answer = browser.get("/login")
    assert answer.status_code == 503
    assert "does not answer" in answer.text
    assert "/login/password" in answer.text
    assert browser.get("/api/v1/me", headers=basic("operator", PASSWORDS["operator"])).json()["role"] == "operator"
    asked = browser.get("/login/password")
    assert asked.status_code == 401
    assert asked.headers["www-authenticate"].startswith("Basic")
    wrong = browser.get("/login/password", headers=basic("operator", "wrong"))
    assert (wrong.status_code, browser.cookies) == (401, {})
    answer = browser.get("/login/password", headers=basic("operator", PASSWORDS["operator"]))
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    # Browsers give a password to the pages below /login alone: the session is what goes on.
    assert me(browser)["name"] == "operator"


def test_without_passwords_there_is_none_to_ask_for(web: Web, provider: SmallProvider) -> None:
    browser = web.browser()
    assert browser.get("/api/v1/me", headers=basic("operator", PASSWORDS["operator"])).status_code == 401
    provider.close()
    assert "/login/password" not in browser.get("/login").text


@pytest.mark.parametrize(
    "facts",
    [
        {"issuer": "https://other.example"},
        {"token_endpoint": "http://id.example.com/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": None},
    ],
)
def test_a_provider_that_is_not_what_it_should_be_is_not_asked(
    web: Web, provider: SmallProvider, facts: dict[str, Any]
) -> None:
    provider.discovery = facts
    assert web.browser().get("/login").status_code == 503
    assert provider.asked == ["/.well-known/openid-configuration"]


def test_an_address_gives_a_role_only_if_it_is_verified(make_web: Callable[..., Web], provider: SmallProvider) -> None:
    web = make_web()
    web.login._claim = "email"
    web.login._roles = roles_of("jane@example.com:operator@orders")
    provider.person["email"] = "jane@example.com"
    assert web.browser().log_in().status_code == 403
    provider.person["email_verified"] = True
    assert web.browser().log_in().status_code == 303


def test_a_claim_may_lie_within_another() -> None:
    claims = {"realm_access": {"roles": ["a", 7]}, "https://shop.example/roles": ["b"]}
    assert claimed(claims, "realm_access.roles") == {"a"}
    assert claimed(claims, "https://shop.example/roles") == {"b"}
    assert claimed(claims, "realm_access") == claimed(claims, "a.b.c") == frozenset()


def settings(**values: Any) -> DashboardSettings:
    known = {"login": "oidc", "oidc_issuer": "https://id.example.com", "oidc_client_id": "jobs", "oidc_roles": ROLES}
    return DashboardSettings(**{**known, **values})


@pytest.mark.parametrize(
    "values",
    [
        *({"oidc_issuer": ""}, {"oidc_client_id": ""}, {"oidc_roles": ""}, {"oidc_roles": "ops"}),
        *({"oidc_roles": "ops:chief"}, {"oidc_roles": "ops:care@Orders"}, {"session_secret": "short"}),
        *({"oidc_scope": "profile"}, {"address": "http://jobs.example.com"}, {"address": "https://x.example/sub"}),
        {"address": "jobs.example.com"},
    ],
)
def test_what_is_not_set_right_is_told_at_the_start(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        login_of(settings(**values), "oidc", "127.0.0.1", 8484)
    assert caught.value.hint


def test_the_address_of_this_machine_is_known() -> None:
    assert checked_address("", "127.0.0.1", 8484) == "http://127.0.0.1:8484"
    assert checked_address("https://jobs.example.com/", "0.0.0.0", 80) == "https://jobs.example.com"
    assert isinstance(login_of(settings(), "oidc", "127.0.0.1", 8484), OidcLogin)
    with pytest.raises(SettingsError):
        checked_address("", "0.0.0.0", 8484)
