"""Async handlers: one event loop in a thread, and as many slots as the queue has.

Each attempt has a task of its own, as far as anybody can tell. Making one for each job would cost more than a short job
does (measured: 1.5 us of 13). So a slot's task runs attempt after attempt as long as nothing is left behind: nobody
keeps a reference to the task, no cancel is pending, no context variable has changed. After an attempt that did leave
something the slot goes on in a new task, and whatever still happens to the old one harms no other job.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from contextvars import copy_context

from processor import events
from processor.engine.attempt import Attempt
from processor.engine.pool import Ending
from processor.errors import ProcessEnded
from processor.executors.local_port import LocalPort
from processor.executors.loop_watch import HeldUp, LoopWatch
from processor.executors.runner import run_async
from processor.executors.stacks import stack_of_task, stack_through
from processor.executors.threads import taken_back
from processor.executors.traced import traced_async
from processor.runtime import Inbox, Runtime
from processor.signals import RUNNING_HERE, RunningHere
from processor.texts import place_of

log = events.logger(__name__)

MOST_IN_A_ROW = 64
"""Jobs after which a slot lets others have the loop. Not after a time: handlers that wait would yield twice each."""


class _Asked:
    """An attempt that was cancelled."""

    heard = False
    """The loop has come round to it."""


class AsyncPool:
    """Runs `async def` handlers in one event loop. Implements `processor.engine.pool.Pool`."""

    def __init__(
        self,
        runtime: Runtime,
        inbox: Inbox[object],
        name: str,
        slots: int,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.slots = slots
        self._runtime = runtime
        self._inbox = inbox
        self._backlog: deque[Attempt] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = loop or asyncio.new_event_loop()
        self._running: dict[Attempt, asyncio.Task[None]] = {}
        """Only touched by the loop."""
        self._asked: dict[Attempt, _Asked] = {}
        """Attempts that were cancelled."""
        self._left: set[asyncio.Task[None]] = set()
        """Tasks whose attempts were given up: the loop itself keeps no task alive."""
        self._context = copy_context()
        """The worker's context variables: each attempt sees these, and nothing that another has set."""
        self._stopping = self._over = False
        self._waking = False
        # A loop that somebody else steps never runs beside its owner.
        self._watch = LoopWatch(self._loop, runtime.clock) if loop is None else None
        self._actor = runtime.start(name, self._serve)

    def submit(self, attempts: list[Attempt]) -> None:
        self._backlog.extend(attempts)
        self.nudge()

    def nudge(self) -> None:
        if self._backlog and not self._waking:
            self._waking = True
            self._loop.call_soon_threadsafe(self._wake)
        if self._running and self._watch is not None and not self._stopping:
            silent = self._watch.due()
            if silent is not None:
                self._watch.held_up(self._holder(silent))

    @property
    def held_up(self) -> HeldUp | None:
        """The job that holds up the loop, if one does."""
        return None if self._watch is None else self._watch.found

    def _holder(self, seconds: float) -> HeldUp:
        """Whose handler the loop is in: asked by another thread, so it may be over by now."""
        current = asyncio.current_task(self._loop)
        running = [attempt for attempt, task in list(self._running.items()) if task is current]
        at = place_of(stack_through(AsyncPool._serve, self))
        return HeldUp(seconds, running[0].job.id, running[0].job.type, at) if running else HeldUp(seconds, "", "", at)

    def recall(self) -> list[Attempt]:
        return taken_back(self._backlog)

    def end(self, attempt: Attempt, why: str) -> Ending:
        asked = self._asked.get(attempt)
        if asked is None:
            asked = self._asked[attempt] = _Asked()
            task = self._running.get(attempt)
            attempt.mailbox.stack = "" if task is None else stack_of_task(task)
            self._loop.call_soon_threadsafe(self._cancel, attempt, asked)
            return Ending.COMES
        del self._asked[attempt]
        if not asked.heard:
            attempt.mailbox.stack = stack_through(AsyncPool._serve, self)
            return Ending.STUCK  # the loop itself does not come round: a handler blocks it
        log.warning("coroutine.abandoned", extra={"job_id": attempt.job.id, "reason": why})
        self._loop.call_soon_threadsafe(self._abandon, attempt)
        return Ending.LEFT

    def warmed(self, wanted: int) -> int:
        return self.slots

    def left_behind(self) -> int:
        return len(self._left)

    def stop(self, timeout: float) -> bool:
        self._stopping = True
        self._backlog.clear()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end)
        return self._actor.join(timeout)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            while not self._over:
                try:
                    self._loop.run_forever()
                except ProcessEnded:
                    raise
                except BaseException:
                    # A SystemExit in a task that a handler made, as asyncio has it: whoever awaits it gets it too.
                    log.exception("loop.disturbed")
        finally:
            self._loop.close()

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._loop.call_soon(self._finish)

    def _finish(self) -> None:
        self._over = True
        self._loop.stop()

    def _cancel(self, attempt: Attempt, asked: _Asked) -> None:
        asked.heard = True
        task = self._running.get(attempt)
        if task is not None:
            task.cancel()

    def _abandon(self, attempt: Attempt) -> None:
        task = self._running.pop(attempt, None)
        if task is not None:
            self._tasks.discard(task)
            self._left.add(task)
            task.add_done_callback(self._left.discard)
            self._wake()

    def _wake(self) -> None:
        """Let as many slots go on as there is work for."""
        self._waking = False
        work = len(self._backlog)
        while work and self._idle:
            future = self._idle.popleft()
            if not future.done():
                future.set_result(None)
                work -= 1
        while work and len(self._tasks) < self.slots:
            self._start_slot()
            work -= 1

    def _start_slot(self) -> None:
        task = self._loop.create_task(self._slot(), context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._slot_over)

    def _slot_over(self, task: asyncio.Task[None]) -> None:
        """An attempt left something behind, or somebody cancelled every task of the loop."""
        if task in self._tasks:
            self._tasks.discard(task)
            if not self._stopping:
                self._wake()

    async def _slot(self) -> None:
        backlog, idle = self._backlog, self._idle
        stopwatch, monotonic, post = self._runtime.stopwatch, self._runtime.clock.monotonic, self._inbox.post
        running, task = self._running, asyncio.current_task()
        RUNNING_HERE.set(RunningHere())
        context = copy_context()
        assert task is not None
        references = sys.getrefcount(task)
        ran = 0
        while not self._stopping:
            try:
                attempt = backlog.popleft()
            except IndexError:
                future = self._loop.create_future()
                idle.append(future)
                await future
                continue
            # Not in a coroutine of its own: of jobs that do nothing, 5 % fewer would run in a second (measured).
            began = stopwatch()
            attempt.started_at = monotonic()
            running[attempt] = task
            attempt.outcome = await (
                run_async(LocalPort(attempt)) if attempt.shared.tracing is None else traced_async(attempt)
            )
            attempt.run_seconds = stopwatch() - began
            post(attempt)
            if running.pop(attempt, None) is None:
                return  # it was given up: another slot has taken this one's place
            if self._asked:
                self._asked.pop(attempt, None)
            del attempt
            # A cancel that was taken back at once is still to come, in Pythons before 3.13: only `_must_cancel` tells.
            clean = not (task.cancelling() or task._must_cancel)  # type: ignore[attr-defined]  # not in its stub
            if not clean or sys.getrefcount(task) > references or copy_context() != context:
                return
            ran += 1
            if ran % MOST_IN_A_ROW == 0:
                # Handlers that never wait would keep the loop from everybody else.
                await asyncio.sleep(0)
