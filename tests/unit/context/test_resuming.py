"""Whatever ends an attempt, and wherever: the next ones finish what a run without interruption would have done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from enum import Enum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from processor.clock import ManualClock
from processor.context import AsyncContext, Context, StepInDoubt
from processor.errors import JobYielded
from processor.job import Step, StepPhase
from tests.unit.context.recording_port import Crash, Log, RecordingPort

quick = settings(max_examples=150, derandomize=True, deadline=None)


class Tally(BaseModel):
    rows: int = 0
    parts: int = 0
    rest: int = 0
    padding: str = ""


class Kind(Enum):
    CRASH = "crash"
    FAIL = "fail"
    STOP = "stop"


class World:
    """What lies outside the job: what really happened, and when the job is interrupted."""

    def __init__(self, plan: dict[int, Kind], flushes: set[int], *, large: bool) -> None:
        self.plan = plan
        self.flushes = flushes
        self.large = large
        self.ticks = 0
        self.log = Log()
        self.clock = ManualClock()
        self.ran: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.port = RecordingPort(self.log)
        self.seen: list[str] = []

    def tick(self, call: str = "body") -> None:
        self.ticks += 1
        self.clock.advance(0.3)
        if self.ticks in self.flushes:
            self.port.flush()
        kind = self.plan.get(self.ticks)
        if kind is Kind.CRASH:
            raise Crash
        if kind is Kind.STOP or (kind is Kind.FAIL and call != "body"):
            self.port.interrupted = True
        elif kind is Kind.FAIL:
            raise ConnectionError("planned")

    def run(self, name: str, value: int) -> int:
        assert name not in self.log.writes, f"the log saw {name} finish"
        self.ran[name] += 1
        self.tick("body")
        return value

    def charge(self) -> str:
        self.ran["charge"] += 1
        return "receipt"

    def attempt(self) -> RecordingPort:
        self.port = RecordingPort(self.log, clock=self.clock, on_call=self.tick)
        return self.port


def after(items: range, cursor: int | None) -> Iterator[int]:
    return iter(items if cursor is None else range(cursor + 1, items.stop))


def handler(ctx: Context, world: World) -> Tally:
    tally = ctx.state(Tally)
    ctx.step("head", world.run, "head", 7)
    for row in ctx.each("rows", lambda done: after(range(8), done), total=8):
        world.tick()
        if row % 3 == 0:
            ctx.step("refund", world.run, f"rows[{row}]/refund", row)
        if row % 4 == 1:
            for part in ctx.each("parts", lambda done: after(range(3), done)):
                tally.parts += 10**part
                world.tick()
                ctx.step("glue", world.run, f"rows[{row}]/parts[{part}]/glue", part)
        tally.rows += 1 << row
        if world.large:
            tally.padding = "x" * 5000
        world.tick()
    ctx.once("charge", world.charge)
    for _ in ctx.each("rest", lambda done: after(range(5), done)):
        tally.rest += 1
        world.tick()
    ctx.finish()
    return tally.model_copy()


def interrupted_run(world: World) -> Tally:
    for _ in range(len(world.plan) + 3):
        port = world.attempt()
        try:
            return handler(Context(port), world)
        except Crash:
            continue
        except StepInDoubt as doubt:
            decide(world, doubt.step)
        except (JobYielded, ConnectionError):
            port.flush()
    raise AssertionError("the job does not end")


def decide(world: World, step: str) -> None:
    """What an operator does: look whether it happened. Only a process that died leaves such doubt."""
    assert Kind.CRASH in world.plan.values()
    if world.ran["charge"]:
        world.log.steps[step] = Step(step, StepPhase.FINISHED, '"receipt"')
    else:
        del world.log.steps[step]


plans = st.dictionaries(st.integers(1, 250), st.sampled_from(Kind), max_size=6)


@quick
@given(plan=plans, flushes=st.sets(st.integers(1, 250), max_size=40), large=st.booleans())
def test_totals_are_those_of_an_uninterrupted_run(plan: dict[int, Kind], flushes: set[int], large: bool) -> None:
    world = World(plan, flushes, large=large)

    tally = interrupted_run(world)

    assert tally == Tally(rows=255, parts=222, rest=5, padding="x" * 5000 if large else "")
    assert world.ran["charge"] == 1


@quick
@given(stops=st.sets(st.integers(1, 250), max_size=6))
def test_a_step_runs_once_if_the_job_is_only_stopped(stops: set[int]) -> None:
    world = World(dict.fromkeys(stops, Kind.STOP), set(), large=False)

    interrupted_run(world)

    assert set(world.ran.values()) == {1}


@quick
@given(plan=plans, flushes=st.sets(st.integers(1, 250), max_size=40))
def test_nothing_is_left_in_the_log_of_finished_items(plan: dict[int, Kind], flushes: set[int]) -> None:
    world = World(plan, flushes, large=False)
    interrupted_run(world)

    world.port.flush()

    assert set(world.log.steps) <= {"head", "charge"}


async def handle_async(ctx: AsyncContext, world: World) -> Tally:
    async def run(name: str, value: int) -> int:
        return world.run(name, value)

    tally = ctx.state(Tally)
    await ctx.step("head", run, "head", 7)
    async for row in ctx.each("rows", lambda done: after(range(8), done), total=8):
        world.tick()
        if row % 3 == 0:
            await ctx.step("refund", run, f"rows[{row}]/refund", row)
        if row % 4 == 1:
            async for part in ctx.each("parts", lambda done: after(range(3), done)):
                tally.parts += 10**part
                world.tick()
                await ctx.step("glue", world.run, f"rows[{row}]/parts[{part}]/glue", part)
        tally.rows += 1 << row
        world.tick()
    await ctx.once("charge", world.charge)
    async for _ in ctx.each("rest", lambda done: after(range(5), done)):
        tally.rest += 1
        world.tick()
    ctx.finish()
    return tally.model_copy()


@quick
@given(plan=plans, flushes=st.sets(st.integers(1, 250), max_size=40))
def test_async_handlers_resume_in_the_same_way(plan: dict[int, Kind], flushes: set[int]) -> None:
    sync_world, async_world = World(plan, flushes, large=False), World(plan, flushes, large=False)

    expected = interrupted_run(sync_world)
    for _ in range(len(plan) + 3):
        port = async_world.attempt()
        coroutine = handle_async(AsyncContext(port), async_world)
        try:
            coroutine.send(None)
        except StopIteration as returned:
            result = returned.value
            break
        except Crash:
            continue
        except StepInDoubt as doubt:
            decide(async_world, doubt.step)
        except (JobYielded, ConnectionError):
            port.flush()
    else:
        pytest.fail("the job does not end")

    assert result == expected
    assert async_world.log.writes == sync_world.log.writes
