"""Handlers in child processes: one pool for each queue, as many children as it ever needed at once, up to its slots.

Each slot is a thread of the worker with one child. The child is started when the slot gets its first job and kept warm.
The thread hands it a job, applies what it reports to the real `Attempt`, and posts the attempt when it has ended. So
for the owning thread a job in a child looks like any other.

A child that dies ends its job as `Crashed`; the slot starts a new one for the next job. A child that cannot start (its
module does not import, a start hook raises) costs no job anything: the slot says so and tries again, ever more slowly.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections import deque
from contextlib import suppress
from typing import Any

from processor import events
from processor.core.failures import error_info
from processor.core.outcome import Crashed, Failed, Lost, Outcome, Yielded
from processor.dead_reasons import DeadReason
from processor.engine.attempt import Attempt
from processor.engine.config import WorkerConfig
from processor.engine.pool import Ending
from processor.errors import DefinitionError, ProcessEnded
from processor.executors.child_frames import Channel, pack_assigned, unpack_outcome, unpack_report
from processor.executors.child_reports import apply, assigned, synced
from processor.executors.local_port import LocalPort
from processor.executors.threads import taken_back
from processor.executors.traced import AttemptSpan
from processor.runtime import Actor, Inbox, Runtime, Signal
from processor.texts import message_of

log = events.logger(__name__)

START_DELAYS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a child that could not start is started again."""
LOOK_EVERY = 0.05
"""Seconds between two looks, while a slot waits to start a child again, whether its job is still wanted."""


class ProcessPool:
    """Runs `def` handlers in child processes. Implements `processor.engine.pool.Pool`.

    Raises:
        DefinitionError: there is no name under which a child could import the app.
    """

    def __init__(
        self,
        runtime: Runtime,
        inbox: Inbox[object],
        name: str,
        slots: int,
        config: WorkerConfig,
        *,
        warm: bool = False,
    ) -> None:
        if config.app_path is None:
            raise DefinitionError(
                "process executors need the app importable by name",
                hint="start the worker with MODULE:APP, so that its child processes can import the handlers",
            )
        self.slots = slots
        self.runtime = runtime
        self.inbox = inbox
        self.app_path = config.app_path
        self.folder = config.child_folder
        self.env = config.child_env
        self.log_format = config.child_log_format
        self.backlog: deque[Attempt] = deque()
        self.idle: deque[Signal] = deque()
        self.stopping = False
        self.warm = warm
        """Children are started before there is work for them, by `warmed`."""
        self._name = name
        self._slots: list[_Slot] = []
        self._actors: list[Actor] = []

    def submit(self, attempts: list[Attempt]) -> None:
        self.backlog.extend(attempts)
        self.nudge()

    def nudge(self) -> None:
        for slot in self._slots:
            slot.pass_on_interrupt()
        for _ in range(len(self.backlog)):
            if not self._wake_one():
                return

    def kill(self, attempt: Attempt, why: str) -> bool:
        """End the child that runs this attempt, whatever it is doing; False if none does. Ends it as `Crashed(why)`."""
        return any(slot.kill(attempt, why) for slot in self._slots)

    def recall(self) -> list[Attempt]:
        return taken_back(self.backlog)

    def end(self, attempt: Attempt, why: str) -> Ending:
        self.kill(attempt, why)
        return Ending.COMES

    def warmed(self, wanted: int) -> int:
        if not self.warm:
            return self.slots
        for _ in range(min(wanted, self.slots) - len(self._slots)):
            if not self._add_slot():
                break
        return sum(slot.is_ready for slot in self._slots)

    def left_behind(self) -> int:
        return 0  # a child process can always be killed

    def stop(self, timeout: float) -> bool:
        self.stopping = True
        self.backlog.clear()
        for slot in self._slots:
            slot.end_child("the worker stops")
        while self.idle:
            self.idle.pop().set()
        deadline = self.runtime.clock.monotonic() + timeout
        return all(actor.join(max(deadline - self.runtime.clock.monotonic(), 0.0)) for actor in self._actors)

    def _wake_one(self) -> bool:
        try:
            self.idle.pop().set()
        except IndexError:
            return len(self._slots) < self.slots and self._add_slot()
        return True

    def _add_slot(self) -> bool:
        slot = _Slot(self)
        try:
            self._actors.append(self.runtime.start(f"{self._name}-{len(self._slots)}", slot.work))
        except RuntimeError as error:
            # No more threads to be had: the next nudge tries again.
            slot.close()
            log.error("thread.not_started", extra={"pool": self._name, "error": str(error)})
            return False
        self._slots.append(slot)
        return True


class _Slot:
    """A thread of the worker and its child process."""

    def __init__(self, pool: ProcessPool) -> None:
        self._pool = pool
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._attempt: Attempt | None = None
        self._told = (False, False)
        """(interrupted, lost), as the child knows them."""
        self._why = ""
        """Why we killed the child, if we did."""
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_w, False)
        self._asked = (False, False)
        """The last flags that the owning thread rang the bell for."""

    # --- the owning thread ---------------------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether its child has started, and is there."""
        return self._channel is not None

    def pass_on_interrupt(self) -> None:
        """Ring if the attempt is to stop and the child does not know yet."""
        attempt = self._attempt
        if attempt is None:
            return
        flags = (attempt.mailbox.interrupted, attempt.mailbox.lost)
        if flags != (False, False) and flags != self._asked:
            self._asked = flags
            with suppress(BlockingIOError):
                os.write(self._wake_w, b"!")

    def kill(self, attempt: Attempt, why: str) -> bool:
        if self._attempt is not attempt:
            return False
        self.end_child(why)
        return True

    def end_child(self, why: str) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            self._why = why
            _end_group(process)

    # --- the slot's thread ---------------------------------------------------------------------------------------

    def work(self) -> None:
        """Run attempts until the pool stops."""
        pool = self._pool
        bell = pool.runtime.signal()
        while not pool.stopping:
            if pool.warm and self._ready_channel(None) is None:
                break
            try:
                attempt = pool.backlog.popleft()
            except IndexError:
                pool.idle.append(bell)
                # Work that came between the look and the offer to be woken: the owner's next nudge wakes this one.
                if not pool.stopping:
                    bell.wait(None)
                continue
            self._run(attempt)
        self._drop_child()

    def _run(self, attempt: Attempt) -> None:
        runtime = self._pool.runtime
        self._told = self._asked = (False, False)
        self._attempt = attempt
        began = runtime.stopwatch()
        try:
            outcome = self._outcome(attempt)
        except ProcessEnded:
            raise
        except BaseException as error:
            log.exception("child.slot_disturbed", extra={"job_id": attempt.job.id})
            self.end_child("its worker could not follow what it said")
            self._crashed()
            outcome = Failed(error_info(error), DeadReason.INTERNAL_ERROR)
        self._attempt = None
        attempt.outcome = outcome
        attempt.run_seconds = runtime.stopwatch() - began
        self._pool.inbox.post(attempt)

    def _outcome(self, attempt: Attempt) -> Outcome:
        channel = self._ready_channel(attempt)
        if channel is None:
            return Lost() if attempt.mailbox.lost else Yielded()
        attempt.started_at = self._pool.runtime.clock.monotonic()
        span, told = AttemptSpan(attempt), dict[str, Any]()
        try:
            channel.send(pack_assigned(assigned(LocalPort(attempt), span.trace)))
            outcome = self._listen(attempt, channel, told)
        except OSError:
            outcome = None
        if outcome is None:
            outcome = self._died(attempt)
        span.end(outcome, told)
        return outcome

    def _died(self, attempt: Attempt) -> Outcome:
        """Its child died. While it was being asked to stop that is how it stopped: a signal to all processes of the
        service ends what a handler waits for as well.
        """
        crashed = self._crashed()
        if attempt.mailbox.interrupted and attempt.mailbox.stop is None:
            log.warning("child.died_yielding", extra={"job_id": attempt.job.id, "cause": crashed.detail})
            return Lost() if attempt.mailbox.lost else Yielded()
        return crashed

    def _listen(self, attempt: Attempt, channel: Channel, told: dict[str, Any]) -> Outcome | None:
        """Apply what the child says until the attempt has ended; None if the child did. Fills `told` with what its
        span was told there.
        """
        port = LocalPort(attempt)
        while True:
            frame = channel.next_buffered()
            if frame is None:
                readable, _, _ = select.select([channel.fileno(), self._wake_r], [], [])
                if self._wake_r in readable:
                    os.read(self._wake_r, 4096)
                self._tell(attempt, channel)
                if channel.fileno() in readable and not channel.fill():
                    return None
                continue
            apply(port, unpack_report(frame[1]))
            if frame[0] == "end":
                told.update(frame[3])
                return unpack_outcome(frame[2])
            if frame[0] == "sync":
                channel.send(("synced", synced(port)))

    def _tell(self, attempt: Attempt, channel: Channel) -> None:
        flags = (attempt.mailbox.interrupted, attempt.mailbox.lost)
        if flags != self._told and flags != (False, False):
            self._told = flags
            channel.send(("stop", attempt.mailbox.lost))

    # --- starting and ending the child ---------------------------------------------------------------------------

    def _ready_channel(self, attempt: Attempt | None) -> Channel | None:
        """The channel to a child that is ready; None if the attempt is not wanted any more, or the pool stops."""
        failures = 0
        while not (self._pool.stopping or (attempt is not None and attempt.mailbox.interrupted)):
            if self._process is not None and self._process.poll() is not None:
                # It died between two jobs, which harmed nobody.
                log.warning("child.died_idle", extra={"pid": self._process.pid, "cause": self._crashed().detail})
            if self._channel is not None:
                return self._channel
            why = self._start()
            if why is None:
                continue
            delay = START_DELAYS[min(failures, len(START_DELAYS) - 1)]
            failures += 1
            log.error("child.start_failed", extra={"app": self._pool.app_path, "error": why, "again_in": delay})
            self._wait(attempt, delay)
        return None

    def _wait(self, attempt: Attempt | None, seconds: float) -> None:
        clock, bell = self._pool.runtime.clock, self._pool.runtime.signal()
        until = clock.monotonic() + seconds
        while clock.monotonic() < until and not (
            self._pool.stopping or (attempt is not None and attempt.mailbox.interrupted)
        ):
            bell.wait(LOOK_EVERY)

    def _start(self) -> str | None:
        """Start a child and wait until it is ready; why it is not, else."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "processor.executors.child"]
            self._why = ""
            # Started from this thread, which lives as long as the pool: Linux ends a child with the *thread* that
            # started it.
            try:
                self._process = subprocess.Popen(
                    [*command, self._pool.app_path, str(theirs.fileno()), str(os.getpid()), self._pool.log_format],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    cwd=self._pool.folder,
                    env={**os.environ, **self._pool.env},
                    # Led by the child: what a handler starts is ended with it, and a signal to the worker's group (of a
                    # terminal, of `timeout`) is for the worker alone.
                    process_group=0,
                )
            except (OSError, ValueError) as error:
                # No memory or no processes left, or a handler has put something odd into the environment.
                ours.close()
                return message_of(error)
        channel = Channel(ours)
        frame = channel.receive()
        if frame == ("ready",):
            self._channel = channel
            log.info("child.started", extra={"pid": self._process.pid})
            return None
        channel.close()
        detail = self._crashed().detail
        return frame[1] if frame is not None else detail

    def _crashed(self) -> Crashed:
        """The child is over: take leave of it and say how it ended."""
        process, self._process = self._process, None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if process is None:
            return Crashed("the child process is gone")
        if process.returncode is None:
            # It is not waited for yet, so nobody else can have its number.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            _end_group(process)
        code = process.wait()
        if self._why:
            return Crashed(f"the child process was killed: {self._why}")
        if code >= 0:
            return Crashed(f"the child process ended itself with exit code {code}")
        return Crashed(f"the child process was ended by {_signal_name(-code)}")

    def _drop_child(self) -> None:
        self.end_child("the worker stops")
        if self._process is not None:
            self._crashed()
        self.close()

    def close(self) -> None:
        """Let go of the bell."""
        os.close(self._wake_r)
        os.close(self._wake_w)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a child that was not waited for yet, with all that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
