"""Time limits as a user meets them, on the real worker over a log in memory and in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel

from processor.app import App
from processor.context import AsyncContext, Context
from processor.declarations import EnqueueOptions
from processor.errors import DefinitionError
from processor.policies import Backoff, Retry
from processor.states import State
from processor.testing import Testbed
from processor.wire.records import StatusRecord

app = App("limits")
app.queue("q", partitions=3)
LATER = datetime(2030, 1, 1, tzinfo=UTC)
TWICE = Retry(2, Backoff("1s"))


class Rows(BaseModel):
    count: int = 1000


@dataclass
class World:
    """What handlers saw."""

    bed: Testbed | None = None
    rows: list[int] = field(default_factory=list)
    deadlines: list[datetime | None] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        """As `time.sleep` in a thread that ignores everything, in virtual time."""
        assert self.bed is not None
        self.bed.runtime.pass_time(seconds)


world = World()


@pytest.fixture(autouse=True)
def _fresh(bed: Testbed) -> Iterator[None]:
    world.bed = bed
    yield
    for seen in (world.rows, world.deadlines, world.stops):
        seen.clear()


@app.job("rows", queue="q", payload=Rows, retry=TWICE, attempt_timeout="10s", kill_after="1h")
def rows(ctx: Context, p: Rows) -> int:
    world.deadlines.append(ctx.deadline)
    for row in ctx.each("rows", lambda after: range((after or 0) + 1, p.count + 1), every="100ms"):
        world.rows.append(row)
        world.sleep(1.0)
    return p.count


@app.job("polite", queue="q", retry=Retry(1), attempt_timeout="10s")
def polite(ctx: Context) -> str:
    while not ctx.cancelled:
        world.sleep(0.5)
    world.stops.append("heard")
    ctx.heartbeat()
    return "never"


@app.job("deaf", queue="q", retry=TWICE, attempt_timeout="10s", kill_after="1h")
def deaf(ctx: Context) -> str:
    world.sleep(600.0)
    world.stops.append("woke")
    return "too late"


@app.job("deaf.async", queue="q", retry=Retry(1), attempt_timeout="10s")
async def deaf_async(ctx: AsyncContext) -> str:
    for _ in range(3):
        try:
            await asyncio.sleep(60.0)
        except asyncio.CancelledError:
            world.stops.append("swallowed")
    return "too late"


@app.job("polite.async", queue="q", retry=Retry(1), stall_timeout="10s")
async def polite_async(ctx: AsyncContext) -> None:
    try:
        await asyncio.sleep(3600.0)
    finally:
        world.stops.append("cleaned up")


@app.job("parent", queue="q", kill_after="30s")
def parent(ctx: Context) -> str:
    return ctx.spawn(rows, Rows(count=3))


@app.job("quick", queue="q", queue_timeout="20s")
def quick(ctx: Context) -> int:
    return ctx.attempt


def kinds_of(bed: Testbed) -> list[list[str]]:
    return [[failure.kind for failure in letter.failures or []] for letter in bed.dead_letters()]


def moment_of(bed: Testbed, seconds: float) -> datetime:
    return datetime.fromtimestamp(bed.runtime.clock.now_ms() / 1000 + seconds, UTC)


def last(bed: Testbed, state: State) -> StatusRecord:
    return next(status for status in reversed(bed.statuses) if status.state is state)


def test_what_a_timed_out_attempt_saved_stays_and_the_next_goes_on(bed: Testbed) -> None:
    job = bed.enqueue(rows, Rows(count=15))
    bed.drain()
    assert bed.status(job).state is State.SUCCEEDED
    assert world.rows == sorted(set(world.rows)), "no row twice"
    retried = last(bed, State.RETRYING)
    assert retried.error is not None
    assert (retried.error.kind, retried.error.message) == ("timeout", "the attempt took longer than 10 s")


def test_the_deadline_is_told_to_the_handler_and_to_whoever_asks(bed: Testbed) -> None:
    began = moment_of(bed, 0)
    killed = moment_of(bed, 5)
    job = bed.enqueue(rows, Rows(), kill_at=killed)
    timed = bed.enqueue(rows, Rows(count=8))
    bed.advance("3s")
    ends = [deadline for deadline in world.deadlines if deadline is not None]
    assert min(ends) == killed
    assert began + timedelta(seconds=10) <= max(ends) <= began + timedelta(seconds=11)
    assert bed.status(job).ends_at == round(killed.timestamp() * 1000)
    assert bed.status(timed).ends_at == round(max(ends).timestamp() * 1000)
    bed.drain()
    assert bed.status(job).state is State.KILLED
    assert bed.status(job).ends_at is None
    assert last(bed, State.KILLED).note == "its kill date came while it ran"
    assert bed.status(timed).state is State.SUCCEEDED


def test_a_handler_that_asks_and_says_so_is_stopped_before_the_grace(bed: Testbed) -> None:
    job = bed.enqueue(polite)
    bed.advance("11s")
    assert world.stops == ["heard"]
    assert bed.status(job).state is State.DEAD
    assert kinds_of(bed) == [["timeout"]]


def test_a_thread_that_ignores_its_token_is_left_behind(bed: Testbed) -> None:
    job = bed.enqueue(deaf)
    bed.advance("14s")
    assert bed.status(job).state is State.RUNNING, "the grace is 5 s"
    bed.drain()
    assert (bed.status(job).state, world.stops) == (State.DEAD, [])
    assert kinds_of(bed) == [["timeout", "timeout"]]
    bed.advance("20m")
    assert world.stops == ["woke", "woke"]
    assert bed.status(job).state is State.DEAD, "what it returns then is nobody's"


def test_a_coroutine_that_swallows_its_cancel_is_left_behind(bed: Testbed) -> None:
    job = bed.enqueue(deaf_async)
    bed.drain()
    assert (bed.status(job).state, world.stops) == (State.DEAD, ["swallowed"])
    assert kinds_of(bed) == [["timeout"]]


def test_a_coroutine_that_waits_for_ever_is_cancelled_and_cleans_up(bed: Testbed) -> None:
    job = bed.enqueue(polite_async)
    bed.drain()
    assert (bed.status(job).state, world.stops) == (State.DEAD, ["cleaned up"])
    assert kinds_of(bed) == [["stall"]]
    (letter,) = bed.dead_letters()
    assert "nothing saved and no heartbeat for 10 s" in (letter.failures or [])[-1].message


@pytest.mark.parametrize("type_", ["deaf", "rows"])
def test_a_kill_date_given_at_the_enqueue_goes_before_that_of_the_type(bed: Testbed, type_: str) -> None:
    job = bed.enqueue(deaf, kill_after="4s") if type_ == "deaf" else bed.enqueue(rows, Rows(), kill_after="4s")
    bed.advance("12s")
    assert bed.status(job).state is State.KILLED
    (letter,) = bed.dead_letters()
    assert letter.reason == "killed"
    assert (letter.progress is not None) is (type_ == "rows"), "what it had saved is kept"
    assert [failure.attempt for failure in letter.failures or []] == [1], "it was ended while it ran"
    longer = bed.enqueue(rows, Rows(count=1), kill_after="5h")
    bed.drain()
    assert bed.status(longer).state is State.SUCCEEDED
    (told,) = {status.kill_at for status in bed.statuses if status.id == longer.id and status.kill_at is not None}
    assert told > bed.runtime.clock.now_ms() + 4 * 3_600_000


@app.job("slow", queue="q", retry=Retry(2, Backoff("10m")))
def slow(ctx: Context) -> None:
    raise ConnectionError("away")


def test_a_job_that_waits_in_the_chain_is_killed_on_its_date_and_not_when_it_is_due(bed: Testbed) -> None:
    job = bed.enqueue(slow, kill_after="40s")
    bed.advance("38s")
    assert last(bed, State.RETRYING).kill_at is not None
    assert bed.status(job).state is State.RETRYING
    bed.advance("7s")
    assert bed.status(job).state is State.KILLED
    (letter,) = bed.dead_letters()
    tried = [(failure.kind, failure.attempt) for failure in letter.failures or []]
    assert tried == [("builtins.ConnectionError", 1), ("killed", 0)], "no second attempt was begun"


def test_a_child_never_outlives_the_kill_date_of_its_parent(bed: Testbed) -> None:
    job = bed.enqueue(parent)
    bed.advance("2s")
    kill_at = bed.runtime.clock.now_ms() + 28_000
    child = bed.result(job)
    running = [status for status in bed.statuses if status.id == child and status.state is State.RUNNING]
    assert running
    assert running[-1].kill_at is not None
    assert running[-1].kill_at <= kill_at, "its own type would give it an hour"
    bed.drain()


def test_a_job_that_waited_too_long_expires_and_one_that_has_begun_does_not(bed: Testbed) -> None:
    job = bed.enqueue(quick, delay="1m")
    bed.drain()
    assert bed.status(job).state is State.SUCCEEDED, "it counts from when it is due"


@pytest.mark.parametrize("how", [{"kill_after": "0s"}, {"kill_after": "1h", "kill_at": LATER}])
def test_an_enqueue_whose_kill_date_makes_no_sense_is_refused(bed: Testbed, how: EnqueueOptions) -> None:
    with pytest.raises(DefinitionError):
        bed.enqueue(rows, Rows(), **how)
    with pytest.raises(DefinitionError, match="killed before it is due"):
        bed.enqueue(rows, Rows(), delay="2h")
    assert bed.enqueue(rows, Rows(count=1), delay="2h", kill_after="3h").id
    with pytest.raises(DefinitionError, match="is 0"):
        app.job("never", queue="q", attempt_timeout=0)
