"""The Testbed keeps what its documentation promises; the first test is the one from there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import pytest
from pydantic import BaseModel

from processor.admin.orders import Operator, cancel, go_on
from processor.app import App
from processor.context import AsyncContext, Context
from processor.errors import DefinitionError, JobFailed
from processor.policies import Backoff, Retry
from processor.states import State
from processor.testing import Testbed, TestbedError

app = App("shop")
app.queue("bulk", partitions=12, concurrency=50)


class Import(BaseModel):
    """A file to import."""

    url: str
    customer: str


class Tally(BaseModel):
    """What was imported."""

    good: int = 0


class Notice(BaseModel):
    """Whom to tell."""

    to: str


class Row(BaseModel):
    """A line of the file."""

    line: int
    refund: bool = False


def read_rows(url: str, after: int | None) -> Iterable[Row]:
    """A thousand rows; every hundredth is a refund."""
    return (Row(line=line, refund=line % 100 == 0) for line in range((after or 0) + 1, 1001))


def head(url: str) -> int:
    return 1000


def refund(row: Row) -> int:
    return row.line


def charge(customer: str, good: int) -> str:
    return f"{customer} pays for {good}"


@app.job("notify", payload=Notice)
def notify(ctx: Context, p: Notice) -> str:
    return f"dear {p.to}"


@app.job("import.file", queue="bulk", payload=Import, key=lambda p: p.customer)
def import_file(ctx: Context, p: Import) -> Tally:
    size = ctx.step("head", head, p.url)
    tally = ctx.state(Tally)
    rows = ctx.each("rows", lambda after: read_rows(p.url, after), cursor=lambda row: row.line, total=size)
    for row in rows:
        if row.refund:
            ctx.step("refund", refund, row)
        tally.good += 1
    ctx.once("charge", charge, p.customer, tally.good)
    ctx.spawn(notify, Notice(to=p.customer))
    return tally


@app.job("failing", retry=Retry(1))
def failing(ctx: Context) -> None:
    raise ValueError("this one always fails")


@app.job("long", payload=int, retry=Retry(3, Backoff("1s")))
def long(ctx: Context, rows: int) -> int:
    count = 0
    for row in ctx.each("rows", lambda after: range((after or 0) + 1, rows + 1), total=rows):
        count = row
    return count


@app.job("nap", payload=float)
async def nap(ctx: AsyncContext, seconds: float) -> float:
    await ctx.step("first", asyncio.sleep, seconds, 1)
    async for _ in ctx.each("turns", lambda after: range((after or 0) + 1, 6)):
        await asyncio.sleep(seconds)
    return seconds


ROWS = 1_000_000
FILE = Import(url="s3://bucket/rows.csv", customer="c1")


def test_resumes_after_a_crash(bed: Testbed) -> None:
    h = bed.enqueue(import_file, FILE)
    bed.crash_worker(at="rows", after=500)
    bed.drain()
    assert bed.runs(h, "head") == 1
    assert bed.reprocessed(h, "rows") <= bed.checkpoint_gap("rows")
    assert bed.result(h) == Tally(good=1000)


def test_the_gap_is_what_the_checkpoints_left_open(bed: Testbed) -> None:
    h = bed.enqueue(import_file, FILE)
    bed.crash_worker(at="rows", after=550)
    bed.drain()
    # Progress is written once a second, an item takes a hundredth: about a hundred items are at stake.
    assert 1 <= bed.checkpoint_gap("rows") <= 110
    assert bed.reprocessed(h, "rows") == bed.checkpoint_gap("rows")


def test_children_and_scoped_steps_are_seen(bed: Testbed) -> None:
    h = bed.enqueue(import_file, FILE)
    bed.drain()
    assert bed.runs(h, "refund") == 10
    assert bed.runs(h, "rows[300]/refund") == 1
    assert bed.runs(h, "refunds") == 0
    assert {status.type for status in bed.statuses if status.state is State.SUCCEEDED} == {"import.file", "notify"}


def test_crash_between_a_step_and_its_record_runs_it_again(bed: Testbed) -> None:
    h = bed.enqueue(import_file, FILE)
    bed.crash_worker(at="head")
    bed.drain()
    assert bed.runs(h, "head") == 2


def test_crash_inside_once_leaves_the_job_to_a_person(bed: Testbed) -> None:
    h = bed.enqueue(import_file, FILE)
    bed.crash_worker(at="charge")
    with pytest.raises(TestbedError, match=r"wait for a person.*in_doubt"):
        bed.drain()
    assert bed.status(h).state is State.IN_DOUBT
    assert bed.runs(h, "charge") == 1


def test_several_crashes_add_up(bed: Testbed) -> None:
    h = bed.enqueue(import_file, FILE)
    for after in (150, 420, 900):
        bed.crash_worker(at="rows", after=after)
    bed.drain()
    assert bed.reprocessed(h, "rows") == bed.checkpoint_gap("rows") > 0
    assert bed.result(h) == Tally(good=1000)


def test_workers_come_and_go_without_repeating_anything(bed: Testbed) -> None:
    h = bed.enqueue(import_file, FILE)
    bed.advance("1s")
    second = bed.add_worker()
    bed.advance("5s")
    bed.stop_worker()
    bed.drain()
    assert bed.workers == [second]
    assert bed.runs(h, "head") == 1
    assert bed.runs(h, "charge") == 1
    assert bed.result(h) == Tally(good=1000)


def test_crash_now_and_at_a_place_nobody_comes_to(bed: Testbed) -> None:
    h = bed.enqueue(notify, Notice(to="me"))
    bed.crash_worker()
    with pytest.raises(TestbedError, match="none came to 'rows' after 5 items"):
        bed.crash_worker(at="rows", after=5)
    assert bed.result(h) == "dear me"


def test_failed_job_is_a_dead_letter(bed: Testbed) -> None:
    h = bed.enqueue(failing)
    bed.drain()
    assert bed.status(h).state is State.DEAD
    assert [letter.id for letter in bed.dead_letters()] == [h.id]
    with pytest.raises(JobFailed, match="always fails"):
        bed.result(h)


def test_async_handlers_sleep_in_virtual_time(bed: Testbed) -> None:
    began = time.monotonic()
    jobs = [bed.enqueue(nap, 60.0) for _ in range(3)]
    bed.drain()
    assert [bed.result(h) for h in jobs] == [60.0] * 3
    assert time.monotonic() - began < 30


def test_async_handlers_resume_after_a_crash(bed: Testbed) -> None:
    h = bed.enqueue(nap, 2.0)
    bed.crash_worker(at="turns", after=3)
    bed.drain()
    assert bed.runs(h, "first") == 1
    assert bed.reprocessed(h, "turns") <= bed.checkpoint_gap("turns")


def test_job_that_never_ends_is_named(bed: Testbed) -> None:
    h = bed.enqueue(nap, 3600.0)
    with pytest.raises(TestbedError, match=rf"{h.id} \(nap\) is running"):
        bed.drain(limit="1m")


def test_one_bed_runs_one_app(bed: Testbed) -> None:
    bed.enqueue(notify, Notice(to="me"))
    other = App("other")

    @other.job("x")
    def x(ctx: Context) -> None: ...

    with pytest.raises(TestbedError, match="runs app shop"):
        bed.enqueue(x)


def test_app_is_free_again_after_the_bed() -> None:
    with Testbed(app) as bed:
        assert app.broker() is bed.broker
    assert app._bound is None


def test_a_seed_gives_the_same_run_every_time() -> None:
    def trace(seed: int) -> tuple[list[str], list[tuple[str, int]]]:
        with Testbed(app, seed=seed, workers=2) as bed:
            steps: list[str] = []
            bed.runtime.trace = steps
            bed.enqueue(import_file, FILE)
            bed.enqueue(nap, 1.0)
            bed.crash_worker(at="rows", after=120)
            bed.drain()
            return steps, [(status.id, status.at) for status in bed.statuses]

    assert trace(5) == trace(5)
    assert trace(5) != trace(6)


def test_bed_is_quick() -> None:
    def once(run: Callable[[Testbed], None]) -> float:
        began = time.process_time()
        with Testbed() as bed:
            run(bed)
        return time.process_time() - began

    assert once(test_resumes_after_a_crash) < 1.0


def test_a_handler_fails_where_the_test_says_and_is_tried_again(bed: Testbed) -> None:
    h = bed.enqueue(long, 1000)
    bed.fail(at="rows", after=500, error=ConnectionError("away"))
    bed.fail(at="rows", after=700, error=ConnectionError("away again"))
    bed.drain()
    assert bed.result(h) == 1000
    waits = [(s.attempt, s.error.message) for s in bed.statuses if s.state is State.RETRYING and s.error]
    assert waits == [(1, "away"), (2, "away again")]
    assert bed.reprocessed(h, "rows") == 2, "the two items that failed"


def test_a_step_fails_where_the_test_says(bed: Testbed) -> None:
    h = bed.enqueue(import_file, FILE)
    bed.fail(at="head")
    bed.drain()
    assert (bed.status(h).state, bed.status(h).attempt) == (State.SUCCEEDED, 2)
    (retrying,) = [s for s in bed.statuses if s.state is State.RETRYING]
    assert retrying.error is not None
    assert retrying.error.message == "the test lets 'head' fail"


@pytest.mark.slow
def test_a_job_that_failed_late_dies_is_redriven_and_reads_nothing_again() -> None:
    """At item 950,000 of 1,000,000, in each of its three attempts."""
    with Testbed(app, item_seconds=0.000_001) as bed:
        h = bed.enqueue(long, ROWS)
        bed.fail(at="rows", after=949_999, error=ValueError("row 950000 has no amount"), times=None)
        bed.drain()
        assert bed.status(h).state is State.DEAD
        (letter,) = bed.dead_letters()
        assert [failure.attempt for failure in letter.failures or ()] == [1, 2, 3]
        bed.mend()
        bed.redrive(h)
        bed.drain()
        assert bed.result(h) == ROWS
        assert bed.reprocessed(h, "rows") == 3, "the bad row itself, once in each later attempt"


def test_a_delayed_job_starts_when_it_is_due_and_not_before(bed: Testbed) -> None:
    plain = bed.enqueue(long, 5)
    bed.drain()
    assert bed.result(plain) == 5
    began = bed.runtime.clock.now_ms()
    h = long.enqueue(7, delay="10m")
    assert (h.status().state, h.status().due_at) == (State.SCHEDULED, began + 600_000)
    bed.advance("9m")
    assert h.status().state is State.SCHEDULED
    bed.advance("2m")
    assert bed.result(h) == 7
    (end,) = [s for s in bed.statuses if s.id == h.id and s.state is State.SUCCEEDED]
    assert began + 600_000 <= end.at < began + 602_000


def test_a_delayed_job_is_cancelled_at_once_or_starts_now(bed: Testbed) -> None:
    bed.enqueue(long, 1)
    bed.drain()
    soon, never = long.enqueue(3, delay="5m"), long.enqueue(4, delay="5m")
    who = Operator(clock=bed.runtime.clock, by="ada@desk")
    assert go_on(bed.broker, app.namespace, soon.id, who) == "attempt 1 begins now instead of later"
    status = cancel(bed.broker, app.namespace, never.id, who)
    assert status is not None
    assert status.state is State.SCHEDULED
    bed.advance("5s")
    assert bed.result(soon) == 3
    assert never.status().state is State.CANCELLED
    bed.advance("10m")
    assert bed.result(soon) == 3
    assert [s.state for s in bed.statuses if s.id == soon.id].count(State.SUCCEEDED) == 1
    assert [s.state for s in bed.statuses if s.id == never.id] == [State.CANCELLED]


def test_a_delayed_job_keeps_its_place_and_its_key(bed: Testbed) -> None:
    bed.enqueue(import_file, FILE)
    bed.drain()
    later = import_file.enqueue(FILE, delay="1m", id="later")
    bed.advance("2m")
    bed.drain()
    assert bed.result(later) == Tally(good=1000)
    with pytest.raises(DefinitionError, match="lane 'high' and a delay"):
        import_file.enqueue(FILE, delay="1m", lane="high")
