"""From the outcome of an attempt to the records that make it true: one write set, decided without I/O.

What *creates* (copies, marks, end marks) is written and acknowledged before what *announces or destroys* (status,
tombstones); tombstones of a job that had saved progress leave only in a later flush, after its end mark is committed.
A crash, or a torn transaction, between any two of these records leaves a log from which the same end is reached again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from processor.broker.base import ANY_PARTITION, OutRecord
from processor.core.checkpoint import SavedRecord, job_key, progress_key, step_key
from processor.core.outcome import Failed, Outcome, Parked, Succeeded
from processor.job import ErrorInfo, Job, Progress, Step, Version
from processor.states import State
from processor.wire.codec import encode, encode_success
from processor.wire.headers import routing_headers
from processor.wire.records import (
    CheckpointRecord,
    DeadLetterRecord,
    DedupeMark,
    LiveJobRecord,
    StatusRecord,
    StepRecord,
)

INLINE_PROGRESS_BYTES = 512 * 1024
"""Progress up to this size travels inside the dead letter (design, section 5)."""

TRACEBACK_CHARS = 16_000
_new = tuple.__new__
"""What a NamedTuple's own constructor does, without a call of Python in between."""


class Topics(NamedTuple):
    """Where the records of one number go."""

    status: str
    dlq: str
    checkpoints: str
    dedupe: str
    number: int


class Origin(NamedTuple):
    """Where a job's record was read."""

    topic: str
    partition: int
    offset: int


class Saved(NamedTuple):
    """What the checkpoint topic holds of a job, as far as this owner wrote or restored it."""

    progress: Progress | None
    steps: Sequence[Step]
    promoted: bool


class SavedOut(NamedTuple):
    """A record for the checkpoint topic, with what it says: the live table needs both once it is committed."""

    out: OutRecord
    record: SavedRecord


class WriteSet(NamedTuple):
    """The records of one end, in the order of a flush."""

    creates: Sequence[OutRecord] = ()
    saves: Sequence[SavedOut] = ()
    """Creating records of the checkpoint topic."""
    announces: Sequence[OutRecord] = ()
    later: Sequence[bytes] = ()
    """Keys of the checkpoint topic to bury in a later flush than the one that commits `saves`."""
    state: State | None = None


class Completer:
    """Decides the write sets of one worker."""

    def __init__(self, worker: str) -> None:
        self._worker = worker

    def status(self, job: Job, state: State, now: int, **fields: object) -> bytes:
        """An encoded status record of this job."""
        record = StatusRecord(job.id, job.life, job.type, job.queue, state, now, job.attempt + 1, self._worker)
        return encode(record._replace(**fields) if fields else record)  # type: ignore[arg-type]  # checked by name at run time

    def succeeded(self, topics: Topics, job: Job, outcome: Succeeded, now: int) -> OutRecord:
        """The hot path: a job without saved progress needs its status record and nothing else."""
        key = job.id.encode()
        value = encode_success(job, key, now, self._worker, outcome.result)
        return _new(OutRecord, (topics.status, key, value, None, ANY_PARTITION))

    def end(  # noqa: PLR0913  (one call, one write set: every fact of the end in one place)
        self,
        topics: Topics,
        job: Job,
        raw: bytes | None,
        origin: Origin,
        outcome: Outcome,
        *,
        saved: Saved | None,
        version: Version,
        marked: bool,
        now: int,
    ) -> WriteSet:
        """The write set of a job that reached a terminal state.

        Args:
            topics: of its number.
            job: the job; `raw` its encoded form.
            origin: where its record was read.
            outcome: Succeeded or Failed; other outcomes end nothing.
            saved: what the checkpoint topic holds of it, None if nothing.
            version: order of the end mark.
            marked: whether a dedupe mark is due (derived, moved or re-read after an unclean take-over).
            now: milliseconds since the epoch.
        """
        if isinstance(outcome, Succeeded):
            state = State.SUCCEEDED
            status = self.status(job, state, now, result=outcome.result)
            creates: list[OutRecord] = []
        elif isinstance(outcome, Failed):
            state = State.DEAD
            status = self.status(job, state, now, error=outcome.error._replace(traceback=""))
            creates = [self.dead_letter(topics, job, raw, origin, outcome, saved=saved, version=version, now=now)]
        else:
            return WriteSet()
        key = job.id.encode()
        if marked:
            creates.append(self.mark(topics, job, now))
        announces = [OutRecord(topics.status, key, status)]
        if saved is None:
            return WriteSet(creates, (), announces, (), state)
        end_mark = self._record(topics, job, origin, saved.promoted, Progress(), version, now)._replace(final=status)
        saves = [SavedOut(OutRecord(topics.checkpoints, key, encode(end_mark), None, topics.number), end_mark)]
        later = [step_key(job.id, step.name) for step in saved.steps]
        if saved.promoted:
            later.append(job_key(job.id))
        later.append(progress_key(job.id))  # the end mark itself goes last
        return WriteSet(creates, saves, announces, later, state)

    def mark(self, topics: Topics, job: Job, now: int) -> OutRecord:
        """Says that this (id, life, hop) was finished or promoted here."""
        mark = DedupeMark(job.id, job.life, job.hop, now)
        return OutRecord(topics.dedupe, job.id.encode(), encode(mark), None, topics.number)

    def checkpoint(
        self, topics: Topics, job: Job, origin: Origin, promoted: bool, progress: Progress, version: Version, now: int
    ) -> SavedOut:
        """Progress, ready to write."""
        record = self._record(topics, job, origin, promoted, progress, version, now)
        return SavedOut(OutRecord(topics.checkpoints, job.id.encode(), encode(record), None, topics.number), record)

    def _record(
        self, topics: Topics, job: Job, origin: Origin, promoted: bool, progress: Progress, version: Version, now: int
    ) -> CheckpointRecord:
        return CheckpointRecord(
            *(job.id, *version, now),
            topics.checkpoints if promoted else origin.topic,
            -1 if promoted else origin.offset,
            job.attempt + 1,
            progress.cursor,
            progress.state,
            dict(progress.loops) or None,
            progress.done,
            progress.total,
        )

    def step(self, topics: Topics, job: Job, step: Step, version: Version) -> SavedOut:
        """A saved step, ready to write."""
        record = StepRecord(job.id, *version, step.name, step.phase, step.result, step.error)
        key = step_key(job.id, step.name)
        return SavedOut(OutRecord(topics.checkpoints, key, encode(record), None, topics.number), record)

    def promotion(
        self,
        topics: Topics,
        job: Job,
        raw: bytes,
        origin: Origin,
        version: Version,
        now: int,
        parked: Parked | None = None,
    ) -> SavedOut:
        """The job's whole record in the checkpoint topic; once that is committed its lane offset is complete."""
        record = LiveJobRecord(
            *(job.id, *version, raw, origin.topic, origin.offset, now),
            State.RUNNING if parked is None else parked.state,
            "" if parked is None else parked.reason,
            None if parked is None else parked.until,
        )
        return SavedOut(OutRecord(topics.checkpoints, job_key(job.id), encode(record), None, topics.number), record)

    def dead_letter(
        self,
        topics: Topics,
        job: Job,
        raw: bytes | None,
        origin: Origin,
        outcome: Failed,
        *,
        saved: Saved | None,
        version: Version,
        now: int,
    ) -> OutRecord:
        """The whole job with its progress and its failure."""
        progress, steps = self._inline(topics, job, origin, saved, version, now)
        error = outcome.error._replace(traceback=outcome.error.traceback[-TRACEBACK_CHARS:])
        record = DeadLetterRecord(
            *(job.id, outcome.reason, now, self._worker, origin.topic, origin.partition, origin.offset),
            job=encode(job) if raw is None else raw,
            failures=[error],
            progress=progress,
            steps=steps,
        )
        headers = [*routing_headers(job), ("reason", outcome.reason.encode())]
        return OutRecord(topics.dlq, job.id.encode(), encode(record), headers)

    def undecodable(
        self, dlq: str, origin: Origin, key: bytes | None, value: bytes | None, reason: str, error: str, now: int
    ) -> OutRecord:
        """A record that is no job: kept as raw bytes with the reason."""
        record = DeadLetterRecord(
            *("", reason, now, self._worker, origin.topic, origin.partition, origin.offset),
            raw=value,
            raw_key=key,
            failures=[ErrorInfo(reason, error)],
        )
        return OutRecord(dlq, key, encode(record), [("reason", reason.encode())])

    def _inline(
        self, topics: Topics, job: Job, origin: Origin, saved: Saved | None, version: Version, now: int
    ) -> tuple[bytes | None, list[bytes] | None]:
        if saved is None:
            return None, None
        progress = encode(self._record(topics, job, origin, saved.promoted, saved.progress or Progress(), version, now))
        steps = [encode(StepRecord(job.id, *version, s.name, s.phase, s.result, s.error)) for s in saved.steps]
        if len(progress) + sum(map(len, steps)) > INLINE_PROGRESS_BYTES:
            # Cut to fit: the position survives, the step results do not; a redrive from the checkpoint repeats them.
            steps = []
        return progress, steps or None
