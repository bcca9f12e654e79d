"""The last look at a job before it starts: is it still wanted, and may it start now?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from processor.core.control import ControlTable
from processor.core.process_deaths import HOPELESS
from processor.core.verdict import before_start, unwanted

if TYPE_CHECKING:
    from processor.core.outcome import Ended, Outcome
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
        if attempt.history.deaths >= HOPELESS:
            return True
        if job.kill_at is not None or self.control.concerns(job.id, job.type):
            return True
        return job_type is not None and job_type.options.queue_timeout is not None

    def outcome(self, attempt: Attempt, now_ms: int) -> Outcome | None:
        """How a job that may not start ends, or where it waits; None: it may start."""
        known, job_type = attempt.known, attempt.job_type
        begun = known is not None and (known.resumed is not None or known.promoted or bool(known.steps))
        options = None if job_type is None else job_type.options
        return before_start(attempt.job, options, self.control, now_ms, deaths=attempt.history.deaths, begun=begun)

    def ended(self, job: Job, now_ms: int) -> Ended | None:
        """How a job that is not wanted any more ends, wherever it waits; None: it is wanted."""
        return unwanted(job, self.control, now_ms)
