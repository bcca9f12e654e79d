"""Which jobs may have ended the process of their worker, and how often in a row. Pure.

A worker that dies says nothing. What is known afterwards are the marks of its number: at each unclean take-over the new
owner notes, with its claim, the epoch that died and how far that one had read. A job that was below the mark, is not
done and saved nothing since that epoch began is a suspect of that death. Suspects run as ever at first: a job is alone
in a child process only once it was there at two deaths, and only a death of its own then gives it up. So whoever is
there by chance comes to no harm, and a healthy number pays nothing.

How far a process had read is far ahead of what it had started. So for a while after a death the new owner lets go only
what there are slots for, says that before it starts, and gives this as its read mark: if it dies too, the suspects of
both deaths are few.

Before a suspect starts alone it is promoted, with the deaths so far: from then on it is counted by its own record. That
says whether it has started (`running`) or still waits for its turn alone (`queued`): who only waits is there by chance.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

QUARANTINE = 2
"""Deaths from which on a job runs alone in a child process."""
GIVEN_UP = 3
"""Deaths, the last one in its own child process, at which it becomes a dead letter."""
HOPELESS = 8
"""Deaths at which it is not even tried: alone in a child process it still took its worker along. So many, because its
worker may have died of another job while it ran."""
REMEMBERED = 5
"""Marks that are kept of a lane."""


class Death(NamedTuple):
    """A process died as the owner of a number."""

    epoch: int
    """Of the owner that died."""
    mark: int
    """The first offset of the lane that it had not read."""


def noted(deaths: Iterable[Death], death: Death | None, low: int) -> tuple[Death, ...]:
    """The marks of a lane with one more; those with nothing unfinished below them have served."""
    kept = [known for known in deaths if known.mark > low]
    if death is not None and death.mark > low:
        kept.append(death)
    return tuple(kept[-REMEMBERED:])


def deaths_of(deaths: Iterable[Death], offset: int, saved_in: int) -> int:
    """At how many deaths in a row the job at `offset` was there, at most `QUARANTINE`.

    A suspect that goes on to kill is in the log by its own name by then; who only waits behind it is not blamed on.

    Args:
        deaths: marks of its lane.
        offset: of its record.
        saved_in: the last epoch in which it saved, or 0.
    """
    return min(sum(1 for death in deaths if death.mark > offset and death.epoch > saved_in), QUARANTINE)
