"""Handlers in threads: one pool for each queue, as many threads as it ever needed at once, up to its slots.

The threads share one deque. Waking a thread costs more than running a short job. So the owner that hands attempts out,
and a thread that takes one, wake another only if most jobs of this type take long enough to be worth it. A wrong guess
(a slow job among short ones) is corrected by the owner's `nudge`: when nobody has taken anything since its last call,
one more thread wakes.
"""

from __future__ import annotations

from collections import deque
from contextvars import copy_context

from processor import events
from processor.engine.attempt import Attempt
from processor.engine.pool import Ending
from processor.errors import ProcessEnded
from processor.executors.local_port import LocalPort
from processor.executors.runner import outcome_of, run_sync
from processor.executors.stacks import stack_through
from processor.executors.traced import traced_sync
from processor.runtime import Actor, Inbox, Runtime, Signal

log = events.logger(__name__)

WORTH_WAKING = 0.000_2
"""Seconds from which on a job is worth a second thread for the next one."""
_MEMORY = 0.03
"""Weight of the newest job in the share of slow ones. A share and not a mean: a short job that loses the interpreter
lock in the middle lasts 5 ms, and a few of those would wake every thread there is."""
SURELY = 0.9
"""Share of slow jobs from which on every new one wakes a thread: a wrong guess would wake all of them every turn."""


class ThreadPool:
    """Runs `def` handlers in threads. Implements `processor.engine.pool.Pool`."""

    def __init__(self, runtime: Runtime, inbox: Inbox[object], name: str, slots: int) -> None:
        self.slots = slots
        self._runtime = runtime
        self._inbox = inbox
        self._name = name
        self._backlog: deque[Attempt] = deque()
        self._idle: deque[Signal] = deque()
        self._actors: list[Actor] = []
        self._unused = deque(range(slots))
        """Slots without a thread. Taking one is atomic: while a thread is started, others wake some too."""
        self._slow: dict[str, float] = {}
        """Share of slow jobs by job type; only a hint, so threads may race on it."""
        self._taken = 0
        """Grows whenever an attempt is taken."""
        self._taken_at_nudge = -1
        self._stopping = False
        self._context = copy_context()
        """The worker's context variables: each attempt runs in a copy, and sees nothing that another has set."""
        self._abandoned: set[Attempt] = set()
        """Attempts whose threads were given up: each ends when its handler does, if ever."""

    def submit(self, attempts: list[Attempt]) -> None:
        self._backlog.extend(attempts)
        slow = self._slow
        worth = sum(1 for attempt in attempts if slow.get(attempt.job.type, 0.0) > SURELY)
        if not worth and attempts and len(self._idle) == len(self._actors):
            worth = 1
        for _ in range(worth):
            if not self._wake_one():
                break

    def nudge(self) -> None:
        if self._backlog and self._taken == self._taken_at_nudge:
            self._wake_one()
        self._taken_at_nudge = self._taken

    def recall(self) -> list[Attempt]:
        return taken_back(self._backlog)

    def end(self, attempt: Attempt, why: str) -> Ending:
        if attempt.started_at is None:
            return Ending.COMES  # it has not begun; when it does, it sees that it is not to
        attempt.mailbox.stack = stack_through(ThreadPool._run, attempt)
        self._abandoned.add(attempt)
        self._unused.append(self.slots + len(self._abandoned))
        log.warning("thread.abandoned", extra={"job_id": attempt.job.id, "pool": self._name, "reason": why})
        return Ending.LEFT

    def warmed(self, wanted: int) -> int:
        return self.slots

    def left_behind(self) -> int:
        return len(self._abandoned)

    def stop(self, timeout: float) -> bool:
        self._stopping = True
        self._backlog.clear()
        while self._idle:
            self._idle.pop().set()
        deadline = self._runtime.clock.monotonic() + timeout
        return all(actor.join(max(deadline - self._runtime.clock.monotonic(), 0.0)) for actor in self._actors)

    def _wake_one(self) -> bool:
        """Whether there was one to wake, or to start."""
        try:
            self._idle.pop().set()
        except IndexError:
            return self._start_one()
        return True

    def _start_one(self) -> bool:
        try:
            slot = self._unused.popleft()
        except IndexError:
            return False
        try:
            self._actors.append(self._runtime.start(f"{self._name}-{slot}", self._work))
        except RuntimeError as error:
            # No more threads to be had: those that are there do the work, and the next nudge tries again.
            self._unused.appendleft(slot)
            log.error("thread.not_started", extra={"pool": self._name, "error": str(error)})
            return False
        return True

    def _work(self) -> None:
        signal = self._runtime.signal()
        while not self._stopping:
            try:
                if self._take_turns(signal):
                    return
            except ProcessEnded:
                raise
            except BaseException:
                # A handler's timer may raise in its thread, and come too late: after its attempt has ended.
                log.exception("thread.disturbed", extra={"pool": self._name})

    def _take_turns(self, signal: Signal) -> bool:
        """Run attempt after attempt until the pool stops; True if another thread has taken this one's place."""
        backlog, idle, slow = self._backlog, self._idle, self._slow
        while not self._stopping:
            try:
                attempt = backlog.popleft()
            except IndexError:
                idle.append(signal)
                if backlog and self._still_idle(signal):
                    continue
                signal.wait(None)
                continue
            self._taken += 1
            if backlog and slow.get(attempt.job.type, 1.0) > 0.5:
                self._wake_one()
            try:
                self._run(attempt)
            except ProcessEnded:
                raise
            except BaseException as error:  # noqa: BLE001  (as in `_work`, a moment earlier)
                if attempt.outcome is None:
                    attempt.outcome = outcome_of(LocalPort(attempt), error)
                self._inbox.post(attempt)  # once too often does no harm
            if self._abandoned and attempt in self._abandoned:
                self._abandoned.discard(attempt)
                return True
        return False

    def _still_idle(self, signal: Signal) -> bool:
        """Take back the offer to be woken; False if somebody has accepted it already."""
        try:
            self._idle.remove(signal)
        except ValueError:
            return False
        return True

    def _run(self, attempt: Attempt) -> None:
        began = self._runtime.stopwatch()
        attempt.started_at = self._runtime.clock.monotonic()
        context = self._context.copy()
        if attempt.shared.tracing is None:
            attempt.outcome = context.run(run_sync, LocalPort(attempt))
        else:
            attempt.outcome = context.run(traced_sync, attempt)
        attempt.run_seconds = seconds = self._runtime.stopwatch() - began
        job_type = attempt.job.type
        share = self._slow.get(job_type, 0.5)
        self._slow[job_type] = share + ((seconds > WORTH_WAKING) - share) * _MEMORY
        self._inbox.post(attempt)


def taken_back(backlog: deque[Attempt]) -> list[Attempt]:
    """What nobody has taken from a pool's backlog yet, in its order; others may take some meanwhile."""
    found: list[Attempt] = []
    while True:
        try:
            found.append(backlog.popleft())
        except IndexError:
            return found
