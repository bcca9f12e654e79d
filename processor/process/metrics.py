"""The catalogue's metrics, filled when somebody asks: the owning thread counts in plain numbers (`Tally`) and never
waits for a scrape.
"""

from __future__ import annotations

import platform
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from typing import TYPE_CHECKING

from processor.engine.queue_partition import PartitionPhase, QueuePartition
from processor.wire.metrics import OTHER, Registry

if TYPE_CHECKING:
    from processor.engine.loop import Worker

_EVENTS: dict[str, tuple[str, ...]] = {
    "flush.committed": ("flushes_total", "committed"),
    "flush.failed": ("flushes_total", "aborted"),
    "rebalance.assigned": ("rebalances_total", "assigned"),
    "rebalance.revoked": ("rebalances_total", "revoked"),
    "rebalance.lost": ("rebalances_total", "lost"),
    "forwarded": ("retries_forwarded_total",),
    "schedules.fired": ("schedule_runs_total",),
    "schedules.missed": ("schedule_misses_total",),
    "schedules.held": ("schedule_holds_total",),
    "abandoned": ("attempts_abandoned_total",),
}
"""Events with a metric of their own: name in the tally -> metric, and label if it has one."""
_PER_QUEUE = {
    "checkpoints": "checkpoints_total",
    "steps": "steps_total",
    "restores": "restores_total",
    "promoted": "promoted_total",
    "dropped_copies": "dropped_copies_total",
    "keys_reused": "keys_reused_total",
    "takeovers": "takeovers_total",
}
"""Counted for the whole process; with one queue the label is its name, else `_other`."""


class Scrape:
    """Turns the tally of a worker into the text of `/metrics`."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._registry = Registry()
        self._seen: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self._lock = threading.Lock()
        self._queue_of = {name: getattr(kind, "queue", OTHER) for name, kind in worker.state.registry.items()}
        queues = worker.config.queues
        self._lone_queue = queues[0].name if len(queues) == 1 else OTHER
        self._registry.gauge("build_info", _version(), platform.python_version()).set(1)

    def render(self) -> bytes:
        """All series, as of now."""
        # Two scrapes at a time would count the same growth twice.
        with self._lock:
            self._count()
            self._measure()
            self._observe()
            return self._registry.render()

    def _grow(self, total: int | float, name: str, *labels: str) -> None:
        """Bring a counter to `total`: counters of the registry only know how to grow."""
        key = (name, *labels)
        more = total - self._seen[key]
        if more > 0:
            self._registry.counter(name, *labels).inc(more)
            self._seen[key] = total

    def _count(self) -> None:
        counters = self._worker.state.counters
        started: Counter[tuple[str, str]] = Counter(self._running())
        for (queue, job_type, outcome), count in counters.finished.copy().items():
            self._grow(count, "jobs_finished_total", queue, job_type, outcome)
            started[queue, job_type] += count
        for (queue, job_type), count in started.items():
            self._grow(count, "jobs_started_total", queue, job_type)
        for event, count in counters.events.copy().items():
            if event in _EVENTS:
                self._grow(count, *_EVENTS[event])
            elif event in _PER_QUEUE:
                self._grow(count, _PER_QUEUE[event], self._lone_queue)
            elif event.startswith("dead_letter."):
                self._grow(count, "dead_letters_total", self._lone_queue, event.partition(".")[2])
            elif event.startswith("stopped."):
                self._grow(count, "attempts_stopped_total", event.partition(".")[2])
        for cause, count in self._worker.flushing.flusher.rebuilds.copy().items():
            self._grow(count, "producer_rebuilds_total", cause)

    def _measure(self) -> None:
        worker, engine, gauge = self._worker, self._worker.state, self._registry.gauge
        numbers = list(engine.numbers.values())
        for queue in worker.config.queues:
            own = [number for number in numbers if number.queue.name == queue.name]
            gauge("numbers_owned", queue.name).set(len(own))
            gauge("numbers_held", queue.name).set(sum(number.phase is PartitionPhase.HELD for number in own))
            gauge("window_width", queue.name).set(_widest(own))
        gauge("outbox_records").set(engine.outbox_load.records)
        gauge("outbox_bytes").set(engine.outbox_load.size)
        ready_queues = list(worker.dispatch.ready_queues.values())
        gauge("slots").set(sum(ready_queue.pool.slots for ready_queue in ready_queues))
        gauge("slots_used").set(
            sum(min(ready_queue.outstanding, ready_queue.pool.slots) for ready_queue in ready_queues)
        )
        gauge("attempts_left_behind").set(sum(ready_queue.pool.left_behind() for ready_queue in ready_queues))
        running = self._running()
        for key in [key[1:] for key in self._seen if key[0] == "jobs_in_progress"]:
            gauge("jobs_in_progress", *key).set(0)
        for key, count in running.items():
            gauge("jobs_in_progress", *key).set(count)
            self._seen["jobs_in_progress", *key] = 1
        gauge("broker_up").set(engine.broker.answers)
        silent = engine.clock.monotonic() - worker.last_turn
        gauge("last_loop_timestamp_seconds").set(engine.clock.now_ms() / 1000 - silent)

    def _running(self) -> Counter[tuple[str, str]]:
        """Attempts in the hands of executors, by queue and type."""
        running: Counter[tuple[str, str]] = Counter()
        for number in list(self._worker.state.numbers.values()):
            for attempt in list(number.jobs.attempts.values()):
                if attempt.started_at is not None and attempt.outcome is None:
                    running[number.queue.name, attempt.job.type] += 1
        return running

    def _observe(self) -> None:
        counters, histogram = self._worker.state.counters, self._registry.histogram
        for job_type in list(counters.run_seconds):
            seconds = histogram("job_run_seconds", self._queue_of.get(job_type, OTHER), job_type)
            for value in _taken(counters.run_seconds[job_type]):
                seconds.observe(value)
        for queue in list(counters.wait_seconds):
            waited = histogram("job_wait_seconds", queue)
            for value in _taken(counters.wait_seconds[queue]):
                waited.observe(value)
        for samples, name in (
            (counters.flush_seconds, "flush_seconds"),
            (counters.flush_records, "flush_records"),
            (counters.restore_seconds, "restore_seconds"),
        ):
            for value in _taken(samples):
                histogram(name).observe(value)


def _taken(samples: list[float]) -> Iterable[float]:
    """Take what is there; the owner may append meanwhile."""
    count = len(samples)
    taken = samples[:count]
    del samples[:count]
    return taken


def _widest(numbers: Iterable[QueuePartition]) -> int:
    widest = 0
    for number in numbers:
        for lane in list(number.lanes.values()):
            # The owner changes windows while this thread looks: a look that fails is made up by the next scrape.
            with suppress(RuntimeError):
                widest = max(widest, lane.window.read_mark - lane.window.low)
    return widest


def _version() -> str:
    try:
        return metadata.version("kafka-job-processor")
    except metadata.PackageNotFoundError:
        return "unknown"
