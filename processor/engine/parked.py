"""Jobs that wait in the checkpoint topic without a slot: when one of them goes on, ends, or is given up.

The owner keeps of each only its id and when to look at it next. What it is, and why it waits, is read from the live
table when it is looked at: its time has come, an operator wants something, or its job type goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor.core.deadlines import look_again_at
from processor.core.verdict import Fate, fate
from processor.dead_reasons import DeadReason
from processor.engine.settled_orders import settle
from processor.wire.codec import decode_job, decode_live_job

if TYPE_CHECKING:
    from processor.core.live import LiveView
    from processor.engine.outcomes import Outcomes
    from processor.engine.ownership import Ownership
    from processor.engine.queue_partition import QueuePartition
    from processor.engine.state import EngineState


class ParkedJobs:
    """Jobs that wait in the checkpoint topic without a slot. On the owning thread."""

    def __init__(self, engine: EngineState, outcomes: Outcomes, ownership: Ownership) -> None:
        self._engine = engine
        self._outcomes = outcomes
        self._ownership = ownership

    def look_at(self, number: QueuePartition) -> None:
        """Look at those whose time has come, and those that somebody wants looked at."""
        if not number.jobs.parked:
            return
        now_ms = self._engine.clock.now_ms()
        for job_id in number.jobs.parked.due(now_ms):
            view = number.live.view(job_id)
            if view is None or view.job is None:
                continue  # its parking is not committed yet
            try:
                self._look_at_one(number, job_id, view, now_ms)
            except Exception as error:  # noqa: BLE001  (the owner's guard)
                self._engine.guard.live(number, job_id, view.job, error)

    def _look_at_one(self, number: QueuePartition, job_id: str, view: LiveView, now_ms: int) -> None:
        record = decode_live_job(view.job or b"")
        if not number.jobs.parked.looked_at(job_id, (record.epoch, record.sequence)):
            return  # this is how it was before it was parked once more
        job = decode_job(record.job)
        engine = self._engine
        ended = engine.gate.ended(job, now_ms)
        if ended is not None:
            self._outcomes.end_unstarted(self._ownership.resumed(number, job, record.job, view), ended)
            return
        becomes = fate(job, record, engine.gate.control, now_ms, known=job.type in engine.registry)
        if becomes is Fate.GOES_ON:
            settle(self._engine, number, job.id, job.life)
            self._ownership.restart(number, job, record.job, view)
        elif becomes is Fate.GIVEN_UP:
            attempt = self._ownership.resumed(number, job, record.job, view)
            self._outcomes.give_up(attempt, DeadReason.UNKNOWN_TYPE, record.reason)
        else:
            number.jobs.parked.put(job_id, look_again_at(job, record.until))
