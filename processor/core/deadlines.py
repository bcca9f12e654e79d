"""The time limits of a job: before an attempt starts, and while it runs. Pure; the clock is passed in.

- `queue_timeout`: too late for a job that has not begun yet;
- `attempt_timeout`: one attempt takes too long;
- `stall_timeout`: it has saved nothing and given no sign of life for too long;
- the kill date: an absolute moment after which nothing of the job starts or goes on.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from processor.core.delays import moment_of
from processor.errors import DefinitionError
from processor.job import Job
from processor.policies import JobOptions
from processor.wire.durations import Duration, parse_duration

KILLED, TIMEOUT, STALL = "killed", "timeout", "stall"


class Exceeded(NamedTuple):
    """A limit that an attempt has passed."""

    kind: str
    """`killed`, `timeout` or `stall`."""
    reason: str


FURTHEST = 100 * 366 * 86_400_000
"""Milliseconds that a kill date may lie ahead: what is further cannot be written as a moment everywhere."""


def kill_date(kill_after: Duration | None, kill_at: datetime | None, now_ms: int) -> int | None:
    """The kill date that an enqueue names, milliseconds since the epoch; None: it names none.

    Raises:
        DefinitionError: both are given, `kill_at` has no zone, or it has come already, or is over 100 years away.
    """
    if kill_after is not None and kill_at is not None:
        raise DefinitionError("kill_after= and kill_at= are given both", hint="say one of them")
    if kill_after is not None:
        left = round(parse_duration(kill_after, name="kill_after") * 1000)
    elif kill_at is not None:
        left = moment_of("kill_at", kill_at) - now_ms
    else:
        return None
    if left <= 0:
        raise DefinitionError("the kill date has come already: the job would never run", hint="give a later one")
    if left > FURTHEST:
        raise DefinitionError("the kill date is over 100 years away", hint="leave it out for no end")
    return now_ms + left


def ends_at(options: JobOptions, job: Job, *, ran: float, now_ms: int) -> int | None:
    """When a running attempt is told to stop at the latest, however busy it is; None: never.

    Args:
        options: of its job type.
        job: the job.
        ran: seconds since the attempt began.
        now_ms: milliseconds since the epoch.
    """
    if options.attempt_timeout is None:
        return job.kill_at
    timeout = now_ms + round((options.attempt_timeout - ran) * 1000)
    return timeout if job.kill_at is None else min(timeout, job.kill_at)


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


NEAR_LEAST = 600.0
"""Seconds that a job was given at least, for anybody to be warned before its kill date: of less nobody could act."""
NEAR_SHARE, NEAR_MOST = 0.1, 3600.0
"""A kill date is near in the last tenth of the time that a job was given, and in its last hour at most."""


def is_near(job: Job, now_ms: int) -> bool:
    """Whether the job's kill date is so near that somebody should look at it."""
    if job.kill_at is None:
        return False
    given = (job.kill_at - job.enqueued_at) / 1000
    left = (job.kill_at - now_ms) / 1000
    return given >= NEAR_LEAST and 0 < left <= min(given * NEAR_SHARE, NEAR_MOST)


def look_again_at(job: Job, until: int | None) -> int | None:
    """When a parked job is to be looked at, milliseconds since the epoch: its patience ends, or its kill date comes."""
    if until is None or job.kill_at is None:
        return job.kill_at if until is None else until
    return min(until, job.kill_at)
