"""The supervisor: keeps worker processes alive, each in a slot of its own.

It imports the user's app once, before anything else, and forks its children from that: an interpreter with its imports
takes about half a second, which a forked child need not spend before it goes on with a dead one's jobs. For a fork to
be safe the supervisor stays single-threaded and makes no Kafka client; it does nothing but start, wait and signal.

1. A child that ends is started again at once, in the same slot, so that nobody else sees a rebalance. If it dies again
   and again within seconds, the supervisor waits longer each time (`RestartDelay`).
2. SIGTERM or SIGINT: stop the children in good order, then end. A second one, or the end of their time: end them at
   once.
3. SIGHUP: restart one child after the other; the next only when the one before is ready. They do not leave the group.
   They run the code that the supervisor has imported: to run other code, start another supervisor and stop this one.
4. A child whose settings or topics are wrong (exit codes 2 and 4) ends everything: a new start would change nothing.

A signal to the whole process group is one wish: children ignore SIGINT and a second SIGTERM, which the supervisor
passes on. As process 1 of a container it also takes leave of orphans, which nobody else does there.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from processor import events
from processor.executors.parent_death import die_with_parent
from processor.process.slots import Slot
from processor.process.stop_signals import SAME_WISH, StopSignals

log = events.logger(__name__)

DELAYS = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before the first, second, ... restart of a child that keeps dying young."""
HEALTHY_AFTER = 10.0
"""A child that lived this long was well: its next death is a first one."""
READY_WITHIN = 60.0
"""A rolling restart that waits longer for a child to be ready goes on without it."""
KILLED_AFTER = 2.0
"""Seconds after the grace until children that have not stopped are killed."""
HOPELESS = frozenset({2, 4})
"""Exit codes of wrong settings and of topics that differ from the plan."""
REFUSED = frozenset({3})
"""Exit code of a broker that refuses, or of a slot that another process took: a restart at once would not help."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class RestartDelay:
    """How long to wait before a child is started again. Pure."""

    def __init__(self) -> None:
        self._young_deaths = 0

    def after(self, lived: float, exit_code: int | None) -> float:
        """Seconds to wait now.

        Args:
            lived: seconds the child lived.
            exit_code: None if a signal ended it.
        """
        if lived >= HEALTHY_AFTER:
            self._young_deaths = 0
        delay = DELAYS[min(self._young_deaths, len(DELAYS) - 1)]
        self._young_deaths += 1
        return max(delay, 1.0) if exit_code in REFUSED else delay


@dataclass(slots=True)
class Child:
    """One slot and the process in it."""

    index: int
    slot: Slot
    pid: int | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    """Not started before this (monotonic seconds)."""
    ready_pipe: int | None = None
    """Becomes readable when the child is ready, or gone."""
    ready: bool = False
    restarting: bool = False
    """Was asked to end by a rolling restart."""
    delay: RestartDelay = field(default_factory=RestartDelay)


Serve = Callable[[int, Slot, Callable[[], None], StopSignals], int]
"""What a child does: (index, slot, to be called once when ready, its signals) -> exit code."""


class Supervisor:
    """The parent of the worker processes of a host; `run` returns the exit code."""

    def __init__(
        self,
        slots: Sequence[Slot],
        serve: Serve,
        *,
        grace: float,
        arrived: list[int] | None = None,
        restarts: bool = True,
    ) -> None:
        """Make it, without starting anything.

        Args:
            slots: one for each child.
            serve: what a child does.
            grace: seconds a stop may take.
            arrived: signals that came already, and may still come until it listens.
            restarts: False: it ends when its children end, with their exit code.
        """
        self._serve = serve
        self._grace = grace
        self._restarts = restarts
        self._children = [Child(index, slot) for index, slot in enumerate(slots)]
        self._arrived: list[int] = [] if arrived is None else arrived
        self._stopping = 0
        self._stopped_at = 0.0
        self._exit_code = 0
        self._rolling: list[Child] = []
        self._rolling_since = 0.0
        self._wake_r, self._wake_w = os.pipe()
        self._life_r, self._life_w = os.pipe()
        """The supervisor alone holds the writing end: its end is the supervisor's."""

    def run(self) -> int:
        """Keep the children alive until told to stop."""
        self._listen()
        try:
            while not (self._stopping and not any(child.pid for child in self._children)):
                self._start_due()
                self._wait()
                self._obey()
                self._reap()
                self._roll()
                self._insist()
        finally:
            # Whatever went wrong here: no child outlives its supervisor.
            self._signal_all(signal.SIGKILL)
            # Python gives signals back to the kernel before it ends: one that comes late would change the exit code.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
        return self._exit_code

    # --- children ------------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.pid is None and not self._stopping and now >= child.start_at:
                self._start(child)

    def _start(self, child: Child) -> None:
        ready_r, ready_w = os.pipe()
        parent = os.getpid()
        # Buffered output would be written twice: once by each process.
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal between the fork and the child's own handlers must not reach the supervisor's handlers in the child.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._become(child, parent, ready_w)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(ready_w)
        child.pid, child.ready_pipe, child.ready = pid, ready_r, False
        child.restarting = False
        child.started_at = time.monotonic()
        log.info("supervisor.started", extra={"slot": child.slot.name, "pid": pid})

    def _become(self, child: Child, parent: int, ready_w: int) -> None:
        """The child's life: never returns."""
        code = 1
        try:
            os.close(self._life_w)
            die_with_parent(parent, self._life_r)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signals = StopSignals(supervised=True)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(self._wake_r)
            os.close(self._wake_w)
            for other in self._children:
                if other is not child:
                    other.slot.close()
                if other.ready_pipe is not None:
                    os.close(other.ready_pipe)
            code = self._serve(child.index, child.slot, lambda: _tell(ready_w), signals)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            log.exception("worker.crashed", extra={"slot": child.slot.name})
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            # Not sys.exit: what the supervisor registered with atexit is the supervisor's.
            os._exit(code)

    def _reap(self) -> None:
        """Take leave of everybody who has ended: also of orphans, which are process 1's."""
        running = {child.pid: child for child in self._children if child.pid is not None}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in running:
                self._ended(running[pid], os.waitstatus_to_exitcode(status))

    def _ended(self, child: Child, code: int) -> None:
        now = time.monotonic()
        lived = now - child.started_at
        event = {"slot": child.slot.name, "pid": child.pid, "lived": round(lived, 3), **_cause(code)}
        child.pid = None
        if child.ready_pipe is not None:
            os.close(child.ready_pipe)
            child.ready_pipe = None
        if self._stopping:
            self._exit_code = self._exit_code or (0 if code == 0 else 1)
            log.info("supervisor.stopped", extra=event)
        elif code in HOPELESS:
            log.error("supervisor.hopeless", extra=event)
            self._exit_code = code
            self._stop()
        elif not self._restarts:
            self._exit_code = code if code >= 0 else 1
            self._stop()
        else:
            delay = 0.0 if child.restarting else child.delay.after(lived, code if code >= 0 else None)
            child.start_at = now + delay
            log.log(
                logging.INFO if child.restarting else logging.WARNING,
                "supervisor.restarts",
                extra={**event, "delay": delay},
            )

    # --- signals -------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        os.set_blocking(self._wake_w, False)
        os.set_blocking(self._wake_r, False)
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda received, _frame: self._arrived.append(received))

    def _wait(self) -> None:
        """Until a signal comes, a child is ready, or one is to be started."""
        now = time.monotonic()
        due = [child.start_at - now for child in self._children if child.pid is None and not self._stopping]
        if self._rolling:
            due.append(1.0)
        if self._arrived:
            due.append(0.0)
        if self._stopping == 1:
            due.append(self._stopped_at + self._grace + KILLED_AFTER - now)
        pipes = [child.ready_pipe for child in self._children if child.ready_pipe is not None and not child.ready]
        timeout = max(0.0, min(due)) if due else None
        readable, _, _ = select.select([self._wake_r, *pipes], [], [], timeout)
        if self._wake_r in readable:
            with suppress(BlockingIOError):
                os.read(self._wake_r, 4096)
        for child in self._children:
            if child.ready_pipe in readable and child.ready_pipe is not None:
                child.ready = os.read(child.ready_pipe, 1) == b"r"
                if not child.ready:
                    os.close(child.ready_pipe)
                    child.ready_pipe = None

    def _obey(self) -> None:
        while self._arrived:
            number = self._arrived.pop(0)
            if number in (signal.SIGTERM, signal.SIGINT):
                # `timeout` signals its command and then the whole group: that is one wish.
                if not self._stopping or time.monotonic() - self._stopped_at >= SAME_WISH:
                    self._stop()
            elif number == signal.SIGHUP and not self._stopping and not self._rolling:
                log.info("supervisor.rolling_restart", extra={"processes": len(self._children)})
                self._rolling = list(self._children)
                self._next_of_roll()

    def _insist(self) -> None:
        if self._stopping == 1 and time.monotonic() >= self._stopped_at + self._grace + KILLED_AFTER:
            log.error("supervisor.grace_over", extra={"grace": self._grace})
            self._stop()

    def _stop(self) -> None:
        self._stopping += 1
        self._stopped_at = self._stopped_at or time.monotonic()
        self._rolling.clear()
        if self._stopping > 1:
            self._exit_code = self._exit_code or 1
        log.info("supervisor.stopping", extra={"at_once": self._stopping > 1})
        self._signal_all(signal.SIGTERM if self._stopping == 1 else signal.SIGKILL)

    def _signal_all(self, number: signal.Signals) -> None:
        for child in self._children:
            _signal(child, number)

    # --- rolling restart -----------------------------------------------------------------------------------------

    def _roll(self) -> None:
        """Go on to the next child once the one before runs again."""
        if not self._rolling:
            return
        child = self._rolling[0]
        if child.restarting:
            return
        overdue = time.monotonic() - self._rolling_since > READY_WITHIN
        if child.ready or overdue:
            if overdue:
                log.warning("supervisor.not_ready", extra={"slot": child.slot.name, "seconds": READY_WITHIN})
            self._rolling.pop(0)
            self._next_of_roll()

    def _next_of_roll(self) -> None:
        while self._rolling:
            child = self._rolling[0]
            if child.pid is not None:
                child.restarting = True
                self._rolling_since = time.monotonic()
                _signal(child, signal.SIGHUP)
                return
            # It is dead already and starts anew by itself.
            self._rolling.pop(0)


def _signal(child: Child, number: signal.Signals) -> None:
    if child.pid is not None:
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)


def _tell(descriptor: int) -> None:
    with suppress(OSError):
        os.write(descriptor, b"r")


def _cause(code: int) -> dict[str, object]:
    if code >= 0:
        return {"exit_code": code}
    try:
        return {"signal": signal.Signals(-code).name}
    except ValueError:
        return {"signal": -code}
