"""The projection says what the log says, whichever topic it reads first and however often it begins anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from processor.admin.dead_letters import list_letters
from processor.admin.orders import Operator, cancel, pause, resume
from processor.admin.redrive import Order as RedriveOrder
from processor.admin.redrive import discard_letters
from processor.broker.base import OutRecord
from processor.client.handles import Handle
from processor.job import Failure, Job, Place
from processor.ops import folding
from processor.ops.applying import Batch, Overtaken
from processor.ops.errors import NotThere, ProjectionError
from processor.ops.filters import parse
from processor.ops.folding import JobRow, JobSeen, StatusSeen, fold_job, fold_status, fuller, searchable
from processor.ops.queries import Queries
from processor.ops.roles import Role, User, shown_payload
from processor.ops.store import Store
from processor.states import State
from processor.wire.codec import encode
from processor.wire.records import StatusRecord
from tests.unit.ops.conftest import Desk
from tests.unit.ops.dump import dump
from tests.unit.ops.shop import order

JOB = Job("j1", "order.charge", 1, "orders", b'{"order_id": 7}', 1_000, number=0)
FIELDS = ("order_id", "customer.name", "tags")


def found(queries: Queries, text: str) -> list[str]:
    return [row["id"] for row in queries.jobs(parse(text, 10**15, FIELDS)).rows]


def eventful(desk: Desk) -> dict[str, str]:
    """One job in each way that a job can go; name -> id."""
    bed, shop = desk.bed, desk.shop
    jobs: dict[str, Handle[Any]] = {
        "good": bed.enqueue(shop.charge, order(1)),
        "bad": bed.enqueue(shop.charge, order(2, -1)),
        "slow": bed.enqueue(shop.charge, order(3, 0)),
        "mail": bed.enqueue(shop.mail),
        "dropped": bed.enqueue(shop.charge, order(4, -1)),
    }
    bed.drain()
    who = Operator(reason="the bank is down", by="eve@desk", clock=bed.runtime.clock)
    shop.fixed = True
    bed.redrive(jobs["slow"])
    bed.drain()
    dropped = [row for row in list_letters(bed.broker, "shop") if row.id == jobs["dropped"].id]
    discard_letters(bed.broker, "shop", dropped, RedriveOrder(by="eve@desk", reason="a test", clock=bed.runtime.clock))
    pause(bed.broker, "shop", "queue:mail", who)
    jobs["late"] = shop.charge.enqueue(order(5), delay="10m")
    jobs["waiting"] = bed.enqueue(shop.mail)
    return {name: handle.id for name, handle in jobs.items()}


def test_it_says_what_the_log_says(desk: Desk) -> None:
    ids = eventful(desk)
    queries = desk.look()
    states = {name: queries.job(job_id).job["state"] for name, job_id in ids.items()}
    assert states == {
        "good": "succeeded",
        "bad": "dead",
        "slow": "succeeded",
        "mail": "succeeded",
        "dropped": "dead",
        "late": "scheduled",
        "waiting": "queued",
    }
    assert queries.states() == {"succeeded": 3, "dead": 2, "scheduled": 1, "queued": 1}
    assert queries.freshness().behind == 0
    assert queries.freshness().unreadable == 0


def test_a_job_has_its_whole_story(desk: Desk) -> None:
    ids = eventful(desk)
    slow = desk.look().job(ids["slow"])
    assert slow.job["life"] == 2
    assert slow.result == "0"
    assert '"order_id":3' in (slow.payload or "").replace(" ", "")
    assert [(row["life"], row["state"]) for row in slow.moves] == [
        (1, "retrying"),
        (1, "dead"),
        (2, "queued"),
        (2, "succeeded"),
    ]
    assert [(row["life"], row["attempt"]) for row in slow.failures] == [(1, 1), (1, 2)]
    assert all("the bank does not answer" in row["traceback"] for row in slow.failures)
    assert [row["state"] for row in slow.letters] == ["redriven"]
    assert slow.letters[0]["settled_by"]
    assert slow.fields == {"order_id": "3", "customer.name": "Jane Doe", "tags": "t0"}
    waiting = desk.queries.job(ids["waiting"])
    assert [order["reason"] for order in waiting.orders] == ["the bank is down"]
    assert [row["reason"] for row in desk.queries.job(ids["dropped"]).letters if row["state"] == "discarded"]


def test_jobs_are_found_by_what_people_know_of_them(desk: Desk) -> None:
    ids = eventful(desk)
    queries = desk.look()
    assert found(queries, "order_id:2") == [ids["bad"]]
    assert found(queries, "2") == [ids["bad"]]
    assert len(found(queries, '"Jane Doe"')) == 5
    assert set(found(queries, 'customer.name:"Jane Doe" state:dead order_id:2,4')) == {ids["dropped"], ids["bad"]}
    assert found(queries, f"id:{ids['good'][:20]}") in ([ids["good"]], found(queries, f"id:{ids['good'][:20]}"))
    assert found(queries, ids["mail"]) == [ids["mail"]]
    assert set(found(queries, "queue:mail")) == {ids["mail"], ids["waiting"]}
    assert found(queries, "type:order.* state:scheduled") == [ids["late"]]
    assert set(found(queries, "error:ValueError")) == {ids["bad"], ids["dropped"]}
    print_ = queries.job(ids["bad"]).job["fingerprint"]
    assert set(found(queries, f"error:{print_}")) == {ids["bad"], ids["dropped"]}
    assert found(queries, "order_id:99") == []
    with pytest.raises(NotThere):
        queries.job("nobody")


def test_failures_and_letters_are_grouped_by_fingerprint(desk: Desk) -> None:
    eventful(desk)
    queries = desk.look()
    (group,) = queries.failure_groups()
    assert (group["jobs"], group["dead"], group["type"]) == (2, 2, "order.charge")
    (letters,) = queries.letter_groups()
    assert letters["letters"] == 1, "the discarded one and the redriven one need nobody"
    assert {row["state"] for row in queries.letters().rows} == {"open", "redriven", "discarded"}


def test_pages_show_every_job_once(desk: Desk) -> None:
    jobs = {desk.bed.enqueue(desk.shop.mail).id for _ in range(23)}
    desk.bed.drain()
    queries, seen, after = desk.look(), [], ""
    while True:
        page = queries.jobs(parse("", 0), limit=5, after=after)
        seen += [row["id"] for row in page.rows]
        after = page.after
        if not after:
            break
    assert len(seen) == 23
    assert set(seen) == jobs
    assert queries.count(parse("", 0)) == 23
    assert queries.count(parse("", 0), most=10) == 11


def test_orders_taken_back_are_gone(desk: Desk) -> None:
    ids = eventful(desk)
    who = Operator(reason="over", by="eve@desk", clock=desk.bed.runtime.clock)
    resume(desk.bed.broker, "shop", "queue:mail", who)
    cancel(desk.bed.broker, "shop", ids["late"], who)
    desk.bed.drain()
    queries = desk.look()
    waiting = queries.job(ids["waiting"])
    assert (waiting.orders, waiting.job["state"]) == ([], "succeeded")
    assert queries.job(ids["late"]).job["state"] == "cancelled"
    assert [row["action"] for row in queries.audit().rows][:2] == ["cancel", "resume"]


def test_a_projection_built_anew_equals_one_that_grew(desk: Desk) -> None:
    bed, shop = desk.bed, desk.shop
    for number in range(30):
        bed.enqueue(shop.charge, order(number, number % 3 - 1))
        desk.projector.step()
    eventful(desk)
    desk.look()
    bed.advance("1m")
    desk.look()
    grown = dump(desk.store)
    assert len(grown["jobs"]) == 37
    desk.store.wipe()
    desk.projector.close()
    anew = desk.project(desk.store)
    anew.catch_up()
    anew.close()
    assert dump(desk.store) == grown


def test_two_projectors_of_one_database_write_everything_once(desk: Desk) -> None:
    other = desk.project(desk.store)
    bed, shop = desk.bed, desk.shop
    for number in range(20):
        bed.enqueue(shop.charge, order(number, -1))
        (desk.projector if number % 2 else other).step()
    bed.drain()
    other.catch_up()
    desk.projector.catch_up()
    other.close()
    grown = dump(desk.store)
    assert len(grown["letters"]) == len(grown["jobs"]) == 20
    desk.store.wipe()
    desk.projector.close()
    desk.look()
    assert dump(desk.store) == grown


def test_a_batch_from_another_place_writes_nothing(desk: Desk) -> None:
    desk.bed.enqueue(desk.shop.mail)
    desk.look()
    before = dump(desk.store)
    place, at = next((place, at) for place, at in desk.store.offsets().items() if at)
    with pytest.raises(Overtaken), desk.store.writing() as sql:
        Batch(sql, {}).write([JobSeen(JOB, Place("t", 0, 0), False)], {place: (at - 1, at + 1)})
    assert dump(desk.store) == before


def test_other_search_fields_fill_it_anew(desk: Desk) -> None:
    ids = eventful(desk)
    desk.look()
    desk.projector.close()
    desk.projector.search = {"order.charge": ("amount",)}
    queries = desk.look()
    assert [row["id"] for row in queries.jobs(parse("amount:0", 0, ["amount"])).rows] == [ids["slow"]]
    assert found(queries, "order_id:2") == []


def test_another_log_is_refused(desk: Desk) -> None:
    desk.look()
    store = Store(desk.store.engine.url.render_as_string(hide_password=False), "other")
    with pytest.raises(ProjectionError, match="namespace shop, not other"):
        store.prepare("c", {})
    store.close()
    with pytest.raises(ProjectionError, match="cluster"):
        desk.store.prepare("another cluster", {})


def test_what_cannot_be_read_is_counted_and_hides_nothing(desk: Desk) -> None:
    ids = eventful(desk)
    producer = desk.bed.broker.producer()
    for topic in ("shop.status", "shop.jobs.mail", "shop.audit", "shop.dlq", "shop.control"):
        producer.append(OutRecord(topic, b"x\x00y", b"\xc3\x01no record at all"))
    producer.flush(5)
    producer.close()
    queries = desk.look()
    assert queries.freshness().unreadable == 4
    assert [row["reason"] for row in queries.letters().rows if not row["life"]] == ["newer_record"]
    assert queries.job(ids["good"]).job["state"] == "succeeded"


def test_jobs_go_when_the_log_has_forgotten_them(desk: Desk) -> None:
    ids = eventful(desk)
    desk.look()
    desk.projector._keep_ms = 60_000
    desk.bed.advance("5m")
    desk.look()
    desk.projector.forget()
    left = {row["id"] for row in desk.queries.jobs(parse("", 0)).rows}
    assert ids["good"] not in left
    assert ids["waiting"] in left, "it waits still, and is nobody's to forget"
    assert ids["bad"] in left, "its dead letter lies there"
    assert desk.queries.job(ids["bad"]).failures


# -- folding -----------------------------------------------------------------------------------------------------------


def status(state: State, at: int, life: int = 1) -> StatusRecord:
    return StatusRecord("j1", life, "order.charge", "orders", state, at, 1, "w")


@pytest.mark.parametrize("first", ["job", "status"])
def test_the_order_of_the_topics_does_not_matter(first: str) -> None:
    row = JobRow("j1")
    steps: list[Callable[[], bool]] = [
        lambda: fold_job(row, JOB, Place("shop.jobs.orders", 0, 4), in_chain=False),
        lambda: fold_status(row, status(State.DEAD, 5), 9),
    ]
    for step in steps if first == "job" else reversed(steps):
        step()
    row.settle()
    assert (row.state, row.changed_at, row.record.number, row.life) == ("dead", 5, 0, 1)


def test_a_later_life_begins_before_its_status_is_read() -> None:
    row = JobRow("j1")
    fold_status(row, status(State.DEAD, 5), 9)
    fold_job(row, JOB._replace(life=2, enqueued_at=50), Place("shop.jobs.orders.due", 0, 1), in_chain=False)
    row.settle()
    assert (row.state, row.life, row.changed_at) == ("queued", 2, 50)
    assert not fold_job(row, JOB, Place("shop.jobs.orders", 0, 4), in_chain=False), "an older life changes nothing"
    assert not fold_status(row, status(State.SUCCEEDED, 99), 10), "the first end of a life stands"


@pytest.mark.parametrize(("amount", "state"), [(7, "succeeded"), (-1, "dead"), (0, "retrying")])
def test_a_key_given_again_does_not_hide_how_its_job_stands(desk: Desk, amount: int, state: str) -> None:
    first = desk.bed.enqueue(desk.shop.charge, order(1, amount), idempotency_key="order-1").id
    desk.bed.advance("3s")
    assert desk.look().job(first).job["state"] == state
    again = desk.bed.enqueue(desk.shop.charge, order(1, amount), idempotency_key="order-1").id
    desk.bed.advance("1s")
    assert again == first
    assert desk.look().job(first).job["state"] == state, "the second record is let pass"
    assert desk.look().states() == {state: 1}


def test_a_key_that_keeps_others_out_until_its_end_begins_anew_after_it(desk: Desk) -> None:
    ids = set()
    for _ in range(3):
        job = desk.bed.enqueue(desk.shop.charge, order(1), idempotency_key="order-1", until="finished")
        ids.add(job.id)
        assert desk.look().job(job.id).job["state"] == "queued"
        desk.bed.advance("2s")
        assert desk.look().job(job.id).job["state"] == "succeeded"
    assert len(ids) == 1


def test_a_failure_told_twice_keeps_what_either_said() -> None:
    short, long = {"message": "m", "traceback": "whole"}, {"message": "message", "traceback": ""}
    assert fuller(short, long) == fuller(long, short) == {"message": "message", "traceback": "whole"}
    assert Failure("k", "m").traceback == ""


def test_only_plain_values_are_searched() -> None:
    payload = b'{"a": {"b": 1.5}, "yes": true, "none": null, "many": ["x", {"y": 1}, 2]}'
    job = JOB._replace(payload=payload)
    names = ("a.b", "a", "yes", "none", "many", "absent", "a.b.c")
    assert list(searchable(job, {"order.charge": names})) == [
        ("a.b", "1.5"),
        ("yes", "true"),
        ("many", "x"),
        ("many", "2"),
    ]
    assert list(searchable(job._replace(payload=b"[1]"), {"order.charge": names})) == []
    assert list(searchable(job._replace(payload=b"\xff"), {"order.charge": names})) == []
    assert StatusSeen(status(State.DEAD, 1), 0).offset == 0


def test_a_record_that_the_database_refuses_holds_nothing_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = eventful(desk)
    # What a database refuses differs; this is refused by each.
    real = folding.JobRow.columns
    bad = ids["bad"]

    def columns(row: JobRow) -> dict[str, Any]:
        return {**real(row), "type": None} if row.id == bad else real(row)

    monkeypatch.setattr(folding.JobRow, "columns", columns)
    queries = desk.look()
    assert queries.freshness().unreadable > 0
    assert queries.freshness().behind == 0
    assert queries.job(ids["good"]).job["state"] == "succeeded"
    assert queries.job(ids["slow"]).letters
    with pytest.raises(NotThere):
        queries.job(ids["bad"])


def test_a_payload_of_any_depth_is_projected_and_shown(desk: Desk) -> None:
    deep = b"[" * 20_000 + b"]" * 20_000
    for number, payload in enumerate((deep, b'{"order_id": NaN}', b"\xff\xfe")):
        job = JOB._replace(id=f"odd-{number}", payload=payload, queue="orders")
        producer = desk.bed.broker.producer()
        producer.append(OutRecord("shop.jobs.orders", job.id.encode(), encode(job)))
        producer.flush(5)
        producer.close()
    queries = desk.look()
    admin = User(name="a", role=Role.ADMIN)
    for number in range(3):
        facts = queries.job(f"odd-{number}")
        shown = shown_payload(facts.payload, admin, search=(), secret=())
        json.dumps(shown, allow_nan=False)
