"""What the owner looks after by the clock and not by events: announcing, promoting, refreshing, giving up waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor import events
from processor.broker.base import OutRecord
from processor.core.deadlines import exceeded, is_near
from processor.core.outcome import Stop
from processor.engine.alerting import tell_of_kill_date
from processor.engine.parked import ParkedJobs
from processor.engine.pool import Ending
from processor.engine.queue_partition import PartitionPhase, QueuePartition
from processor.engine.waiters import Waiters
from processor.runtime.gc_tuning import GrowthWatch
from processor.states import State

if TYPE_CHECKING:
    from processor.engine.attempt import Attempt
    from processor.engine.dispatch import Dispatch
    from processor.engine.outcomes import Outcomes
    from processor.engine.ownership import Ownership
    from processor.engine.ready_queue import ReadyQueue
    from processor.engine.state import EngineState

log = events.logger(__name__)

EVERY = 0.1
LAZY_COMMIT = 0.5
"""Seconds after which an end of partition, or a dropped copy, is committed though nothing else is to be written."""
PROGRESS_EVERY = 1.0
"""Seconds between two status records with progress of one job."""


class Timers:
    """What the owner does by the clock. `turn` is called every turn of the loop and acts every `EVERY` seconds."""

    def __init__(self, engine: EngineState, dispatch: Dispatch, outcomes: Outcomes, ownership: Ownership) -> None:
        self._engine = engine
        self._dispatch = dispatch
        self._outcomes = outcomes
        self._ownership = ownership
        self._parked = ParkedJobs(engine, outcomes, ownership)
        self._growth = GrowthWatch()
        self.waiters = Waiters()
        self._next = 0.0
        self._next_lazy = 0.0

    def turn(self, now: float) -> None:
        """`now`: monotonic seconds."""
        if now < self._next:
            return
        self._next = now + EVERY
        self._growth.turn(now)
        lazy = now >= self._next_lazy
        if lazy:
            self._next_lazy = now + LAZY_COMMIT
        self._look_at_slow(now)
        self.waiters.look(self._dispatch.ready_queues, now)
        for number in list(self._engine.numbers.values()):
            self._ownership.look_at_held(number, now)
            if number.phase is PartitionPhase.ACTIVE:
                try:
                    self._look_at(number, lazy=lazy, now=now)
                except Exception as error:  # noqa: BLE001  (the owner's guard)
                    self._engine.guard.number(number, "it was looked after", error)

    def _look_at_slow(self, now: float) -> None:
        """Attempts that did not end soon, among those in the hands of pools: they are never many."""
        now_ms = self._engine.clock.now_ms()
        ready_queues = self._dispatch.ready_queues.values()
        running = [(ready_queue, attempt) for ready_queue in ready_queues for attempt in ready_queue.running]
        for ready_queue, attempt in running:
            if attempt.started_at is not None and attempt.outcome is None and not attempt.mailbox.lost:
                mark = attempt.number.outbox.mark()
                try:
                    self._look_at_attempt(ready_queue, attempt, now - attempt.started_at, now, now_ms)
                except Exception as error:  # noqa: BLE001  (the owner's guard)
                    self._engine.guard.job(attempt, error, mark, runs=True)

    def _look_at_attempt(self, ready_queue: ReadyQueue, attempt: Attempt, ran: float, now: float, now_ms: int) -> None:
        config = self._engine.config
        if attempt.mailbox.stop is not None:
            self._insist(ready_queue, attempt, attempt.mailbox.stop, now)
        else:
            self._hold_to_limits(attempt, ran, now, now_ms)
        if not attempt.notices.kill_date and is_near(attempt.job, now_ms):
            attempt.notices = attempt.notices._replace(kill_date=True)
            tell_of_kill_date(self._engine, attempt, now_ms)
        if ran >= config.announce_after:
            self._announce(attempt, now)
        if ran >= config.promote_after and not attempt.logged.promoted:
            self._outcomes.promote(attempt)

    def _hold_to_limits(self, attempt: Attempt, ran: float, now: float, now_ms: int) -> None:
        """Tell an attempt that has passed one of its limits to stop."""
        silent = now - attempt.mailbox.beat_at if attempt.mailbox.beat_at else ran
        limit = exceeded(attempt.runnable.options, attempt.job, ran=ran, silent=silent, now_ms=now_ms)
        if limit is not None:
            attempt.mailbox.stop = Stop(limit.kind, limit.reason, now)
            attempt.mailbox.interrupt()
            self._engine.counters.events[f"stopped.{limit.kind}"] += 1
            log.warning("job.stops", extra={**_fields(attempt), "kind": limit.kind, "reason": limit.reason})

    def _insist(self, ready_queue: ReadyQueue, attempt: Attempt, stop: Stop, now: float) -> None:
        """It was told to stop and did not, for longer than the grace: end it by force."""
        grace = self._engine.config.stop_grace
        if now - stop.at < grace:
            return
        attempt.mailbox.stop = stop._replace(at=now, forced=True)
        ending = ready_queue.pool.end(attempt, stop.reason)
        log.error("job.ended_by_force", extra={**_fields(attempt), "reason": stop.reason, "ending": ending.value})
        if ending is not Ending.COMES:
            self._engine.counters.events["abandoned"] += 1
            ready_queue.stuck |= ending is Ending.STUCK
            self._outcomes.end_by_force(attempt)

    def save_running(self) -> None:
        """The process ends: what handlers that did not yield have come to is saved, as far as it is consistent."""
        for ready_queue in self._dispatch.ready_queues.values():
            for attempt in list(ready_queue.running):
                number, begun = attempt.number, attempt.started_at is not None
                if begun and number.assignment == attempt.assignment and not (attempt.settled or attempt.mailbox.lost):
                    mark = number.outbox.mark()
                    try:
                        self._outcomes.write_news(attempt, final=True)
                    except Exception as error:  # noqa: BLE001  (the owner's guard)
                        self._engine.guard.job(attempt, error, mark, runs=True)

    @property
    def stuck(self) -> bool:
        """A handler holds up a whole event loop, and cannot be ended."""
        return any(ready_queue.stuck for ready_queue in self._dispatch.ready_queues.values())

    @property
    def too_many_abandoned(self) -> bool:
        """Whether the process had better start anew."""
        left = sum(ready_queue.pool.left_behind() for ready_queue in self._dispatch.ready_queues.values())
        return self.stuck or left >= self._engine.config.abandoned_max

    def _look_at(self, number: QueuePartition, *, lazy: bool, now: float) -> None:
        if number.crowded:
            number.crowded = False
            self._promote_oldest(number)
        if lazy:
            number.marks.expire(self._engine.clock.now_ms())
            self._commit_lazily(number, now)
            self._parked.look_at(number)

    def _announce(self, attempt: Attempt, now: float) -> None:
        """A `running` status, once, and again with progress while there is news of it."""
        reported = attempt.mailbox.progressed
        if attempt.notices.running and (reported is None or now < attempt.notices.quiet_until):
            return
        attempt.notices = attempt.notices._replace(running=True, quiet_until=now + PROGRESS_EVERY)
        attempt.mailbox.progressed = None
        done, total, note = reported or (None, None, None)
        number, job = attempt.number, attempt.job
        timed = attempt.runnable.options.attempt_timeout is not None
        told = {"done": done, "total": total, "note": note, "ends_at": attempt.ends_at if timed else None}
        value = self._engine.completer.status(job, State.RUNNING, self._engine.clock.now_ms(), **told)
        number.outbox.announce(OutRecord(number.topics.status, job.id.encode(), value))

    def _promote_oldest(self, number: QueuePartition) -> None:
        """The window's ranges nearly fill the offset metadata: let the jobs that hold it open move house."""
        running = [a for a in number.jobs.attempts.values() if a.lane is not None and a.started_at is not None]
        running.sort(key=lambda attempt: attempt.origin.offset)
        for attempt in running[:16]:
            self._outcomes.promote(attempt)

    def _commit_lazily(self, number: QueuePartition, now: float) -> None:
        idle = now - number.committed_at
        if idle >= self._engine.config.refresh_every:
            # Brokers expire offsets of topics that a group does not subscribe to; the hint gets fresh as well.
            number.touched = True
            self._engine.outbox_load.request_flush()
        elif number.own_mark.behind and now >= number.own_mark.next_at:
            number.touched = True
            self._engine.outbox_load.request_flush()
        elif number.outbox.burials or any(lane.changed for lane in number.lanes.values()):
            number.touched = number.touched or bool(number.outbox.burials)
            self._engine.outbox_load.request_flush()


def _fields(attempt: Attempt) -> dict[str, object]:
    return {"job_id": attempt.job.id, "job_type": attempt.job.type}
