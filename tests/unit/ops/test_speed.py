"""No page reads more rows than it shows: what it asks goes by an index, whatever the filter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import event

from processor.ops import planning
from processor.ops.login import NoLogin
from processor.ops.planning import FEW
from processor.ops.store import Store
from processor.ops.web.serve import create
from tests.unit.ops.client import Client
from tests.unit.ops.conftest import Desk
from tests.unit.ops.routes import routes_of
from tests.unit.ops.test_projection import eventful

LARGE = {"jobs", "other", "letters", "fields", "bodies", "moves", "failures", "audit", "orders"}
"""Tables that have a row for each thing, and the name that some are asked by; others have one for each kind."""
ENDLESS = ("/events", "/static/")
"""Ends of paths that never end, or ask nothing."""
FILTERS = {
    "": "jobs_by_time",
    "since:2h": "jobs_by_time",
    "state:dead": "jobs_by_state",
    "state:dead,succeeded": "jobs_by_state",
    "type:order.charge": "jobs_by_type_state",
    "type:order.* state:dead": "jobs_by_type_state",
    "queue:orders,mail": "jobs_by_queue_state",
    "queue:orders state:dead": "jobs_by_queue_state",
    "error:ValueError state:dead": "jobs_by_fingerprint",
    "key:c1,c2": "jobs_by_key_state",
    "parent:j1": "jobs_by_parent_state",
    "worker:w1": "jobs_by_worker_state",
    "worker:w1 state:dead": "jobs_by_state",
    "order_id:2": "fields_by_value",
    "order_id:2 state:dead": "fields_by_value",
    "id:0": "sqlite_autoindex_jobs_1",
    "Jane": "fields_by_value",
}
"""Filter -> the index that its list goes by."""


@contextmanager
def asking(store: Store) -> Iterator[list[tuple[str, Any]]]:
    """All that is asked of a store meanwhile."""
    asked: list[tuple[str, Any]] = []

    def note(*call: Any) -> None:
        asked.append((call[2], call[3]))

    event.listen(store.engine, "before_cursor_execute", note)
    yield asked
    event.remove(store.engine, "before_cursor_execute", note)


def plan(store: Store, statement: str, values: Any) -> list[str]:
    with store.engine.connect() as sql:
        return [str(row[-1]) for row in sql.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]


def faults(store: Store, asked: list[tuple[str, Any]]) -> list[str]:
    """Plans that read a whole table."""
    found = []
    for statement, values in asked:
        if not statement.startswith("SELECT"):
            continue
        for line in plan(store, statement, values):
            scanned = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", line)
            if scanned is None or scanned[1] not in LARGE:
                continue
            if not ((scanned[2] or "").endswith("_by_time") and "LIMIT" in statement):
                found.append(f"{line} in {statement}")
    return found


@pytest.fixture
def client(desk: Desk) -> Client:
    application = create(desk.shop.app, desk.store, NoLogin(), clock=desk.bed.runtime.clock)
    return Client(application, "http://localhost", "127.0.0.1", {})


def pages(desk: Desk, ids: dict[str, str]) -> list[str]:
    """Every address that can be read, each list also from its second page on, with and without filters."""
    application = create(desk.shop.app, desk.store, NoLogin(), clock=desk.bed.runtime.clock)
    paths = {path for method, path in routes_of(application) if method == "GET" and not path.endswith(ENDLESS)}
    # Others may have a name in their paths, but no page of ours does.
    found = [
        re.sub(r"\{\w+(:path)?\}", job_id, path)
        for path in sorted(paths)
        for name, job_id in ids.items()
        if "/bulk/" not in path or name == "bulk"
    ]
    jobs = [f"/api/v1/jobs?count=true&q={quote(text)}" for text in FILTERS]
    jobs += [f"/api/v1/jobs?q={quote(text)}&after=2000000000000~ffff" for text in FILTERS]
    letters = [f"/letters?{each}" for each in ("state=", "state=open&type=order.charge", "fingerprint=0123456789ab")]
    return [
        *sorted(set(found)),
        *jobs,
        *letters,
        "/care?q=Jane",
        "/letters?after=2000000000000~0@1",
        "/audit?after=2000000000000~0@1",
    ]


def test_no_page_reads_a_whole_table(desk: Desk, client: Client) -> None:
    ids = eventful(desk)
    desk.look()
    bulk = client.post("/api/v1/bulk", json={"action": "discard", "expected": 0, "q": "state:killed", "reason": "x"})
    ids["bulk"] = bulk.json()["id"]
    # Its queue is new: a projector that begins looks which topics there are.
    desk.projector.close()
    desk.look()
    addresses = [*pages(desk, ids), "/bulk?action=redrive&q=state:dead"]
    assert len(addresses) > 60
    wrong = []
    for address in addresses:
        with asking(desk.store) as asked:
            answer = client.get(address)
        assert answer.status_code < 400, f"{address}: {answer.text}"
        wrong += [f"{address}: {fault}" for fault in faults(desk.store, asked)]
    assert wrong == []


def test_every_list_goes_by_its_index(desk: Desk, client: Client) -> None:
    eventful(desk)
    desk.look()
    for text, index in FILTERS.items():
        with asking(desk.store) as asked:
            answer = client.get(f"/api/v1/jobs?q={quote(text)}")
        assert answer.status_code == 200
        lists = [each for each in asked if "jobs.error_message" in each[0] and "ORDER BY" in each[0]]
        if not lists:  # nothing of the kind is there
            continue
        told = plan(desk.store, *lists[-1])
        assert any(index in line for line in told), f"{text}: {told}"
    assert faults(desk.store, [("SELECT id FROM jobs WHERE note = 'x'", ())]), "the test sees a whole table read"


@pytest.mark.parametrize(
    ("text", "index", "few"),
    [
        ("worker:w1 state:dead", "jobs_by_worker_state (worker=? AND state=?)", 0),
        ("key:c1 state:dead type:order.charge", "jobs_by_key_state (key=? AND state=?)", 0),
        ("worker:w1 state:dead", "jobs_by_state (state=?)", FEW),
        ("worker:w1 type:order.charge", "jobs_by_type_state (type=? AND state=?)", FEW),
        ("type:order.charge,mail.send queue:mail", "jobs_by_queue_state (queue=? AND state=?)", FEW),
    ],
)
def test_a_list_goes_by_what_is_rarest_of_all_that_is_asked(
    desk: Desk, client: Client, monkeypatch: pytest.MonkeyPatch, text: str, index: str, few: int
) -> None:
    """So many jobs are walked over by type, queue or state, whichever are the fewest; of more by the worker."""
    eventful(desk)
    desk.look()
    monkeypatch.setattr(planning, "FEW", few)
    with asking(desk.store) as asked:
        assert client.get(f"/api/v1/jobs?q={quote(text)}").status_code == 200
    (told,) = [plan(desk.store, *each) for each in asked if "jobs.error_message" in each[0] and "ORDER BY" in each[0]]
    assert [line for line in told if index in line], told


def test_what_ended_in_each_minute_is_not_counted(desk: Desk, client: Client) -> None:
    eventful(desk)
    desk.look()
    with asking(desk.store) as asked:
        answer = client.get("/api/v1/rates").json()
    assert (sum(answer["succeeded"]), sum(answer["failed"])) == (3, 2)
    assert [told for each in asked for told in plan(desk.store, *each) if "SEARCH ended" in told]
    assert not [statement for statement, _ in asked if "FROM jobs" in statement]
