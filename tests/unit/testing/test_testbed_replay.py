"""History that runs again, on the real worker over a log in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from pydantic import BaseModel

from processor.app import App
from processor.context import Context
from processor.policies import Backoff, Retry
from processor.states import State
from processor.testing import Testbed, TestbedError

app = App("replays")
app.queue("bulk", partitions=12)


class Rows(BaseModel):
    """How many there are, and which cannot be taken in."""

    rows: int
    bad: int = 0
    customer: str = "c1"
    number: int = 0


@dataclass
class World:
    """What is outside: whether the fix is out, and what handlers did."""

    fixed: bool = False
    read: list[int] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    children: list[str] = field(default_factory=list)


world = World()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    world.fixed = False
    for made in (world.read, world.ran, world.numbers, world.children):
        made.clear()


@app.job("rows", queue="bulk", payload=Rows, key=lambda p: p.customer, retry=Retry(2, Backoff("1s")))
def rows(ctx: Context, p: Rows) -> int:
    world.ran.append(ctx.id)
    world.numbers.append(p.number)
    count = 0
    for row in ctx.each("rows", lambda after: range((after or 0) + 1, p.rows + 1), total=p.rows):
        if row == p.bad and not world.fixed:
            raise ValueError(f"row {row} has no amount")
        world.read.append(row)
        count = row
    return count


@app.job("child", queue="bulk", payload=int)
def child(ctx: Context, p: int) -> int:
    world.children.append(ctx.id)
    return p


@app.job("parent", queue="bulk", payload=int)
def parent(ctx: Context, p: int) -> list[str]:
    world.ran.append(ctx.id)
    return [ctx.spawn(child, number) for number in range(p)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("same_ids", [False, True], ids=["new", "same"])
def test_a_replayed_job_goes_on_from_its_checkpoint_or_from_the_start(seed: int, same_ids: bool) -> None:
    with Testbed(app, seed=seed, workers=2) as bed:
        h = bed.enqueue(rows, Rows(rows=300, bad=250))
        bed.drain()
        assert bed.status(h).state is State.DEAD
        world.fixed = True
        world.read.clear()
        (again,) = bed.replay(h, same_ids=same_ids, from_checkpoint=True)
        assert (again == h.id) == same_ids
        bed.drain()
        assert bed.result(app.handle(again)) == 300
        assert world.read == list(range(250, 301)), "no row twice, none left out"
        world.read.clear()
        (third,) = bed.replay(h, same_ids=same_ids)
        bed.drain()
        assert bed.result(app.handle(third)) == 300
        assert world.read == list(range(1, 301)), "from the start"
        assert len(set(world.ran)) == (1 if same_ids else 3)


@pytest.mark.parametrize("seed", range(3))
def test_jobs_of_a_key_run_again_in_their_order(seed: int) -> None:
    with Testbed(app, seed=seed, workers=2) as bed:
        for number in range(24):
            bed.enqueue(rows, Rows(rows=1, bad=number % 3, customer=f"c{number % 4}", number=number))
        bed.drain()
        first = list(dict.fromkeys(world.numbers))
        world.fixed = True
        world.numbers.clear()
        bed.replay()
        bed.drain()
        assert len(world.numbers) == 24
        for customer in range(4):
            mine = list(range(customer, 24, 4))
            assert [one for one in first if one in mine] == mine
            assert [one for one in world.numbers if one in mine] == mine


@pytest.mark.parametrize("same_ids", [False, True], ids=["new", "same"])
def test_a_parent_starts_its_children_anew_and_they_are_not_sent_beside(bed: Testbed, same_ids: bool) -> None:
    bed.enqueue(parent, 3)
    bed.drain()
    assert len(world.children) == 3
    again = bed.replay(same_ids=same_ids)
    bed.drain()
    assert len(again) == 1
    assert len(world.ran) == 2
    assert len(set(world.children)) == len(world.children) == 6


def test_a_replay_by_state_leaves_the_others_alone(bed: Testbed) -> None:
    good, bad = bed.enqueue(rows, Rows(rows=2)), bed.enqueue(rows, Rows(rows=2, bad=2, customer="c2"))
    bed.drain()
    world.fixed = True
    world.ran.clear()
    bed.replay(states=("dead",), same_ids=True)
    bed.drain()
    assert world.ran == [bad.id]
    assert (bed.status(bad).state, bed.status(good).state) == (State.SUCCEEDED, State.SUCCEEDED)
    with pytest.raises(TestbedError, match="no job to replay"):
        bed.replay(states=("dead",))
    with pytest.raises(TestbedError, match="nobody"):
        bed.replay("nobody")
