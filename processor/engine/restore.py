"""Reading back what a number's last owner left: committed offsets, live jobs, dedupe marks. On its own thread.

The order of the steps matters (design, section 3): offsets first and *stable*, so that a pending transaction is
waited for; then the true high watermark of the checkpoint partition; then read until the reader's position gets there.
Read the other way round, or only to what a read-committed consumer calls the end, the last commit of a dead owner is
missed.

A dead slot's open transaction would hold all that back: `processor.engine.orphan_transactions` ends it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from processor import events
from processor.broker.base import Batch, Broker, Committed, Reader, TopicPartition
from processor.core.checkpoint import NUMBER_KEY, KeyKind, SavedRecord, parse_key
from processor.core.dedupe import DedupeMarks
from processor.core.live import LiveTable
from processor.core.offset_metadata import OffsetMetadata, decode
from processor.core.window import Range, merge_ranges, unpacked
from processor.engine.orphan_transactions import DeadSlots, metadata
from processor.errors import (
    BrokerError,
    InternalError,
    OffsetOutOfRange,
    OffsetsLost,
    ProcessorError,
    RecordError,
    RetriableBrokerError,
)
from processor.job import Lane
from processor.runtime import Inbox, Runtime, serve
from processor.texts import message_of
from processor.wire.codec import decode_checkpoint, decode_dedupe, decode_live_job, decode_number_mark, decode_step
from processor.wire.groups import former_group

if TYPE_CHECKING:
    from processor.engine.config import WorkerConfig
    from processor.engine.queue_partition import QueuePartition
    from processor.wire.records import NumberMark

log = events.logger(__name__)

FETCH = 2000
GONE = 3
"""So often an offset may not be in the log any more before it counts as a fault: retention may move between the
question where a partition begins and the reading of it."""
TOGETHER = 1.0
"""Seconds that numbers which came together wait for each other while the cluster gives errors."""


@dataclass(slots=True, kw_only=True)
class LaneStart:
    """Where a lane goes on."""

    offset: int
    meta: OffsetMetadata | None
    committed: bool
    """False: the group has no offset for it."""
    ranges: tuple[Range, ...] = ()
    """Complete offsets above, as metadata and mark together say."""
    read_mark: int = 0
    """The last owner may have started what lies below."""


@dataclass(slots=True, kw_only=True)
class Restored:
    """What was found. `error` set: the number must be held."""

    number: QueuePartition
    assignment: int
    marks: DedupeMarks
    live: LiveTable
    lanes: dict[Lane, LaneStart] = field(default_factory=dict)
    checkpoint_end: int = 0
    epoch: int = 1
    unclean: bool = False
    """The last owner did not release the number."""
    died: bool = False
    """... and it was not this very process."""
    unreadable: list[tuple[str, int, bytes, bytes, RecordError]] = field(default_factory=list)
    """Topic, offset, key, value and error of checkpoint and dedupe records that do not decode."""
    records: int = 0
    seconds: float = 0.0
    error: ProcessorError | None = None
    mark: NumberMark | None = None
    """The number's own mark."""
    mark_bound: int | None = None
    """Where it lies in the checkpoint partition."""
    history: bool = False
    """Somebody has worked on this number before."""


class Restorer:
    """Reads back what the last owner of a partition left, on a thread of its own."""

    def __init__(
        self, runtime: Runtime, broker: Broker, config: WorkerConfig, reply: Callable[[Restored], None]
    ) -> None:
        self._runtime = runtime
        self._broker = broker
        self._config = config
        self._reply = reply
        self._requests: Inbox[Sequence[tuple[QueuePartition, int]] | None] = Inbox(runtime)
        self._stopping = False
        self._reader: Reader | None = None
        self._dead_slots = {
            queue.name: DeadSlots(broker, config, config.group(queue.name), config.transactional_id)
            for queue in config.queues
        }
        self._actor = runtime.start("restorer", self._run)

    @property
    def shots(self) -> list[str]:
        """Transactional ids of dead slots that were ended."""
        return [shot for dead_slots in self._dead_slots.values() for shot in dead_slots.shots]

    def submit(self, numbers: Sequence[QueuePartition]) -> None:
        """Restore these numbers of one queue together; each is answered on its own."""
        self._requests.post([(number, number.assignment) for number in numbers])

    def stop(self, timeout: float) -> bool:
        """End the thread; whether it ended in time."""
        self._stopping = True
        self._requests.post(None)
        return self._actor.join(timeout)

    def _run(self) -> None:
        try:
            serve(self._requests, self._restore_all)
        finally:
            if self._reader is not None:
                self._reader.close()

    def _restore_all(self, request: Sequence[tuple[QueuePartition, int]]) -> None:
        began = self._runtime.clock.monotonic()
        gone = 0
        work = [
            Restored(number=number, assignment=assignment, marks=self._no_marks(), live=number.live.empty())
            for number, assignment in request
        ]
        while not self._stopping and (work := [w for w in work if w.assignment == w.number.assignment]):
            error = self._tried(work)
            if error is None:
                break
            gone += isinstance(error, OffsetOutOfRange)
            if not isinstance(error, BrokerError) or gone >= GONE:
                if len(work) > 1:
                    self._take_turns(work)
                    return
                work[0].error = error
                break
            # Whatever a cluster says while it fails over: the number waits, it is not given up.
            if not isinstance(error, OffsetOutOfRange):
                log.warning("restore.retrying", extra={"error": str(error)})
                self._runtime.signal().wait(0.2)
            if self._runtime.clock.monotonic() - began > TOGETHER:
                self._take_turns(work)
                return
            for found in work:
                found.live, found.marks, found.unreadable = found.number.live.empty(), self._no_marks(), []
                found.mark = found.mark_bound = None
        for found in work:
            found.seconds = self._runtime.clock.monotonic() - began
            self._reply(found)

    def _take_turns(self, work: Sequence[Restored]) -> None:
        """One bad partition stops only itself: alone, each shows whether it is the one that cannot be read, or has no
        leader just now.
        """
        for found in work:
            self._requests.post([(found.number, found.assignment)])

    def _tried(self, work: Sequence[Restored]) -> ProcessorError | None:
        """Restore once; what went wrong, if anything."""
        try:
            self._restore(work)
        except (BrokerError, RecordError) as error:
            return error
        except Exception as error:
            log.exception("restore.failed")
            return InternalError(f"{type(error).__name__}: {message_of(error)}")
        return None

    def _no_marks(self) -> DedupeMarks:
        return DedupeMarks(int(self._config.dedupe_window * 1000))

    def _restore(self, work: Sequence[Restored]) -> None:
        """Steps 3 and 4 of an assignment.

        3. Committed offsets of all lanes, stable; then end what a dead predecessor left open.
        4. The true high watermark of the checkpoint and dedupe partitions; read until the position is there.
        """
        dead_slots = self._dead_slots[work[0].number.queue.name]
        lanes = [lane.key for found in work for lane in found.number.lanes.values()]
        committed = dead_slots.stable_committed(lanes)
        committed |= self._formerly_committed([lane for lane in lanes if committed[lane].offset is None])
        dead_slots.shoot({meta.slot for meta in metadata(committed) if not meta.released})
        begins = self._broker.admin().begin_offsets(lanes)
        for found in work:
            self._start_lanes(found, committed, begins)
        self._read_back(work)
        for found in work:
            self._apply_mark(found, begins)

    def _formerly_committed(self, lanes: Sequence[TopicPartition]) -> dict[TopicPartition, Committed]:
        """Offsets that the group which all queues once shared has for lanes that their own group knows nothing of.

        Raises:
            RetriableBrokerError: that group still has members, so somebody else may own these lanes.
        """
        if not lanes:
            return {}
        admin, group = self._broker.admin(), former_group(self._config.namespace)
        committed = admin.committed(group, lanes, stable=True, timeout=self._config.stable_wait)
        found = {lane: entry for lane, entry in committed.items() if entry.offset is not None}
        if found and admin.members(group):
            raise RetriableBrokerError(f"workers of an older version are still in group {group}: stop them first")
        return found

    def _apply_mark(self, found: Restored, begins: dict[TopicPartition, int]) -> None:
        """The mark holds what offsets and their metadata have lost; what it calls complete is complete for good."""
        known = {lane.topic: lane for lane in found.mark.lanes} if found.mark is not None else {}
        topics = {lane: state.topic for lane, state in found.number.lanes.items()}
        lost = [lane for lane, start in found.lanes.items() if not start.committed]
        if found.mark is not None:
            lost = [lane for lane in lost if topics[lane] in known]  # another one is new
        for lane, start in found.lanes.items():
            meta = start.meta
            start.ranges = meta.ranges if meta is not None else ()
            start.read_mark = meta.read_mark if meta is not None else 0
            mark = known.get(topics[lane])
            # An offset that somebody has set by hand carries no metadata of ours: what lies above is to run again.
            if mark is None or (start.committed and meta is None):
                continue
            start.offset = max(start.offset, mark.low)
            above = [(max(first, start.offset), last) for first, last in unpacked(mark.ranges, mark.low)]
            start.ranges = tuple(r for r in merge_ranges([*start.ranges, *above]) if r[1] >= start.offset)
            start.read_mark = max(start.read_mark, mark.read_mark)
        if not lost:
            return
        normal = found.number.lanes[Lane.NORMAL].key
        if found.mark is not None:
            found.unclean = True
            log.error("restore.offsets_missing", extra=_fields(found.number))
        elif Lane.NORMAL in lost and (found.history or begins.get(normal, 0) > 0):
            found.error = OffsetsLost(
                f"{normal} has no committed offset and no mark, but it was worked on before",
                hint="set the group's offset of this partition, to its end or to where it is to begin again",
            )

    def _start_lanes(
        self, found: Restored, committed: dict[TopicPartition, Committed], begins: dict[TopicPartition, int]
    ) -> None:
        for lane, state in found.number.lanes.items():
            entry = committed.get(state.key)
            if entry is None or entry.offset is None:
                found.lanes[lane] = LaneStart(offset=begins.get(state.key, 0), meta=None, committed=False)
                continue
            meta = decode(entry.metadata, entry.offset)
            found.lanes[lane] = LaneStart(offset=entry.offset, meta=meta, committed=True)
            if meta is not None:
                found.epoch = max(found.epoch, meta.epoch + 1)
                found.unclean = found.unclean or not meta.released
                if not meta.released and (meta.slot, meta.epoch) != (self._config.slot, found.number.tenure.before):
                    found.died = True

    def _read_back(self, work: Sequence[Restored]) -> None:
        admin = self._broker.admin()
        sources: dict[TopicPartition, tuple[Restored, bool]] = {}
        for found in work:
            sources[found.number.checkpoints] = (found, True)
            sources[TopicPartition(found.number.topics.dedupe, found.number.partition)] = (found, False)
        ends = admin.end_offsets(sources)
        starts = admin.begin_offsets(sources)
        for found in work:
            found.checkpoint_end = ends[found.number.checkpoints]
            normal = found.lanes[Lane.NORMAL].meta
            if normal is not None and normal.hint is not None:
                starts[found.number.checkpoints] = max(starts[found.number.checkpoints], normal.hint)
        self._read_until(sources, starts, ends)
        for found in work:
            found.history = bool(found.live.live_records) or len(found.marks) > 0

    def _read_until(
        self,
        sources: dict[TopicPartition, tuple[Restored, bool]],
        starts: dict[TopicPartition, int],
        ends: dict[TopicPartition, int],
    ) -> None:
        """Read every source from its start until the reader's position is at its end."""
        unread = {source for source in sources if starts[source] < ends[source]}
        if not unread:
            return
        reader = self._reader = self._reader or self._broker.reader()
        reader.assign({source: starts[source] for source in unread})
        queue = next(found.number.queue.name for found, _ in sources.values())
        stuck_since = self._runtime.clock.monotonic()
        try:
            while unread and not self._stopping:
                batch = reader.fetch(FETCH, 0.05)
                self._fold(batch, sources)
                if batch.records:
                    stuck_since = self._runtime.clock.monotonic()
                elif self._runtime.clock.monotonic() - stuck_since > self._config.stable_wait:
                    # The last stable offset does not reach the end: an open transaction of a slot seen here.
                    lanes = [lane.key for found, _ in sources.values() for lane in found.number.lanes.values()]
                    self._dead_slots[queue].shoot_seen(lanes)
                    stuck_since = self._runtime.clock.monotonic()
                unread -= {source for source in unread if reader.position(source) >= ends[source]}
        finally:
            reader.unassign([source for source in sources if starts[source] < ends[source]])

    def _fold(self, batch: Batch, sources: dict[TopicPartition, tuple[Restored, bool]]) -> None:
        for fault in batch.faults:
            raise fault.error
        for record in batch.records:
            found, is_checkpoint = sources[TopicPartition(record.topic() or "", record.partition() or 0)]
            found.records += 1
            key, value = record.key(), record.value()
            if key is None:
                continue
            if is_checkpoint:
                _fold_checkpoint(found, key, value, record.offset() or 0)
            elif value is not None:
                _fold_mark(found, key, value, record.offset() or 0)


def _fold_checkpoint(found: Restored, key: bytes, value: bytes | None, offset: int) -> None:
    if value is None:
        # A tombstone under a key of nobody's buries nothing.
        with contextlib.suppress(RecordError):
            found.live.remove(key)
        if key == NUMBER_KEY:
            found.mark = None
        return
    try:
        if key == NUMBER_KEY:
            _fold_number(found, decode_number_mark(value), offset)
            return
        record = _DECODERS[parse_key(key).kind](value)
    except RecordError as error:
        # Kept raw as a dead letter by the owner; its job goes on without it.
        found.unreadable.append((found.number.topics.checkpoints, offset, key, value, error))
        return
    if record is not None:
        found.epoch = max(found.epoch, record.epoch + 1)
    found.live.put(key, value, offset, record)


def _fold_number(found: Restored, mark: NumberMark, offset: int) -> None:
    if found.mark is None or (mark.epoch, mark.sequence) >= (found.mark.epoch, found.mark.sequence):
        found.mark = mark
    found.epoch = max(found.epoch, mark.epoch + 1)
    # Compaction keeps the last one, whatever it says.
    found.mark_bound = offset


def _fold_mark(found: Restored, key: bytes, value: bytes, offset: int) -> None:
    try:
        mark = decode_dedupe(value)
    except RecordError as error:
        found.unreadable.append((found.number.topics.dedupe, offset, key, value, error))
        return
    found.marks.put(mark)


_DECODERS: dict[KeyKind, Callable[[bytes], SavedRecord | None]] = {
    KeyKind.PROGRESS: decode_checkpoint,
    KeyKind.STEP: decode_step,
    KeyKind.JOB: decode_live_job,
    KeyKind.SIGNAL: lambda value: None,
}


def _fields(number: QueuePartition) -> dict[str, object]:
    return {"queue": number.queue.name, "number": number.partition}
