"""Producers of the memory broker: plain, and transactional with librdkafka's rules about what may follow what."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import NamedTuple, TypeVar, cast

from processor.broker.base import (
    ANY_PARTITION,
    Acks,
    BulkResult,
    Failure,
    Membership,
    OffsetCommit,
    OutRecord,
    TopicPartition,
)
from processor.broker.memory.cluster import Cluster, Process
from processor.broker.memory.faults import Frame, HeldFrame
from processor.broker.memory.groups import MembershipMoment
from processor.broker.memory.log import Fate, PartitionLog, Topic
from processor.broker.memory.transactions import InvalidTransactionState, ProducerEpoch
from processor.broker.partitioner import partition_for
from processor.errors import (
    AbortRequired,
    BrokerError,
    BrokerUnavailable,
    ProducerFatal,
    RecordRefused,
    RetriableBrokerError,
    TopicRefused,
)

T = TypeVar("T")
OnDelivery = Callable[[BrokerError | None], None]


class _Route:
    """Finds the partition of a record, or why it can never be written."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._turn = 0

    def find(self, record: OutRecord) -> tuple[Topic, PartitionLog]:
        """Raises:
        RecordRefused: unknown topic, too large, or else not writable.
        """
        topic = self._cluster.topics.get(record.topic)
        if topic is None:
            raise TopicRefused(f"unknown topic {record.topic}")
        if record.topic in self._cluster.plan.refused_topics:
            raise TopicRefused(f"{record.topic} refuses records")
        topic.check(record, self._cluster.limits.record_bytes)
        if record.partition != ANY_PARTITION:
            return topic, topic.partitions[record.partition]
        if record.key is not None:
            return topic, topic.partitions[partition_for(record.key, len(topic.partitions))]
        self._turn += 1
        return topic, topic.partitions[self._turn % len(topic.partitions)]


class _Waiting(NamedTuple):
    """A record in the local buffer of a plain producer."""

    record: OutRecord
    on_delivery: OnDelivery | None
    deadline: float


class MemoryProducer:
    """`base.Producer`. Writes at once while a broker is up; `on_delivery` runs in `poll` and `flush`."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster = cluster
        self._process = process
        self._route = _Route(cluster)
        self._buffer: deque[_Waiting] = deque()
        self._reports: deque[tuple[OnDelivery, BrokerError | None]] = deque()

    def append(self, record: OutRecord, on_delivery: OnDelivery | None = None) -> None:
        planned = self._cluster.enter(self._process, "append")
        plan, limits = self._cluster.plan, self._cluster.limits
        if len(self._buffer) >= limits.buffered_records:
            enough = limits.buffered_records
            self._cluster.until(self._process, lambda: self._drained_below(enough), self._may_drain, math.inf)
        with self._cluster.lock:
            if self._buffer or plan.outage or plan.buffer_appends:
                deadline = self._cluster.clock.monotonic() + limits.delivery_seconds
                self._buffer.append(_Waiting(record, on_delivery, deadline))
                if not plan.buffer_appends:
                    self._drain()
            else:
                self._report_later(on_delivery, self._write(record))
                self._cluster.notify()
        if planned is not None:
            raise planned.error

    def poll(self, timeout: float) -> None:
        self._cluster.enter(self._process, "poll_producer")
        self._cluster.until(self._process, lambda: self._drained_below(1), self._may_drain, timeout)
        self._report()

    def flush(self, timeout: float) -> int:
        self._cluster.enter(self._process, "flush")
        self._cluster.until(self._process, lambda: self._drained_below(1), self._may_drain, timeout)
        self._report()
        with self._cluster.lock:
            return len(self._buffer)

    def close(self) -> None:
        """Hands over what it can at once and lets go of the rest."""
        self.flush(0)

    def _may_drain(self) -> bool:
        overdue = bool(self._buffer) and self._buffer[0].deadline <= self._cluster.clock.monotonic()
        return overdue or not self._cluster.plan.outage

    def _drained_below(self, limit: int) -> bool | None:
        if len(self._buffer) >= limit:
            self._drain()
        return len(self._buffer) < limit or None

    def _drain(self) -> None:
        now = self._cluster.clock.monotonic()
        while self._buffer and (not self._cluster.plan.outage or self._buffer[0].deadline <= now):
            waiting = self._buffer.popleft()
            error: BrokerError | None = None
            if self._cluster.plan.outage:
                error = BrokerUnavailable("no broker took the record in time")
            else:
                error = self._write(waiting.record)
            self._report_later(waiting.on_delivery, error)
        self._cluster.notify()

    def _write(self, record: OutRecord) -> BrokerError | None:
        try:
            topic, log = self._route.find(record)
        except RecordRefused as error:
            return error
        log.append(record, topic.timestamp(self._cluster.clock.now_ms()), None)
        return None

    def _report_later(self, on_delivery: OnDelivery | None, error: BrokerError | None) -> None:
        if on_delivery is not None:
            self._reports.append((on_delivery, error))

    def _report(self) -> None:
        while self._reports:
            on_delivery, error = self._reports.popleft()
            on_delivery(error)


class _Stage(Enum):
    """What the next call may be."""

    NEW = auto()
    READY = auto()
    OPEN = auto()
    COMMITTING = auto()
    ABORTING = auto()


class MemoryBulkProducer:
    """`base.BulkProducer`, over a plain producer."""

    def __init__(self, producer: MemoryProducer) -> None:
        self._producer = producer
        self._refused: list[tuple[OutRecord, BrokerError]] = []

    def append(self, record: OutRecord) -> None:
        self._producer.append(record, lambda error: self._delivered(record, error))

    def flush(self, timeout: float) -> BulkResult:
        left = self._producer.flush(timeout)
        refused, self._refused = self._refused, []
        return BulkResult(left, refused)

    def close(self) -> None:
        self._producer.close()

    def _delivered(self, record: OutRecord, error: BrokerError | None) -> None:
        if error is not None:
            self._refused.append((record, error))


class MemoryTransactionalProducer:
    """`base.TransactionalProducer`.

    It remembers which partitions it registered in its transaction, and does not register them again: after a late frame
    ended the transaction behind its back, that is what decides which of its later requests still fit.
    """

    def __init__(self, cluster: Cluster, process: Process, transactional_id: str) -> None:
        self._cluster = cluster
        self._process = process
        self._transactional_id = transactional_id
        self._route = _Route(cluster)
        self._stage = _Stage.NEW
        self._identity: ProducerEpoch | None = None
        self._fatal: ProducerFatal | None = None
        self._abort_reason = ""
        self._broke = False
        self._outages_seen = cluster.outages
        self._buffer: deque[tuple[OutRecord, bool]] = deque()
        self._registered: set[TopicPartition] = set()
        self._sent_offsets = False
        self._acked: dict[TopicPartition, int] = {}
        self._failures: list[Failure] = []

    # The contract

    def init(self, timeout: float) -> None:
        self._demand(_Stage.NEW)
        self._identity = self._run("init", timeout, lambda: self._cluster.transactions.init(self._transactional_id))
        self._stage = _Stage.READY

    def begin(self) -> None:
        self._demand(_Stage.READY)
        self._cluster.enter(self._process, "begin", self._transactional_id)
        self._stage = _Stage.OPEN
        self._abort_reason = ""
        self._broke = False
        self._outages_seen = self._cluster.outages
        self._buffer.clear()
        self._registered.clear()
        self._sent_offsets = False
        self._acked = {}
        self._failures = []

    def append(self, records: Iterable[OutRecord], *, watch: bool = False) -> None:
        self._demand(_Stage.OPEN)
        self._demand_healthy()
        planned = self._cluster.enter(self._process, "append", self._transactional_id)
        with self._cluster.lock:
            self._buffer.extend((record, watch) for record in records)
            if not self._cluster.plan.buffer_appends and self._is_served():
                self._drain()
        if planned is not None:
            raise planned.error

    def wait_acks(self, timeout: float) -> Acks:
        self._demand(_Stage.OPEN)
        self._run("wait_acks", timeout, self._drain)
        self._demand(_Stage.OPEN)
        return Acks(offsets=dict(self._acked), failures=tuple(self._failures))

    def send_offsets(self, offsets: Sequence[OffsetCommit], group: str, membership: Membership, timeout: float) -> None:
        self._demand(_Stage.OPEN)
        self._demand_healthy()
        moment = cast(MembershipMoment, membership)
        self._run("send_offsets", timeout, lambda: self._send_offsets(list(offsets), group, moment))

    def commit(self, timeout: float) -> None:
        self._demand(_Stage.OPEN, _Stage.COMMITTING)
        self._demand_healthy()
        self._stage = _Stage.COMMITTING
        self._run("commit", timeout, lambda: self._end(Fate.COMMITTED))
        self._stage = _Stage.READY

    def abort(self, timeout: float) -> None:
        self._demand(_Stage.OPEN, _Stage.ABORTING)
        self._stage = _Stage.ABORTING
        self._buffer.clear()
        self._run("abort", timeout, lambda: self._end(Fate.ABORTED))
        self._stage = _Stage.READY

    @property
    def disturbed(self) -> bool:
        return self._broke or self._cluster.plan.outage or self._cluster.outages != self._outages_seen

    def close(self) -> None:
        """An open transaction stays open, until it times out or a successor takes the id."""
        self._buffer.clear()

    # Rules about what may follow what

    def _demand(self, *stages: _Stage) -> None:
        if self._fatal is not None:
            raise self._fatal
        if self._stage not in stages:
            raise ProducerFatal(f"{self._transactional_id}: not allowed while {self._stage.name.lower()}")

    def _demand_healthy(self) -> None:
        if self._abort_reason:
            raise AbortRequired(self._abort_reason)

    def _is_served(self) -> bool:
        return not self._cluster.plan.outage and not self._cluster.transactions.is_ending(self._transactional_id)

    def _run(self, operation: str, timeout: float, step: Callable[[], T]) -> T:
        """Run a step as soon as the coordinator answers, and keep what its errors mean for later calls."""
        try:
            planned = self._cluster.enter(self._process, operation, self._transactional_id)
            done = self._cluster.until(
                self._process, lambda: (step(),) if self._is_served() else None, self._is_served, timeout
            )
            if done is None:
                raise RetriableBrokerError(f"{operation} of {self._transactional_id}: no answer in {timeout} s")
            if planned is not None:
                raise planned.error
        except ProducerFatal as error:
            self._fatal = error
            raise
        except InvalidTransactionState as error:
            self._fatal = ProducerFatal(str(error))
            raise self._fatal from error
        except AbortRequired as error:
            self._stage = _Stage.OPEN
            self._abort_reason = str(error)
            raise
        return done[0]

    # Requests, under the lock

    @property
    def _producer(self) -> ProducerEpoch:
        assert self._identity is not None
        return self._identity

    def _drain(self) -> None:
        while self._buffer and self._fatal is None:
            record, watch = self._buffer.popleft()
            try:
                partition, offset = self._write(record)
            except ProducerFatal as error:
                # Found out by a request in the background: the next call says so.
                self._fatal = error
            except BrokerError as error:
                self._abort_reason = str(error)
                if watch:
                    self._failures.append(Failure(record, error))
            else:
                if watch:
                    self._acked[partition] = offset
        self._cluster.notify()

    def _write(self, record: OutRecord) -> tuple[TopicPartition, int]:
        topic, log = self._route.find(record)
        coordinator = self._cluster.transactions
        if log.partition not in self._registered:
            coordinator.add_partition(self._producer, log, self._cluster.clock.monotonic())
            self._registered.add(log.partition)
            self._cluster.touch()
        stamp = topic.timestamp(self._cluster.clock.now_ms())
        return log.partition, coordinator.append(self._producer, record, log, stamp)

    def _send_offsets(self, offsets: Sequence[OffsetCommit], name: str, membership: MembershipMoment) -> None:
        group = self._cluster.group(name)
        self._sent_offsets = True
        self._cluster.transactions.add_group(self._producer, name, group.offsets, self._cluster.clock.monotonic())
        self._cluster.touch()
        limit = self._cluster.limits.metadata_bytes
        if any(len(offset.metadata.encode()) > limit for offset in offsets):
            raise AbortRequired(f"OFFSET_METADATA_TOO_LARGE: over {limit} bytes")
        held = self._cluster.plan.take_frame(self._transactional_id, Frame.OFFSETS)

        def request() -> None:
            group.check_commit(membership)
            self._cluster.transactions.send_offsets(identity, name, offsets)

        identity = self._producer
        request()
        self._hold(held, request)

    def _end(self, fate: Fate) -> None:
        if fate is Fate.COMMITTED:
            self._drain()
            self._demand(_Stage.COMMITTING)
            self._demand_healthy()
        if not self._registered and not self._sent_offsets:
            return
        coordinator = self._cluster.transactions
        frame = Frame.COMMIT if fate is Fate.COMMITTED else Frame.ABORT
        held = self._cluster.plan.take_frame(self._transactional_id, frame)
        identity = self._producer
        coordinator.end(identity, fate, self._cluster.plan.take_markers(self._transactional_id))
        self._hold(held, lambda: coordinator.end(identity, fate))
        self._cluster.touch()

    def _hold(self, held: HeldFrame | None, request: Callable[[], None]) -> None:
        """Keep a copy of a request that just succeeded: its first, slow sending, which arrives when the test says."""
        if held is None:
            return
        self._broke = True

        def deliver() -> bool:
            with self._cluster.lock:
                try:
                    request()
                except BrokerError:
                    return False
                finally:
                    self._cluster.touch()
                return True

        held.catch(deliver)
