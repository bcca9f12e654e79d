"""The API over the real projection of a testbed's log: what it says, what it does, and who may ask."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from processor.errors import SettingsError
from processor.ops.login import BasicLogin, Login, NoLogin, ProxyLogin, Users, networks, new_user, read_users
from processor.ops.roles import MASK, Role, User, shown_payload
from processor.ops.web.serve import create
from tests.unit.ops.client import Client
from tests.unit.ops.conftest import Desk
from tests.unit.ops.shop import order

PASSWORDS = {role.value: f"secret of {role}" for role in Role}
ERRORS = {"code", "message", "hint"}


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Users:
    """One user of each role, called like it."""
    path = tmp_path_factory.mktemp("users") / "users"
    lines = [new_user(role, role, password) for role, password in PASSWORDS.items()]
    path.write_text("# people\n\n" + "\n".join(lines) + "\n")
    return read_users(str(path))


def basic(name: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


class Web:
    """Clients of one dashboard."""

    def __init__(self, desk: Desk, login: Login) -> None:
        self.application = create(desk.shop.app, desk.store, login, clock=desk.bed.runtime.clock)

    def client(self, role: str = "", peer: str = "127.0.0.1", base: str = "http://localhost") -> Client:
        """As a user of this role."""
        headers = basic(role, PASSWORDS[role]) if role else {}
        return Client(self.application, base, peer, headers)


@pytest.fixture
def web(desk: Desk, users: Users) -> Web:
    """A dashboard with passwords."""
    return Web(desk, BasicLogin(users))


def failed(desk: Desk, count: int = 1) -> list[str]:
    """Orders that are dead."""
    ids = [desk.bed.enqueue(desk.shop.charge, order(100 + number, -1)).id for number in range(count)]
    desk.bed.drain()
    desk.look()
    return ids


def said(response: Any, status: int) -> Any:
    assert response.status_code == status, response.text
    return response.json()


def test_a_failed_order_is_found_by_its_number_and_sent_back(desk: Desk, web: Web) -> None:
    (job_id,) = failed(desk)
    client = web.client("operator")
    (row,) = said(client.get("/api/v1/jobs", params={"q": "order_id:100 state:dead"}), 200)["rows"]
    assert row["id"] == job_id
    facts = said(client.get(f"/api/v1/jobs/{job_id}"), 200)
    assert facts["payload"]["order_id"] == 100
    assert "order 100 has no amount" in facts["failures"][0]["traceback"]
    body = {"reason": "the amount was missing", "payload": {**facts["payload"], "amount": 12}}
    assert said(client.post(f"/api/v1/jobs/{job_id}/redrive", json=body), 200)["done"] == 1
    desk.bed.drain()
    desk.look()
    facts = said(client.get(f"/api/v1/jobs/{job_id}"), 200)
    assert (facts["job"]["state"], facts["result"], facts["payload"]["amount"]) == ("succeeded", 12, 12)
    (audit,) = said(client.get("/api/v1/audit"), 200)["rows"]
    assert (audit["action"], audit["by"], audit["reason"]) == (
        "redrive",
        "operator@dashboard",
        "the amount was missing",
    )
    again = said(client.post(f"/api/v1/jobs/{job_id}/redrive", json={"reason": "again"}), 409)
    assert set(again) == ERRORS


def test_exactly_the_letters_that_were_shown_are_sent_back(desk: Desk, web: Web) -> None:
    failed(desk, 7)
    client = web.client("operator")
    desk.shop.fixed = True
    (group,) = said(client.get("/api/v1/failures"), 200)
    body = {"reason": "fixed", "fingerprint": group["fingerprint"], "expected": 6}
    assert said(client.post("/api/v1/letters/redrive", json={**body, "dry_run": True}), 200)["done"] == 7
    assert said(client.post("/api/v1/letters/redrive", json=body), 409)["code"] == "set_changed"
    letters = said(client.get("/api/v1/letters", params={"state": "open"}), 200)["rows"]
    some = [f"{row['partition']}@{row['offset']}" for row in letters[:3]]
    named = {"reason": "these", "addresses": some, "expected": 3}
    assert said(client.post("/api/v1/letters/redrive", json=named), 200)["done"] == 3
    desk.look()
    assert said(client.post("/api/v1/letters/redrive", json={**body, "expected": 4}), 200)["done"] == 4
    desk.bed.drain()
    assert desk.look().states() == {"succeeded": 7}
    assert len(said(client.get("/api/v1/audit"), 200)["rows"]) == 7
    assert said(client.post("/api/v1/letters/redrive", json={"reason": "x", "expected": 0}), 400)["hint"]


def test_queues_and_types_are_paused_and_resumed(desk: Desk, web: Web) -> None:
    client = web.client("operator")
    said(client.post("/api/v1/queues/mail/pause", json={"reason": "too many"}), 200)
    said(client.post("/api/v1/types/order.charge/pause", json={"reason": "the bank"}), 200)
    waiting = desk.bed.enqueue(desk.shop.mail)
    desk.bed.advance("10s")
    assert desk.look().job(waiting.id).job["state"] == "queued"
    paused = {row["queue"]: row["paused"] for row in said(client.get("/api/v1/queues"), 200)}
    assert paused == {"mail": "too many (by operator@dashboard)", "orders": ""}
    said(client.post("/api/v1/queues/mail/resume", json={"reason": "better"}), 200)
    assert said(client.post("/api/v1/queues/mail/resume", json={"reason": "better"}), 409)["code"] == "order_refused"
    assert said(client.post("/api/v1/queues/nothing/pause", json={"reason": "x"}), 404)["hint"]
    desk.bed.drain()
    assert desk.look().job(waiting.id).job["state"] == "succeeded"


def test_a_waiting_job_is_retried_now_and_another_cancelled(desk: Desk, web: Web) -> None:
    late = [desk.shop.charge.enqueue(order(number), delay="10m").id for number in range(2)]
    desk.look()
    client = web.client("operator")
    said(client.post(f"/api/v1/jobs/{late[0]}/retry", json={"reason": "now"}), 200)
    said(client.post(f"/api/v1/jobs/{late[1]}/cancel", json={"reason": "never"}), 200)
    desk.bed.drain()
    queries = desk.look()
    assert [queries.job(job_id).job["state"] for job_id in late] == ["succeeded", "cancelled"]
    assert said(client.post(f"/api/v1/jobs/{late[1]}/cancel", json={"reason": "again"}), 409)["code"]
    assert {row["reason"] for row in queries.audit().rows} == {"now", "never"}


@pytest.mark.parametrize("reason", ["", None, "   "])
def test_nothing_is_done_without_a_reason(desk: Desk, web: Web, reason: str | None) -> None:
    (job_id,) = failed(desk)
    response = web.client("operator").post(f"/api/v1/jobs/{job_id}/redrive", json={"reason": reason})
    assert response.status_code in (400, 422)
    assert desk.look().job(job_id).job["state"] == "dead"
    assert desk.queries.audit().rows == []


# -- who may ask -------------------------------------------------------------------------------------------------------


def test_care_may_not_send_another_payload(desk: Desk, web: Web) -> None:
    (job_id,) = failed(desk)
    desk.shop.fixed = True
    client = web.client("care")
    body = {"reason": "asked for it"}
    said(client.post(f"/api/v1/jobs/{job_id}/redrive", json={**body, "payload": {"amount": 1_000_000}}), 403)
    said(client.post(f"/api/v1/jobs/{job_id}/redrive", json=body), 200)


def test_payloads_are_masked_by_role(desk: Desk, web: Web) -> None:
    (job_id,) = failed(desk)

    def payload(role: str) -> Any:
        return said(web.client(role).get(f"/api/v1/jobs/{job_id}"), 200)["payload"]

    assert payload("viewer") == {"order_id": MASK, "customer": {"name": MASK}, "amount": MASK, "tags": MASK}
    assert payload("care")["order_id"] == 100
    assert payload("care")["customer"] == {"name": "Jane Doe"}
    assert payload("care")["amount"] == MASK
    assert payload("operator")["amount"] == -1
    assert said(web.client("viewer").get(f"/api/v1/jobs/{job_id}"), 200)["fields"] == {}


def test_secrets_are_for_admins() -> None:
    text = '{"user": {"password": "p", "name": "n"}, "list": [{"password": "q"}], "name": "m"}'

    def shown(role: Role) -> Any:
        user = User(name="u", role=role)
        return shown_payload(text, user, search=["user", "name", "user.password"], secret={"password"})

    assert shown(Role.ADMIN)["user"]["password"] == "p"
    assert shown(Role.OPERATOR) == {"user": {"password": MASK, "name": "n"}, "list": [{"password": MASK}], "name": "m"}
    assert shown(Role.CARE) == {"user": {"password": MASK, "name": "n"}, "list": MASK, "name": "m"}


def test_a_wrong_password_and_no_password_are_refused(web: Web, desk: Desk) -> None:
    desk.look()
    client = web.client()
    for headers in (
        {},
        basic("operator", "wrong"),
        basic("nobody", PASSWORDS["operator"]),
        basic("", ""),
        {"authorization": "Basic !!!"},
        {"authorization": "Bearer x"},
    ):
        answer = client.get("/api/v1/me", headers=headers)
        assert answer.status_code == 401, headers
        assert answer.headers["www-authenticate"].startswith("Basic")
    good = basic("operator", PASSWORDS["operator"])
    assert said(client.get("/api/v1/me", headers=good), 200) == {"name": "operator", "role": "operator", "queues": None}
    assert client.get("/api/v1/me", headers=basic("operator", "wrong")).status_code == 401, "also after a good one"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"sec-fetch-site": "same-origin"}, 404),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost"}, 404),
        ({"content-type": "text/plain"}, 403),
        ({}, 404),
    ],
)
def test_other_sites_can_change_nothing(desk: Desk, web: Web, headers: dict[str, str], status: int) -> None:
    desk.look()
    content = {"content-type": "application/json", **headers}
    answer = web.client("operator").post("/api/v1/queues/none/pause", content='{"reason": "x"}', headers=content)
    assert answer.status_code == status, answer.text


def test_without_login_only_this_machine_may_ask(desk: Desk) -> None:
    desk.look()
    web = Web(desk, NoLogin())
    assert said(web.client().get("/api/v1/me"), 200)["role"] == "admin"
    assert web.client(peer="10.0.0.9").get("/api/v1/me").status_code == 403
    rebound = web.client(base="http://evil.example")
    assert rebound.get("/api/v1/me").status_code == 403, "a name of elsewhere that was pointed at this machine"


def test_only_the_trusted_proxy_may_name_a_user(desk: Desk, users: Users) -> None:
    desk.look()
    web = Web(desk, ProxyLogin(users, "X-User", networks("10.0.0.0/24, ::1")))
    named = {"x-user": "care"}
    assert said(web.client(peer="10.0.0.7").get("/api/v1/me", headers=named), 200)["role"] == "care"
    assert web.client(peer="10.0.1.7").get("/api/v1/me", headers=named).status_code == 403
    assert web.client(peer="10.0.0.7").get("/api/v1/me").status_code == 401
    assert web.client(peer="10.0.0.7").get("/api/v1/me", headers={"x-user": "mallory"}).status_code == 403


def test_every_answer_carries_the_policy(desk: Desk, web: Web) -> None:
    desk.look()
    for answer in (
        web.client().get("/api/v1/me"),
        web.client("admin").get("/api/v1/jobs"),
        web.client().get("/nothing"),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "private, no-store"


def test_what_a_filter_cannot_be_says_why(desk: Desk, web: Web) -> None:
    desk.look()
    client = web.client("viewer")
    assert said(client.get("/api/v1/jobs", params={"q": "colour:red"}), 400)["hint"].startswith("there are: state")
    assert said(client.get("/api/v1/jobs", params={"after": "x'; drop table jobs"}), 400)["code"] == "filter"
    assert said(client.get("/api/v1/letters", params={"after": "1~x"}), 400)["code"] == "filter"
    assert said(client.get("/api/v1/jobs/no such job"), 404)["code"] == "not_there"
    assert client.get("/api/v1/jobs", params={"limit": 100_000}).status_code == 422


@pytest.mark.parametrize("name", ["Not A Queue", "a.b", "%00", "%F4%8F", "x" * 300, "..", "%2e%2e%2fx"])
def test_no_name_is_an_error_of_the_server(desk: Desk, web: Web, name: str) -> None:
    desk.look()
    client = web.client("operator")
    for path in (f"queues/{name}/pause", f"types/{name}/resume", f"jobs/{name}/cancel", f"jobs/{name}/redrive"):
        answer = client.post(f"/api/v1/{path}", json={"reason": "x"})
        assert answer.status_code < 500, f"{path}: {answer.text}"
    assert client.get(f"/api/v1/jobs/{name}").status_code < 500
    assert client.get("/api/v1/jobs", params={"q": name, "after": f"1~{name}"}).status_code < 500
    nul = "a\x00b"
    assert client.get("/api/v1/jobs", params={"q": nul, "after": f"1~{nul}"}).status_code == 200
    assert client.get("/api/v1/letters", params={"state": nul, "type": nul}).status_code == 200
    body = {"reason": nul, "fingerprint": nul, "addresses": [nul], "expected": 0}
    assert client.post("/api/v1/letters/redrive", json=body).status_code == 200


def test_the_api_describes_itself(desk: Desk, web: Web) -> None:
    desk.look()
    assert web.client().get("/api/v1/openapi.json").status_code == 401
    described = said(web.client("viewer").get("/api/v1/openapi.json"), 200)["paths"]
    assert "/api/v1/letters/redrive" in described
    assert not [path for path in described if not path.startswith("/api/v1/")]


def test_a_users_file_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "users"
    for text, message in (("eve", "line 1"), ("eve:boss:x", "no role 'boss'"), (":admin:x", "user name")):
        path.write_text(text)
        with pytest.raises(SettingsError, match=message):
            read_users(str(path))
    with pytest.raises(SettingsError, match="cannot be read"):
        read_users(str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="trusted_proxies"):
        networks("10.0.0.0/99")
