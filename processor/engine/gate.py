"""The last look at a job before it starts: is it still wanted, and may it start now?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor.core.control import PAUSED_TYPE, ControlTable, why
from processor.core.deadlines import expired, is_killed
from processor.core.outcome import Ended, Failed, Outcome, Parked
from processor.core.process_deaths import HOPELESS
from processor.dead_reasons import DeadReason
from processor.job import ErrorInfo
from processor.states import State

if TYPE_CHECKING:
    from processor.engine.attempt import Attempt
    from processor.job import Job


class Gate:
    """The last look at a job before it starts. On the owning thread."""

    def __init__(self) -> None:
        self.control = ControlTable()
        self.resting: frozenset[str] = frozenset()
        """Queues that are paused."""

    def looks_at(self, attempt: Attempt) -> bool:
        """Whether there is any reason to ask for `outcome`: for nearly every job there is none."""
        job, job_type = attempt.job, attempt.job_type
        if attempt.deaths >= HOPELESS:
            return True
        if job.kill_at is not None or self.control.concerns(job.id, job.type):
            return True
        return job_type is not None and job_type.options.queue_timeout is not None

    def outcome(self, attempt: Attempt, now_ms: int) -> Outcome | None:
        """How a job that may not start ends, or where it waits; None: it may start."""
        job = attempt.job
        ended = self.ended(job, now_ms)
        if ended is not None:
            return ended
        if attempt.job_type is None:
            return None
        if attempt.deaths >= HOPELESS:
            return Failed(
                ErrorInfo("process_died", f"{attempt.deaths} processes died while it ran, without progress"),
                DeadReason.CRASH_LOOP,
            )
        begun = attempt.resumed is not None or attempt.promoted or bool(attempt.steps)
        late = None if begun else expired(attempt.job_type.options, job, now_ms)
        if late is not None:
            return Ended(State.EXPIRED, late)
        pause = self.control.type_pause(job.type)
        return None if pause is None else Parked(State.WAITING, f"{PAUSED_TYPE}: {why(pause)}")

    def ended(self, job: Job, now_ms: int) -> Ended | None:
        """How a job that is not wanted any more ends, wherever it waits; None: it is wanted."""
        cancel = self.control.cancelled(job.id, job.life, job.enqueued_at)
        if cancel is not None:
            return Ended(State.CANCELLED, why(cancel))
        return Ended(State.KILLED, "its kill date came before it started") if is_killed(job, now_ms) else None
