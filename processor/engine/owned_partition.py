"""A number: one partition of all lanes of a queue, owned whole by one worker. Touched by the owning thread alone."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

from processor.broker.base import OffsetCommit, TopicPartition
from processor.core.dedupe import DedupeMarks
from processor.core.live import LiveTable
from processor.core.offset_metadata import BUDGET, OffsetMetadata, encode
from processor.core.ordering import KeyOrder
from processor.core.process_deaths import Death, noted
from processor.core.window import Window, packed
from processor.core.write_set import Topics
from processor.engine.partition_jobs import Caution, PartitionJobs
from processor.engine.partition_outbox import OutboxLoad, PartitionOutbox
from processor.job import Lane, Version
from processor.wire.records import LaneMark, NumberMark

if TYPE_CHECKING:
    from processor.engine.config import QueueConfig
    from processor.engine.queue_load import QueueLoad
    from processor.job import Job


A = TypeVar("A")
"""An attempt: it knows its partition, which holds it without knowing what it is."""
S = TypeVar("S")
"""Somebody who waits for durability."""

MOST_LOOKED_AT = 4000
"""Incomplete offsets of a lane that each flush looks at; more ranges than the metadata holds lie between them."""
MARK_NUMBERS = 200_000
"""Numbers of a lane's ranges in a mark at most: some 400 KB. Ranges beyond that are done again."""


class PartitionPhase(StrEnum):
    """How far the ownership of a number has come."""

    RESTORING = "restoring"
    CLAIMING = "claiming"
    ACTIVE = "active"
    YIELDING = "yielding"
    HELD = "held"


class OwnedLane(Generic[A, S]):
    """One lane partition of a number."""

    __slots__ = (
        "changed",
        "deaths",
        "durable_mark",
        "key",
        "lane",
        "mark_below",
        "number",
        "partition",
        "start_mark",
        "topic",
        "window",
    )

    def __init__(self, number: OwnedPartition[A, S], lane: Lane, topic: str, partition: int) -> None:
        self.number = number
        self.lane = lane
        self.topic = topic
        self.partition = partition
        self.key = TopicPartition(topic, partition)
        self.window = Window(0)
        self.mark_below = 0
        """Records below were possibly run by a predecessor that died: their ends are marked in the dedupe topic."""
        self.deaths: tuple[Death, ...] = ()
        self.start_mark = 0
        """While the number is cautious: of what was read, what lies below may start once the log says so."""
        self.durable_mark = 0
        """The start mark as last committed."""
        self.changed = False

    def complete(self, offset: int) -> None:
        """What its record was to do is in the outbox: the next flush commits it."""
        self.window.complete(offset)
        self.changed = True


class Tenure:
    """This worker as the owner of a number. Its epoch and a count order all that it writes there."""

    __slots__ = ("before", "epoch", "sequence", "slot")

    def __init__(self, slot: str, before: int) -> None:
        self.slot = slot
        self.before = before
        """The epoch in which this process owned the number before; 0: it did not."""
        self.epoch = 0
        self.sequence = 0


class OwnMark:
    """The number's own mark in the checkpoint partition: where the last one lies, and when the next one is due."""

    __slots__ = ("behind", "bound", "next_at")

    def __init__(self) -> None:
        self.bound: int | None = None
        """The last committed one lies at this offset, or later."""
        self.next_at = -1000.0
        """Monotonic seconds."""
        self.behind = False
        """Something was done since the last one."""


class OwnedPartition(Generic[A, S]):
    """One partition of all lanes of a queue, as its owner knows it."""

    phase = PartitionPhase.RESTORING
    checkpoint_end = 0
    """The checkpoint partition's next offset is at least this."""
    committed_at = 0.0
    touched = False
    """Something happened that the next flush has to carry."""
    released = False
    caution: Caution[A] | None = None
    take_up_at: float | None = None
    """It is held, or about to be: when to try again (monotonic seconds)."""
    crowded = False
    """The window's ranges nearly fill the offset metadata: the oldest incomplete jobs are to be promoted."""

    def __init__(
        self,
        queue: QueueConfig,
        assignment: int,
        topics: Topics,
        tenure: Tenure,
        dedupe_ms: int,
        load: QueueLoad,
        outbox_load: OutboxLoad,
    ) -> None:
        self.queue = queue
        self.assignment = assignment
        self.topics = topics
        self.tenure = tenure
        self.lanes: dict[Lane, OwnedLane[A, S]] = {}
        self.live = LiveTable()
        self.marks = DedupeMarks(dedupe_ms)
        self.own_mark = OwnMark()
        self.load = load
        """Of its queue."""
        self.order: KeyOrder[A] = KeyOrder(load.budget)
        self.jobs: PartitionJobs[A] = PartitionJobs()
        self.outbox: PartitionOutbox[A, S] = PartitionOutbox(outbox_load)

    def __repr__(self) -> str:
        return f"<number {self.queue.name}-{self.partition} assignment {self.assignment} {self.phase}>"

    @property
    def partition(self) -> int:
        """The number itself."""
        return self.topics.number

    @property
    def epoch(self) -> int:
        """Of the owner's; 0: it is not known yet."""
        return self.tenure.epoch

    @property
    def checkpoints(self) -> TopicPartition:
        return TopicPartition(self.topics.checkpoints, self.partition)

    def version(self, job: Job) -> Version:
        """The order of the next record about this job."""
        tenure = self.tenure
        tenure.sequence += 1
        return Version(job.life, job.hop, tenure.epoch, tenure.sequence)

    def offsets(self, *, all_lanes: bool) -> list[OffsetCommit]:
        """What the next flush commits: the normal lane always (it is the fence), the others when they changed."""
        commits = []
        for lane in self.lanes.values():
            if not (all_lanes or lane.changed or lane.lane is Lane.NORMAL):
                continue
            low = lane.window.low
            meta = OffsetMetadata(
                epoch=self.tenure.epoch,
                slot=self.tenure.slot,
                released=self.released,
                read_mark=lane.window.read_mark if self.caution is None else max(lane.start_mark, low),
                hint=self.hint,
                ranges=tuple(lane.window.done_ranges(MOST_LOOKED_AT)),
                deaths=noted(lane.deaths, None, low) if lane.deaths else (),
            )
            encoded = encode(meta, low, BUDGET)
            overflow = encoded.overflow or lane.window.incomplete_count > MOST_LOOKED_AT
            self.crowded = self.crowded or overflow
            commits.append(OffsetCommit(lane.key, low, encoded.text))
            lane.changed = False
        return commits

    def mark(self, now_ms: int) -> NumberMark:
        """How far its lanes are done, all of it."""
        tenure = self.tenure
        tenure.sequence += 1
        lanes = []
        for lane in self.lanes.values():
            low = lane.window.low
            ranges = packed(lane.window.done_ranges(), low)[:MARK_NUMBERS]
            lanes.append(LaneMark(lane.topic, low, lane.window.read_mark, ranges))
        return NumberMark(tenure.epoch, tenure.sequence, now_ms, lanes)

    @property
    def hint(self) -> int:
        """Where a restore must start reading the checkpoint partition."""
        bounds = [bound for bound in (self.live.hint, self.own_mark.bound) if bound is not None]
        return min(bounds, default=self.checkpoint_end)
