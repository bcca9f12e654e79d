"""What the owner does with what attempts report: outcomes become write sets, news waits for the next freeze."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from processor import events
from processor.broker.base import OutRecord
from processor.core.deadlines import look_again_at
from processor.core.dedupe import end_mark, move_mark
from processor.core.idempotency import FINAL_HOP
from processor.core.outcome import (
    Crashed,
    Discarded,
    Ended,
    Failed,
    Lost,
    Outcome,
    Parked,
    Retried,
    Stop,
    Succeeded,
    Yielded,
    name_of,
)
from processor.core.verdict import died, stopped
from processor.core.write_set import SavedOut
from processor.dead_reasons import DeadReason
from processor.engine.alerting import tell_of_end
from processor.engine.attempt import Attempt, Sync
from processor.engine.dispatch import Dispatch
from processor.engine.moving import Moving, with_children
from processor.engine.partition_jobs import Successor
from processor.engine.queue_partition import PartitionPhase, QueuePartition
from processor.engine.settled_orders import settle
from processor.engine.state import EngineState
from processor.engine.tellings import tell_end
from processor.job import ErrorInfo, Progress
from processor.states import State

log = events.logger(__name__)


class Outcomes:
    """Turns what attempts report into records of the outbox."""

    def __init__(self, engine: EngineState, dispatch: Dispatch) -> None:
        self._engine = engine
        self._dispatch = dispatch
        self.moving = Moving(engine, dispatch)
        self._handlers: dict[type, Callable[[Attempt], None]] = {
            Succeeded: self.end,
            Failed: self.end,
            Discarded: self.end,
            Ended: self.end,
            Retried: self._retried,
            Yielded: self._yielded,
            Lost: self._lost,
            Parked: self._parked,
            Crashed: self._crashed,
        }

    def all_reported(self, attempts: Iterable[Attempt]) -> None:
        """As `reported`, for many: those that succeeded and saved nothing, nearly all there are, go through at once."""
        engine, ended = self._engine, self._dispatch.ended
        succeeded, now = engine.completer.succeeded, engine.clock.now_ms()
        counters, tells = engine.counters, engine.config.log_jobs
        records = size = 0
        for attempt in attempts:
            outcome, number = attempt.outcome, attempt.number
            if (
                type(outcome) is not Succeeded
                or attempt.settled
                or attempt.history.derived
                or attempt.known is not None
                or attempt.mailbox.reports
                or attempt.mailbox.lost
                or number.assignment != attempt.assignment
            ):
                mark = number.outbox.mark()
                try:
                    self.reported(attempt)
                except Exception as error:  # noqa: BLE001  (the owner's guard)
                    engine.guard.job(attempt, error, mark)
                continue
            attempt.settled = True
            before = len(number.outbox.announces)
            try:
                ended(attempt)
                job = attempt.job
                out = succeeded(number.topics, job, outcome, now)
                number.outbox.announces.append(out)
                records += 1
                size += len(out[2])  # type: ignore[arg-type]  # a status has a value
                lane = attempt.lane
                if lane is not None:
                    lane.window.complete(attempt.origin[2])
                    lane.changed = True
                attempt.over = True
                counters.finished[number.queue.name, job.type, "succeeded"] += 1
                counters.ran(job.type, attempt.run_seconds)
                self.leave(attempt)
                if tells:
                    tell_end(attempt, outcome)
            except Exception as error:  # noqa: BLE001  (as above)
                engine.guard.job(attempt, error, number.outbox.mark()._replace(announces=before))
        if records:
            engine.outbox_load.wrote(records, size)

    def reported(self, attempt: Attempt) -> None:
        """An attempt was posted: it has ended, or it has news for the next flush."""
        if attempt.settled:
            self._dispatch.give_back(attempt)  # it was ended without its handler
            return
        if attempt.outcome is None:
            attempt.number.outbox.news.append(attempt)
            self._engine.outbox_load.request_flush()
            return
        attempt.settled = True
        self._dispatch.ended(attempt)
        if attempt.mailbox.lost or attempt.number.assignment != attempt.assignment:
            # The number moved away: a result that comes now belongs to nobody (design: dropped by assignment).
            self._engine.counters.events["late_results"] += 1
            return
        if attempt.mailbox.stop is not None:
            attempt.outcome = self._stopped(attempt, attempt.mailbox.stop)
        self._handlers[type(attempt.outcome)](attempt)

    def _stopped(self, attempt: Attempt, stop: Stop) -> Outcome:
        policy, now = attempt.runnable.options.retry, self._engine.clock.now_ms()
        return stopped(attempt.outcome, stop, policy, attempt.job, now, attempt.mailbox.stack)

    def end_by_force(self, attempt: Attempt) -> None:
        """Its thread does not listen and cannot be ended: the job ends without it, what it still does is nobody's."""
        assert attempt.mailbox.stop is not None
        attempt.outcome = self._stopped(attempt, attempt.mailbox.stop)
        attempt.settled = True
        self._dispatch.ended(attempt)
        self._apply(attempt)
        attempt.mailbox.lose()

    def end_unstarted(self, attempt: Attempt, outcome: Outcome) -> None:
        """End a job that may not start: its kill date has come, it is too late for it, or somebody cancelled it."""
        attempt.outcome = outcome
        attempt.settled = True
        self._apply(attempt)

    def _apply(self, attempt: Attempt) -> None:
        mark = attempt.number.outbox.mark()
        try:
            self._handlers[type(attempt.outcome)](attempt)
        except Exception as error:  # noqa: BLE001  (as above)
            self._engine.guard.job(attempt, error, mark)

    def name(self, attempt: Attempt) -> None:
        """A suspect is to run alone: from now on its own record counts the deaths."""
        self._engine.rewrite(attempt, attempt.job._replace(deaths=attempt.history.deaths))
        self.promote(attempt)

    def synced(self, sync: Sync) -> None:
        """Somebody waits until what an attempt saved is durable."""
        attempt = sync.attempt
        if attempt.mailbox.lost or attempt.number.assignment != attempt.assignment:
            attempt.mailbox.lose()
            sync.release()
            return
        attempt.number.outbox.syncs.append(sync)
        self._engine.outbox_load.request_flush()
        self._engine.outbox_load.group_commit.waits()

    def park_unknown(self, attempt: Attempt) -> None:
        """No such job type here: perhaps the deploy that brings it is under way."""
        until = self._engine.clock.now_ms() + int(self._engine.config.unknown_type_patience * 1000)
        self.end_unstarted(attempt, Parked(State.WAITING, f"unknown job type {attempt.job.type!r}", until))

    def give_up(self, attempt: Attempt, reason: str, message: str) -> None:
        """End a job that never ran, as dead."""
        self.end_unstarted(attempt, Failed(ErrorInfo(reason, message), reason))

    def write_news(self, attempt: Attempt, *, final: bool = False) -> None:
        """Put what an attempt reported since the last time into its number's outbox."""
        drained = attempt.drain(final=final)
        number, job, engine = attempt.number, attempt.job, self._engine
        progress = drained.progress
        if progress is None and drained.steps and not attempt.logged.saved:
            # A job's progress is written no later than its first step: steps alone belong to nobody.
            progress = attempt.mailbox.latest or Progress()
            attempt.logged.progress = attempt.mailbox.latest
        if not attempt.logged.saved and (progress is not None or drained.steps):
            self.moving.takes_up(number, job)
        completer, topics = engine.completer, number.topics
        if progress is not None:
            number.outbox.save(self._progress(attempt, progress))
            attempt.logged.saved = True
            engine.counters.events["checkpoints"] += 1
        if drained.steps:
            names = attempt.logged.steps_now
            if names is None:
                names = attempt.logged.steps_now = {}
            for step in drained.steps:
                number.outbox.save(completer.step(topics, job, step, number.version(job)))
                names[step.name] = step
            engine.counters.events["steps"] += len(drained.steps)
        for name in drained.forgotten:
            if attempt.logged.steps_now is not None and attempt.logged.steps_now.pop(name, None) is not None:
                number.outbox.step_burials.append((job.id, name))
        if drained.children:
            number.outbox.create(*drained.children)

    def end(self, attempt: Attempt) -> None:
        """The job is over: everything that this writes, in one flush with the completion of its offset."""
        engine, number, outcome = self._engine, attempt.number, attempt.outcome
        assert outcome is not None
        now = engine.clock.now_ms()
        saved, children = self.moving.taken(attempt)
        job = with_children(attempt)
        writes = engine.completer.end(
            number.topics,
            job,
            attempt.raw,
            attempt.origin,
            outcome,
            saved=saved,
            version=number.version(job),
            marked=attempt.history.derived,
            now=now,
        )
        if attempt.history.derived:
            number.marks.put(end_mark(job, now, attempt.origin))
        tell_of_end(engine, attempt, now)
        settle(engine, number, job.id, job.life)
        self.moving.put(number, job, writes, children)
        if job.life > 1 and not writes.later:
            # The mark of an earlier life that waited for its retry, which this one made pointless.
            number.outbox.later.extend(number.live.keys_of(job.id))
        number.outbox.ending[job.id] = attempt
        self.complete(attempt)
        attempt.over = True
        counters = engine.counters
        counters.finished[number.queue.name, job.type, name_of(outcome)] += 1
        counters.ran(job.type, attempt.run_seconds)
        self.leave(attempt)
        if engine.config.log_jobs:
            tell_end(attempt, outcome)

    def _yielded(self, attempt: Attempt) -> None:
        """Save what was reached; the offset stays open. The next owner goes on, or this one once the pause is over."""
        attempt.note_begun()
        self.write_news(attempt, final=True)
        attempt.number.touched = True
        self._count(attempt, "yielded")
        self._engine.forget(attempt)
        if attempt.number.phase is PartitionPhase.ACTIVE:
            again = attempt.again()
            self._engine.take(again)
            self._dispatch.ready(again)

    def _lost(self, attempt: Attempt) -> None:
        self._count(attempt, "yielded")
        self._engine.forget(attempt)

    def _count(self, attempt: Attempt, outcome: str) -> None:
        self._engine.counters.finished[attempt.number.queue.name, attempt.job.type, outcome] += 1

    def _parked(self, attempt: Attempt) -> None:
        """The job's whole record goes into the checkpoint topic; it waits there without a slot."""
        parked = attempt.outcome
        if not isinstance(parked, Parked):
            return
        engine, number, job = self._engine, attempt.number, attempt.job
        now = engine.clock.now_ms()
        if parked.until is not None and attempt.history.parked_until is not None:
            # Tried again, by this owner or the next: the patience counts from the first time.
            if now >= attempt.history.parked_until:
                self.give_up(
                    attempt,
                    DeadReason.UNKNOWN_TYPE if attempt.job_type is None else DeadReason.NEWER_RECORD,
                    parked.reason,
                )
                return
            parked = parked._replace(until=attempt.history.parked_until)
        self.write_news(attempt, final=True)
        if parked.error is not None:
            job = self.moving.note_failure(attempt, parked.error, now)
        record = self.promote(attempt, parked).record
        status = engine.completer.status(job, parked.state, now, note=parked.reason, attempt=job.attempt)
        number.outbox.announce(OutRecord(number.topics.status, job.id.encode(), status))
        wanted, written = engine.gate.control.concerns(job.id, job.type), (record.epoch, record.sequence)
        number.jobs.parked.put(job.id, look_again_at(job, parked.until), wanted=wanted, written=written)
        engine.counters.events["parked"] += 1
        if attempt.started_at is not None:
            self._count(attempt, "parked")
        engine.forget(attempt)
        log.warning("job.parked", extra={"job_id": job.id, "job_type": job.type, "reason": parked.reason})

    def promote(self, attempt: Attempt, parked: Parked | None = None) -> SavedOut:
        """Move a job into the checkpoint topic: its lane offset completes with the flush that carries its record."""
        engine, number = self._engine, attempt.number
        number.outbox.ending[attempt.job.id] = attempt
        was_promoted, attempt.logged.promoted = attempt.logged.promoted, True
        outbox = number.outbox
        if not attempt.logged.saved:
            self.moving.takes_up(number, attempt.job)
            latest = attempt.mailbox.latest or Progress()
            attempt.logged.progress = attempt.mailbox.latest
            outbox.save(self._progress(attempt, latest))
        elif not was_promoted:
            # Its home is the checkpoint topic now.
            outbox.save(self._progress(attempt, attempt.logged.progress or Progress()))
        attempt.logged.saved = True
        version = number.version(attempt.job)
        promotion = engine.completer.promotion(
            number.topics, attempt.job, attempt.raw, attempt.origin, version, engine.clock.now_ms(), parked
        )
        outbox.save(promotion)
        if not was_promoted:
            self.complete(attempt)
            if attempt.history.derived:
                mark = move_mark(attempt.job, engine.clock.now_ms(), attempt.origin)
                outbox.create(engine.completer.mark(number.topics, mark))
                number.marks.put(mark)
            engine.counters.events["promoted"] += 1
        return promotion

    def _progress(self, attempt: Attempt, progress: Progress) -> SavedOut:
        number, job = attempt.number, attempt.job
        return self._engine.completer.checkpoint(
            number.topics,
            job,
            attempt.origin,
            attempt.logged.promoted,
            progress,
            number.version(job),
            self._engine.clock.now_ms(),
        )

    def _retried(self, attempt: Attempt) -> None:
        if isinstance(attempt.outcome, Retried):
            self._moves(attempt, attempt.outcome.error, attempt.outcome.delay, deaths=0)

    def _crashed(self, attempt: Attempt) -> None:
        """The process that ran it died. That burns no attempt; the third time without progress it is given up."""
        detail = attempt.outcome.detail if isinstance(attempt.outcome, Crashed) else ""
        deaths = 1 if attempt.logged.has_grown else max(attempt.history.deaths, attempt.job.deaths) + 1
        becomes = died(detail, deaths)
        if isinstance(becomes, Failed):
            attempt.outcome = becomes
            self.end(attempt)
            return
        self._moves(attempt, becomes.error, becomes.delay, deaths=deaths)

    def _moves(self, attempt: Attempt, error: ErrorInfo, delay: float, *, deaths: int) -> None:
        """It is tried again later, from a copy of its record."""
        attempt.moved = self.moving.out(attempt, error, delay, deaths=deaths)
        attempt.number.outbox.ending[attempt.job.id] = attempt
        self.complete(attempt)
        attempt.over = True
        self._engine.counters.ran(attempt.job.type, attempt.run_seconds)
        self._count(attempt, "died" if deaths else "retried")
        self.leave(attempt)

    def complete(self, attempt: Attempt) -> None:
        """The offset of its record is done, if it has one."""
        lane = attempt.lane
        if lane is not None:
            lane.complete(attempt.origin.offset)
            attempt.lane = None

    def leave(self, attempt: Attempt, *, ended: bool = True) -> None:
        """Its place, key and followers are free; twice changes nothing. `ended` False: only this record is done."""
        number, job = attempt.number, attempt.job
        hop = FINAL_HOP if attempt.moved is None else job.hop
        self._engine.forget(attempt)
        if ended:
            number.jobs.recent.add(job.id, job.life, hop)
        successor = self._successor(number, job.id, (job.life, hop)) if number.jobs.successors else None
        frees = job.key is not None and (attempt.moved is None or not self.moving.keeps_key(attempt))
        if frees:
            self._dispatch.release_key(number, job.key, job.id)
        if successor is not None and not (successor.in_line and frees):
            after = successor.attempt
            key = after.job.key
            if key is None or self._dispatch.offer_key(after, key):
                self._dispatch.ready(after)

    def _successor(self, number: QueuePartition, job_id: str, over: tuple[int, int]) -> Successor[Attempt] | None:
        """A later record of a job that was live and has waited; `over`: (life, hop) up to which nothing is to run."""
        successor = number.jobs.successors.pop(job_id, None)
        if successor is None:
            return None
        attempt = successor.attempt
        if (attempt.job.life, attempt.job.hop) <= over:
            self._engine.counters.events["dropped_copies"] += 1
            attempt.settled = True
            self.complete(attempt)
            self._engine.outbox_load.request_flush()
            return None
        self._engine.take(attempt)
        return successor
