"""Bulk actions over the real projection of a testbed's log: exactly the set that was planned, once, whatever comes."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from processor.ops.bulk.job import Bulks, Tools
from processor.ops.bulk.plan import JobSet, Plan
from processor.ops.filters import Filter, parse
from processor.ops.login import NoLogin
from processor.ops.store import Store
from processor.ops.web.serve import create
from processor.testing import Testbed
from tests.unit.ops.client import Client
from tests.unit.ops.conftest import Desk
from tests.unit.ops.shop import Shop, order
from tests.unit.ops.test_api import said
from tests.unit.ops.test_speed import asking, faults

pytestmark = pytest.mark.timeout(240)


class Office(Desk):
    """A desk whose shop runs the bulks as well."""

    def __init__(self, bed: Testbed, shop: Shop, store: Store, bulks: Bulks) -> None:
        super().__init__(bed, shop, store)
        application = create(shop.app, store, NoLogin(), clock=bed.runtime.clock, bulks=bulks)
        self.client = Client(application, "http://localhost", "127.0.0.1", {})

    def fail(self, count: int, amount: int = -1, first: int = 0) -> list[str]:
        """Orders that are dead."""
        ids = [self.bed.enqueue(self.shop.charge, order(first + number, amount)).id for number in range(count)]
        self.bed.drain()
        self.look()
        return ids

    def plan(self, action: str, q: str) -> dict[str, Any]:
        """A dry run."""
        return dict(said(self.client.post("/api/v1/bulk", json={"action": action, "q": q, "dry_run": True}), 200))

    def start(self, plan: dict[str, Any]) -> str:
        """Have it done, as far as the bulk being in its queue."""
        return str(said(self.client.post("/api/v1/bulk", json={"plan": plan["plan"], "reason": "why not"}), 200)["id"])

    def standing(self, bulk: str) -> dict[str, Any]:
        """How far it is."""
        self.look()
        return dict(said(self.client.get(f"/api/v1/bulk/{bulk}"), 200))

    def where(self, q: str) -> Filter:
        """A filter."""
        return parse(q, self.bed.runtime.clock.now_ms(), ["order_id"])

    def done(self, bulk: str) -> Counter[str]:
        """Audit lines of the bulk, by job."""
        rows = self.look().audit(limit=5000, bulk=bulk).rows
        return Counter(row["job_id"] for row in rows if row["action"] != "bulk")


@pytest.fixture
def office(make_store: Callable[[str], Store]) -> Iterator[Office]:
    shop = Shop()
    store = make_store("one")
    with Testbed() as bed:
        tools = Tools(app=shop.app, store=store, clock=bed.runtime.clock, pause=lambda _: None, page=20)
        bulks = Bulks(tools, runs_in=shop.app)
        office = Office(bed, shop, store, bulks)
        yield office
        office.projector.close()


def test_exactly_those_that_were_shown_are_sent_back_whatever_comes_meanwhile(office: Office) -> None:
    others = office.fail(43, amount=0)
    meant = office.fail(57, first=100)
    plan = office.plan("redrive", "error:ValueError state:dead")
    assert plan["jobs"] == 57
    later = office.fail(5, first=200)
    office.shop.fixed = True
    bulk = office.start(plan)
    assert office.start(plan) == bulk, "the same plan is one bulk"
    office.bed.drain()
    standing = office.standing(bulk)
    assert (standing["state"], standing["done"], standing["left"], standing["count"]) == ("succeeded", 57, 0, 57)
    assert office.done(bulk) == Counter(meant)
    queries = office.look()
    for ids, state in ((meant, "succeeded"), (later, "dead"), (others, "dead")):
        assert {queries.job(each).job["state"] for each in ids} == {state}


def test_what_a_dry_run_shows_is_what_is_done(office: Office) -> None:
    meant = office.fail(12)
    plan = office.plan("discard", "state:dead order_id:3,4,5,6")
    again = office.plan("discard", "state:dead order_id:3,4,5,6")
    assert plan["digest"] == again["digest"]
    assert office.plan("discard", "state:dead order_id:3,4,5")["digest"] != plan["digest"]
    assert office.look().audit().rows == [], "a dry run does nothing"
    wish = {"action": "discard", "q": "state:dead order_id:3,4,5,6", "reason": "x"}
    assert said(office.client.post("/api/v1/bulk", json={**wish, "expected": 5}), 409)["code"] == "set_changed"
    assert said(office.client.post("/api/v1/bulk", json=wish), 400)["hint"]
    begun = said(office.client.post("/api/v1/bulk", json={**wish, "expected": 4}), 200)
    office.bed.drain()
    assert begun["digest"] == plan["digest"]
    assert office.done(begun["id"]) == Counter(meant[3:7])
    assert office.start(plan) == begun["id"], "the same set at the same moment is the same plan"
    office.bed.advance("1s")
    late = office.start(office.plan("discard", "state:dead order_id:3,4,5,6"))
    office.bed.drain()
    tally = office.standing(late)["tally"]
    assert (tally["done"], tally["refused"], tally["skipped"]) == (0, 4, 0)
    assert "it has no open dead letter" in tally["examples"][0]


def test_a_killed_worker_is_followed_by_one_that_goes_on(office: Office) -> None:
    meant = office.fail(130)
    office.shop.fixed = True
    bulk = office.start(office.plan("redrive", "state:dead"))
    office.bed.crash_worker(at="pages", after=2)
    office.bed.crash_worker(at="pages", after=2)
    office.bed.drain()
    standing = office.standing(bulk)
    assert standing["tally"] == {"done": 130, "skipped": 0, "refused": 0, "changed": 0, "examples": []}
    assert office.done(bulk) == Counter(meant), "each once"
    assert office.look().states() == {"succeeded": 131}
    assert {row["life"] for row in office.queries.jobs(office.where("type:order.charge"), limit=200).rows} == {2}


def test_a_bulk_that_is_cancelled_leaves_the_rest_alone(office: Office) -> None:
    office.fail(100)
    bulk = office.start(office.plan("discard", "state:dead"))
    office.bed.crash_worker(at="pages", after=2)
    said(office.client.post(f"/api/v1/jobs/{bulk}/cancel", json={"reason": "a mistake"}), 200)
    office.bed.drain()
    standing = office.standing(bulk)
    assert standing["state"] == "cancelled"
    assert 20 <= standing["done"] <= 60
    assert standing["left"] == 100 - standing["done"]
    assert sum(office.done(bulk).values()) == standing["done"]
    page = office.client.get(f"/bulk/{bulk}").text
    assert f"{standing['done']} of 100 done, {standing['left']} left" in page
    assert "why not" in page
    assert "Cancel the rest" not in page


def test_what_waits_goes_on_or_is_cancelled(office: Office) -> None:
    late = [office.bed.enqueue(office.shop.charge, order(number), delay="40m").id for number in range(30)]
    office.look()
    go_on, cancel = office.plan("retry", "tags:t0"), office.plan("cancel", "tags:t1,t2")
    # They walk down the retry chain meanwhile, and are the same jobs.
    office.bed.advance("3m")
    office.look()
    bulks = office.start(go_on), office.start(cancel)
    office.bed.advance("10s")
    queries = office.look()
    assert [office.done(bulk) for bulk in bulks] == [Counter(late[0::3]), Counter(late[1::3] + late[2::3])]
    states = [queries.job(each).job["state"] for each in late]
    assert set(states[0::3]) == {"succeeded"}
    assert set(states[1::3] + states[2::3]) == {"cancelled"}
    assert office.look().audit(bulk=bulks[0]).rows[0]["reason"] == "why not"


def test_a_projection_that_is_built_anew_has_the_same_set(office: Office, make_store: Callable[[str], Store]) -> None:
    office.fail(30)
    plan = Plan.model_validate(office.plan("redrive", "state:dead")["plan"])
    office.fail(10, first=50)

    def ids(store: Store) -> list[str]:
        return [row["id"] for part in JobSet(store, plan, ["order_id"]).parts(size=7) if part for row in part.rows]

    other = make_store("two")
    behind = JobSet(other, plan, ["order_id"])
    assert not behind.is_there()
    assert next(behind.parts()) is None, "not all of it is read yet"
    projector = office.project(other)
    projector.catch_up()
    projector.close()
    assert ids(other) == ids(office.store)
    assert len(ids(other)) == plan.count == 30


def test_a_plan_is_refused_that_is_old_or_none(office: Office) -> None:
    office.fail(1)
    plan = office.plan("redrive", "state:dead")
    broken = {**plan["plan"], "q": "colour:red"}
    for body, status in (
        ({"plan": broken, "reason": "x"}, 400),
        ({"plan": plan["plan"], "reason": " "}, 400),
        ({"plan": {**plan["plan"], "digest": "x"}, "reason": "x"}, 422),
        ({"reason": "x"}, 400),
        ({"action": "explode", "reason": "x"}, 422),
        ({"action": "redrive", "q": "nothing:1", "dry_run": True}, 400),
    ):
        assert said(office.client.post("/api/v1/bulk", json=body), status)
    old = {"plan": {**plan["plan"], "at": plan["plan"]["at"] - 7_200_000}, "reason": "x"}
    assert "old" in said(office.client.post("/api/v1/bulk", json=old), 400)["message"]
    assert office.client.get("/api/v1/bulk/none").status_code == 404
    assert "Nothing is known" in office.client.get("/bulk/none").text


def test_the_pages_lead_from_a_filter_to_its_bulk(office: Office) -> None:
    office.fail(3)
    assert 'action="/bulk"' in office.client.get("/jobs?q=state:dead").text
    page = office.client.get("/bulk?action=redrive&q=state:dead").text
    assert "3 jobs are meant" in page
    assert "processor bulk redrive state:dead --expected 3" in page
    wire = html.unescape(re.findall(r'name="plan" value="([^"]*)"', page)[0])
    form = urlencode({"plan": wire, "reason": "the bank is back"})
    headers = {"content-type": "application/x-www-form-urlencoded", "origin": "http://localhost"}
    answer = office.client.post("/do/bulk", content=form, headers=headers)
    assert answer.status_code == 303
    office.bed.drain()
    office.look()
    with asking(office.store) as asked:
        page = office.client.get(answer.headers["location"]).text
    if office.store.engine.dialect.name == "sqlite":
        assert faults(office.store, asked) == []
    assert "3 of 3 done, 0 left" in page
    assert "the bank is back" in page
    lines = [(row["action"], row["by"].partition("@")[2], row["reason"]) for row in office.look().audit().rows]
    assert sorted(lines) == [
        ("bulk", "dashboard", "the bank is back"),
        *[("redrive", "dashboard", "the bank is back")] * 3,
    ]
    assert f'href="{answer.headers["location"]}"' in office.client.get("/audit").text
    assert "there is no action" in office.client.get("/bulk?action=explode").text
