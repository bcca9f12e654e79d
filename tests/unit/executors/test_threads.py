"""Threads that run handlers: never more than the queue has slots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from processor.engine.attempt import Attempt
from processor.executors.threads import ThreadPool
from processor.runtime import Actor, Inbox, ThreadedRuntime


class _Crowded(ThreadedRuntime):
    """Starting a thread takes so long that others, meanwhile, want to start one too."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def start(self, name: str, run: Callable[[], None]) -> Actor:
        self.started.append(name)
        if len(self.started) < 20:
            self.meanwhile()
        return super().start(name, lambda: None)


def test_threads_that_wake_each_other_are_never_more_than_the_slots() -> None:
    runtime = _Crowded()
    inbox: Inbox[object] = Inbox(runtime)
    pool = ThreadPool(runtime, inbox, "q", 3)
    # The owner's nudge and a thread that takes a job wake one in the same way, each in its own thread.
    runtime.meanwhile = pool.nudge
    pool.submit([cast(Attempt, _Waits()) for _ in range(9)])
    for _ in range(9):
        pool.nudge()
    assert runtime.started == ["q-0", "q-1", "q-2"]
    assert pool.stop(5.0)


class _Waits:
    """Stands for an attempt that nobody takes."""

    job: Any = type("Job", (), {"type": "t"})
