"""One worker process, as `processor worker --no-supervise` composes it, that says how it went: a JSON object on stdout.

It ends when so many jobs are finished and flushed, or by SIGTERM. No job is waited for for ever.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks import jobs
from processor.broker.base import TopicPartition
from processor.broker.kafka import KafkaBroker, from_settings
from processor.core.control import Change
from processor.engine.fence import Fence
from processor.engine.loop import Worker
from processor.engine.queue_partition import PartitionPhase
from processor.executors.parent_death import die_with_parent
from processor.executors.pools import make_pool
from processor.process.service import ServeOptions, worker_config
from processor.runtime import ThreadedRuntime
from processor.runtime.gc_tuning import collect_seldom
from processor.wire.records import ControlRecord
from processor.wire.settings_sources import load_settings

LOOK = 0.005
"""Seconds between two looks at the counters."""
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the parent asks for."""

    bootstrap: str
    slot: str = "bench-0"
    expect: int | None = None
    """Jobs after which to end; None: run until SIGTERM."""
    expect_samples: int | None = None
    """The same for what handlers note."""
    patience: float = 240.0
    """Seconds after which to end in any case."""
    expect_type: str | None = None
    """Only jobs of this type count."""
    watch_memory: bool = False
    paused: bool = False
    """Its queue is paused: what comes into its lanes stays there."""

    def text(self) -> str:
        """As an argument."""
        return json.dumps(asdict(self))


@dataclass(slots=True, kw_only=True)
class Report:
    """How it went. Times in seconds of the monotonic clock."""

    assigned_at: float = 0.0
    """The group gave this worker its first numbers."""
    active_at: float = 0.0
    """All of them were restored and claimed."""
    began_at: float = 0.0
    """The first job was handed out: from when one is finished, the owner may be behind with counting others."""
    began_with: int = 0
    """How many were finished then."""
    ended_at: float = 0.0
    """All were finished, and the log had it."""
    finished: int = 0
    cpu: float = 0.0
    """Processor seconds of this process from `began_at` to `ended_at`."""
    events: dict[str, int] = field(default_factory=dict)
    restores: list[float] = field(default_factory=list)
    memory: list[tuple[int, float]] = field(default_factory=list)
    """Resident MB after so many jobs."""
    samples: list[float] = field(default_factory=list)
    """What handlers measured."""

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return (self.finished - self.began_with) / (self.ended_at - self.began_at)

    @property
    def cpu_of_a_job(self) -> float:
        """Microseconds of processor time, all threads of the process."""
        return self.cpu / (self.finished - self.began_with) * 1e6


class Watch:
    """Looks at the counters of a worker from a thread of its own."""

    def __init__(self, worker: Worker, order: Order) -> None:
        self.report = Report()
        self._worker = worker
        self._order = order
        self._over = threading.Event()
        self._failed: Exception | None = None
        self._quiet_since: float | None = None
        self._cpu = 0.0
        assigned = worker.ownership.on_assigned

        def on_assigned(fence: Fence, partitions: Sequence[TopicPartition], membership: Any) -> None:
            if partitions and not self.report.assigned_at:
                self.report.assigned_at = time.monotonic()
            assigned(fence, partitions, membership)

        worker.ownership.on_assigned = on_assigned  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._look()
        except Exception as error:  # noqa: BLE001  (told by `finish`: nobody else would ever end this worker)
            self._failed = error
        self._worker.stop()

    def _look(self) -> None:
        memory_at = 0.0
        deadline = time.monotonic() + self._order.patience
        while not self._over.wait(LOOK):
            now = time.monotonic()
            finished = _succeeded(self._worker, self._order.expect_type)
            self._note(now, finished)
            if self._order.watch_memory and now >= memory_at:
                memory_at = now + 0.25
                self.report.memory.append((finished, resident_mb()))
            if self._complete(now, finished) or now > deadline:
                return

    def _complete(self, now: float, finished: int) -> bool:
        order = self._order
        if order.expect_samples is not None:
            return len(jobs.SAMPLES) >= order.expect_samples
        return order.expect is not None and finished >= order.expect and self._flushed(now)

    def _note(self, now: float, finished: int) -> None:
        report = self.report
        if not report.active_at and report.assigned_at:
            standings = {number.phase for number in list(self._worker.state.numbers.values())}
            if standings == {PartitionPhase.ACTIVE}:
                report.active_at = now
                say("active")
        handed_out = any(ready_queue.outstanding for ready_queue in list(self._worker.dispatch.ready_queues.values()))
        if not report.began_at and (finished or handed_out):
            report.began_at, report.began_with, self._cpu = now, finished, time.process_time()

    def _flushed(self, now: float) -> bool:
        """Whether nothing waits for the log; seen twice, because freezing and flushing are not noted in one moment."""
        worker = self._worker
        if worker.state.outbox_load.oldest_at is not None or worker.flushing.under_way:
            self._quiet_since = None
            return False
        if self._quiet_since is None:
            self._quiet_since = now
            return False
        self.report.ended_at = self._quiet_since
        self.report.cpu = time.process_time() - self._cpu
        return True

    def finish(self) -> Report:
        """The report, when the worker has ended."""
        self._over.set()
        self._thread.join()
        if self._failed is not None:
            raise self._failed
        tally, report = self._worker.state.counters, self.report
        report.finished = _succeeded(self._worker, self._order.expect_type)
        report.ended_at = report.ended_at or time.monotonic()
        report.events = dict(tally.events)
        report.events.update({f"n.{k}.{o}": n for (_, k, o), n in tally.finished.items()})
        report.restores = tally.restore_seconds
        report.samples = jobs.SAMPLES
        return report


def resident_mb() -> float:
    """Resident memory of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE_MB


def say(event: str, **fields: Any) -> None:
    """A line for the parent."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def pause_of(queue: str) -> Change:
    """As the control topic would say it."""
    return Change(f"queue:{queue}", ControlRecord(f"queue:{queue}", "pause", 0, "bench"))


def _succeeded(worker: Worker, wanted: str | None) -> int:
    counts = worker.state.counters.finished.copy()
    return sum(n for (_, kind, outcome), n in counts.items() if outcome == "succeeded" and wanted in (None, kind))


def main() -> None:
    """Serve as the parent orders."""
    die_with_parent(os.getppid())
    order = Order(**json.loads(sys.argv[1]))
    settings = load_settings({"kafka.bootstrap": order.bootstrap}, env={})
    config = worker_config(jobs.app, settings, order.slot, ServeOptions(queues=(jobs.QUEUE,)))
    broker = KafkaBroker(from_settings(settings))
    jobs.app.bind(broker)
    worker = Worker(ThreadedRuntime(), broker, config, jobs.app.job_types, make_pool)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    if order.paused:
        worker.state.gate.control.apply(pause_of(jobs.QUEUE))
        worker.state.gate.resting = worker.state.gate.control.paused_queues
    collect_seldom()
    watch = Watch(worker, order)
    worker.run()
    say("report", **asdict(watch.finish()))


if __name__ == "__main__":
    main()
