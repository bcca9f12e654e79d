"""A handler that holds up its event loop is named, and so is that the loop goes on."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from processor.core.outcome import Succeeded
from processor.executors.event_loop import AsyncPool
from processor.executors.loop_watch import HeldUp
from tests.unit.executors.test_walls import Bench
from tests.waiting import eventually


def held_up(bench: Bench) -> HeldUp | None:
    bench.pool.nudge()
    assert isinstance(bench.pool, AsyncPool)
    return bench.pool.held_up


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if str(record.msg).startswith(event)]


def test_a_handler_that_blocks_is_named_while_it_does(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench = Bench("async")
    go_on = threading.Event()

    async def block(ctx: Any) -> int:
        go_on.wait()
        return 1

    attempt = bench.attempt(block, "blocker")
    bench.pool.submit([attempt])
    found = eventually(lambda: held_up(bench), 60.0)
    assert found is not None
    assert (found.job_id, found.job_type) == ("blocker", "x")
    assert "test_loop_watch.py" in found.at
    assert "in block" in found.at
    first = found.seconds
    eventually(lambda: (now := held_up(bench)) is not None and now.seconds > first, 60.0)
    [warning] = told(caplog, "loop.held_up")
    assert warning["job_id"] == "blocker"
    assert "asyncio.to_thread" in warning["hint"]

    go_on.set()
    eventually(lambda: held_up(bench) is None, 60.0)
    eventually(lambda: attempt.outcome == Succeeded(b"1"), 60.0)
    eventually(lambda: told(caplog, "loop.goes_on"), 60.0)
    assert bench.pool.stop(10.0)


def test_a_loop_whose_handlers_wait_answers_each_time() -> None:
    bench = Bench("async")
    go_on = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def wait(ctx: Any) -> None:
        loops.append(asyncio.get_running_loop())
        await go_on.wait()

    assert isinstance(bench.pool, AsyncPool)
    watch = bench.pool._watch
    assert watch is not None
    attempt = bench.attempt(wait)
    bench.pool.submit([attempt])
    asked: set[float] = set()

    def has_answered_often() -> bool:
        held_up(bench)
        if watch._asked_at is not None:
            asked.add(watch._asked_at)
        return len(asked) >= 3

    eventually(has_answered_often, 60.0)
    loops[0].call_soon_threadsafe(go_on.set)
    eventually(lambda: attempt.outcome is not None, 60.0)
    assert bench.pool.stop(10.0)
