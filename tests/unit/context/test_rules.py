"""The rules of one attempt, one by one. How they work together under interruptions: test_resuming."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

from processor.broker.base import OutRecord
from processor.clock import ManualClock
from processor.context import AsyncContext, Context, ContextLimits, StepFailed, StepInDoubt
from processor.errors import (
    CheckpointTooLarge,
    CursorType,
    DuplicateName,
    HandlerMistake,
    JobYielded,
    ResultType,
    StateChanged,
    StepChanged,
)
from processor.job import Job, LoopProgress, Progress, Step, StepPhase
from tests.unit.context.recording_port import JOB, Log, RecordingPort


class Tally(BaseModel):
    n: int = 0
    padding: str = ""


@dataclasses.dataclass
class Receipt:
    id: str
    at: datetime


def one() -> int:
    return 1


def finished(name: str, result: str = "1") -> Step:
    return Step(name, StepPhase.FINISHED, result)


def resumed(progress: Progress | None = None, *steps: Step) -> RecordingPort:
    return RecordingPort(Log(progress, {step.name: step for step in steps}))


def numbers(last: int) -> Any:
    return lambda done: range((done or 0) + 1, last + 1)


def durable(port: RecordingPort) -> list[str]:
    """Names of the steps that the log holds after a flush."""
    port.flush()
    return sorted(port.log.steps)


# -- steps -------------------------------------------------------------------------------------------------------------


def test_a_step_is_restored_through_its_return_annotation() -> None:
    receipt = Receipt("r-1", datetime(2026, 7, 1, tzinfo=UTC))

    def pay(amount: int) -> Receipt:
        return receipt

    log = Log()
    port = RecordingPort(log)
    assert Context(port).step("pay", pay, 5) is receipt
    port.flush()

    assert Context(RecordingPort(log)).step("pay", pay, 5) == receipt


@pytest.mark.parametrize("function", [partial(one), lambda: 1, int, Tally], ids=["partial", "lambda", "class", "model"])
def test_whatever_can_be_called_can_be_a_step(function: Any) -> None:
    log = Log()
    port = RecordingPort(log)
    value = Context(port).step("x", function)
    port.flush()

    assert Context(RecordingPort(log)).step("x", function) == value


def test_a_result_that_would_come_back_changed_is_refused() -> None:
    with pytest.raises(ResultType, match="comes back as") as caught:
        Context(RecordingPort()).step("pair", lambda: (1, 2))

    assert "annotate" in caught.value.hint


def test_a_result_of_another_type_than_annotated_is_refused() -> None:
    def wrong() -> int:
        return "five"  # type: ignore[return-value]  # what this test is about

    with pytest.raises(ResultType, match="wrong"):
        Context(RecordingPort()).step("x", wrong)


def test_a_saved_result_that_no_longer_fits_says_so() -> None:
    with pytest.raises(ResultType, match="cannot be read back"):
        Context(resumed(None, finished("x", '"text"'))).step("x", one)


def test_a_result_over_the_limit_names_both_sizes() -> None:
    port = RecordingPort(limits=ContextLimits(checkpoint_max_bytes=100))

    with pytest.raises(CheckpointTooLarge, match=r"'x' takes 202 bytes, 100 are allowed"):
        Context(port).step("x", lambda: "a" * 200)


def test_two_steps_of_one_name_are_refused_within_a_scope_only() -> None:
    ctx = Context(RecordingPort())
    for _ in ctx.each("rows", numbers(2)):
        ctx.step("x", one)
    ctx.step("x", one)

    with pytest.raises(DuplicateName, match="'x' is used twice"):
        ctx.step("x", one)


def test_names_with_slashes_and_brackets_cannot_be_taken_for_scopes() -> None:
    port = RecordingPort()
    ctx = Context(port)
    ctx.step("rows[1]/x", one)
    for _ in ctx.each("rows", lambda done: ["a/b]/x"]):
        ctx.step("x", one)
        port.flush()
        assert sorted(port.log.steps) == ["rows%5B1]%2Fx", 'rows["a/b]/x"]/x']


def test_a_saved_step_never_asked_for_is_named_with_the_new_ones() -> None:
    ctx = Context(resumed(None, finished("old")))
    ctx.step("new", one)

    with pytest.raises(StepChanged, match="never asked for: 'old'; new in this attempt: 'new'"):
        ctx.finish()


def test_a_loop_never_asked_for_is_a_change_too() -> None:
    ctx = Context(resumed(Progress(loops={"rows": LoopProgress("5", 5, None, False)})))

    with pytest.raises(StepChanged, match="'rows'"):
        ctx.finish()


def test_steps_of_a_renamed_loop_are_a_change_even_before_its_first_save() -> None:
    ctx = Context(resumed(None, finished("rows[1]/x")))
    list(ctx.each("lines", numbers(2)))

    with pytest.raises(StepChanged, match=r"rows\[1\]/x"):
        ctx.finish()


def test_a_step_gone_from_an_item_is_found_at_the_items_end() -> None:
    ctx = Context(resumed(None, finished("rows[1]/old")))

    with pytest.raises(StepChanged, match=r"rows\[1\]/old"):
        list(ctx.each("rows", numbers(2)))


def test_steps_left_over_from_finished_items_are_no_change_and_are_forgotten() -> None:
    port = resumed(Progress(loops={"rows": LoopProgress("5", 5, None, False)}), finished("rows[5]/x"))
    ctx = Context(port)
    for _ in ctx.each("rows", numbers(6)):
        ctx.once("y", one)
    ctx.finish()

    assert durable(port) == []


@pytest.mark.parametrize("exhausted", [True, False], ids=["exhausted before", "left by break"])
def test_steps_left_over_are_no_change_either_if_the_loop_yields_nothing_more(exhausted: bool) -> None:
    ctx = Context(resumed(Progress(loops={"rows": LoopProgress("5", 5, None, exhausted)}), finished("rows[5]/x")))
    for _ in ctx.each("rows", numbers(9)):
        break

    ctx.finish()


# -- once --------------------------------------------------------------------------------------------------------------


def test_once_is_durable_before_it_starts_and_after_it_ends() -> None:
    port = RecordingPort()
    during: list[Step] = []

    def charge() -> int:
        during.extend(port.log.steps.values())
        return 1

    assert Context(port).once("charge", charge) == 1
    assert during == [Step("charge", StepPhase.STARTED)]
    assert port.log.steps["charge"] == finished("charge")


def test_once_found_started_is_in_doubt_and_no_exception_handler_eats_it() -> None:
    ctx = Context(resumed(None, Step("charge", StepPhase.STARTED)))

    def handler() -> None:
        try:
            ctx.once("charge", one)
        except Exception:  # noqa: BLE001  (what a careless handler does)
            pytest.fail("doubt was eaten")

    with pytest.raises(StepInDoubt) as caught:
        handler()
    assert caught.value.step == "charge"


def test_once_that_raised_is_over() -> None:
    def charge() -> int:
        raise ConnectionError("card refused")

    log = Log()
    with pytest.raises(ConnectionError):
        Context(RecordingPort(log)).once("charge", charge)

    with pytest.raises(StepFailed, match=r"builtins.ConnectionError: card refused"):
        Context(RecordingPort(log)).once("charge", one)


def test_once_whose_result_cannot_be_saved_is_over_as_well() -> None:
    log = Log()
    with pytest.raises(ResultType):
        Context(RecordingPort(log)).once("charge", lambda: {1, 2}.__iter__())

    assert log.steps["charge"].phase is StepPhase.FAILED


def test_a_new_once_does_not_run_while_saved_steps_are_unasked_for() -> None:
    ran: list[int] = []
    ctx = Context(resumed(None, finished("old")))

    with pytest.raises(StepChanged, match="'charge' is new and must run only once"):
        ctx.once("charge", lambda: ran.append(1))
    assert ran == []


def test_a_stop_does_not_put_a_once_in_doubt() -> None:
    log = Log()
    port = RecordingPort(log)
    ctx = Context(port)

    def charge() -> int:
        port.interrupted = True
        ctx.heartbeat()
        return 1

    with pytest.raises(JobYielded):
        ctx.once("charge", charge)
    port.flush()
    assert log.steps["charge"] == finished("charge")


def test_a_once_stopped_before_it_was_called_leaves_no_start() -> None:
    log = Log()
    port = RecordingPort(log, on_call=lambda call: setattr(port, "interrupted", True))

    with pytest.raises(JobYielded):
        Context(port).once("charge", lambda: pytest.fail("called"))
    port.flush()
    assert log.steps == {}


# -- loops -------------------------------------------------------------------------------------------------------------


def test_a_loop_goes_on_after_the_last_finished_item() -> None:
    log = Log()
    port = RecordingPort(log)
    with contextlib.suppress(ConnectionError):
        for row in Context(port).each("rows", numbers(5)):
            if row == 3:
                raise ConnectionError
    port.flush()

    assert list(Context(RecordingPort(log)).each("rows", numbers(5))) == [3, 4, 5]


def test_an_exhausted_loop_yields_nothing_and_does_not_ask_its_source() -> None:
    log = Log()
    port = RecordingPort(log)
    list(Context(port).each("rows", numbers(3)))
    port.flush()

    assert list(Context(RecordingPort(log)).each("rows", lambda done: pytest.fail("asked"))) == []


def test_break_leaves_a_loop_at_the_last_marked_item_and_ends_its_scope() -> None:
    log = Log()
    port = RecordingPort(log)
    ctx = Context(port)
    for row in ctx.each("rows", numbers(5)):
        if row == 3:
            break
    ctx.step("after", one)
    port.flush()

    assert list(log.steps) == ["after"]
    assert list(Context(RecordingPort(log)).each("rows", numbers(5))) == [3, 4, 5]


def test_progress_is_noted_per_item_and_written_once_per_interval() -> None:
    clock = ManualClock()
    port = RecordingPort(clock=clock)
    for _ in Context(port).each("rows", numbers(100), every="1s", total=100):
        clock.advance(0.1)

    assert (port.saves, port.notes + port.saves) == (10, 101)
    assert port.reports[-1] == (100, 100, None)


def test_a_large_state_is_encoded_once_per_interval_only() -> None:
    clock = ManualClock()
    port = RecordingPort(clock=clock)
    ctx = Context(port)
    state = ctx.state(Tally)
    for _ in ctx.each("rows", numbers(100), every="1s"):
        state.padding = "x" * 5000
        clock.advance(0.1)

    assert port.notes + port.saves == 11


def test_a_stop_saves_the_last_finished_item_however_large_the_state() -> None:
    port = RecordingPort()
    ctx = Context(port)
    state = ctx.state(Tally)
    with contextlib.suppress(JobYielded):
        for row in ctx.each("rows", numbers(9)):
            state.n, state.padding = row, "x" * 5000
            port.interrupted = row == 7
    port.flush()

    assert port.log.progress is not None
    assert port.log.progress.loops["rows"].cursor == "7"
    assert Tally.model_validate_json(port.log.progress.state or "").n == 7


@pytest.mark.parametrize("cursor", [(1, 2), {"a": 1}, [[1]], float("nan"), datetime.now(tz=UTC), b"x", None])
def test_a_cursor_that_json_would_change_is_refused(cursor: object) -> None:
    with pytest.raises(CursorType):
        list(Context(RecordingPort()).each("rows", lambda done: [cursor]))


@pytest.mark.parametrize("cursor", [1, -1.5, "ü\ud800", True, [], ["2026-07-01", 5, None]])
def test_scalars_and_flat_lists_are_cursors(cursor: object) -> None:
    log = Log()
    port = RecordingPort(log)
    Context(port).checkpoint(cursor, durable=True)

    assert Context(RecordingPort(log)).cursor == cursor


def test_two_items_with_one_cursor_are_refused() -> None:
    with pytest.raises(DuplicateName, match="two items in a row"):
        list(Context(RecordingPort()).each("rows", lambda done: [1, 1]))


def test_a_source_that_ignores_where_to_go_on_is_refused() -> None:
    port = resumed(Progress(loops={"rows": LoopProgress("1", 1, None, False)}))

    with pytest.raises(DuplicateName, match="began again"):
        list(Context(port).each("rows", lambda done: [1, 2]))


def test_loops_cannot_take_turns() -> None:
    ctx = Context(RecordingPort())
    first, second = ctx.each("first", numbers(3)), ctx.each("second", numbers(3))
    next(first), next(second), next(first)

    with pytest.raises(HandlerMistake, match=r"'first\[1\]/second' goes on after it was left"):
        next(second)


# -- state -------------------------------------------------------------------------------------------------------------


def test_state_changed_before_a_loop_is_an_error() -> None:
    ctx = Context(RecordingPort())
    ctx.state(Tally).n = 1

    with pytest.raises(StateChanged, match="before loop 'rows'"):
        list(ctx.each("rows", numbers(2)))


def test_state_changed_before_an_inner_loop_is_an_error() -> None:
    ctx = Context(RecordingPort())
    state = ctx.state(Tally)

    def handler() -> None:
        for row in ctx.each("rows", numbers(2)):
            state.n += row
            list(ctx.each("parts", numbers(2)))

    with pytest.raises(StateChanged, match=r"before loop 'rows\[1\]/parts'"):
        handler()


def test_state_changed_before_a_checkpoint_or_at_the_end_is_an_error() -> None:
    ctx = Context(RecordingPort())
    ctx.state(Tally).n = 1

    with pytest.raises(StateChanged, match="before a checkpoint"):
        ctx.checkpoint(1)
    with pytest.raises(StateChanged, match="before the handler's end"):
        ctx.finish()


def test_state_changed_by_a_source_is_an_error() -> None:
    ctx = Context(RecordingPort())
    state = ctx.state(Tally)

    def source(done: object) -> Any:
        yield 1
        state.n += 1

    with pytest.raises(StateChanged, match="by the source"):
        list(ctx.each("rows", source))


def test_a_break_after_a_change_may_end_the_handler_but_not_start_another_loop() -> None:
    ctx = Context(RecordingPort())
    state = ctx.state(Tally)
    for _ in ctx.each("rows", numbers(3)):
        state.n += 1
        break
    ctx.finish()

    with pytest.raises(StateChanged, match="loop 'rows' was left inside an item"):
        list(ctx.each("more", numbers(3)))


def test_after_a_large_state_was_left_by_break_nothing_wrong_is_saved(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    log = Log()
    port = RecordingPort(log, clock=clock)
    ctx = Context(port)
    state = ctx.state(Tally)
    with caplog.at_level(logging.WARNING):
        for row in ctx.each("rows", numbers(9)):
            state.n, state.padding = row, "x" * 5000
            if row == 5:
                break
    list(ctx.each("more", numbers(3)))
    ctx.finish()
    port.flush()

    assert [record.msg for record in caplog.records] == ["loop.left.large_state"]
    again = Context(RecordingPort(log))
    assert (again.state(Tally).n, next(again.each("rows", numbers(9)))) == (1, 2)


def test_a_job_has_one_state_and_gets_the_same_object_each_time() -> None:
    ctx = Context(RecordingPort())

    assert ctx.state(Tally) is ctx.state(Tally)
    with pytest.raises(HandlerMistake, match="is a Tally"):
        ctx.state(BaseModel)


def test_a_state_without_defaults_is_refused() -> None:
    class Strict(BaseModel):
        n: int

    with pytest.raises(ResultType, match="cannot be made"):
        Context(RecordingPort()).state(Strict)


def test_a_state_over_the_limit_is_refused() -> None:
    ctx = Context(RecordingPort(limits=ContextLimits(checkpoint_max_bytes=100)))
    state = ctx.state(Tally)

    def handler() -> None:
        for _ in ctx.each("rows", numbers(2)):
            state.padding = "ü" * 60

    with pytest.raises(CheckpointTooLarge, match="the state takes 140 bytes, 100 are allowed"):
        handler()


# -- the rest ----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_saved_before_the_handler_is_stopped_at_it() -> None:
    port = RecordingPort()
    port.interrupted = True

    with pytest.raises(JobYielded):
        Context(port).checkpoint(7)
    assert port.noted == Progress(cursor="7")


def test_facts() -> None:
    job = JOB._replace(attempt=2, kill_at=1_767_225_600_000)
    ctx = Context(RecordingPort(job=job))

    assert (ctx.id, ctx.type, ctx.attempt, ctx.resumed, ctx.cancelled) == ("job-1", "import.file", 3, False, False)
    assert ctx.deadline == datetime(2026, 1, 1, tzinfo=UTC)
    assert ctx.fencing_token == (1, 0, 1)
    assert ctx.cursor is None


def test_resumed_tells_whether_anything_was_saved() -> None:
    assert Context(resumed(None, finished("x"))).resumed


def test_idempotency_keys_depend_on_job_and_scope_alone() -> None:
    first, again = Context(RecordingPort()), Context(RecordingPort(job=JOB._replace(attempt=4, hop=2, life=2)))
    keys = {first.idempotency_key("pay")}
    assert keys == {again.idempotency_key("pay")}

    for _ in first.each("rows", numbers(2)):
        keys.add(first.idempotency_key("pay"))
    assert len(keys) == 3


def test_progress_is_reported_and_kept() -> None:
    port = RecordingPort()
    ctx = Context(port)
    ctx.progress(5, 10, "half")
    ctx.checkpoint(1)

    assert port.reports == [(5, 10, "half")]
    assert port.noted == Progress("1", None, {}, 5, 10)


def test_log_records_carry_the_job_and_what_the_caller_adds(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Context(RecordingPort()).log.info("row.skipped", extra={"line": 5})

    record = caplog.records[0]
    assert (record.__dict__["job_id"], record.__dict__["line"]) == ("job-1", 5)


def test_async_break_ends_the_scope_at_once() -> None:
    log = Log()
    port = RecordingPort(log)

    async def source(done: Any) -> Any:
        for row in numbers(5)(done):
            yield row

    async def handler(ctx: AsyncContext) -> None:
        async for row in ctx.each("rows", source):
            if row == 3:
                break
        await ctx.step("after", one)

    asyncio.run(handler(AsyncContext(port)))
    port.flush()

    assert list(log.steps) == ["after"]
    assert log.progress is not None
    assert log.progress.loops["rows"].cursor == "2"


class Child:
    """A job type whose jobs a handler may spawn."""

    name = "child"

    def child_record(self, payload: None, *, child_id: str, parent: Job, now_ms: int, max_bytes: int) -> OutRecord:
        return OutRecord("jobs", child_id.encode(), b"a child")


def counting(calls: list[str], **limits: int) -> RecordingPort:
    """A port that notes the syncs it is asked for."""
    return RecordingPort(
        limits=ContextLimits(**limits), on_call=lambda call: calls.append(call) if call == "sync" else None
    )


def test_a_handler_that_is_too_far_ahead_of_the_log_waits_for_it() -> None:
    syncs: list[str] = []
    port = counting(syncs, ahead_max_records=10)
    context = Context(port)
    for number in range(25):
        context.step(f"s{number}", int, number)
    assert len(syncs) == 2
    for _ in range(15):
        context.spawn(Child())
    assert len(syncs) == 4, "steps and children count together"
    assert len(port.children) == 15


def test_few_large_steps_count_by_their_bytes() -> None:
    syncs: list[str] = []
    context = Context(counting(syncs, ahead_max_bytes=10_000))

    def large() -> str:
        return "x" * 4_000

    for number in range(6):
        context.step(f"s{number}", large)
    assert len(syncs) == 2


def test_inside_a_once_nobody_waits_for_the_log() -> None:
    """A stop that came while it waited would leave it in doubt."""
    calls: list[str] = []
    context = Context(RecordingPort(limits=ContextLimits(ahead_max_records=3), on_call=calls.append))

    def spawn_many() -> None:
        calls.append("begins")
        for _ in range(10):
            context.spawn(Child())
        calls.append("ends")

    context.once("many", spawn_many)
    assert "sync" not in calls[calls.index("begins") : calls.index("ends")]


def test_an_async_handler_waits_at_its_next_await() -> None:
    syncs: list[str] = []
    context = AsyncContext(counting(syncs, ahead_max_records=10))

    async def handler() -> None:
        for _ in range(12):
            context.spawn(Child())
        assert syncs == []
        async for _ in context.each("rows", lambda after: range(3)):
            pass
        assert len(syncs) == 1
        for number in range(10):
            await context.step(f"s{number}", int, number)

    asyncio.run(handler())
    assert len(syncs) == 2
