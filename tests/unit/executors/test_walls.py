"""The wall around a handler, in threads and in an event loop: whatever it does, its slot goes on with the next job."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any, cast

import pytest

from processor.clock import SystemClock
from processor.context.port import ContextLimits
from processor.core.outcome import Failed, Outcome, Succeeded
from processor.core.write_set import Origin
from processor.engine.attempt import Attempt, AttemptShared
from processor.engine.pool import Pool
from processor.engine.queue_partition import QueuePartition
from processor.executors.event_loop import AsyncPool
from processor.executors.threads import ThreadPool
from processor.job import Job
from processor.policies import JobOptions, Retry
from processor.runtime import Inbox, ThreadedRuntime
from tests.integration.bad_jobs import CAUSE, RAISED
from tests.waiting import eventually

seen: ContextVar[str] = ContextVar("seen", default="nothing")


class _Kind:
    """A job type whose handler is given with each attempt."""

    name = "x"
    executor = "thread"
    takes_payload = False
    options = JobOptions(retry=Retry(1))

    def __init__(self, kind: str, handler: Callable[..., Any]) -> None:
        self.kind = kind
        self.handler = handler

    def check(self) -> None:
        """Always well."""

    def decode_payload(self, data: bytes, version: int) -> Any:
        raise NotImplementedError

    def encode_result(self, value: Any, max_bytes: int) -> bytes | None:
        return None if value is None else str(value).encode()


class _Number:
    assignment = 1
    epoch = 1


class Bench:
    """A pool with one slot."""

    def __init__(self, kind: str) -> None:
        self.runtime = ThreadedRuntime()
        self.inbox: Inbox[Any] = Inbox(self.runtime)
        make = AsyncPool if kind == "async" else ThreadPool
        self.kind = kind
        self.pool: Pool = make(self.runtime, self.inbox, "q", 1)
        self._shared = AttemptShared(self.inbox, SystemClock(), ContextLimits(), self.runtime.signal, 1.0)

    def attempt(self, handler: Callable[..., Any], job_id: str = "j") -> Attempt:
        job = Job(job_id, "x", 1, "q", b"", 0)
        number = cast(QueuePartition, _Number)
        return Attempt(self._shared, number, None, Origin("t", 0, 0), job, b"", _Kind(self.kind, handler))

    def run(self, *handlers: Callable[..., Any]) -> list[Outcome]:
        """Run them one after the other in the one slot."""
        attempts = [self.attempt(handler, f"j{place}") for place, handler in enumerate(handlers)]
        self.pool.submit(attempts)

        def ended() -> bool:
            self.pool.nudge()
            return all(attempt.outcome is not None for attempt in attempts)

        eventually(ended, 10, lambda: str([attempt.outcome for attempt in attempts]))
        return [attempt.outcome for attempt in attempts if attempt.outcome is not None]


@pytest.fixture(params=["sync", "async"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(request.param)
    yield made
    assert made.pool.stop(2.0)


@pytest.fixture
def loop_bench() -> Iterator[Bench]:
    made = Bench("async")
    yield made
    assert made.pool.stop(2.0)


def as_handler(bench: Bench, work: Callable[[], Any]) -> Callable[..., Any]:
    """`work` as a handler of the bench's kind."""

    async def coroutine(ctx: Any) -> Any:
        return work()

    return coroutine if bench.kind == "async" else lambda ctx: work()


@pytest.mark.parametrize("kind", RAISED)
def test_no_handler_takes_a_slot_with_it(bench: Bench, kind: str) -> None:
    def bad() -> None:
        raise RAISED[kind]()

    first, second = bench.run(as_handler(bench, bad), as_handler(bench, lambda: 5))
    assert isinstance(first, Failed)
    assert CAUSE[kind] in first.error.kind
    assert first.reason == "exhausted"
    assert "raise RAISED[kind]()" in first.error.traceback
    for text in first.error:
        text.encode()
        assert len(text) <= 16_000
    assert second == Succeeded(b"5")


def test_attempts_see_the_context_variables_of_the_worker_and_none_of_each_other() -> None:
    seen.set("the worker's")
    for kind in ("sync", "async"):
        bench = Bench(kind)

        def look() -> str:
            was = seen.get()
            seen.set("another attempt's")
            return was

        assert bench.run(*[as_handler(bench, look)] * 3) == [Succeeded(b"the worker's")] * 3
        assert bench.pool.stop(2.0)
    seen.set("nothing")


def test_exception_that_comes_into_a_thread_too_late_harms_nobody() -> None:
    """As libraries that limit a function's time do it."""
    bench = Bench("sync")
    threads: list[int] = []

    def first(ctx: Any) -> None:
        threads.append(threading.get_ident())

    bench.run(first)
    for _ in range(20):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threads[0]), ctypes.py_object(TimeoutError))
        outcomes = bench.run(lambda ctx: 1, lambda ctx: 2)
        # It comes out wherever the thread is: in the pool, or in the next handler, whose attempt it ends.
        assert all(isinstance(outcome, Succeeded | Failed) for outcome in outcomes)
        assert bench.run(lambda ctx: 3) == [Succeeded(b"3")]
    assert bench.pool.stop(2.0)


def test_def_handler_that_gives_a_coroutine_is_told_so(recwarn: pytest.WarningsRecorder) -> None:
    async def work() -> None: ...

    bench = Bench("sync")
    (outcome,) = bench.run(lambda ctx: work())
    assert isinstance(outcome, Failed)
    assert outcome.reason == "handler_mistake"
    assert "must be awaited" in outcome.error.message
    assert bench.pool.stop(2.0)
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]


def me() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def cancelled_later(ctx: Any) -> None:
    asyncio.get_running_loop().call_later(0.05, me().cancel)


async def cancelled_at_once(ctx: Any) -> None:
    me().cancel()


async def cancelled_and_taken_back(ctx: Any) -> None:
    me().cancel()
    me().uncancel()


async def stopped_loop(ctx: Any) -> None:
    asyncio.get_running_loop().stop()


async def background_exit(ctx: Any) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    ctx.left = asyncio.create_task(leave())


@pytest.mark.parametrize(
    "bad", [cancelled_later, cancelled_at_once, cancelled_and_taken_back, stopped_loop, background_exit]
)
def test_what_a_coroutine_leaves_behind_reaches_no_other(
    loop_bench: Bench, bad: Callable[[Any], Awaitable[None]]
) -> None:
    async def slow(ctx: Any) -> int:
        await asyncio.sleep(0.15)
        return 1

    outcomes = loop_bench.run(bad, slow, slow)
    assert outcomes == [Succeeded(None), Succeeded(b"1"), Succeeded(b"1")]


def test_slot_goes_on_after_a_handler_that_cancels_every_task_of_the_loop(loop_bench: Bench) -> None:
    async def cancel_all(ctx: Any) -> None:
        for task in asyncio.all_tasks():
            if task is not me():
                task.cancel()

    async def fine(ctx: Any) -> int:
        return 1

    assert loop_bench.run(cancel_all, fine) == [Succeeded(None), Succeeded(b"1")]
    loop_bench.run(cancel_all)
    assert loop_bench.run(fine) == [Succeeded(b"1")]


def test_plain_coroutines_share_a_task_and_others_get_one_of_their_own(loop_bench: Bench) -> None:
    async def quiet(ctx: Any) -> int:
        return id(me())

    async def kept(ctx: Any) -> None:
        ctx_tasks.append(me())

    ctx_tasks: list[asyncio.Task[Any]] = []
    first, second = loop_bench.run(quiet, quiet)
    assert first == second
    loop_bench.run(kept, kept)
    assert len({id(task) for task in ctx_tasks}) == 2


def test_thread_that_cannot_be_started_costs_no_job() -> None:
    bench = Bench("sync")
    real = bench.runtime.start
    refused: list[str] = []

    def start(name: str, run: Callable[[], None]) -> Any:
        if len(refused) < 2:
            refused.append(name)
            raise RuntimeError("can't start new thread")
        return real(name, run)

    bench.runtime.start = start  # type: ignore[method-assign]  # the operating system's refusal
    assert bench.run(lambda ctx: 1) == [Succeeded(b"1")]
    assert len(refused) == 2
    assert bench.pool.stop(2.0)
