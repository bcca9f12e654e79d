"""Notices a handler that holds up the event loop: while it runs on, no other `async def` job of its queue does.

Nobody else can tell: the loop's thread is busy, the owner's goes round as ever, and the other jobs just stand still.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from processor import events
from processor.clock import Clock

log = events.logger(__name__)

LOOK_EVERY = 0.25
"""Seconds between two questions to a loop that answers."""
TOLD_AFTER = 2.0
"""Seconds without an answer after which a warning names the job."""


class HeldUp(NamedTuple):
    """An event loop that does not come round."""

    seconds: float
    """For how long."""
    job_id: str
    """The job whose handler holds it; empty if that is not known."""
    job_type: str
    at: str
    """Where the handler was when it was first noticed: `jobs.py:12 in pay`."""


class LoopWatch:
    """Asks one loop again and again whether it comes round. `due` and `unanswered` are for the owning thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._next = 0.0
        self._asked_at: float | None = None
        self.found: HeldUp | None = None
        """What was found, while it lasts; its `seconds` are those of the last look."""

    def due(self) -> float | None:
        """For how many seconds the loop has not answered, if that is to be told or told anew; asks it else."""
        now = self._clock.monotonic()
        if now < self._next:
            return None
        self._next = now + LOOK_EVERY
        asked_at = self._asked_at
        if asked_at is None:
            self._asked_at = now
            self._loop.call_soon_threadsafe(self._answer)
            return None
        silent = now - asked_at
        return silent if silent >= TOLD_AFTER else None

    def held_up(self, found: HeldUp) -> None:
        """It has not come round for so long."""
        if self.found is None:
            log.warning(
                "loop.held_up",
                extra={
                    **found._asdict(),
                    "seconds": round(found.seconds, 1),
                    "hint": "what blocks in an async def stops all others: await it, use asyncio.to_thread, or a def",
                },
            )
            self.found = found
        else:
            self.found = self.found._replace(seconds=found.seconds)

    def _answer(self) -> None:
        found, self.found = self.found, None
        asked_at, self._asked_at = self._asked_at, None
        if found is not None and asked_at is not None:
            seconds = round(self._clock.monotonic() - asked_at, 1)
            log.info("loop.goes_on", extra={"job_id": found.job_id, "seconds": seconds})
