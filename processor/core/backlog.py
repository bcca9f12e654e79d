"""How much of a queue waits, and how much a producer may add before it looks again. Pure.

A limit is kept by many producers that do not know of each other. Each may use an eighth of the room that it saw, and
then looks again: what several use of the same room together stays small, and the closer the limit, the smaller. From
the last hundredth on each has that hundredth, so that nobody looks at every job.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SHARE = 8
FINEST = 100
RETRY_MIN, RETRY_MAX = 1.0, 60.0
"""Seconds."""


def waiting(start: int, end: int, done: Iterable[tuple[int, int]]) -> int:
    """Offsets of a lane partition that are not complete; an upper bound of its jobs, since offsets have gaps.

    Args:
        start: the next offset to complete.
        end: the offset behind the last record.
        done: first and last of the ranges above `start` that are complete already.
    """
    return max(0, end - start - sum(last - first + 1 for first, last in done if first >= start))


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogSample:
    """A queue's backlog as it was seen."""

    at: float
    """Monotonic seconds."""
    backlog: int
    """Jobs that wait in its lanes or run."""
    completed: int
    """Offsets that were ever completed: what the speed of the workers is taken from."""


def room(sample: BacklogSample, limit: int) -> int:
    """How many jobs may be added before the next look; 0: the queue is full."""
    if sample.backlog >= limit:
        return 0
    return max((limit - sample.backlog) // SHARE, limit // FINEST, 1)


def retry_after(before: BacklogSample | None, now: BacklogSample, limit: int) -> float:
    """Seconds until there may be room again, by what was completed between two looks."""
    if before is None or now.at <= before.at or now.completed <= before.completed:
        return RETRY_MAX if before is not None and now.at > before.at else RETRY_MIN
    rate = (now.completed - before.completed) / (now.at - before.at)
    return min(RETRY_MAX, max(RETRY_MIN, (now.backlog - limit + 1) / rate))
