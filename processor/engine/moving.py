"""A job leaves its number for a while: it is tried again later, from a copy of its record in the retry chain.

The copy goes out with the flush that completes the record it is a copy of: a job moves in one transaction or not at
all, its progress with it. `processor.core.completer.Completer.move` decides what that is.
"""

from __future__ import annotations

from collections.abc import Sequence

from processor.broker.base import OutRecord
from processor.core.dedupe import move_mark
from processor.core.write_set import Saved, WriteSet
from processor.engine.attempt import Attempt
from processor.engine.dispatch import Dispatch
from processor.engine.queue_partition import QueuePartition
from processor.engine.state import EngineState
from processor.job import CHILDREN_NAMED, Carried, ErrorInfo, Job


class Moving:
    """Sends the job of a failed attempt into the retry chain. On the owning thread."""

    def __init__(self, engine: EngineState, dispatch: Dispatch) -> None:
        self._engine = engine
        self._dispatch = dispatch

    def out(self, attempt: Attempt, error: ErrorInfo, delay: float, *, deaths: int) -> Job:
        """Put the copy of an attempt's job into the outbox, to come back in `delay` seconds; the job as it leaves."""
        engine, number = self._engine, attempt.number
        now = engine.clock.now_ms()
        saved, children = self.taken(attempt)
        job = with_children(attempt)
        due = now + round(delay * 1000)
        move = engine.completer.move(
            number.topics,
            job,
            error,
            due,
            origin=attempt.origin,
            saved=saved,
            version=number.version(job)._replace(hop=job.hop + 1),
            stays=self.keeps_key(attempt),
            marked=attempt.history.derived,
            deaths=deaths,
            now=now,
        )
        if attempt.history.derived:
            number.marks.put(move_mark(job, now, attempt.origin, due))
        self.put(number, job, move.writes, children)
        engine.counters.events["moved.retry"] += 1
        return move.job

    @staticmethod
    def keeps_key(attempt: Attempt) -> bool:
        """Whether the job's key waits for it while it waits for its retry."""
        return attempt.job.key is not None and attempt.number.queue.order == "block"

    @staticmethod
    def taken(attempt: Attempt) -> tuple[Saved | None, Sequence[OutRecord]]:
        """What is known of an attempt's progress now that it has ended, and the children it leaves behind."""
        drained = attempt.drain(final=True)
        for step in drained.steps:
            attempt.logged.steps_now = {**(attempt.logged.steps_now or {}), step.name: step}
        # What an earlier hop left behind and is not buried yet counts as well: it ends with this one.
        written = attempt.logged.saved or (attempt.job.hop > 0 and attempt.job.id in attempt.number.live)
        if not (written or attempt.mailbox.latest is not None or attempt.logged.steps_now):
            return None, drained.children
        steps = list((attempt.logged.steps_now or {}).values())
        return Saved(attempt.mailbox.latest, steps, attempt.logged.promoted, written, drained.steps), drained.children

    def put(self, number: QueuePartition, job: Job, writes: WriteSet, children: Sequence[OutRecord]) -> None:
        """Records of an end or a move go into the outbox."""
        if writes.later and _came_before(job):
            keys = dict.fromkeys([*number.live.keys_of(job.id), *writes.later])
            writes = writes._replace(later=list(keys))
        number.outbox.add(writes, children)

    @staticmethod
    def takes_up(number: QueuePartition, job: Job) -> None:
        """A job begins to save again: what was to be buried of an earlier hop or life is written over instead."""
        if _came_before(job) and (number.outbox.burials or number.outbox.later):
            number.outbox.keep_from_burial(set(number.live.keys_of(job.id)))

    def note_failure(self, attempt: Attempt, error: ErrorInfo, now: int) -> Job:
        """An attempt failed, and its job waits here: count it in the job's own record."""
        job = with_children(attempt)
        failures = self._engine.completer.failures(job, error, now)
        children = job.carried.children if job.carried is not None else None
        carried = Carried(failures, children=children)
        self._engine.rewrite(attempt, job._replace(attempt=job.attempt + 1, carried=carried))
        return attempt.job


def with_children(attempt: Attempt) -> Job:
    """The job of an attempt that has ended, with the children that it started named in its record."""
    job = attempt.job
    if not attempt.logged.children:
        return job
    carried = job.carried or Carried([])
    named = list(dict.fromkeys([*(carried.children or ()), *attempt.logged.children]))[:CHILDREN_NAMED]
    return job._replace(carried=carried._replace(children=named))


def _came_before(job: Job) -> bool:
    """Whether the checkpoint topic may still hold something of an earlier hop or life of this job."""
    return job.hop > 0 or job.life > 1
