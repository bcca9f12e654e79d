"""From the outcome of an attempt to the records that make it true: one write set, decided without I/O.

What *creates* (copies, marks, end marks) is written and acknowledged before what *announces or destroys* (status,
tombstones); tombstones of a job that had saved progress leave only in a later flush, after its end mark is committed.
A crash, or a torn transaction, between any two of these records leaves a log from which the same end is reached again.
"""

from __future__ import annotations

from typing import Any

from processor.broker.base import ANY_PARTITION, OutRecord
from processor.core.checkpoint import job_key, progress_key, step_key
from processor.core.dedupe import end_mark, move_mark
from processor.core.failures import brief, failed, remembered
from processor.core.forwarding import on_its_way
from processor.core.outcome import Discarded, Ended, Failed, Outcome, Parked, Succeeded
from processor.core.retry_chain import SHORTEST
from processor.core.write_set import Move, Origin, Saved, SavedOut, Topics, WriteSet
from processor.dead_reasons import DeadReason
from processor.job import Carried, ErrorInfo, Failure, Job, Progress, Step, Version
from processor.states import TERMINAL, State
from processor.wire.codec import encode, encode_success
from processor.wire.headers import REASON, routing_headers
from processor.wire.records import (
    AlertRecord,
    CheckpointRecord,
    DeadLetterRecord,
    DedupeMark,
    LiveJobRecord,
    StatusRecord,
    StepRecord,
)
from processor.wire.topics import alerts_topic, retry_topic

INLINE_PROGRESS_BYTES = 512 * 1024
"""Progress up to this size travels inside the dead letter (design, section 5)."""
CARRIED_BYTES = 256 * 1024
"""Progress up to this size travels inside the record of a job that is tried again; beyond, the checkpoint topic keeps
it."""

TRACEBACK_CHARS = 16_000
_new = tuple.__new__
"""What a NamedTuple's own constructor does, without a call of Python in between."""


_AWAY = Origin("", -1, -1)
"""Progress that travels has no home of its own."""


class Completer:
    """Decides the write sets of one worker."""

    def __init__(self, worker: str) -> None:
        self._worker = worker

    def status(self, job: Job, state: State, now: int, **fields: Any) -> bytes:
        """An encoded status record of this job."""
        record = StatusRecord(job.id, job.life, job.type, job.queue, state, now, job.attempt + 1, self._worker)
        if job.kill_at is not None and state not in TERMINAL:
            fields["kill_at"] = job.kill_at
        return encode(record._replace(**fields) if fields else record)  # checked by name at run time

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
        """The write set of a job that reached a terminal state, or none if the outcome ends nothing.

        Args:
            topics: of its number.
            job: the job; `raw` its encoded form.
            origin: where its record was read.
            outcome: Succeeded, Failed, Discarded or Ended.
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
            status = self.status(job, state, now, error=brief(outcome.error))
            creates = [self.dead_letter(topics, job, raw, origin, outcome, saved=saved, version=version, now=now)]
        elif isinstance(outcome, Discarded):
            state = State.DISCARDED
            status = self.status(job, state, now, error=brief(outcome.error))
            creates = []
        elif isinstance(outcome, Ended):
            state = outcome.state
            status = self.status(job, state, now, note=outcome.reason, attempt=job.attempt)
            creates = []
            if state is State.KILLED:
                killed = Failed(ErrorInfo("killed", outcome.reason), DeadReason.KILLED, tried=outcome.began)
                creates = [self.dead_letter(topics, job, raw, origin, killed, saved=saved, version=version, now=now)]
        else:
            return WriteSet()
        key = job.id.encode()
        if marked:
            creates.append(self.mark(topics, end_mark(job, now, origin)))
        announces = [OutRecord(topics.status, key, status)]
        if saved is None or not saved.written:
            return WriteSet(creates, (), announces, (), state)
        final = self._record(topics, job, origin, saved.promoted, Progress(), version, now)._replace(final=status)
        saves = [SavedOut(OutRecord(topics.checkpoints, key, encode(final), None, topics.number), final)]
        return WriteSet(creates, saves, announces, _graves(job, saved), state)

    def move(  # noqa: PLR0913  (as `end`)
        self,
        topics: Topics,
        job: Job,
        error: ErrorInfo,
        due: int,
        *,
        origin: Origin,
        saved: Saved | None,
        version: Version,
        stays: bool,
        marked: bool,
        deaths: int,
        now: int,
    ) -> Move:
        """The write set of a job that is tried again: a copy of its record, a hop further, that comes back when due.

        Its progress travels in the copy. It stays in the checkpoint topic, at home in the retry chain, if it is too
        large for that, or if its key stays blocked (`stays`): then a mark there keeps the key from others, also over a
        restart. What is left behind is buried in a later flush. A promoted job leaves a progress record of the new
        hop, so that a restore before that does not take it for one that lives there still.

        Args:
            topics: of its number.
            job: as it was tried.
            error: how that ended.
            due: not before this, milliseconds since the epoch; `origin`: where its record was read.
            saved: what is known of its progress, None if nothing.
            version: of the records that stay, with the hop of the copy.
            stays: whether its key stays blocked.
            marked: whether a dedupe mark is due, as in `end`.
            deaths: of its process, in a row and without progress; a death is no attempt.
            now: milliseconds since the epoch.
        """
        failures = self.failures(job, error, now)
        progress, steps = self._travelling(topics, job, saved, version, now, stays=stays)
        moved = job._replace(
            hop=job.hop + 1,
            attempt=job.attempt + (not deaths),
            deaths=deaths,
            number=topics.number,
            due_at=due,
            carried=Carried(failures, progress, steps, _children(job)),
        )
        creates = [on_its_way(topics.namespace, moved, due, now)]
        if marked:
            creates.append(self.mark(topics, move_mark(job, now, origin, due)))
        saves: list[SavedOut] = []
        remains = stays or (saved is not None and progress is None)
        if remains or (saved is not None and saved.written and saved.promoted):
            saves.append(self._away(topics, moved, saved, version, now))
        if remains and saved is not None:
            unwritten = saved.fresh if saved.written else saved.steps
            saves += [self.step(topics, job, step, version) for step in unwritten]
        if stays:
            saves.append(self._key_mark(topics, moved, error, version._replace(hop=job.hop), now))
        later = _graves(job, saved) if saved is not None and saved.written and not remains else ()
        status = self._retrying(topics, job, error, due, saved, now)
        announces = [OutRecord(topics.status, job.id.encode(), status)]
        return Move(moved, WriteSet(creates, saves, announces, later, State.RETRYING))

    def _retrying(self, topics: Topics, job: Job, error: ErrorInfo, due: int, saved: Saved | None, now: int) -> bytes:
        done = total = None
        if saved is not None and saved.progress is not None:
            done, total = saved.progress.done, saved.progress.total
        fields = {"due_at": due, "number": topics.number, "done": done, "total": total}
        return self.status(job, State.RETRYING, now, error=brief(error), **fields)

    def _travelling(
        self, topics: Topics, job: Job, saved: Saved | None, version: Version, now: int, *, stays: bool
    ) -> tuple[bytes | None, list[bytes] | None]:
        """Progress and steps as they travel in a job's record; None: there are none, or they stay."""
        if saved is None or stays:
            return None, None
        progress, steps = self._encoded(topics, job, _AWAY, saved, version, now)
        if len(progress) + sum(map(len, steps)) > CARRIED_BYTES:
            return None, None
        return progress, steps or None

    def _away(self, topics: Topics, job: Job, saved: Saved | None, version: Version, now: int) -> SavedOut:
        """Progress of a job that is at home in the retry chain."""
        progress = (saved.progress if saved is not None else None) or Progress()
        origin = Origin(retry_topic(topics.namespace, SHORTEST), -1, -1)
        return self.checkpoint(topics, job, origin, False, progress, version, now)

    def _key_mark(self, topics: Topics, job: Job, error: ErrorInfo, version: Version, now: int) -> SavedOut:
        """Keeps the key of a job that waits for its retry from others."""
        small = encode(job._replace(payload=b"", carried=None))
        reason = f"{error.kind}: {error.message}"[:500]
        record = LiveJobRecord(
            *(job.id, *version, small, topics.checkpoints, -1, now), State.RETRYING, reason, job.due_at
        )
        return SavedOut(OutRecord(topics.checkpoints, job_key(job.id), encode(record), None, topics.number), record)

    def failures(self, job: Job, error: ErrorInfo, now: int, *, tried: bool = True) -> list[Failure]:
        """Those of the life, this one included. `tried`: it is an attempt's; else it is of none, attempt 0."""
        before = job.carried.failures if job.carried is not None else []
        error = error._replace(traceback=error.traceback[-TRACEBACK_CHARS:])
        return remembered(before, failed(error, attempt=job.attempt + 1 if tried else 0, worker=self._worker, at=now))

    @staticmethod
    def mark(topics: Topics, mark: DedupeMark) -> OutRecord:
        """Says that this (id, life) was finished, promoted or moved here, up to this hop."""
        return OutRecord(topics.dedupe, mark.id.encode(), encode(mark), None, topics.number)

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
        record = DeadLetterRecord(
            *(job.id, outcome.reason, now, self._worker, origin.topic, origin.partition, origin.offset),
            job=_whole(job, raw),
            failures=self.failures(job, outcome.error, now, tried=outcome.tried),
            progress=progress,
            steps=steps,
            children=_children(job),
        )
        headers = [*routing_headers(job), (REASON, outcome.reason.encode())]
        return OutRecord(topics.dlq, job.id.encode(), encode(record), headers)

    def stranded(self, dlq: str, job: Job, origin: Origin, error: ErrorInfo, now: int) -> OutRecord:
        """A job that cannot leave the retry chain, with the progress that travels in its record."""
        carried = job.carried or Carried([])
        record = DeadLetterRecord(
            *(job.id, error.kind, now, self._worker, origin.topic, origin.partition, origin.offset),
            job=_whole(job, None),
            failures=self.failures(job, error, now),
            progress=carried.progress,
            steps=carried.steps,
            children=carried.children,
        )
        return OutRecord(dlq, job.id.encode(), encode(record), [*routing_headers(job), (REASON, error.kind.encode())])

    def undecodable(
        self,
        dlq: str,
        origin: Origin,
        key: bytes | None,
        value: bytes | None,
        reason: str,
        error: str,
        now: int,
        job_id: str = "",
    ) -> OutRecord:
        """A record that is no job, or that is kept as it is: as raw bytes with the reason."""
        record = DeadLetterRecord(
            *(job_id, reason, now, self._worker, origin.topic, origin.partition, origin.offset),
            raw=value,
            raw_key=key,
            failures=[Failure(reason, error, worker=self._worker, at=now)],
        )
        return OutRecord(dlq, key, encode(record), [(REASON, reason.encode())])

    def alert(self, topics: Topics, kind: str, job: Job, text: str, now: int) -> OutRecord:
        """Something about a job that somebody should look at."""
        record = AlertRecord(kind, job.id, now, self._worker, text, job.id, job.type, job.queue)
        return OutRecord(alerts_topic(topics.namespace), job.id.encode(), encode(record))

    def _inline(
        self, topics: Topics, job: Job, origin: Origin, saved: Saved | None, version: Version, now: int
    ) -> tuple[bytes | None, list[bytes] | None]:
        if saved is None:
            return None, None
        progress, steps = self._encoded(topics, job, origin, saved, version, now)
        if len(progress) + sum(map(len, steps)) > INLINE_PROGRESS_BYTES:
            # Cut to fit: the position survives, the step results do not; a redrive from the checkpoint repeats them.
            steps = []
        return progress, steps or None

    def _encoded(
        self, topics: Topics, job: Job, origin: Origin, saved: Saved, version: Version, now: int
    ) -> tuple[bytes, list[bytes]]:
        """Progress and steps as the records they are."""
        progress = encode(self._record(topics, job, origin, saved.promoted, saved.progress or Progress(), version, now))
        return progress, [encode(StepRecord(job.id, *version, s.name, s.phase, s.result, s.error)) for s in saved.steps]


def _children(job: Job) -> list[str] | None:
    """Those that its record names."""
    return None if job.carried is None else job.carried.children


def _graves(job: Job, saved: Saved) -> list[bytes]:
    """Keys of everything that the checkpoint topic may hold of a job, in the order to bury them: progress last."""
    keys = [step_key(job.id, step.name) for step in saved.steps]
    if saved.promoted or (job.key is not None and job.hop):
        keys.append(job_key(job.id))  # its own record, or the mark that kept its key
    keys.append(progress_key(job.id))
    return keys


def _whole(job: Job, raw: bytes | None) -> bytes:
    """A job as its dead letter keeps it: failures and progress stand there already."""
    if raw is None or job.carried is not None:
        return encode(job._replace(carried=None))
    return raw
