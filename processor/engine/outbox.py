"""Freezing what the numbers have to say into a batch, and applying how its flush went.

Records, windows and offsets of a number are frozen together, by the owning thread, so a batch never commits an offset
whose records are not in it. Completions that come while a flush is on its way belong to the next one.
"""

from __future__ import annotations

from processor import events
from processor.broker.base import OutRecord, TopicPartition
from processor.core.checkpoint import NUMBER_KEY
from processor.engine.batch import FlushBatch, FlushResult, Part
from processor.engine.dispatch import Dispatch
from processor.engine.outcomes import Outcomes
from processor.engine.partition_outbox import Contents
from processor.engine.queue_partition import PartitionPhase, QueuePartition
from processor.engine.refusals import Refusals, Refused
from processor.engine.state import EngineState
from processor.errors import InternalError, StaleMembership
from processor.wire.codec import encode

log = events.logger(__name__)

HOPELESS = 5
"""Flushes in a row that fail by a fault of the engine, after which their numbers are held: others may go on."""
MARK_EVERY = 1.0
"""Seconds between two marks of a number that something happens to."""
FLUSHABLE = frozenset({PartitionPhase.CLAIMING, PartitionPhase.ACTIVE, PartitionPhase.YIELDING})


class Outbox:
    """Freezes records, windows and offsets into a batch, and applies how its flush went."""

    def __init__(self, engine: EngineState, dispatch: Dispatch, outcomes: Outcomes) -> None:
        self._engine = engine
        self._dispatch = dispatch
        self._outcomes = outcomes
        self._refusals = Refusals(engine)
        self._watch_all = False
        self._internal = 0
        """Flushes in a row that failed by a fault of the engine."""

    def freeze(self) -> FlushBatch[Part] | None:
        """Step 1 of a flush: everything there is now, with the memberships of the last callbacks. None: nothing to do.

        What belongs to a group that cannot be flushed for now (its membership was refused, or is lost) stays.
        """
        engine = self._engine
        now = engine.clock.monotonic()
        snapshots = {queue: fence.snapshot(now) for queue, fence in engine.fences.items()}
        if not any(snapshots.values()):
            return None
        parts, memberships, left = [], {}, []
        for number in list(engine.numbers.values()):
            try:
                if not self._has_work(number):
                    continue
                fence, membership = engine.fences[number.queue.name], snapshots[number.queue.name]
                if membership is None:
                    left.append(number)
                    continue
                parts.append(self._part(number, fence.group))
                memberships[fence.group] = membership
                fence.froze()
            except Exception as error:  # noqa: BLE001  (the owner's guard)
                engine.guard.number(number, "its flush was being made", error)
        engine.outbox_load.freeze(number.outbox.held() for number in left)
        engine.outbox_load.group_commit.began()
        if not parts:
            engine.outbox_load.committed()
            return None
        return FlushBatch(
            parts=parts,
            memberships=memberships,
            watch_all=self._watch_all,
            records=sum(len(part.creates) + len(part.announces) + len(part.seals) for part in parts),
        )

    @staticmethod
    def _has_work(number: QueuePartition) -> bool:
        if number.phase not in FLUSHABLE:
            return False
        return bool(number.touched or number.outbox) or any(lane.changed for lane in number.lanes.values())

    def _part(self, number: QueuePartition, group: str) -> Part:
        for attempt in number.outbox.news:
            if not attempt.settled and attempt.assignment == number.assignment:
                mark = number.outbox.mark()
                try:
                    self._outcomes.write_news(attempt)
                except Exception as error:  # noqa: BLE001  (as above)
                    self._engine.guard.job(attempt, error, mark, runs=True)
        number.outbox.news.clear()
        topics = number.topics
        carried = self._carried(number)
        waiting = number.outbox.freeze()
        creates = [OutRecord(topics.checkpoints, key, value, None, number.partition) for key, value in carried]
        creates += [saved.out for saved in waiting.saves]
        creates += waiting.creates
        announces = waiting.announces
        announces += [OutRecord(topics.checkpoints, key, None, None, number.partition) for key in waiting.burials]
        offsets = number.offsets(all_lanes=number.touched or number.caution is not None)
        seals = [record for record in creates if record.topic == topics.dedupe]
        if seals:
            creates = [record for record in creates if record.topic != topics.dedupe]
        marked = self._mark(number)
        if marked is not None:
            seals.append(marked)
        part = Part(
            number=number,
            group=group,
            assignment=number.assignment,
            creates=creates,
            announces=announces,
            seals=seals,
            saves=waiting.saves,
            carried=[key for key, _ in carried],
            burials=waiting.burials,
            step_burials=waiting.step_burials,
            later=waiting.later,
            syncs=waiting.syncs,
            offsets=offsets,
            marked=marked is not None,
            marks=[] if number.caution is None else [(n, n.start_mark) for n in number.lanes.values()],
            named=waiting.named,
            ending=waiting.ending,
            checkpoint_end=number.checkpoint_end,
        )
        number.touched = False
        return part

    def _mark(self, number: QueuePartition) -> OutRecord | None:
        """How far the number is done, as a record of its own: with the claim and the release, and once a second.

        Whoever has lost the offsets runs nothing below it, so it leaves last: never is it visible without the ends that
        it stands for.
        """
        now = self._engine.clock.monotonic()
        last = number.released and number.phase is PartitionPhase.YIELDING
        if not last and now < number.own_mark.next_at:
            number.own_mark.behind = True
            return None
        value = encode(number.mark(self._engine.clock.now_ms()))
        spent = self._engine.clock.monotonic() - now
        # On one grid for all numbers: then one flush a second waits for marks, not one per number.
        next_at = (now // MARK_EVERY + 1) * MARK_EVERY if 20 * spent < MARK_EVERY else now + 20 * spent
        number.own_mark.next_at, number.own_mark.behind = next_at, False
        return OutRecord(number.topics.checkpoints, NUMBER_KEY, value, None, number.partition)

    @staticmethod
    def _carried(number: QueuePartition) -> list[tuple[bytes, bytes]]:
        """Old live records to write again before anything newer, so that a restore stays O(live)."""
        if number.phase is not PartitionPhase.ACTIVE or not number.live.live_records:
            return []
        return number.live.carry_candidates(number.checkpoint_end)

    def committed(self, result: FlushResult[Part]) -> list[QueuePartition]:
        """Apply a successful flush. Returns the numbers it touched that are still owned."""
        engine = self._engine
        self._watch_all = False
        self._internal = 0
        engine.outbox_load.committed()
        engine.counters.events["flush.committed"] += 1
        engine.counters.sample(engine.counters.flush_seconds, result.seconds)
        engine.counters.sample(engine.counters.flush_records, result.batch.records)
        owned: list[QueuePartition] = []
        released = sum(len(part.syncs) for part in result.batch.parts)
        engine.outbox_load.group_commit.let_go(released, engine.clock.monotonic())
        for part in result.batch.parts:
            for sync in part.syncs:
                sync.release()
            number = part.number
            if part.assignment != number.assignment:
                self._dispatch.named(part.named)
                continue
            try:
                self._apply(part, result)
                owned.append(number)
            except Exception as error:  # noqa: BLE001  (as above)
                engine.guard.number(number, "its flush was committed", error)
        return owned

    def _apply(self, part: Part, result: FlushResult[Part]) -> None:
        number, live = part.number, part.number.live
        for key in part.carried:
            live.carried(key, part.checkpoint_end)
        for out, record in part.saves:
            live.put(out.key or b"", out.value or b"", part.checkpoint_end, record)
        for key in part.burials:
            live.remove(key)
        if part.marked:
            number.own_mark.bound = part.checkpoint_end
        number.outbox.burials.extend(part.later)
        if part.marks:
            self._dispatch.read_durably(number, part.marks)
        if part.named:
            self._dispatch.named(part.named)
        acked = result.acks.offsets.get(TopicPartition(number.topics.checkpoints, number.partition))
        if acked is not None:
            number.checkpoint_end = max(number.checkpoint_end, acked + 1)
        number.committed_at = self._engine.clock.monotonic()

    def failed(self, result: FlushResult[Part]) -> None:
        """Put what still counts back to the front, in order. Work of an assignment that is over is dropped."""
        engine = self._engine
        engine.counters.events["flush.failed"] += 1
        refused: Refused = {id(failure.record): failure.error for failure in result.acks.failures}
        # An abort that names no record, and is not about the group, may be about a record: ask for reports next time.
        self._watch_all = not refused and not isinstance(result.error, StaleMembership)
        if isinstance(result.error, StaleMembership):
            for fence in engine.fences.values():
                if fence.group in result.refused_groups:
                    fence.refused(engine.clock.monotonic())
        self._internal = self._internal + 1 if result.internal else 0
        hopeless = self._internal >= HOPELESS
        for part in result.batch.parts:
            if part.assignment != part.number.assignment:
                for sync in part.syncs:
                    sync.attempt.mailbox.lose()
                    sync.release()
                self._dispatch.named(part.named)
                continue
            try:
                if hopeless and result.error is not None:
                    raise InternalError(f"its flush failed {self._internal} times in a row: {result.error}")
                self._put_back(part, refused)
            except Exception as error:  # noqa: BLE001  (as above)
                engine.guard.number(part.number, "its flush had failed", error)
        engine.outbox_load.put_back()

    def _put_back(self, part: Part, refused: Refused) -> None:
        number, refusals = part.number, self._refusals
        if refused and (missing := refusals.missing(part, refused)) is not None:
            raise missing
        culprits = refusals.culprits(part, refused) if refused else {}
        saved = {id(out) for out, _ in part.saves}
        buried = set(part.burials)
        checkpoints, status = number.topics.checkpoints, number.topics.status
        marks = [record for record in part.seals if record.topic != checkpoints]  # the number's own is made anew
        creates = [record for record in part.creates if id(record) not in saved and record.topic != checkpoints] + marks
        announces = [record for record in part.announces if record.topic != checkpoints or record.key not in buried]
        saves = part.saves
        if refused:
            saves = [save for save in saves if save.record.id not in culprits]
            kept = [r for r in (*creates, *announces) if not culprits or refusals.owner(part, r) not in culprits]
            fine = {id(record) for record in kept if id(record) not in refused}
            strays = [record for record in kept if id(record) in refused]
            strays += [save.out for save in saves if id(save.out) in refused]
            saves = [save for save in saves if id(save.out) not in refused]
            creates = [record for record in creates if id(record) in fine]
            announces = [record for record in announces if id(record) in fine]
            for record in strays:
                if record.topic == status:
                    announces.append(refusals.without_result(record, refused[id(record)]))
                else:
                    creates.append(refusals.small_letter(number, record, refused[id(record)]))
        number.outbox.put_back(
            Contents(
                creates=creates,
                saves=saves,
                announces=announces,
                burials=part.burials,
                step_burials=part.step_burials,
                later=part.later,
                syncs=part.syncs,
                named=part.named,
                ending=part.ending,
            )
        )
        if part.marked:
            number.own_mark.next_at = 0.0
        number.touched = True
        self._engine.outbox_load.group_commit.waits(len(part.syncs))
        for job_id, (record, error) in culprits.items():
            attempt = refusals.attempt(part, job_id)
            if attempt is not None:
                refusals.fail(part, attempt, record, error)
