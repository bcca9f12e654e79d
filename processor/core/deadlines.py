"""The time limits of a job: before an attempt starts, and while it runs. Pure; the clock is passed in.

- `queue_timeout`: too late for a job that has not begun yet;
- `attempt_timeout`: one attempt takes too long;
- `stall_timeout`: it has saved nothing and given no sign of life for too long;
- the kill date: an absolute moment after which nothing of the job starts or goes on.
"""

from __future__ import annotations

from typing import NamedTuple

from processor.job import Job
from processor.policies import JobOptions

KILLED, TIMEOUT, STALL = "killed", "timeout", "stall"


class Exceeded(NamedTuple):
    """A limit that an attempt has passed."""

    kind: str
    """`killed`, `timeout` or `stall`."""
    reason: str


def is_killed(job: Job, now_ms: int) -> bool:
    """Whether its kill date has come."""
    return job.kill_at is not None and now_ms >= job.kill_at


def expired(options: JobOptions, job: Job, now_ms: int) -> str | None:
    """Why a job that has not begun is too late; None: it may begin."""
    limit = options.queue_timeout
    if limit is None or job.attempt or job.deaths:
        return None
    due = job.enqueued_at if job.due_at is None else max(job.due_at, job.enqueued_at)
    late = (now_ms - due) / 1000
    return f"it had not begun {limit:g} s after it was due" if late > limit else None


def exceeded(options: JobOptions, job: Job, *, ran: float, silent: float, now_ms: int) -> Exceeded | None:
    """The limit that a running attempt has passed, the most final first.

    Args:
        options: of its job type.
        job: the job.
        ran: seconds since the attempt began.
        silent: seconds since it began, saved something or gave a sign of life.
        now_ms: milliseconds since the epoch.
    """
    if is_killed(job, now_ms):
        return Exceeded(KILLED, "its kill date came while it ran")
    if options.attempt_timeout is not None and ran >= options.attempt_timeout:
        return Exceeded(TIMEOUT, f"the attempt took longer than {options.attempt_timeout:g} s")
    if options.stall_timeout is not None and silent >= options.stall_timeout:
        return Exceeded(STALL, f"nothing saved and no heartbeat for {options.stall_timeout:g} s")
    return None
