"""What runs in a child of the process executor: `python -m processor.executors.child APP FD PARENT LOG`.

The main thread runs handlers, one at a time. A reader thread takes what the worker says: jobs, and the wish to stop. A
sender thread carries reports to the worker, so that a checkpoint costs the handler no more than in a thread; reports
that come while it sends leave together, and of several progresses only the newest.

When the worker ends, so does this process: by the kernel, and by the end of the socket.
"""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from typing import Any, NoReturn

from processor import events
from processor.broker.base import OutRecord
from processor.clock import Clock, SystemClock
from processor.context.mailbox import Mailbox
from processor.context.port import ContextLimits, Forgotten
from processor.core.deadlines import ends_at
from processor.core.failures import error_info
from processor.core.outcome import Failed, Outcome, Parked
from processor.dead_reasons import DeadReason
from processor.engine.registry import RunnableJob
from processor.errors import UnknownJobType
from processor.executors.child_frames import (
    Assigned,
    Channel,
    Frame,
    Report,
    pack_outcome,
    pack_report,
    unpack_assigned,
)
from processor.executors.fork_signals import default_in_forks
from processor.executors.loading import Application, load_application, run_start_hooks
from processor.executors.parent_death import die_with_parent, take_group_along
from processor.executors.random_state import reseed
from processor.executors.runner import outcome_of, run_async, run_sync
from processor.executors.traced import CarriedOn
from processor.job import Job, Progress, Step
from processor.logs import configure, write_lines_at_once
from processor.runtime.gc_tuning import GrowthWatch
from processor.states import State
from processor.texts import message_of

log = events.logger(__name__)


class ChildPort:
    """The attempt, as the context in this process sees it. Implements `processor.context.port.AttemptPort`."""

    def __init__(self, assigned: Assigned, wake: Callable[[], None]) -> None:
        self._assigned = assigned
        self.mailbox = Mailbox()
        self.mailbox.latest = assigned.resumed
        self.clock: Clock = SystemClock()
        self._began = self.clock.monotonic()
        self.limits = ContextLimits(**assigned.limits)
        self.synced: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.wants_sync = False
        self.unsendable: Failed | None = None
        """Something that the handler reported could not be sent: how the attempt ends."""
        self.job_type: RunnableJob | None = None
        self._wake = wake
        self._sent = assigned.resumed
        self._beat = False

    @property
    def job(self) -> Job:
        return self._assigned.job

    @property
    def resumed(self) -> Progress | None:
        return self._assigned.resumed

    @property
    def steps(self) -> Mapping[str, Step]:
        return self._assigned.steps

    @property
    def interrupted(self) -> bool:
        return self.mailbox.interrupted

    def check(self) -> None:
        self.mailbox.check(self.job.id)

    @property
    def fencing_token(self) -> tuple[int, int, int]:
        """(life, hop, epoch)."""
        return self._assigned.fencing_token

    @property
    def patience(self) -> float:
        """Seconds that a record of a newer version waits for a deploy."""
        return self._assigned.patience

    @property
    def runnable(self) -> RunnableJob:
        """The job type."""
        if self.job_type is None:
            raise UnknownJobType(f"the child process knows no job type {self.job.type!r}")
        return self.job_type

    @property
    def ends_at(self) -> int | None:
        """When this attempt is told to stop at the latest, milliseconds since the epoch."""
        ran, now_ms = self.clock.monotonic() - self._began, self.clock.now_ms()
        return ends_at(self.runnable.options, self.job, ran=ran, now_ms=now_ms)

    # --- the handler's side --------------------------------------------------------------------------------------

    def note(self, progress: Progress) -> None:
        """Not worth a frame: it travels with the next one, at the latest with the outcome."""
        self.mailbox.latest = progress

    def save(self, progress: Progress) -> None:
        mailbox = self.mailbox
        mailbox.latest = progress
        if not mailbox.wants_save:
            mailbox.wants_save = True
            self._wake()

    def save_step(self, step: Step) -> None:
        self.mailbox.report(step)
        self._wake()

    def forget_steps(self, names: Sequence[str]) -> None:
        if names:
            self.mailbox.report(Forgotten(tuple(names)))

    def spawn(self, record: OutRecord, child_id: str) -> None:
        self.mailbox.report(record)
        self._wake()

    def progressed(self, done: float, total: float | None, note: str | None) -> None:
        # Whatever number type a handler counts in: the frame takes plain ones.
        told = (float(done), None if total is None else float(total), None if note is None else str(note))
        self.mailbox.progressed = told
        self._wake()

    def heartbeat(self) -> None:
        self._beat = True
        self._wake()

    def sync(self) -> None:
        """Wait until all that was saved is durable."""
        self.check()
        self.wants_sync = True
        self._wake()
        how = self.synced.get()
        if how == "lost":
            self.mailbox.lose()
        elif how == "yielded":
            self.mailbox.interrupt()
        if how != "durable":
            self.check()

    async def async_sync(self) -> None:
        """As `sync`, for the event loop."""
        await asyncio.to_thread(self.sync)

    # --- the sender's side ---------------------------------------------------------------------------------------

    def drain(self) -> Report | None:
        """What is new, None if nothing. Reads the progress last: it must not be older than what is forgotten."""
        mailbox = self.mailbox
        steps, children, forgotten = mailbox.take()
        beat, self._beat = self._beat, False
        reported, mailbox.progressed = mailbox.progressed, None
        save, mailbox.wants_save = mailbox.wants_save, False
        latest = mailbox.latest
        progress = latest if latest is not self._sent else None
        self._sent = latest
        report = Report(steps, children, progress, save, forgotten, reported, beat)
        return report if any(report) else None


class Child:
    """The process that runs handlers for a worker: its main loop, its reader and its sender."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._jobs: queue.SimpleQueue[Assigned] = queue.SimpleQueue()
        self._port: ChildPort | None = None
        self._sending = threading.Lock()
        self._news = threading.Event()

    def serve(self, app: Application) -> NoReturn:
        """Run what the worker sends, for ever."""
        threading.Thread(target=self._listen, name="worker-says", daemon=True).start()
        threading.Thread(target=self._carry, name="reports", daemon=True).start()
        self._channel.send(("ready",))
        # What the start hooks have set; each attempt runs in a copy.
        context = copy_context()
        growth = GrowthWatch()
        home = os.getcwd()
        while True:
            assigned = self._jobs.get()
            port = self._port
            assert port is not None  # set by the reader before it hands the job over
            outcome, told = context.copy().run(self._traced, port, app.job_types.get(assigned.job.type), assigned.trace)
            # Half a line, too: whoever prints it may be killed before it is whole.
            with suppress(Exception):
                sys.stdout.flush()
            with self._sending:
                self._port = None
                self._send_end(port, outcome, told)
            # The next job's relative paths are not this one's.
            with suppress(OSError):
                os.chdir(home)
            growth.turn(time.monotonic())

    def _send_end(self, port: ChildPort, outcome: Outcome, told: Mapping[str, Any]) -> None:
        try:
            self._send(("end", pack_report(port.drain() or Report()), pack_outcome(outcome), told))
        except Exception as error:  # noqa: BLE001  (as in `_carry`)
            failed = Failed(error_info(error), DeadReason.INTERNAL_ERROR)
            self._send(("end", pack_report(Report()), pack_outcome(failed), {}))

    def _traced(self, port: ChildPort, job_type: RunnableJob | None, trace: str) -> tuple[Outcome, Mapping[str, Any]]:
        """The outcome, and what the span of the attempt was told here."""
        span = CarriedOn(trace)
        try:
            return self._run(port, job_type), span.told
        finally:
            span.leave()

    def _run(self, port: ChildPort, job_type: RunnableJob | None) -> Outcome:
        if job_type is None:
            # The code on disk is older than what the worker has imported: a deploy is under way.
            until = port.clock.now_ms() + int(port.patience * 1000)
            return Parked(State.WAITING, f"the child process knows no job type {port.job.type!r}", until)
        port.job_type = job_type
        try:
            # Handlers for the event loop come here only as suspects: alone in a process, where no other dies with them.
            outcome = asyncio.run(run_async(port)) if job_type.kind == "async" else run_sync(port)
        except BaseException as error:  # noqa: BLE001  (a SystemExit in a task that the handler made ends its loop)
            outcome = outcome_of(port, error)
        return outcome if port.unsendable is None else port.unsendable

    def _listen(self) -> None:
        while True:
            frame = self._channel.receive()
            if frame is None:
                # The worker is gone: whatever runs here counts for nobody any more.
                os._exit(1)
            self._heard(frame)

    def _heard(self, frame: Frame) -> None:
        kind = frame[0]
        if kind == "job":
            assigned = unpack_assigned(frame)
            self._port = ChildPort(assigned, self._news.set)
            self._jobs.put(assigned)
            return
        port = self._port
        if port is None:
            return
        if kind == "stop":
            port.mailbox.lost = port.mailbox.lost or frame[1]
            port.mailbox.interrupt()
        elif kind == "synced":
            port.synced.put(frame[1])

    def _carry(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            port = self._port
            try:
                with self._sending:
                    self._send_news()
            except Exception as error:
                # What the handler reported cannot be sent, so this attempt cannot succeed: it does not know yet.
                log.exception("child.report_failed")
                if port is not None:
                    port.unsendable = Failed(error_info(error), DeadReason.INTERNAL_ERROR)
                    port.mailbox.interrupt()
                    port.synced.put("yielded")

    def _send_news(self) -> None:
        port = self._port
        if port is None:
            return
        # Looked at first: what was reported before the wish is part of the report.
        sync, port.wants_sync = port.wants_sync, False
        report = port.drain()
        if report is not None or sync:
            self._send(("sync" if sync else "news", pack_report(report or Report())))

    def _send(self, frame: Frame) -> None:
        try:
            self._channel.send(frame)
        except OSError:
            os._exit(1)


def _ignore_stops() -> None:
    """A signal to all processes of a terminal or a service is the worker's: it decides what becomes of its jobs.

    By handlers that do nothing and not by ignoring: what a handler starts would ignore them too.
    """
    default_in_forks()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
        signal.siginterrupt(number, False)


def main(arguments: Sequence[str]) -> NoReturn:
    """Be a child process."""
    app_path, descriptor, parent, log_format = arguments
    die_with_parent(int(parent))
    if log_format:
        configure(log_format)
    write_lines_at_once()
    _ignore_stops()
    take_group_along(int(descriptor))
    channel = Channel(socket.socket(fileno=int(descriptor)))
    try:
        app = load_application(app_path)
        reseed()
        run_start_hooks(app)
    except BaseException as error:
        channel.send(("refused", f"{type(error).__name__}: {message_of(error)}"))
        log.exception("child.start_failed", extra={"app": app_path})
        os._exit(1)
    Child(channel).serve(app)


if __name__ == "__main__":
    main(sys.argv[1:])
