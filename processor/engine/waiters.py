"""Handlers that wait for other jobs in all slots of a pool, while what one of them waits for needs such a slot.

Nothing goes on then until one of them gives up its wait. Looked for among the jobs of this worker alone: what waits in
the lanes, or on another worker, may get its turn there. A child process does not say what its handler waits for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from processor import events

if TYPE_CHECKING:
    from processor.engine.attempt import Attempt
    from processor.engine.ready_queue import ReadyQueue

log = events.logger(__name__)

LOOK_EVERY = 1.0
"""Seconds between two looks; what holds at two of them is told."""
_HINT = "give one of the two job types a queue of its own, raise the concurrency, or enqueue and do not wait"


class Deadlock(NamedTuple):
    """A job that waits in a slot, and the job behind it."""

    job_id: str
    job_type: str
    awaits: str
    slots: int


class Waiters:
    """What was found in which queue and kind of executor."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], Deadlock] = {}
        """What stands still, told already."""
        self._seen: dict[tuple[str, str], Deadlock] = {}
        self._next = 0.0

    def look(self, ready_queues: dict[tuple[str, str], ReadyQueue], now: float) -> None:
        """`now`: monotonic seconds."""
        if now < self._next:
            return
        self._next = now + LOOK_EVERY
        seen, attempts = {}, {}
        for key, ready_queue in ready_queues.items():
            attempt = _behind_whom(ready_queue)
            if attempt is not None:
                attempts[key] = attempt
                seen[key] = Deadlock(attempt.job.id, attempt.job.type, attempt.mailbox.awaits, ready_queue.pool.slots)
        told = {key: deadlock for key, deadlock in seen.items() if self._seen.get(key) == deadlock}
        for key, deadlock in told.items():
            if key not in self.found:
                log.warning("slots.all_wait", extra={"queue": key[0], **deadlock._asdict(), "hint": _HINT})
                # In its status, where `processor job why` finds it.
                attempts[key].mailbox.progressed = (
                    None,
                    None,
                    f"it waits for job {deadlock.awaits}, which waits for a slot",
                )
        for key, deadlock in self.found.items():
            if key not in told:
                log.info("slots.go_on", extra={"queue": key[0], "job_id": deadlock.job_id})
        self._seen, self.found = seen, told


def _behind_whom(ready_queue: ReadyQueue) -> Attempt | None:
    """One whose handler waits for a job that has no slot, if all slots are held by such that wait."""
    started = [attempt for attempt in ready_queue.running if attempt.started_at is not None and attempt.outcome is None]
    if len(started) < ready_queue.pool.slots or not all(attempt.mailbox.awaits for attempt in started):
        return None
    unbegun = {attempt.job.id for attempt in ready_queue.running if attempt.started_at is None}
    for waiting in (ready_queue.waiting, ready_queue.followers, ready_queue.due):
        unbegun.update(attempt.job.id for attempt in waiting)
    return next((attempt for attempt in started if attempt.mailbox.awaits in unbegun), None)
