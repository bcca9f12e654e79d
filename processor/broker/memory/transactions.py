"""The transaction coordinator of the memory broker, in librdkafka's old protocol: no epoch per transaction.

That is what makes late frames dangerous: the coordinator knows a producer's epoch and whether a transaction is open,
but not *which* transaction a request was meant for. The checks below are those of Kafka, in its order; none knows more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum, auto
from itertools import count
from typing import NamedTuple

from processor.broker.base import OffsetCommit, OutRecord, TopicPartition
from processor.broker.memory.faults import HeldMarkers
from processor.broker.memory.log import Fate, PartitionLog, Span
from processor.broker.memory.offsets import GroupOffsets
from processor.errors import BrokerError, ProducerFenced


class InvalidTransactionState(BrokerError):
    """INVALID_TXN_STATE: the request does not fit what the coordinator has open."""


class Phase(Enum):
    """Where a transactional id stands."""

    EMPTY = auto()
    ONGOING = auto()
    ENDING = auto()
    COMMITTED = auto()
    ABORTED = auto()


class ProducerEpoch(NamedTuple):
    """What `init` gave to a producer; everything it sends carries it."""

    transactional_id: str
    producer_id: int
    epoch: int


class _Entry:
    """One transactional id."""

    def __init__(self, producer_id: int) -> None:
        self.producer_id = producer_id
        self.epoch = -1
        self.phase = Phase.EMPTY
        self.started = 0.0
        self.spans: dict[TopicPartition, tuple[PartitionLog, Span]] = {}
        self.groups: dict[str, GroupOffsets] = {}


class Coordinator:
    """All transactional ids. Every method is called under the broker's lock."""

    def __init__(self, *, timeout_seconds: float, scan_seconds: float, now_ms: Callable[[], int]) -> None:
        self._timeout_seconds = timeout_seconds
        self._scan_seconds = scan_seconds
        self._now_ms = now_ms
        self._producer_ids = count(1000)
        self._entries: dict[str, _Entry] = {}

    def init(self, transactional_id: str) -> ProducerEpoch:
        """Fence predecessors, abort what they left open."""
        entry = self._entries.get(transactional_id)
        if entry is None:
            entry = self._entries[transactional_id] = _Entry(next(self._producer_ids))
        entry.epoch += 1
        if entry.phase is Phase.ONGOING:
            self._finish(entry, Fate.ABORTED)
        entry.phase = Phase.EMPTY
        return ProducerEpoch(transactional_id, entry.producer_id, entry.epoch)

    def is_ending(self, transactional_id: str) -> bool:
        """CONCURRENT_TRANSACTIONS: the markers of the last transaction are still being written."""
        entry = self._entries.get(transactional_id)
        return entry is not None and entry.phase is Phase.ENDING

    def add_partition(self, producer: ProducerEpoch, log: PartitionLog, now: float) -> None:
        """Register a partition; opens a transaction if there is none.

        Raises:
            ProducerFenced: a newer epoch exists.
        """
        entry = self._open(producer, now)
        if log.partition not in entry.spans:
            entry.spans[log.partition] = (log, Span())

    def append(self, producer: ProducerEpoch, record: OutRecord, log: PartitionLog, stamp: tuple[int, int]) -> int:
        """Write one record of a transaction; its offset.

        Raises:
            ProducerFenced: a newer epoch exists.
            InvalidTransactionState: the partition belongs to no open transaction (KIP-890, part 1).
        """
        entry = self._checked(producer)
        registered = entry.spans.get(log.partition)
        if entry.phase is not Phase.ONGOING or registered is None:
            raise InvalidTransactionState(f"{log.partition} is in no open transaction of {producer.transactional_id}")
        return log.append(record, stamp, registered[1])

    def add_group(self, producer: ProducerEpoch, group: str, offsets: GroupOffsets, now: float) -> None:
        """Register a group's offsets; opens a transaction if there is none.

        Raises:
            ProducerFenced: a newer epoch exists.
        """
        self._open(producer, now).groups[group] = offsets

    def send_offsets(self, producer: ProducerEpoch, group: str, offsets: Sequence[OffsetCommit]) -> None:
        """Make offsets pending in the open transaction.

        Raises:
            ProducerFenced: a newer epoch exists.
            InvalidTransactionState: the group belongs to no open transaction.
        """
        entry = self._checked(producer)
        if entry.phase is not Phase.ONGOING or group not in entry.groups:
            raise InvalidTransactionState(f"{group} is in no open transaction of {producer.transactional_id}")
        entry.groups[group].add_pending(producer.producer_id, offsets)

    def end(self, producer: ProducerEpoch, fate: Fate, held: HeldMarkers | None = None) -> None:
        """Commit or abort. The same once more is answered as the first time: a repeated request is normal.

        Raises:
            ProducerFenced: a newer epoch exists.
            InvalidTransactionState: nothing is open and the last transaction ended otherwise.
        """
        entry = self._checked(producer)
        if entry.phase is Phase.ONGOING:
            if held is None:
                self._finish(entry, fate)
            else:
                entry.phase = Phase.ENDING
                held.catch(lambda: self._finish(entry, fate))
            return
        wanted = Phase.COMMITTED if fate is Fate.COMMITTED else Phase.ABORTED
        if entry.phase not in (wanted, Phase.ENDING):
            raise InvalidTransactionState(
                f"{producer.transactional_id}: cannot end as {fate.name}, is {entry.phase.name}"
            )

    def tick(self, now: float) -> float:
        """Abort what has been open for too long, and fence its producer; when to look again.

        Kafka looks only every 10 seconds, so a transaction lives up to that much longer than its timeout.
        """
        due = math.inf
        for entry in self._entries.values():
            if entry.phase is not Phase.ONGOING:
                continue
            end = math.ceil((entry.started + self._timeout_seconds) / self._scan_seconds) * self._scan_seconds
            if now >= end:
                entry.epoch += 1
                self._finish(entry, Fate.ABORTED)
            else:
                due = min(due, end)
        return due

    def _checked(self, producer: ProducerEpoch) -> _Entry:
        entry = self._entries[producer.transactional_id]
        if producer.epoch != entry.epoch:
            raise ProducerFenced(f"{producer.transactional_id} was initialised again, or its transaction timed out")
        return entry

    def _open(self, producer: ProducerEpoch, now: float) -> _Entry:
        entry = self._checked(producer)
        if entry.phase is not Phase.ONGOING:
            entry.phase = Phase.ONGOING
            entry.started = now
        return entry

    def _finish(self, entry: _Entry, fate: Fate) -> None:
        now_ms = self._now_ms()
        for log, span in entry.spans.values():
            log.close_span(span, fate, now_ms)
        for offsets in entry.groups.values():
            offsets.finish(entry.producer_id, commit=fate is Fate.COMMITTED)
        entry.spans = {}
        entry.groups = {}
        entry.phase = Phase.COMMITTED if fate is Fate.COMMITTED else Phase.ABORTED
