"""Counts that are kept are what counting would say, however the records came in and whatever was forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Table, select

from processor.broker.base import TopicPartition
from processor.job import ErrorInfo, Job, Place
from processor.ops import tables
from processor.ops.applying import Batch
from processor.ops.filters import parse
from processor.ops.folding import JobSeen, Seen, StatusSeen
from processor.ops.queries import LetterSet, Queries
from processor.ops.store import Store
from processor.ops.tallies import BAD, ENDED, GOOD, JOBS, LETTERS
from processor.states import State
from processor.wire.records import StatusRecord
from tests.unit.ops.conftest import Desk
from tests.unit.ops.dump import dump
from tests.unit.ops.test_projection import eventful

PLACE = TopicPartition("shop.jobs.orders", 0)


def kept(store: Store, table: Table, names: Sequence[str]) -> dict[tuple[Any, ...], int]:
    with store.engine.connect() as sql:
        rows = sql.execute(select(table)).mappings().all()
    return {tuple(row[name] for name in names): row["amount"] for row in rows}


def counted(store: Store, table: Table, names: Sequence[str]) -> dict[tuple[str, ...], int]:
    found: Counter[tuple[str, ...]] = Counter()
    with store.engine.connect() as sql:
        for row in sql.execute(select(table)).mappings():
            known = dict(row)
            if table is tables.jobs and not known["fingerprint"]:
                known["error_kind"] = ""
            found[tuple(known[name] for name in names)] += 1
    return dict(found)


def tallied(store: Store) -> None:
    """The counts are those of the rows."""
    assert kept(store, tables.tallies, JOBS) == counted(store, tables.jobs, JOBS)
    ended: Counter[tuple[int, str, str]] = Counter()
    with store.engine.connect() as sql:
        for row in sql.execute(select(tables.jobs).where(tables.jobs.c.state.in_([*GOOD, *BAD]))):
            ended[row.changed_at // 60_000, row.queue, row.state] += 1
    assert kept(store, tables.ended, ENDED) == ended
    assert kept(store, tables.letter_tallies, LETTERS) == counted(store, tables.letters, LETTERS)


def test_they_are_what_counting_says_also_after_forgetting(desk: Desk) -> None:
    eventful(desk)
    desk.look()
    tallied(desk.store)
    assert desk.queries.letter_count(LetterSet(type="order.charge"), "open") == 1
    assert desk.queries.count(parse("type:order.* state:dead", 0)) == 2
    desk.projector._keep_ms = 60_000
    desk.bed.advance("5m")
    desk.look()
    before = kept(desk.store, tables.tallies, JOBS)
    desk.projector.forget()
    tallied(desk.store)
    assert kept(desk.store, tables.tallies, JOBS) != before, "something was forgotten"


def record(job_id: str, life: int, state: str, failed: bool) -> Seen:
    """A job's record, or a status of it."""
    if state == "record":
        job = Job(job_id, "order.charge", 1, "orders", b"{}", 1_000 + life, number=0, life=life)
        return JobSeen(job, Place(PLACE.topic, 0, 0), False)
    error = ErrorInfo("builtins.ValueError", "no", fingerprint=f"{life:012x}") if failed else None
    status = StatusRecord(job_id, life, "order.charge", "orders", State(state), 2_000 + life, 1, "w", error=error)
    return StatusSeen(status, 0)


RECORDS = st.lists(
    st.builds(
        record,
        st.sampled_from(["a", "b", "c"]),
        st.integers(1, 3),
        st.sampled_from(["record", "running", "retrying", "dead", "succeeded", "cancelled"]),
        st.booleans(),
    ),
    max_size=25,
)


# Without shrinking: that takes minutes.
@settings(max_examples=40, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(records=RECORDS, size=st.integers(1, 9), torn=st.integers(0, 25))
def test_of_any_records_in_any_batches_also_torn_ones(records: list[Seen], size: int, torn: int) -> None:
    records = [each._replace(offset=at) if isinstance(each, StatusSeen) else each for at, each in enumerate(records)]
    stores = [grown(records, size, torn), grown(records, 100, -1)]
    tallied(stores[0])
    held: list[dict[str, Any]] = [dump(store) for store in stores]
    for store in stores:
        store.close()
    assert held[0] == held[1]


def grown(records: list[Seen], size: int, torn: int) -> Store:
    """A projection of these records; the batch at `torn` is written, lost before its commit, and written again."""
    store = Store("sqlite:///:memory:", "shop")
    store.prepare("c", {})
    store.begin_at([(PLACE, 0)])
    for start in range(0, len(records), size):
        part = records[start : start + size]
        step = {PLACE: (start, start + len(part))}
        if start <= torn < start + size:
            tear(store, lambda sql, part=part, step=step: Batch(sql, {}).write(part, step))  # type: ignore[misc]  # bound now
        with store.writing() as sql:
            Batch(sql, {}).write(part, step)
    return store


class Torn(Exception):
    """The process is gone before the commit."""


def tear(store: Store, write: Callable[[Any], None]) -> None:
    try:
        with store.writing() as sql:
            write(sql)
            raise Torn
    except Torn:
        pass


def test_a_list_asks_of_what_there_is_only(desk: Desk) -> None:
    eventful(desk)
    assert desk.look().jobs(parse("type:nothing.*", 0)).rows == []
    assert Queries(desk.store).count(parse("error:KeyError", 0)) == 0
