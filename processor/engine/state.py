"""What the parts of the owning thread share: the numbers it owns, their lanes, and how much is in flight.

Everything here is touched by the owning thread alone; other threads reach it through `inbox`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from processor import events
from processor.broker.base import Broker, Record
from processor.context.port import ContextLimits
from processor.core.completer import Completer
from processor.core.live import LiveTable
from processor.core.write_set import Origin, Topics
from processor.engine.attempt import Attempt, AttemptShared
from processor.engine.config import QueueConfig, WorkerConfig
from processor.engine.counters import Counters
from processor.engine.fence import Fence
from processor.engine.gate import Gate
from processor.engine.owned_partition import OwnedLane, OwnedPartition, Tenure
from processor.engine.partition_outbox import OutboxLoad, OutboxMark
from processor.engine.queue_load import QueueLoad
from processor.engine.queue_partition import LaneState, PartitionPhase, QueuePartition
from processor.engine.value_file import ValueFile
from processor.errors import RecordError
from processor.job import Job, Lane
from processor.runtime import Inbox, Runtime
from processor.tracing import WorkerTracing, found
from processor.wire.codec import encode
from processor.wire.topics import checkpoints_topic, dedupe_topic, dlq_topic, jobs_topic, status_topic

if TYPE_CHECKING:
    from processor.engine.registry import JobTypes


log = events.logger(__name__)

AHEAD_LEAST, AHEAD_MOST = 16, 1000
"""Records that one handler may have on their way to the log: together the handlers fill the outbox, not more."""
AHEAD_LEAST_BYTES, AHEAD_MOST_BYTES = 256 * 1024, 4 * 1024 * 1024


class Guards(Protocol):
    """What is done when something goes wrong with one job, record or partition: `processor.engine.guard.Guard`."""

    def job(self, attempt: Attempt, error: Exception, mark: OutboxMark, *, runs: bool = False) -> None: ...
    def record(self, lane: LaneState, record: Record, error: Exception, mark: OutboxMark) -> None: ...
    def live(self, number: QueuePartition, job_id: str, raw: bytes, error: Exception) -> None: ...
    def unsendable(self, attempt: Attempt, what: str, times: int) -> None: ...
    def number(self, number: QueuePartition, doing: str, error: Exception) -> None: ...
    def number_act(self, number: QueuePartition, doing: str, act: Callable[[], object]) -> None: ...


class EngineState:
    """The partitions that a worker owns, their lanes, and how much is in flight."""

    def __init__(self, runtime: Runtime, broker: Broker, config: WorkerConfig, registry: JobTypes) -> None:
        self.runtime = runtime
        self.clock = runtime.clock
        self.broker = broker
        self.config = config
        self.registry = registry
        self.completer = Completer(config.slot)
        self.counters = Counters()
        self.gate = Gate()
        self.inbox: Inbox[object] = Inbox(runtime)
        slots = max(sum(queue.concurrency for queue in config.queues), 1)
        limits = ContextLimits(
            checkpoint_max_bytes=config.checkpoint_max_bytes,
            result_max_bytes=config.result_max_bytes,
            payload_max_bytes=config.payload_max_bytes,
            ahead_max_records=min(max(config.outbox_max_records // slots, AHEAD_LEAST), AHEAD_MOST),
            ahead_max_bytes=min(max(config.outbox_max_bytes // slots, AHEAD_LEAST_BYTES), AHEAD_MOST_BYTES),
        )
        spans = found() if config.tracing else None
        tracing = None if spans is None else WorkerTracing(config.namespace, config.slot, spans)
        patience = config.unknown_type_patience
        self.shared = AttemptShared(self.inbox, runtime.clock, limits, runtime.signal, patience, None, tracing)
        self.fences = {queue.name: Fence(config.group(queue.name)) for queue in config.queues}
        """Of the group of each queue."""
        self.numbers: dict[tuple[str, int], QueuePartition] = {}
        self.claimed: dict[tuple[str, int], int] = {}
        """The last epoch of every number that this process has owned."""
        self.lanes: dict[tuple[str, int], LaneState] = {}
        """Lane partitions of active numbers, by (topic, partition)."""
        self.normal_topics = {jobs_topic(config.namespace, q.name, Lane.NORMAL): q for q in config.queues}
        share = max(len(config.queues), 1)
        self.loads = {
            queue.name: QueueLoad(config.inflight_max_records // share, config.inflight_max_bytes // share)
            for queue in config.queues
        }
        self.outbox_load = OutboxLoad(runtime.clock)
        self.guard: Guards
        """Set by the loop: it needs the parts that end jobs and hold numbers."""
        self.values = ValueFile()
        """Large values of what lives in the checkpoint topics."""
        self._assignments = 0

    @property
    def queues(self) -> dict[str, QueueConfig]:
        """The queues that this worker serves, by name."""
        return {queue.name: queue for queue in self.config.queues}

    def new_number(self, queue: QueueConfig, partition: int) -> QueuePartition:
        """Begin an assignment."""
        ns = self.config.namespace
        topics = Topics(
            status_topic(ns),
            dlq_topic(ns),
            checkpoints_topic(ns, queue.name),
            dedupe_topic(ns, queue.name),
            partition,
            ns,
        )
        self._assignments += 1
        dedupe_ms = int(self.config.dedupe_window * 1000)
        tenure = Tenure(self.config.slot, self.claimed.get((queue.name, partition), 0))
        load, outbox = self.loads[queue.name], self.outbox_load
        number: QueuePartition = OwnedPartition(queue, self._assignments, topics, tenure, dedupe_ms, load, outbox)
        number.live = LiveTable(self.values.keep)
        for lane in queue.lanes:
            number.lanes[lane] = OwnedLane(number, lane, jobs_topic(ns, queue.name, lane), partition)
        self.numbers[queue.name, partition] = number
        return number

    def drop_number(self, number: QueuePartition) -> None:
        """End an assignment: whatever still runs for it no longer counts."""
        if self.numbers.get((number.queue.name, number.partition)) is number:
            del self.numbers[number.queue.name, number.partition]
        for lane in number.lanes.values():
            if self.lanes.get(lane.key) is lane:
                del self.lanes[lane.key]
        number.assignment = -1
        self.abandon(number)

    def abandon(self, number: QueuePartition) -> None:
        """Whatever runs for this number counts no more, and hears of it."""
        for attempt in number.jobs.attempts.values():
            attempt.mailbox.lose()
            self._forget_load(attempt)
        for attempt in number.outbox.named:
            if attempt.ready_queue is not None:
                attempt.ready_queue.submit(attempt)  # it comes back as lost, and its slot is free
        number.outbox.named.clear()
        number.jobs.attempts.clear()
        number.order.drop_all()
        for sync in number.outbox.syncs:
            sync.release()
        number.outbox.syncs.clear()

    def take(self, attempt: Attempt) -> None:
        """An attempt now weighs on the worker."""
        number = attempt.number
        number.jobs.attempts[attempt.job.id] = attempt
        load = number.load
        load.records += 1
        load.size += len(attempt.raw)

    def forget(self, attempt: Attempt) -> None:
        """It no longer does."""
        number = attempt.number
        if number.jobs.attempts.get(attempt.job.id) is attempt:
            del number.jobs.attempts[attempt.job.id]
            self._forget_load(attempt)

    @staticmethod
    def _forget_load(attempt: Attempt) -> None:
        load = attempt.number.load
        load.records -= 1
        load.size -= len(attempt.raw)

    def rewrite(self, attempt: Attempt, job: Job) -> None:
        """What is known of its job has changed: its record is another one from now on."""
        load = attempt.number.load
        load.size -= len(attempt.raw)
        attempt.job, attempt.raw = job, encode(job)
        load.size += len(attempt.raw)

    def keep_unreadable(
        self, number: QueuePartition, topic: str, offset: int, key: bytes, value: bytes, error: RecordError
    ) -> None:
        """A checkpoint or mark that does not decode: its raw bytes go to the dead letters, its job does without."""
        origin = Origin(topic, number.partition, offset)
        now = self.clock.now_ms()
        out = self.completer.undecodable(number.topics.dlq, origin, key, value, error.code, str(error), now)
        number.outbox.create(out)
        self.counters.events[f"dead_letter.{error.code}"] += 1
        log.error(
            "checkpoint.unreadable",
            extra={"topic": origin.topic, "partition": origin.partition, "offset": offset, "error": str(error)},
        )

    @property
    def inflight_records(self) -> int:
        """Records taken from the log and not complete, of all queues."""
        return sum(load.records for load in self.loads.values())

    @property
    def inflight_bytes(self) -> int:
        """Their bytes."""
        return sum(load.size for load in self.loads.values())

    @property
    def has_room(self) -> bool:
        """Whether the worker may take more from the log, of a queue at least. Each has its share of the bounds: what a
        fetch brings beyond the share of one queue is not taken from the others.
        """
        config, outbox = self.config, self.outbox_load
        return (
            any(not load.is_full for load in self.loads.values())
            and outbox.records + outbox.flushed_records < config.outbox_max_records
            and outbox.size + outbox.flushed_size < config.outbox_max_bytes
        )

    def active(self) -> Iterator[QueuePartition]:
        """Numbers whose jobs may run."""
        return (number for number in self.numbers.values() if number.phase is PartitionPhase.ACTIVE)

    def attempt(self, number: QueuePartition, lane: LaneState | None, origin: Origin, job: Job, raw: bytes) -> Attempt:
        """A new attempt of a job read at `origin`."""
        return Attempt(self.shared, number, lane, origin, job, raw, self.registry.get(job.type))
