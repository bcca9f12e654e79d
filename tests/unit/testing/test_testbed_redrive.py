"""Dead letters and their way back, on the real worker over a log in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from processor.app import App
from processor.context import Context
from processor.job import CHILDREN_NAMED, Lane
from processor.policies import Backoff, Retry
from processor.states import State
from processor.testing import Testbed, TestbedError
from processor.wire.codec import decode_job
from processor.wire.topics import jobs_topic

app = App("redrives")
app.queue("bulk", partitions=12)


class Rows(BaseModel):
    """How many there are, and which cannot be taken in."""

    rows: int
    bad: int
    customer: str = "c1"


class Tally(BaseModel):
    """What was counted."""

    rows: int = 0


@dataclass
class World:
    """What is outside: whether the fix is out, and what handlers did."""

    fixed: bool = False
    read: list[int] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    heads: int = 0


world = World()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    world.fixed, world.heads = False, 0
    world.read.clear()
    world.children.clear()


def head() -> int:
    world.heads += 1
    return 7


def take_in(ctx: Context, p: Rows) -> Tally:
    ctx.step("head", head)
    tally = ctx.state(Tally)
    for row in ctx.each("rows", lambda after: range((after or 0) + 1, p.rows + 1), total=p.rows):
        if row == p.bad and not world.fixed:
            raise ValueError(f"row {row} has no amount")
        world.read.append(row)
        tally.rows += 1
    return tally


@app.job("plain", queue="bulk", payload=Rows, retry=Retry(2, Backoff("1s")))
def plain(ctx: Context, p: Rows) -> Tally:
    return take_in(ctx, p)


@app.job("keyed", queue="bulk", payload=Rows, key=lambda p: p.customer, retry=Retry(2, Backoff("1s")), kill_after="10m")
def keyed(ctx: Context, p: Rows) -> Tally:
    return take_in(ctx, p)


@app.job("child", queue="bulk", payload=int)
def child(ctx: Context, p: int) -> int:
    world.children.append(ctx.id)
    return p


@app.job("parent", queue="bulk", payload=Rows, retry=Retry(1))
def parent(ctx: Context, p: Rows) -> list[str]:
    names = []
    for row in ctx.each("rows", lambda after: range((after or 0) + 1, p.rows + 1)):
        if row == p.bad and not world.fixed:
            raise ValueError("not yet")
        names.append(ctx.spawn(child, row))
    return names


@app.job("outside", queue="bulk", payload=Rows, retry=Retry(3, Backoff("1s")))
def outside(ctx: Context, p: Rows) -> list[str]:
    """Starts its children outside of items and steps: these lines run again in each attempt and each life."""
    names = [ctx.spawn(child, row) for row in range(p.rows)]
    if not world.fixed:
        raise ValueError("not yet")
    return names


@app.job("stepped", queue="bulk", payload=Rows, retry=Retry(2, Backoff("1s")))
def stepped(ctx: Context, p: Rows) -> list[str]:
    names = ctx.step("start", lambda: [ctx.spawn(child, row) for row in range(p.rows)])
    if not world.fixed:
        raise ValueError("not yet")
    return names


FILE = Rows(rows=300, bad=250)


@pytest.mark.parametrize("job_type", [plain, keyed], ids=["plain", "keyed"])
@pytest.mark.parametrize("seed", range(3))
def test_a_redriven_job_goes_on_from_its_checkpoint(job_type: object, seed: int) -> None:
    with Testbed(app, seed=seed, workers=2) as bed:
        h = bed.enqueue(job_type, FILE)  # type: ignore[call-overload]  # either of two job types
        bed.drain()
        assert bed.status(h).state is State.DEAD
        world.fixed = True
        bed.redrive(h)
        assert bed.status(h).state is State.QUEUED
        bed.drain()
        assert bed.result(h) == Tally(rows=300)
        assert world.read == list(range(1, 301)), "no row twice, none left out"
        assert (world.heads, bed.runs(h, "head")) == (1, 1)
        with pytest.raises(TestbedError, match="has no open dead letter"):
            bed.redrive(h)


def test_a_redrive_from_zero_begins_at_the_beginning(bed: Testbed) -> None:
    h = bed.enqueue(plain, FILE)
    bed.drain()
    world.fixed = True
    world.read.clear()
    bed.redrive(h, from_zero=True)
    bed.drain()
    assert bed.result(h) == Tally(rows=300)
    assert world.read == list(range(1, 301))
    assert world.heads == 2


def test_redrive_from_zero_gets_new_children(bed: Testbed) -> None:
    h = bed.enqueue(parent, Rows(rows=4, bad=4))
    bed.drain()
    first = set(world.children)
    assert len(first) == 3
    world.fixed = True
    bed.redrive(h, from_zero=True)
    bed.drain()
    assert len(world.children) == len(set(world.children)) == 7
    names = bed.result(h)
    assert set(names) == set(world.children) - first


def test_children_of_finished_items_are_not_started_again_from_a_checkpoint(bed: Testbed) -> None:
    h = bed.enqueue(parent, Rows(rows=4, bad=4))
    bed.drain()
    world.fixed = True
    bed.redrive(h)
    bed.drain()
    assert len(world.children) == 4


@pytest.mark.parametrize("job_type", [outside, stepped])
def test_children_are_not_started_again_from_a_checkpoint(bed: Testbed, job_type: Any) -> None:
    """They are named in the dead letter, so it does not matter whether anybody remembers their ends."""
    h = bed.enqueue(job_type, Rows(rows=5, bad=0))
    bed.drain()
    (letter,) = bed.dead_letters()
    first = list(world.children)
    assert letter.children is not None
    assert sorted(letter.children) == sorted(first)
    assert len(first) == 5
    for life in (2, 3):
        bed.redrive(h)
        bed.drain()
        assert bed.status(h).life == life
    world.fixed = True
    bed.redrive(h)
    bed.drain()
    assert world.children == first
    assert bed.result(h) == letter.children
    records = [decode_job(record.value() or b"") for record in bed.broker.records(jobs_topic("redrives", "bulk"))]
    assert len([job for job in records if job.type == "child"]) == 5


def test_children_of_a_life_from_zero_are_kept_by_the_lives_after_it(bed: Testbed) -> None:
    h = bed.enqueue(outside, Rows(rows=2, bad=0))
    bed.drain()
    bed.redrive(h, from_zero=True)
    bed.drain()
    assert len(set(world.children)) == 4
    world.fixed = True
    bed.redrive(h)
    bed.drain()
    assert len(world.children) == 4
    assert bed.result(h) == sorted(world.children[2:], key=world.children.index)


def test_of_very_many_children_some_are_named(bed: Testbed) -> None:
    """A record does not grow with them; those that are not named start once all the same, by their marks."""
    h = bed.enqueue(outside, Rows(rows=CHILDREN_NAMED + 20, bad=0))
    bed.drain()
    (letter,) = bed.dead_letters()
    assert letter.children is not None
    assert len(letter.children) == CHILDREN_NAMED
    world.fixed = True
    bed.redrive(h)
    bed.drain()
    assert len(world.children) == len(set(world.children)) == CHILDREN_NAMED + 20


def test_redriven_job_is_never_dropped_as_seen(bed: Testbed) -> None:
    h = bed.enqueue(plain, FILE)
    bed.drain()
    for life in (2, 3, 4):
        bed.redrive(h)
        bed.drain()
        assert bed.status(h).state is State.DEAD
        assert [letter.id for letter in bed.dead_letters()] == [h.id] * life
    world.fixed = True
    bed.redrive(h)
    bed.drain()
    assert bed.result(h) == Tally(rows=300)
    assert world.read == list(range(1, 301))
    ends = [status.life for status in bed.statuses if status.state in (State.DEAD, State.SUCCEEDED)]
    assert ends == [1, 2, 3, 4, 5]


def test_a_new_life_fails_in_its_own_right(bed: Testbed) -> None:
    h = bed.enqueue(plain, FILE)
    bed.drain()
    bed.redrive(h)
    bed.drain()
    old, new = bed.dead_letters()
    assert [failure.attempt for failure in new.failures or []] == [1, 2]
    assert decode_job(new.job or b"").life == 2
    assert (decode_job(new.job or b"").redriven_from or "").partition("@")[2] == "0"
    assert old.progress is not None
    assert new.progress is not None, "what was carried and not changed is there still"


@pytest.mark.parametrize("seed", range(4))
def test_crashes_of_a_new_life_lose_nothing(seed: int) -> None:
    with Testbed(app, seed=seed, workers=2) as bed:
        h = bed.enqueue(keyed, Rows(rows=300, bad=100))
        bed.drain()
        world.fixed = True
        bed.redrive(h)
        bed.crash_worker(at="rows", after=200)
        bed.drain()
        assert bed.result(h) == Tally(rows=300)
        assert min(world.read[99:]) >= 100, "no worker begins before the checkpoint of the first life"
        assert sorted(set(world.read)) == list(range(1, 301))


def test_a_new_life_that_is_killed_before_it_saves_begins_where_the_old_one_stopped(bed: Testbed) -> None:
    h = bed.enqueue(plain, FILE)
    bed.drain()
    world.fixed = True
    bed.redrive(h)
    for _ in range(3):
        bed.crash_worker()
    bed.drain()
    assert world.read == list(range(1, 301))
    assert bed.result(h) == Tally(rows=300)


def test_the_kill_date_of_a_new_life_is_its_own(bed: Testbed) -> None:
    h = bed.enqueue(keyed, FILE)
    bed.drain()
    bed.advance("11m")
    world.fixed = True
    bed.redrive(h)
    bed.drain()
    assert bed.status(h).state is State.SUCCEEDED


def test_the_number_of_a_keyed_job_stays(bed: Testbed) -> None:
    handles = [bed.enqueue(keyed, FILE.model_copy(update={"customer": f"c{n}"})) for n in range(6)]
    bed.drain()
    homes = {letter.id: letter.partition for letter in bed.dead_letters()}
    world.fixed = True
    for handle in handles:
        bed.redrive(handle)
    bed.drain()
    due = bed.broker.records(jobs_topic("redrives", "bulk", Lane.DUE))
    lives = [(decode_job(record.value() or b""), record.partition()) for record in due]
    assert {job.id: partition for job, partition in lives if job.life == 2} == homes


def test_a_job_without_a_dead_letter_cannot_be_redriven(bed: Testbed) -> None:
    h = bed.enqueue(plain, Rows(rows=3, bad=9))
    bed.drain()
    with pytest.raises(TestbedError, match="has no open dead letter"):
        bed.redrive(h)
