"""A number: one partition of all lanes of a queue, owned whole by one worker. Touched by the owning thread alone."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from processor.broker.base import OffsetCommit, TopicPartition
from processor.core.dedupe import DedupeMarks
from processor.core.live import LiveTable
from processor.core.offset_metadata import BUDGET, OffsetMetadata, encode
from processor.core.ordering import KeyOrder
from processor.core.process_deaths import Death, noted
from processor.core.window import Window, packed
from processor.core.write_set import Topics
from processor.engine.partition_outbox import OutboxLoad, PartitionOutbox
from processor.job import Lane, Version
from processor.wire.records import LaneMark, NumberMark

if TYPE_CHECKING:
    from processor.engine.attempt import Attempt, Sync
    from processor.engine.config import QueueConfig
    from processor.engine.queue_load import QueueLoad
    from processor.job import Job


MOST_LOOKED_AT = 4000
"""Incomplete offsets of a lane that each flush looks at; more ranges than the metadata holds lie between them."""
MARK_NUMBERS = 200_000
"""Numbers of a lane's ranges in a mark at most: some 400 KB. Ranges beyond that are done again."""
RECENT = 1000
"""Ended jobs of a number that are remembered at least."""


class PartitionPhase(StrEnum):
    """How far the ownership of a number has come."""

    RESTORING = "restoring"
    CLAIMING = "claiming"
    ACTIVE = "active"
    YIELDING = "yielding"
    HELD = "held"


class LaneState:
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
        "topic",
        "window",
    )

    def __init__(self, number: QueuePartition, lane: Lane, topic: str, partition: int) -> None:
        self.number = number
        self.lane = lane
        self.topic = topic
        self.partition = partition
        self.key = TopicPartition(topic, partition)
        self.window = Window(0)
        self.mark_below = 0
        """Records below were possibly run by a predecessor that died: their ends are marked in the dedupe topic."""
        self.deaths: tuple[Death, ...] = ()
        self.durable_mark = 0
        """The read mark as last committed, while the number is cautious."""
        self.changed = False

    def complete(self, offset: int) -> None:
        """What its record was to do is in the outbox: the next flush commits it."""
        self.window.complete(offset)
        self.changed = True


class Recent:
    """(life, hop) of the jobs of a number that ended last, `RECENT` at least, remembered without a mark in the log.

    Two dicts that take turns: forgetting one at a time costs more than remembering.
    """

    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        self._new: dict[str, tuple[int, int]] = {}
        self._old: dict[str, tuple[int, int]] = {}

    def add(self, job_id: str, life: int, hop: int) -> None:
        """It has ended."""
        if len(self._new) >= RECENT:
            self._old, self._new = self._new, {}
        self._new[job_id] = (life, hop)

    def __contains__(self, job_id: str) -> bool:
        """Whether something of this job has ended lately."""
        return job_id in self._new or job_id in self._old

    def get(self, job_id: str) -> tuple[int, int]:
        """What ended last of this job; (0, 0) if nothing is known."""
        return self._new.get(job_id) or self._old.get(job_id) or (0, 0)


class QueuePartition:
    """One partition of all lanes of a queue, as its owner knows it."""

    phase = PartitionPhase.RESTORING
    epoch = 0
    own_epoch = 0
    """The epoch in which this process owned the number before; 0: it did not."""
    sequence = 0
    running = 0
    """Attempts in the hands of a pool."""
    checkpoint_end = 0
    """The checkpoint partition's next offset is at least this."""
    committed_at = 0.0
    progress_at = 0.0
    touched = False
    """Something happened that the next flush has to carry."""
    released = False
    mark_at = -1000.0
    """When the last mark was written (monotonic seconds)."""
    mark_behind = False
    """Something was done since the last mark."""
    mark_bound: int | None = None
    """The last committed mark lies at this offset of the checkpoint partition, or later."""
    cautious: list[tuple[Attempt, bool]] | None = None
    """A predecessor died: for a while a job starts only once the log says that it was read. Those that wait for that,
    and whether each follows in its key; None: the number is not cautious.
    """
    cautious_until = 0.0
    """Monotonic seconds."""
    take_up_at: float | None = None
    """It is held, or about to be: when to try again (monotonic seconds)."""
    overflows = False
    """Ranges did not fit into the metadata of the last flush: the mark holds them."""
    crowded = False
    """The window's ranges nearly fill the offset metadata: the oldest incomplete jobs are to be promoted."""

    def __init__(
        self,
        queue: QueueConfig,
        partition: int,
        assignment: int,
        topics: Topics,
        slot: str,
        dedupe_ms: int,
        load: QueueLoad,
        outbox_load: OutboxLoad,
    ) -> None:
        self.queue = queue
        self.partition = partition
        self.assignment = assignment
        self.topics = topics
        self.slot = slot
        self.lanes: dict[Lane, LaneState] = {}
        self.live = LiveTable()
        self.marks = DedupeMarks(dedupe_ms)
        self.load = load
        """Of its queue."""
        self.order: KeyOrder[Attempt] = KeyOrder(load.budget)
        self.attempts: dict[str, Attempt] = {}
        """Jobs taken and not ended, by id."""
        self.parked: dict[str, int | None] = {}
        """Parked jobs: id -> when to look again (ms)."""
        self.parkings: dict[str, tuple[int, int]] = {}
        """(epoch, sequence) of the record that parks a job, until it is known to be committed."""
        self.looked_for: set[str] = set()
        """Parked jobs that are to be looked at now: an operator wants something of them."""

        self.outbox: PartitionOutbox[Attempt, Sync] = PartitionOutbox(outbox_load)
        self.recent = Recent()
        """The jobs that ended last: a repeated enqueue whose first record did arrive finds it here."""
        self.successors: dict[str, Attempt] = {}
        """A later life of a job that is still live waits here for its end."""

    def __repr__(self) -> str:
        return f"<number {self.queue.name}-{self.partition} assignment {self.assignment} {self.phase}>"

    @property
    def checkpoints(self) -> TopicPartition:
        return TopicPartition(self.topics.checkpoints, self.partition)

    def version(self, job: Job) -> Version:
        """The order of the next record about this job."""
        self.sequence += 1
        return Version(job.life, job.hop, self.epoch, self.sequence)

    def offsets(self, *, all_lanes: bool) -> list[OffsetCommit]:
        """What the next flush commits: the normal lane always (it is the fence), the others when they changed."""
        commits = []
        for lane in self.lanes.values():
            if not (all_lanes or lane.changed or lane.lane is Lane.NORMAL):
                continue
            low = lane.window.low
            meta = OffsetMetadata(
                epoch=self.epoch,
                slot=self.slot,
                released=self.released,
                read_mark=lane.window.read_mark,
                hint=self.hint,
                ranges=tuple(lane.window.done_ranges(MOST_LOOKED_AT)),
                deaths=noted(lane.deaths, None, low) if lane.deaths else (),
            )
            encoded = encode(meta, low, BUDGET)
            overflow = encoded.overflow or lane.window.incomplete_count > MOST_LOOKED_AT
            self.crowded = self.crowded or overflow
            self.overflows = self.overflows or overflow
            commits.append(OffsetCommit(lane.key, low, encoded.text))
            lane.changed = False
        return commits

    def mark(self, now_ms: int) -> NumberMark:
        """How far its lanes are done, all of it."""
        self.sequence += 1
        lanes = []
        for lane in self.lanes.values():
            low = lane.window.low
            ranges = packed(lane.window.done_ranges(), low)[:MARK_NUMBERS]
            lanes.append(LaneMark(lane.topic, low, lane.window.read_mark, ranges))
        return NumberMark(self.epoch, self.sequence, now_ms, lanes)

    @property
    def hint(self) -> int:
        """Where a restore must start reading the checkpoint partition."""
        bounds = [bound for bound in (self.live.hint, self.mark_bound) if bound is not None]
        return min(bounds, default=self.checkpoint_end)
