"""What operators want is done here: pauses, cancels and orders to go on, as the control topic tells them.

- A queue that rests starts nothing: its lanes are not read, what waits stays, what runs is asked to save and yield.
- A job type that rests: the same for its jobs, which park in the checkpoint topic, so that the queue's others go on.
- A cancelled job ends at once if nothing of it runs; else its handler hears of it, and `Timers` see that it ends.
- One that is in the lanes, unread, is caught by the `Gate` when its turn comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor import events
from processor.broker.base import OutRecord
from processor.core.control import CANCEL, JOB, TYPE, Change, why
from processor.core.dedupe import end_mark
from processor.core.idempotency import FINAL_HOP
from processor.core.outcome import Ended, Stop
from processor.engine.queue_partition import PartitionPhase
from processor.engine.settled_orders import Burials, give_again
from processor.job import Job
from processor.states import State
from processor.wire.codec import decode_job, decode_live_job, encode
from processor.wire.records import StatusRecord

if TYPE_CHECKING:
    from processor.engine.attempt import Attempt
    from processor.engine.control_topic import ControlNews
    from processor.engine.dispatch import Dispatch
    from processor.engine.outcomes import Outcomes
    from processor.engine.ownership import Ownership
    from processor.engine.queue_partition import QueuePartition
    from processor.engine.state import EngineState
    from processor.wire.records import ControlRecord

log = events.logger(__name__)


class Operators:
    """Carries out pauses, cancels and orders to go on. On the owning thread."""

    def __init__(self, engine: EngineState, dispatch: Dispatch, outcomes: Outcomes, ownership: Ownership) -> None:
        self._engine = engine
        self._dispatch = dispatch
        self._outcomes = outcomes
        self._ownership = ownership
        self.burials = Burials(engine)
        self.informed = False
        """Everything that operators wanted when this worker started is known."""

    def heard(self, news: ControlNews) -> None:
        """Fold what was read, and act on it."""
        gate = self._engine.gate
        for change in news.changes:
            if not gate.control.apply(change):
                self._restore(change.target)
            log.info("control.heard", extra=_fields(change))
        self._rest(gate.control.paused_queues)
        self.informed = self.informed or news.caught_up
        for change in news.changes:
            try:
                self._act_on(change)
            except Exception:
                # It stays in the table, so the gate knows of it when the job's turn comes.
                log.exception("control.not_done", extra=_fields(change))

    def _restore(self, target: str) -> None:
        """An order was given just when the one before it was buried: compaction would keep the tombstone alone."""
        number, order = self.burials.number(), self._engine.gate.control.job_order(target.removeprefix(JOB))
        if number is not None and order is not None:
            give_again(self._engine, number, order)

    def _act_on(self, change: Change) -> None:
        if change.target.startswith(TYPE):
            self._type_changed(change.target[len(TYPE) :])
        elif change.target.startswith(JOB) and change.record is not None and not change.record.settled:
            self._job_ordered(change.target[len(JOB) :], change.record)

    def _rest(self, resting: frozenset[str]) -> None:
        engine = self._engine
        before, engine.gate.resting = engine.gate.resting, resting
        for number in list(engine.active()):
            name = number.queue.name
            if name in resting and name not in before:
                self._ownership.rest(number)
            elif name in before and name not in resting:
                self._ownership.go_on(number)
        if resting - before:
            self._dispatch.interrupt(lambda attempt: attempt.number.queue.name in resting)

    def _type_changed(self, job_type: str) -> None:
        if self._engine.gate.control.type_pause(job_type) is not None:
            self._dispatch.interrupt(lambda attempt: attempt.job.type == job_type)
            return
        for number in self._engine.active():
            number.jobs.parked.look_at_all()

    def _job_ordered(self, job_id: str, order: ControlRecord) -> None:
        for number in self._engine.active():
            if job_id in number.jobs.parked:
                number.jobs.parked.look_at(job_id)
                return
            attempt = number.jobs.attempts.get(job_id)
            if attempt is not None:
                if order.action == CANCEL and attempt.job.life <= order.life:
                    self._cancel(attempt, order)
                return
        if order.action == CANCEL:
            number_there = self._engine.numbers.get((order.queue, order.number)) or self._moved_from(job_id, order)
            if number_there is not None and number_there.phase is PartitionPhase.ACTIVE:
                self._cancel_retry(number_there, job_id, order)

    def _moved_from(self, job_id: str, order: ControlRecord) -> QueuePartition | None:
        """The number that a job has just left for the retry chain: whoever ordered did not know of that yet."""
        for number in self._engine.active():
            life, hop = number.jobs.recent.get(job_id)
            if number.queue.name == order.queue and life == order.life and hop < FINAL_HOP and order.type:
                return number
        return None

    def _cancel(self, attempt: Attempt, order: ControlRecord) -> None:
        ready_queue = attempt.ready_queue
        if ready_queue is None:
            return  # it waits for its key: it ends when its turn comes
        if not ready_queue.holds(attempt):
            self._outcomes.end_unstarted(attempt, Ended(State.CANCELLED, why(order)))
        elif attempt.mailbox.stop is None:
            attempt.mailbox.stop = Stop("cancelled", why(order), self._engine.clock.monotonic())
            attempt.mailbox.interrupt()
            self._engine.counters.events["stopped.cancelled"] += 1
            ready_queue.nudge()

    def _cancel_retry(self, number: QueuePartition, job_id: str, order: ControlRecord) -> None:
        """Its record is on its way through the retry chain: a mark ends it here, and the record when it arrives."""
        engine, over = self._engine, (order.life, FINAL_HOP)
        if number.jobs.recent.get(job_id) >= over or number.marks.seen(job_id, *over):
            return  # it came back meanwhile, and ended
        now = engine.clock.now_ms()
        number.jobs.recent.add(job_id, *over)
        job = Job(job_id, order.type, 1, order.queue, b"", now, life=order.life)
        mark = end_mark(job, now, None)
        number.marks.put(mark)
        worker, note = engine.config.slot, why(order)
        status = encode(
            StatusRecord(job_id, order.life, order.type, order.queue, State.CANCELLED, now, 0, worker, note=note)
        )
        key = self._key_of(number, job_id)
        number.outbox.create(engine.completer.mark(number.topics, mark))
        number.outbox.announce(OutRecord(number.topics.status, job_id.encode(), status))
        number.outbox.later.extend(number.live.keys_of(job_id))
        if key is not None:
            self._dispatch.release_key(number, key, job_id)

    @staticmethod
    def _key_of(number: QueuePartition, job_id: str) -> str | None:
        """The key that a job in the retry chain keeps, as its mark in the checkpoint topic says."""
        for left_id, value in number.live.left_records():
            if left_id == job_id:
                return decode_job(decode_live_job(value).job).key
        return None


def _fields(change: Change) -> dict[str, object]:
    record = change.record
    if record is None:
        return {"target": change.target, "action": "taken back"}
    return {"target": change.target, "action": record.action, "by": record.by, "reason": record.reason}
