"""Roles that are limited to queues: of all others nothing is seen, and nothing is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import update

from processor.admin.orders import Operator, pause
from processor.admin.schedules import apply_schedules
from processor.dead_reasons import DeadReason
from processor.errors import SettingsError
from processor.ops import tables
from processor.ops.actions import Actions, Why
from processor.ops.live import Live
from processor.ops.login import BasicLogin, ProxyLogin, networks, new_user, read_users
from processor.ops.queries import LetterSet
from processor.ops.roles import Role, User
from processor.ops.web import events, feed
from processor.ops.web.serve import create
from tests.unit.ops.client import Client
from tests.unit.ops.conftest import Desk
from tests.unit.ops.routes import routes_of
from tests.unit.ops.shop import order
from tests.unit.ops.test_api import basic, said
from tests.unit.ops.test_pages import OWN

pytestmark = pytest.mark.timeout(240)

MAIL = frozenset({"mail"})
SECRET = ("Jacinta Poe", "has no amount", "order.charge", "the bank is shut", "charge-nightly", "orders of Jane")
"""What stands in the queue `orders`, in what was done to it, and in filters that others saved."""


class Rooms:
    """A dashboard of two queues, one order that failed and one mail that waits; users of one of them and of both."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.order = desk.bed.enqueue(desk.shop.charge, order(100, -1, "Jacinta Poe")).id
        desk.bed.drain()
        app = desk.shop.app
        app.schedule("charge-nightly", desk.shop.charge, cron="0 2 * * *", payload=order(1))
        app.schedule("mail-nightly", desk.shop.mail, cron="0 3 * * *")
        who = Operator(reason="the bank is shut", by="eve@desk", clock=desk.bed.runtime.clock)
        apply_schedules(desk.bed.broker, "shop", app.schedules.values(), who)
        for target in ("queue:orders", "type:order.charge"):
            pause(desk.bed.broker, "shop", target, who)
        self.mail = desk.shop.mail.enqueue(delay="10m").id
        users = {role.value: (User(name=role, role=role, queues=MAIL), "") for role in Role}
        users["all"] = (User(name="all", role=Role.ADMIN), "")
        login = ProxyLogin(users, "X-User", networks("10.0.0.7"))
        self.application = create(app, desk.store, login, clock=desk.bed.runtime.clock)
        body = {"name": "orders of Jane", "q": "order_id:100"}
        said(self.client("all").post("/api/v1/filters", json=body), 200)
        desk.look()

    def client(self, name: str) -> Client:
        """As this user."""
        return Client(self.application, "http://localhost", "10.0.0.7", {"x-user": name})

    def state(self) -> tuple[Any, ...]:
        """All that a button could change."""
        queries, client = self.desk.look(), self.client("all")
        rows = [{**row, "next": 0} for row in said(client.get("/api/v1/schedules"), 200)]
        return queries.states(), queries.audit(limit=500).rows, rows, said(client.get("/api/v1/filters"), 200)


@pytest.fixture
def rooms(desk: Desk) -> Rooms:
    """Two queues and who is here for them."""
    return Rooms(desk)


def test_nothing_of_another_queue_is_seen_on_any_route(rooms: Rooms) -> None:
    rooms.application.state.desk.feed.closed = True
    paths = sorted({path for method, path in routes_of(rooms.application) if method == "GET" and path != "/static/"})
    whole = ""
    for path in paths:
        asked = path.replace("{job_id:path}", rooms.order)
        whole += rooms.client("all").get(asked).text
        for role in Role:
            answer = rooms.client(role).get(asked)
            told = f"{asked} as {role}: {answer.status_code} {answer.text[-300:]}"
            one = "{job_id:path}" in path and not path.endswith("/events")
            assert answer.status_code in ((403, 404) if one else (200, 303, 403)), told
            assert not [word for word in SECRET if word in answer.text], told
            # The error says which id was asked for.
            assert one or rooms.order not in answer.text, told
    missing = [
        word
        for word in (*SECRET, rooms.order)
        if word.replace("'", "") not in whole.replace("&#39;", "").replace("'", "")
    ]
    assert not missing, "whoever may see all does see it"


def test_their_own_queue_is_seen_whole(rooms: Rooms) -> None:
    client = rooms.client("operator")
    assert said(client.get("/api/v1/me"), 200) == {"name": "operator", "role": "operator", "queues": ["mail"]}
    assert [row["id"] for row in said(client.get("/api/v1/jobs?count=true"), 200)["rows"]] == [rooms.mail]
    assert said(client.get(f"/api/v1/jobs/{rooms.mail}"), 200)["job"]["queue"] == "mail"
    assert said(client.get("/api/v1/states"), 200) == {"scheduled": 1}
    assert [row["queue"] for row in said(client.get("/api/v1/queues"), 200)] == ["mail"]
    assert [row["name"] for row in said(client.get("/api/v1/schedules"), 200)] == ["mail-nightly"]
    body = {"reason": "the printer"}
    said(client.post("/api/v1/queues/mail/pause", json=body), 200)
    said(client.post("/api/v1/queues/mail/resume", json=body), 200)
    said(client.post("/api/v1/schedules/mail-nightly/pause", json=body), 200)
    said(client.post(f"/api/v1/jobs/{rooms.mail}/cancel", json=body), 200)
    rooms.desk.bed.drain()
    rooms.desk.look()
    done = [row["action"] for row in said(client.get("/api/v1/audit"), 200)["rows"]]
    assert done == ["cancel", "resume", "pause"], "and a schedule's are for those who see all"


def test_counts_and_what_waits_for_a_person_are_of_their_own_queue(rooms: Rooms) -> None:
    assert sum(said(rooms.client("all").get("/api/v1/rates"), 200)["failed"]) == 1
    assert sum(said(rooms.client("viewer").get("/api/v1/rates"), 200)["failed"]) == 0
    store = rooms.desk.store
    with store.writing() as sql:
        sql.execute(update(tables.letters).values(reason=DeadReason.CRASH_LOOP.value))
    assert [row["job_id"] for row in Live(store).quarantined(5)] == [rooms.order]
    assert Live(store, MAIL).quarantined(5) == []


FOREIGN = {"action": "cancel", "q": "", "until": {}, "count": 1, "digest": "0" * 32}
"""A plan that means jobs of every queue."""


def _attempts(rooms: Rooms, letter: str, fingerprint: str) -> dict[str, tuple[Mapping[str, Any], int]]:
    """Every route of the API that changes something -> what to ask of the other queue, and the answer."""
    why = {"reason": "mine"}
    letters = {**why, "addresses": [letter], "expected": 1}
    found: dict[str, tuple[Mapping[str, Any], int]] = {
        "letters/redrive": (letters, 409),
        "letters/discard": (letters, 409),
        "bulk": ({**why, "plan": {**FOREIGN, "at": 1}}, 403),
        "replays/plan": ({"queue": "orders"}, 403),
        "replays/run": ({**why, "queue": "orders", "expected": 1}, 403),
        "filters": ({"name": "orders of Jane", "q": "state:dead"}, 403),
        "filters/delete": ({"name": "orders of Jane"}, 403),
        "filters/watch": ({"name": "orders of Jane", "at_least": 1}, 403),
        "filters/unwatch": ({"name": "orders of Jane"}, 403),
    }
    found |= {f"jobs/{rooms.order}/{action}": (why, 404) for action in ("retry", "redrive", "cancel")}
    found |= {f"queues/orders/{action}": (why, 403) for action in ("pause", "resume")}
    found |= {f"types/order.charge/{action}": (why, 403) for action in ("pause", "resume")}
    found |= {f"schedules/charge-nightly/{action}": (why, 404) for action in ("pause", "resume", "trigger")}
    return {f"/api/v1/{path}": asked for path, asked in found.items()}


def test_nothing_is_done_to_another_queue_by_any_route(rooms: Rooms) -> None:
    (row,) = said(rooms.client("all").get("/api/v1/letters"), 200)["rows"]
    letter = f"{row['partition']}@{row['offset']}"
    before, client = rooms.state(), rooms.client("operator")
    attempts = _attempts(rooms, letter, row["fingerprint"])
    patterns = {"{job_id:path}": rooms.order, "{name}": "orders"}
    posts = {path for method, path in routes_of(rooms.application) if method == "POST"}
    for path in sorted(posts):
        name = "order.charge" if "/types/" in path else "charge-nightly"
        for pattern, value in {**patterns, "{name:path}": name}.items():
            path = path.replace(pattern, value)
        if path.startswith("/api/"):
            body, status = attempts.pop(path)
            assert set(said(client.post(path, json=body), status)) == {"code", "message", "hint"}
            continue
        plan = quote(json.dumps({**FOREIGN, "at": 1}))
        form = f"reason=mine&address={letter}&queue=orders&since=24h&expected=1&name=orders of Jane&q=state:dead"
        form += f"&plan={plan}"
        answer = client.post(path, content=form, headers=OWN)
        assert answer.status_code in (403, 404, 409), f"{path}: {answer.status_code} {answer.text[-300:]}"
        assert not [word for word in SECRET if word in answer.text and word not in path + form], path
    assert not attempts
    every = {"reason": "mine", "all_open": True, "expected": 0}
    assert said(client.post("/api/v1/letters/discard", json=every), 200)["done"] == 0, "all are those of their queues"
    for chosen in ({"queue": "orders"}, {"fingerprint": row["fingerprint"]}, {"type": "order.charge"}):
        wish = {"reason": "mine", "expected": 1, **chosen}
        assert said(client.post("/api/v1/letters/redrive", json=wish), 409)["code"] == "set_changed"
        assert said(client.post("/api/v1/letters/redrive", json={**wish, "dry_run": True}), 200)["done"] == 0
    for q in ("", "order_id:100", "queue:orders"):
        plan = said(client.post("/api/v1/bulk", json={"action": "cancel", "q": q, "dry_run": True}), 200)["plan"]
        assert (plan["queues"], plan["count"]) == (["mail"], 0 if q else 1), "only what is theirs"
    assert rooms.state() == before


def test_another_queues_job_is_not_told_of_as_it_goes(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "APPEARS", 0.0)
    monkeypatch.setattr(feed, "LOOK_EVERY", 0.01)
    path = f"/api/v1/jobs/{rooms.order}/events"
    assert "event: end" in rooms.client("all").get(path).text
    text = rooms.client("operator").get(path).text
    assert "event: unknown" in text
    assert "dead" not in text


def test_a_users_file_limits_a_role_to_queues(desk: Desk, tmp_path: Any) -> None:
    path = tmp_path / "users"
    path.write_text(new_user("mona", "operator@mail,orders-2", "secret") + "\neve:admin:\n")
    users = read_users(str(path))
    assert users["mona"][0] == User(name="mona", role=Role.OPERATOR, queues=frozenset({"mail", "orders-2"}))
    assert users["eve"][0].queues is None
    application = create(desk.shop.app, desk.store, BasicLogin(users), clock=desk.bed.runtime.clock)
    client = Client(application, "http://localhost", "127.0.0.1", basic("mona", "secret"))
    assert said(client.get("/api/v1/me"), 200)["queues"] == ["mail", "orders-2"]
    for text in ("operator@", "operator@mail,", "operator@Mail Room", "@mail"):
        path.write_text(f"mona:{text}:")
        with pytest.raises(SettingsError, match="mona"):
            read_users(str(path))


def test_lists_hear_of_changes_in_their_own_queues_alone(desk: Desk) -> None:
    live, bed, shop = Live(desk.store), desk.bed, desk.shop
    who = Operator(reason="x", by="eve@desk", clock=bed.runtime.clock)
    actions = Actions(shop.app, desk.queries, bed.runtime.clock)
    why = Why(user=User(name="eve", role=Role.ADMIN), reason="x")

    def heard(change: Callable[[], object]) -> str:
        before = live.look([])
        change()
        desk.look()
        after = live.look([])
        queues = [frozenset({"mail"}), frozenset({"orders"}), frozenset({"mail", "orders"}), None]
        words = zip(("mail", "orders", "both", "all"), queues, strict=True)
        return " ".join(word for word, own in words if before.place_for(own) != after.place_for(own))

    def drained() -> None:
        bed.enqueue(shop.charge, order(1, -1))
        bed.drain()

    desk.look()
    assert heard(lambda: bed.enqueue(shop.mail)) == "mail both all"
    assert heard(lambda: None) == ""
    assert heard(drained) == "mail orders both all", "the mail has been sent as well"
    assert heard(drained) == "orders both all"
    letters = [f"{row['partition']}@{row['offset']}" for row in desk.queries.letters().rows]
    chosen = LetterSet(addresses=letters[:1])
    assert heard(lambda: actions.discard(chosen, 1, why)) == "orders both all"
    assert heard(lambda: pause(bed.broker, "shop", "queue:mail", who)) == "mail both all"
    assert heard(lambda: pause(bed.broker, "shop", "type:mail.send", who)) == "mail orders both all", "types are all's"
    job_id = bed.enqueue(shop.mail).id
    assert heard(lambda: actions.cancel(job_id, why)) == "mail both all"
