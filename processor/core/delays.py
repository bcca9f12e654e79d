"""When a job that is enqueued for later is due. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from processor.errors import DefinitionError
from processor.job import Job
from processor.wire.durations import Duration, parse_duration

SHORTEST_MS = 1_000
"""Less is rounded up: the shortest rung of the retry chain."""
LONGEST = 365 * 86_400.0
"""Seconds."""


def due_at(delay: Duration | None, at: datetime | None, now_ms: int) -> int | None:
    """When it is due, milliseconds since the epoch; None: at once.

    Raises:
        DefinitionError: both are given, `at` has no zone, or it is over a year away.
    """
    if delay is not None and at is not None:
        raise DefinitionError("delay= and at= are given both", hint="say one of them")
    if delay is not None:
        wait = round(parse_duration(delay, name="delay") * 1000)
    elif at is not None:
        wait = moment_of("at", at) - now_ms
    else:
        return None
    if wait > LONGEST * 1000:
        raise DefinitionError("a job cannot wait for more than 365 days", hint="use a schedule for dates that far away")
    return now_ms + max(wait, SHORTEST_MS) if wait > 0 else None


def moment_of(option: str, at: datetime) -> int:
    """An aware datetime as milliseconds since the epoch.

    Raises:
        DefinitionError: it has no zone; `option` is where it was given.
    """
    if getattr(at, "tzinfo", None) is None:  # a date or a text has none either
        raise DefinitionError(
            f"{option}={at!r} is no moment with a zone",
            hint='use an aware datetime: datetime(..., tzinfo=ZoneInfo("..."))',
        )
    return round(at.astimezone(UTC).timestamp() * 1000)


def refuse_too_late(job: Job) -> None:
    """A job whose kill date comes before it is due would never run.

    Raises:
        DefinitionError: it is such a job.
    """
    if job.due_at is not None and job.kill_at is not None and job.due_at >= job.kill_at:
        raise DefinitionError(
            f"job {job.id} would be killed before it is due",
            hint="wait less, or give it a later kill date: kill_after= or kill_at=",
        )
