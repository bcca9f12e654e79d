"""What operators want, folded from the control topic: which queues and job types rest, which jobs are cancelled. Pure.

A record holds until a tombstone under its target takes it back. One about a job holds for lives up to the one it names:
it never hits a later life, which somebody started knowing of it.
"""

from __future__ import annotations

from typing import NamedTuple

from processor.wire.records import ControlRecord

PAUSE, CANCEL, RETRY = "pause", "cancel", "retry"
QUEUE, TYPE, JOB = "queue:", "type:", "job:"
HOLDS_MS = 24 * 3_600_000
"""How long after a cancel the same id, enqueued again, is still the cancelled job: clocks of producers and operators
differ, and within the usual dedupe window one id is one job.
"""
PAUSED_TYPE = "its job type is paused"
"""How the reason of a job begins that is parked because its type is paused."""


class Change(NamedTuple):
    """What one record of the control topic says: `record` None takes back what its target had."""

    target: str
    record: ControlRecord | None


class ControlTable:
    """The orders that hold now."""

    __slots__ = ("_jobs", "_queues", "_types")

    def __init__(self) -> None:
        self._queues: dict[str, ControlRecord] = {}
        self._types: dict[str, ControlRecord] = {}
        self._jobs: dict[str, ControlRecord] = {}

    def apply(self, change: Change) -> None:
        """Fold one more record; of a target or an action that is not known here (a newer version's) nothing is kept."""
        for prefix, orders, actions in (
            (QUEUE, self._queues, (PAUSE,)),
            (TYPE, self._types, (PAUSE,)),
            (JOB, self._jobs, (CANCEL, RETRY)),
        ):
            if change.target.startswith(prefix):
                name = change.target[len(prefix) :]
                if change.record is not None and change.record.action in actions:
                    orders[name] = change.record
                else:
                    orders.pop(name, None)

    def concerns(self, job_id: str, job_type: str) -> bool:
        """Whether any order may be about this job."""
        return job_id in self._jobs or job_type in self._types

    @property
    def paused_queues(self) -> frozenset[str]:
        """Names of the queues that rest."""
        return frozenset(self._queues)

    def paused_types(self) -> dict[str, str]:
        """Job types that rest, and why."""
        return {name: why(order) for name, order in self._types.items()}

    def queue_pause(self, queue: str) -> ControlRecord | None:
        """Why a queue rests; None: it does not."""
        return self._queues.get(queue)

    def type_pause(self, job_type: str) -> ControlRecord | None:
        """Why a job type rests; None: it does not."""
        return self._types.get(job_type)

    def cancelled(self, job_id: str, life: int, enqueued_at: int) -> ControlRecord | None:
        """The order to cancel this life of a job, if there is one.

        Args:
            job_id: the job.
            life: of its record.
            enqueued_at: of its record, milliseconds since the epoch. An order is about what was enqueued before it;
                the same id given again long after is another job.
        """
        order = self._order(CANCEL, job_id, life)
        return order if order is not None and enqueued_at <= order.at + HOLDS_MS else None

    def retried(self, job_id: str, life: int, since: int) -> ControlRecord | None:
        """The order to go on with a job that waits since `since` (milliseconds), if whoever gave it had seen it wait.

        Both moments are of the worker that parked it: no other clock has a say. A later wait is not meant.
        """
        order = self._order(RETRY, job_id, life)
        return order if order is not None and order.seen >= since else None

    def _order(self, action: str, job_id: str, life: int) -> ControlRecord | None:
        order = self._jobs.get(job_id)
        return order if order is not None and order.action == action and life <= order.life else None


def why(order: ControlRecord) -> str:
    """An order as the reason that stays with a job."""
    return f"{order.reason} (by {order.by})" if order.reason else f"by {order.by}"
