"""What the log tells of many things at once, and what it tells only to whoever wants to see each job."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from processor import events
from processor.core.outcome import Discarded, Ended, Failed, Outcome, Succeeded
from processor.dead_reasons import DeadReason

if TYPE_CHECKING:
    from processor.engine.attempt import Attempt
    from processor.engine.queue_partition import QueuePartition
    from processor.engine.restore import Restored

log = events.logger(__name__)

_TOLD_BY_THE_HANDLER = frozenset(
    {DeadReason.DEAD, DeadReason.EXHAUSTED, DeadReason.HANDLER_MISTAKE, DeadReason.BAD_PAYLOAD}
)
"""Reasons of dead letters that come with the line `job.failed`, which says where."""


class RestoredNumbers:
    """One line for the numbers that came together, when the last of them has been read back."""

    def __init__(self) -> None:
        self._read: list[Restored] = []

    def add(self, found: Restored) -> None:
        """One more has been read back."""
        self._read.append(found)

    def tell(self) -> None:
        """No other is being read back now."""
        read, self._read = self._read, []
        if not read:
            return
        unclean = names(found.number for found in read if found.unclean)
        log.info(
            "numbers.restored",
            extra={
                "numbers": names(found.number for found in read),
                **({"unclean": unclean} if unclean else {}),
                "live": sum(len(found.number.live) for found in read),
                "records": sum(found.records for found in read),
                "seconds": round(max(found.seconds for found in read), 3),
            },
        )


def names(numbers: Iterable[QueuePartition]) -> str:
    """`default-0,default-1`."""
    return ",".join(f"{number.queue.name}-{number.partition}" for number in numbers)


def tell_end(attempt: Attempt, outcome: Outcome) -> None:
    """A line for a job that has ended, unless its handler's failure has had one."""
    told: dict[str, object] = {"job_type": attempt.job.type, "job_id": attempt.job.id}
    seconds = {"seconds": round(attempt.run_seconds, 3)}
    if isinstance(outcome, Succeeded):
        log.info("job.succeeded", extra=told | seconds)
    elif isinstance(outcome, Ended):
        log.info("job.ended", extra={**told, "state": outcome.state.value, "reason": outcome.reason})
    elif isinstance(outcome, Discarded):
        log.info("job.discarded", extra=told | seconds)
    elif isinstance(outcome, Failed) and (
        attempt.mailbox.stop is not None or outcome.reason not in _TOLD_BY_THE_HANDLER
    ):
        error = f"{outcome.error.kind}: {outcome.error.message}"[:500]
        log.warning("job.dead", extra={**told, "reason": outcome.reason, "error": error})
