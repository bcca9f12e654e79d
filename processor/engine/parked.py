"""Jobs that wait in the checkpoint topic without a slot: when one of them goes on, ends, or is given up.

The owner keeps of each only its id and when to look at it next. What it is, and why it waits, is read from the live
table when it is looked at: its time has come, an operator wants something, or its job type goes on.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from processor.core.control import PAUSED_TYPE
from processor.dead_reasons import DeadReason
from processor.engine.settled_orders import settle
from processor.job import Job
from processor.states import State
from processor.wire.codec import decode_job, decode_live_job

if TYPE_CHECKING:
    from processor.core.live import LiveView
    from processor.engine.outcomes import Outcomes
    from processor.engine.ownership import Ownership
    from processor.engine.queue_partition import QueuePartition
    from processor.engine.state import EngineState
    from processor.wire.records import LiveJobRecord


class Fate(Enum):
    """What becomes of a parked job now."""

    STAYS = auto()
    GOES_ON = auto()
    GIVEN_UP = auto()


def look_again_at(job: Job, until: int | None) -> int | None:
    """When a parked job is to be looked at, milliseconds since the epoch: its patience ends, or its kill date comes."""
    if until is None or job.kill_at is None:
        return job.kill_at if until is None else until
    return min(until, job.kill_at)


class ParkedJobs:
    """Jobs that wait in the checkpoint topic without a slot. On the owning thread."""

    def __init__(self, engine: EngineState, outcomes: Outcomes, ownership: Ownership) -> None:
        self._engine = engine
        self._outcomes = outcomes
        self._ownership = ownership

    def look_at(self, number: QueuePartition) -> None:
        """Look at those whose time has come, and those that somebody wants looked at."""
        if not number.parked:
            number.looked_for.clear()
            return
        now_ms = self._engine.clock.now_ms()
        due = [job_id for job_id, at in number.parked.items() if at is not None and now_ms >= at]
        for job_id in {*due, *number.looked_for}:
            if job_id not in number.parked:
                number.looked_for.discard(job_id)
                continue
            view = number.live.view(job_id)
            if view is None or view.job is None:
                continue  # its parking is not committed yet
            try:
                self._look_at_one(number, job_id, view, now_ms)
            except Exception as error:  # noqa: BLE001  (the owner's guard)
                self._engine.guard.live(number, job_id, view.job, error)

    def _look_at_one(self, number: QueuePartition, job_id: str, view: LiveView, now_ms: int) -> None:
        record = decode_live_job(view.job or b"")
        if (record.epoch, record.sequence) < number.parkings.get(job_id, (0, 0)):
            return  # this is how it was before it was parked once more
        number.parkings.pop(job_id, None)
        number.looked_for.discard(job_id)
        job = decode_job(record.job)
        ended = self._engine.gate.ended(job, now_ms)
        if ended is not None:
            self._outcomes.end_unstarted(self._ownership.resumed(number, job, record.job, view), ended)
            return
        becomes = fate(self._engine, job, record, now_ms)
        if becomes is Fate.GOES_ON:
            settle(self._engine, number, job.id, job.life)
            self._ownership.restart(number, job, record.job, view)
        elif becomes is Fate.GIVEN_UP:
            attempt = self._ownership.resumed(number, job, record.job, view)
            self._outcomes.give_up(attempt, DeadReason.UNKNOWN_TYPE, record.reason)
        else:
            number.parked[job_id] = look_again_at(job, record.until)


def fate(engine: EngineState, job: Job, record: LiveJobRecord, now_ms: int, *, anew: bool = False) -> Fate:
    """What becomes of a parked job. `anew`: its number has just been taken over."""
    control = engine.gate.control
    if control.retried(job.id, job.life, record.since) is not None:
        return Fate.GOES_ON
    if record.state is not State.WAITING:
        return Fate.STAYS if record.state is State.IN_DOUBT else Fate.GOES_ON
    if record.until is None:
        paused = record.reason.startswith(PAUSED_TYPE)
        return Fate.GOES_ON if paused and control.type_pause(job.type) is None else Fate.STAYS
    if job.type in engine.registry and (anew or now_ms >= record.until):
        return Fate.GOES_ON
    return Fate.GIVEN_UP if now_ms >= record.until else Fate.STAYS
