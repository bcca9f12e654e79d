"""Who is let in: lines of the users' file, addresses of proxies, names and passwords as they come."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from processor.errors import SettingsError
from processor.ops.errors import LoginRequired, NotAllowed
from processor.ops.login import BasicLogin, NoLogin, ProxyLogin, is_loopback_name, networks, new_user, read_users
from processor.ops.roles import Role, User

ANA = User(name="ana", role=Role.CARE, queues=frozenset({"orders", "mail"}))
USERS = {"ana": (ANA, ""), "ben": (User(name="ben", role=Role.VIEWER), "")}


@pytest.mark.parametrize(
    ("line", "user", "hashed"),
    [
        ("ana:care@orders, mail:", ANA, ""),
        ("  ben:admin:$argon2id$v=19:x ", User(name="ben", role=Role.ADMIN), "$argon2id$v=19:x"),
        ("a b@c.d:viewer:", User(name="a b@c.d", role=Role.VIEWER), ""),
    ],
)
def test_a_line_is_a_user(line: str, user: User, hashed: str, tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"# who may look\n\n{line}\n")
    assert read_users(str(path)) == {user.name: (user, hashed)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ana:viewer", "line 1: this is no user"),
        ("ana:Viewer:x", "no role 'Viewer'"),
        ("ana:care@:x", "'' is no queue"),
        ("ana:care@orders,,mail:x", "'' is no queue"),
        ("ana:care@Orders:x", "'Orders' is no queue"),
        ("a\tb:viewer:x", "is not allowed"),
        ("x" * 101 + ":viewer:x", "is not allowed"),
        ("ana:viewer:x\n\nana:admin:y", "line 3: user ana is there already"),
    ],
)
def test_a_line_that_is_none_says_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message) as refused:
        read_users(str(path))
    assert refused.value.hint


def test_a_new_line_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(new_user("ana", "care@orders,mail", ""))
    assert read_users(str(path)) == {"ana": (ANA, "")}
    with pytest.raises(SettingsError):
        new_user("an:a", "care", "")


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.7", False),
        ("::ffff:10.0.0.7", False),
        ("", False),
        ("localhost", False),
        ("/run/socket", False),
    ],
)
def test_without_login_only_this_machine_is_let_in(peer: str, allowed: bool) -> None:
    if allowed:
        assert NoLogin().user({}, peer).role is Role.ADMIN
    else:
        with pytest.raises(NotAllowed):
            NoLogin().user({}, peer)


@pytest.mark.parametrize(
    ("host", "ours"),
    [("localhost", True), ("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("evil.example", False), ("", False)],
)
def test_names_of_this_machine(host: str, ours: bool) -> None:
    assert is_loopback_name(host) is ours


@pytest.mark.parametrize(
    ("peer", "header", "answer"),
    [
        ("10.0.0.7", " ana ", ANA),
        ("::ffff:10.0.0.7", "ana", ANA),
        ("fd00::9", "ben", USERS["ben"][0]),
        ("10.0.1.7", "ana", NotAllowed),
        ("::ffff:10.0.1.7", "ana", NotAllowed),
        ("", "ana", NotAllowed),
        ("10.0.0.7", "", LoginRequired),
        ("10.0.0.7", "eve", NotAllowed),
        ("10.0.0.7", "Ana", NotAllowed),
    ],
)
def test_whom_a_proxy_names(peer: str, header: str, answer: User | type[Exception]) -> None:
    login = ProxyLogin(USERS, "X-User", networks("10.0.0.0/24, fd00::/8"))
    if isinstance(answer, User):
        assert login.user({"x-user": header}, peer) == answer
    else:
        with pytest.raises(answer):
            login.user({"x-user": header}, peer)


@pytest.mark.parametrize(
    ("text", "found"),
    [("", []), (" , ", []), ("10.0.0.7", ["10.0.0.7/32"]), ("10.0.0.9/24,::1", ["10.0.0.0/24", "::1/128"])],
)
def test_networks_as_they_are_written(text: str, found: list[str]) -> None:
    assert [str(each) for each in networks(text)] == found


@pytest.mark.parametrize("text", ["10.0.0", "10.0.0.0/33", "proxy.example", "10.0.0.1;10.0.0.2"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="trusted_proxies"):
        networks(text)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Bearer abc",
        "Basic ???",
        "Basic " + base64.b64encode(b"no colon").decode(),
        "Basic " + base64.b64encode(b"\xff:\xfe").decode(),
        "Basic " + base64.b64encode(b"x" * 2000 + b":p").decode(),
    ],
)
def test_credentials_that_are_none_ask_for_a_login(header: str) -> None:
    with pytest.raises(LoginRequired, match="log in with name and password"):
        BasicLogin({}).user({"authorization": header}, "127.0.0.1")
